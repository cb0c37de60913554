//! Composes a gateway's route with a route of its target. A gateway's Envoy does the work of both: it matches the request
//! as it came, and sends it on as the target's route expects it.

use crate::model::{PathMatch, PathRewrite, RouteMatch};

/// What the path of a request must be, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// What it begins with.
    Prefix(String),
    /// The whole of it.
    Exact(String),
    /// A regular expression of the whole of it.
    Regex(String),
}

impl From<&PathMatch> for Pattern {
    fn from(path: &PathMatch) -> Self {
        match path {
            PathMatch::Prefix(prefix) => Self::Prefix(prefix.clone()),
            PathMatch::Exact(path) => Self::Exact(path.clone()),
            PathMatch::Regex(expression) => Self::Regex(expression.as_str().to_owned()),
        }
    }
}

impl Pattern {
    /// An expression of the whole of a path that may have a query.
    pub fn with_query(&self) -> String {
        match self {
            Self::Prefix(prefix) => format!("{}.*", escape(prefix)),
            Self::Exact(path) => format!(r"{}(\?.*)?", escape(path)),
            Self::Regex(expression) => format!(r"(?:{expression})(\?.*)?"),
        }
    }
}

/// The requests that two routes take.
#[derive(Debug, PartialEq)]
pub struct Composed {
    /// What the path must be.
    pub path: Pattern,
    /// What the path must be besides, where no one pattern says both.
    pub path_too: Option<Pattern>,
    /// The other conditions.
    pub conditions: RouteMatch,
}

/// The requests that both routes take. `None` if there are none.
pub fn compose(gateway: &RouteMatch, rewrite: &PathRewrite, target: &RouteMatch) -> Option<Composed> {
    let (path, path_too) = path(&gateway.path, rewrite, &target.path)?;
    let scheme = match (gateway.scheme, target.scheme) {
        (Some(one), Some(other)) if one != other => return None,
        (one, other) => one.or(other),
    };
    let method = match (&gateway.method, &target.method) {
        (Some(one), Some(other)) if one != other => return None,
        (one, other) => one.as_ref().or(other.as_ref()),
    };
    let both = RouteMatch {
        path: PathMatch::default(),
        grpc: gateway.grpc || target.grpc,
        scheme,
        method: method.cloned(),
        headers: [&gateway.headers[..], &target.headers].concat(),
        query_parameters: [&gateway.query_parameters[..], &target.query_parameters].concat(),
    };
    Some(Composed { path, path_too, conditions: both })
}

/// The paths that the gateway's route takes and the target's route takes after the rewrite.
fn path(gateway: &PathMatch, rewrite: &PathRewrite, target: &PathMatch) -> Option<(Pattern, Option<Pattern>)> {
    let alone = |pattern| (pattern, None);
    match rewrite {
        PathRewrite::Keep => both(gateway, target),
        PathRewrite::Exact(path) => takes(target, path).then(|| alone(gateway.into())),
        PathRewrite::Prefix(value) => match gateway {
            PathMatch::Prefix(prefix) => replaced(prefix, value, target).map(alone),
            PathMatch::Exact(_) | PathMatch::Regex(_) => None,
        },
    }
}

fn both(one: &PathMatch, other: &PathMatch) -> Option<(Pattern, Option<Pattern>)> {
    match (one, other) {
        (PathMatch::Regex(_), any) | (any, PathMatch::Regex(_)) if *any == PathMatch::default() => {
            Some((if any == one { other } else { one }.into(), None))
        }
        (PathMatch::Regex(_), _) | (_, PathMatch::Regex(_)) => Some((one.into(), Some(other.into()))),
        (PathMatch::Exact(path), any) | (any, PathMatch::Exact(path)) => {
            takes(any, path).then(|| (Pattern::Exact(path.clone()), None))
        }
        (PathMatch::Prefix(one), PathMatch::Prefix(other)) => {
            let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
            long.starts_with(short).then(|| (Pattern::Prefix(long.clone()), None))
        }
    }
}

fn takes(taken: &PathMatch, path: &str) -> bool {
    match taken {
        PathMatch::Prefix(prefix) => path.starts_with(prefix),
        PathMatch::Exact(exact) => path == exact,
        // Only Envoy has the engine that decides.
        PathMatch::Regex(_) => false,
    }
}

/// The paths that begin with `prefix` and that the target takes once `value` is in its place.
fn replaced(prefix: &str, value: &str, target: &PathMatch) -> Option<Pattern> {
    let (rest, is_whole) = match target {
        PathMatch::Prefix(wanted) if value.starts_with(wanted) => return Some(Pattern::Prefix(prefix.to_owned())),
        PathMatch::Prefix(wanted) => (wanted.strip_prefix(value)?, false),
        PathMatch::Exact(wanted) => (wanted.strip_prefix(value)?, true),
        PathMatch::Regex(wanted) => {
            // What the expression begins with is taken off it, unless it is one of several alternatives.
            let rest = wanted.as_str().strip_prefix(&escape(value)).filter(|rest| !rest.contains('|'))?;
            let slash = if prefix.ends_with('/') { "" } else { "/?" };
            return Some(Pattern::Regex(format!("{}{slash}{rest}", escape(prefix))));
        }
    };
    if prefix.ends_with('/') {
        let path = format!("{prefix}{rest}");
        return Some(if is_whole { Pattern::Exact(path) } else { Pattern::Prefix(path) });
    }
    // A slash after the prefix is replaced with it, so that `/a/b` becomes `/b` and not `//b`.
    let slash = if rest.starts_with('/') { "/" } else { "/?" };
    let more = if is_whole { "" } else { ".*" };
    Some(Pattern::Regex(format!("{}{slash}{}{more}", escape(prefix), escape(rest))))
}

/// The part of a path that a rewrite replaces, as a regular expression, and what takes its place; `None` where it stays.
pub fn substitution(gateway: &PathMatch, rewrite: &PathRewrite) -> Option<(String, String)> {
    // In what takes its place, a backslash means a group of the expression.
    let literally = |text: &str| text.replace('\\', r"\\");
    match (rewrite, gateway) {
        (PathRewrite::Keep, _) | (PathRewrite::Prefix(_), PathMatch::Exact(_) | PathMatch::Regex(_)) => None,
        (PathRewrite::Exact(path), _) => Some(("^.*$".to_owned(), literally(path))),
        (PathRewrite::Prefix(value), PathMatch::Prefix(prefix)) => {
            let slash = if prefix.ends_with('/') { "" } else { "/?" };
            Some((format!("^{}{slash}", escape(prefix)), literally(value)))
        }
    }
}

/// A text as a regular expression that matches it alone.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() && !"/_-".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HeaderMatch, HeaderName, QueryMatch, Regex, ValueMatch};

    fn prefix(text: &str) -> PathMatch {
        PathMatch::prefix(text.to_owned()).unwrap()
    }

    fn exact(text: &str) -> PathMatch {
        PathMatch::exact(text.to_owned()).unwrap()
    }

    #[test]
    fn paths() {
        let (keep, root) = (PathRewrite::Keep, PathRewrite::Prefix("/".to_owned()));
        let red = PathRewrite::Prefix("/red/".to_owned());
        let to = |path: &str| PathRewrite::Exact(path.to_owned());
        let (begins, is, fits) = (
            |path: &str| Some(Pattern::Prefix(path.to_owned())),
            |path: &str| Some(Pattern::Exact(path.to_owned())),
            |path: &str| Some(Pattern::Regex(path.to_owned())),
        );
        for (gateway, rewrite, target, expected) in [
            (prefix("/"), &keep, prefix("/"), begins("/")),
            (prefix("/a"), &keep, prefix("/a/b"), begins("/a/b")),
            (prefix("/a/b"), &keep, prefix("/a"), begins("/a/b")),
            (prefix("/a"), &keep, prefix("/b"), None),
            (prefix("/a"), &keep, exact("/a/b"), is("/a/b")),
            (prefix("/a"), &keep, exact("/b"), None),
            (exact("/a/b"), &keep, prefix("/a"), is("/a/b")),
            (exact("/a"), &keep, exact("/a"), is("/a")),
            (exact("/a"), &keep, exact("/b"), None),
            (exact("/a"), &keep, prefix("/b"), None),
            (prefix("/paths"), &root, prefix("/"), begins("/paths")),
            (prefix("/paths"), &root, prefix("/red"), fits("/paths/?red.*")),
            (prefix("/paths"), &root, exact("/red.html"), fits(r"/paths/?red\.html")),
            (prefix("/paths"), &root, exact("/"), fits("/paths/?")),
            (prefix("/paths"), &root, prefix("//x"), fits("/paths//x.*")),
            (prefix("/paths/"), &root, prefix("/red"), begins("/paths/red")),
            (prefix("/paths/"), &root, exact("/red"), is("/paths/red")),
            (prefix("/test/"), &red, prefix("/red"), begins("/test/")),
            (prefix("/test/"), &red, prefix("/red/x"), begins("/test/x")),
            (prefix("/test/"), &red, prefix("/blue"), None),
            (prefix("/test/"), &red, exact("/red"), None),
            (exact("/a"), &to("/blue"), prefix("/b"), is("/a")),
            (exact("/a"), &to("/blue"), exact("/blue"), is("/a")),
            (prefix("/a"), &to("/blue"), prefix("/"), begins("/a")),
            (prefix("/a"), &to("/blue"), exact("/red"), None),
        ] {
            let expected = expected.map(|pattern| (pattern, None));
            assert_eq!(path(&gateway, rewrite, &target), expected, "{gateway:?} {rewrite:?} {target:?}");
        }
    }

    #[test]
    fn expressions() {
        let regex = |text: &str| PathMatch::Regex(Regex::new(text.to_owned()).unwrap());
        let fits = |path: &str| Pattern::Regex(path.to_owned());
        let (keep, root) = (PathRewrite::Keep, PathRewrite::Prefix("/".to_owned()));
        for (gateway, rewrite, target, expected) in [
            (prefix("/"), &keep, regex("/[ab]"), Some((fits("/[ab]"), None))),
            (regex("/[ab]"), &keep, prefix("/"), Some((fits("/[ab]"), None))),
            (regex("/[ab]"), &keep, prefix("/a"), Some((fits("/[ab]"), Some(Pattern::Prefix("/a".to_owned()))))),
            (exact("/a"), &keep, regex("/[ab]"), Some((Pattern::Exact("/a".to_owned()), Some(fits("/[ab]"))))),
            (prefix("/api"), &root, regex("/[ab]"), Some((fits("/api/?[ab]"), None))),
            (prefix("/api/"), &root, regex("/[ab]"), Some((fits("/api/[ab]"), None))),
            // What only one of two alternatives begins with is not taken off.
            (prefix("/api"), &root, regex("/a|/b"), None),
        ] {
            assert_eq!(path(&gateway, rewrite, &target), expected, "{gateway:?} {rewrite:?} {target:?}");
        }
        assert_eq!(fits("/[ab]").with_query(), r"(?:/[ab])(\?.*)?");
        assert_eq!(Pattern::Exact("/a.b".to_owned()).with_query(), r"/a\.b(\?.*)?");
    }

    #[test]
    fn conditions_add_up() {
        let header = |name: &str| HeaderMatch {
            name: HeaderName::new(name.to_owned()).unwrap(),
            value: ValueMatch::Present,
            invert: false,
        };
        let query = QueryMatch::new("q".to_owned(), None).unwrap();
        let with = |method: Option<&str>| RouteMatch { method: method.map(str::to_owned), ..RouteMatch::default() };
        let gateway =
            RouteMatch { headers: vec![header("a")], query_parameters: vec![query.clone()], ..with(Some("GET")) };
        let target = RouteMatch { headers: vec![header("b")], ..with(None) };
        let both = compose(&gateway, &PathRewrite::Keep, &target).unwrap().conditions;
        assert_eq!(
            both,
            RouteMatch { headers: vec![header("a"), header("b")], query_parameters: vec![query], ..with(Some("GET")) }
        );
        for (one, other, expected) in [
            (None, None, Some(None)),
            (None, Some("PUT"), Some(Some("PUT"))),
            (Some("PUT"), Some("PUT"), Some(Some("PUT"))),
            (Some("GET"), Some("PUT"), None),
        ] {
            let both = compose(&with(one), &PathRewrite::Keep, &with(other));
            assert_eq!(both.as_ref().map(|both| both.conditions.method.as_deref()), expected, "{one:?} {other:?}");
        }
    }
}
