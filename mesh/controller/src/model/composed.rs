//! Composes a gateway's route with a route of its target. A gateway's Envoy does the work of both: it matches the request
//! as it came, and sends it on as the target's route expects it.

use super::{Invalid, PathMatch, PathRewrite, Regex, RouteMatch, derivative::Derivative};

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

/// The requests that both routes take: those of any of the results, of which there may be none.
///
/// # Errors
/// Which these are cannot be said, for the target's route has a regular expression that cannot be compared.
pub(super) fn compose(
    gateway: &RouteMatch,
    rewrite: &PathRewrite,
    target: &RouteMatch,
) -> Result<Vec<Composed>, Invalid> {
    let scheme = match (gateway.scheme, target.scheme) {
        (Some(one), Some(other)) if one != other => return Ok(Vec::new()),
        (one, other) => one.or(other),
    };
    let method = match (&gateway.method, &target.method) {
        (Some(one), Some(other)) if one != other => return Ok(Vec::new()),
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
    let paths = paths(&gateway.path, rewrite, &target.path)?.into_iter();
    Ok(paths.map(|(path, path_too)| Composed { path, path_too, conditions: both.clone() }).collect())
}

/// What a path must be, and what it must be besides.
type Paths = (Pattern, Option<Pattern>);

/// The paths that the gateway's route takes and the target's route takes after the rewrite.
fn paths(gateway: &PathMatch, rewrite: &PathRewrite, target: &PathMatch) -> Result<Vec<Paths>, Invalid> {
    let any = |found: Option<Pattern>| found.into_iter().map(|pattern| (pattern, None)).collect();
    Ok(match (rewrite, gateway, target) {
        (PathRewrite::Keep, _, _) => both(gateway, target).into_iter().collect(),
        (PathRewrite::Exact(path), _, _) => any(takes(target, path)?.then(|| gateway.into())),
        (PathRewrite::Prefix(value), PathMatch::Prefix(prefix), PathMatch::Prefix(wanted)) => {
            let is_all = value.starts_with(wanted);
            let prefix_alone = || Some(Pattern::Prefix(prefix.clone()));
            any(if is_all { prefix_alone() } else { replaced(prefix, wanted.strip_prefix(value), false) })
        }
        (PathRewrite::Prefix(value), PathMatch::Prefix(prefix), PathMatch::Exact(wanted)) => {
            any(replaced(prefix, wanted.strip_prefix(value), true))
        }
        (PathRewrite::Prefix(value), PathMatch::Prefix(prefix), PathMatch::Regex(wanted)) => {
            replaced_in_regex(prefix, value, wanted)?
        }
        (PathRewrite::Prefix(_), PathMatch::Exact(_) | PathMatch::Regex(_), _) => Vec::new(),
    })
}

fn both(one: &PathMatch, other: &PathMatch) -> Option<Paths> {
    match (one, other) {
        (PathMatch::Regex(_), any) | (any, PathMatch::Regex(_)) if *any == PathMatch::default() => {
            Some((if any == one { other } else { one }.into(), None))
        }
        (PathMatch::Regex(_), _) | (_, PathMatch::Regex(_)) => Some((one.into(), Some(other.into()))),
        (PathMatch::Exact(one), PathMatch::Exact(other)) => (one == other).then(|| (Pattern::Exact(one.clone()), None)),
        (PathMatch::Exact(path), PathMatch::Prefix(prefix)) | (PathMatch::Prefix(prefix), PathMatch::Exact(path)) => {
            path.starts_with(prefix).then(|| (Pattern::Exact(path.clone()), None))
        }
        (PathMatch::Prefix(one), PathMatch::Prefix(other)) => {
            let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
            long.starts_with(short).then(|| (Pattern::Prefix(long.clone()), None))
        }
    }
}

fn takes(wanted: &PathMatch, path: &str) -> Result<bool, Invalid> {
    Ok(match wanted {
        PathMatch::Prefix(prefix) => path.starts_with(prefix),
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Regex(expression) => Derivative::of(expression, &expression.parsed()?).after(path)?.matches_end(),
    })
}

/// The paths that begin with `prefix`, which a rewrite replaces, and of which `rest` is what the target takes behind it: its
/// beginning, or the whole.
fn replaced(prefix: &str, rest: Option<&str>, is_whole: bool) -> Option<Pattern> {
    let rest = rest?;
    if prefix.ends_with('/') {
        let path = format!("{prefix}{rest}");
        return Some(if is_whole { Pattern::Exact(path) } else { Pattern::Prefix(path) });
    }
    // A slash after the prefix is replaced with it, so that `/a/b` becomes `/b` and not `//b`.
    let slash = if rest.starts_with('/') { "/" } else { "/?" };
    let more = if is_whole { "" } else { ".*" };
    Some(Pattern::Regex(format!("{}{slash}{}{more}", escape(prefix), escape(rest))))
}

/// The paths that begin with `prefix` and that a regular expression matches once `value` is in its place.
fn replaced_in_regex(prefix: &str, value: &str, expression: &Regex) -> Result<Vec<Paths>, Invalid> {
    let parsed = expression.parsed()?;
    let rest = Derivative::of(expression, &parsed).after(value)?;
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let before = escape(prefix);
    let behind_prefix = rest.behind(prefix.chars().next_back())?;
    let matches = |slash: &str| Pattern::Regex(format!("{before}{slash}{behind_prefix}"));
    Ok(if prefix.ends_with('/') {
        vec![(matches(""), None)]
    } else if rest.after("/")?.is_within(&rest) {
        vec![(matches("/?"), None)]
    } else {
        // The slash that is replaced with the prefix is not one that the expression wants.
        let no_slash = Pattern::Regex(format!("{before}([^/].*)?"));
        vec![(matches("/"), None), (matches(""), Some(no_slash))]
    })
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
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::model::derivative::tests::{engine, expressions, texts};
    use crate::model::{HeaderMatch, HeaderName, QueryMatch, ValueMatch};

    fn prefix(text: &str) -> PathMatch {
        PathMatch::prefix(text.to_owned()).unwrap()
    }

    fn exact(text: &str) -> PathMatch {
        PathMatch::exact(text.to_owned()).unwrap()
    }

    #[test]
    fn literal_paths() {
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
            let expected: Vec<_> = expected.into_iter().map(|pattern| (pattern, None)).collect();
            assert_eq!(paths(&gateway, rewrite, &target).unwrap(), expected, "{gateway:?} {rewrite:?} {target:?}");
        }
    }

    #[test]
    fn regular_expressions() {
        let regex = |text: &str| PathMatch::Regex(Regex::new(text.to_owned()).unwrap());
        let fits = |path: &str| Pattern::Regex(path.to_owned());
        let (keep, root) = (PathRewrite::Keep, PathRewrite::Prefix("/".to_owned()));
        let slash_or_not =
            |slash: &str, none: &str| vec![(fits(slash), None), (fits(none), Some(fits("/api([^/].*)?")))];
        let exactly = PathRewrite::Exact("/a/b".to_owned());
        for (gateway, rewrite, target, expected) in [
            (prefix("/"), &keep, regex("/[ab]"), vec![(fits("/[ab]"), None)]),
            (regex("/[ab]"), &keep, prefix("/"), vec![(fits("/[ab]"), None)]),
            (regex("/[ab]"), &keep, prefix("/a"), vec![(fits("/[ab]"), Some(Pattern::Prefix("/a".to_owned())))]),
            (exact("/a"), &keep, regex("/[ab]"), vec![(Pattern::Exact("/a".to_owned()), Some(fits("/[ab]")))]),
            (prefix("/api"), &exactly, regex("/a/[ab]"), vec![(Pattern::Prefix("/api".to_owned()), None)]),
            (prefix("/api"), &exactly, regex("/a/[a]"), vec![]),
            (prefix("/api"), &root, regex("/[ab]"), vec![(fits("/api/?[ab]"), None)]),
            (prefix("/api/"), &root, regex("/[ab]"), vec![(fits("/api/[ab]"), None)]),
            (prefix("/api"), &root, regex("/(foo|bar)/.*"), vec![(fits("/api/?(foo|bar)/.*"), None)]),
            (prefix("/api"), &root, regex("/a|/b"), vec![(fits("/api/?(?:a|b)"), None)]),
            (prefix("/a.b"), &root, regex("^/c"), vec![(fits(r"/a\.b/?c"), None)]),
            (prefix("/api"), &root, regex(r".*\.html"), vec![(fits(r"/api/?.*\.html"), None)]),
            (prefix("/api"), &root, regex("/"), vec![(fits("/api/?"), None)]),
            (prefix("/api"), &root, regex("a"), vec![]),
            (prefix("/api"), &root, regex("//x"), slash_or_not("/api//x", "/api/x")),
            (prefix("/api"), &root, regex("/(/x|y)"), slash_or_not("/api/(/x|y)", "/api(/x|y)")),
            (prefix("/api"), &root, regex("/.*/x"), slash_or_not("/api/.*/x", "/api.*/x")),
            (prefix("/api/"), &root, regex(r"/\bx"), vec![(fits(r"/api/\bx"), None)]),
            (prefix("/api-"), &root, regex(r"/\bx"), vec![(fits(r"/api-/?\bx"), None)]),
        ] {
            assert_eq!(paths(&gateway, rewrite, &target).unwrap(), expected, "{gateway:?} {rewrite:?} {target:?}");
        }
        let boundary = paths(&prefix("/api"), &root, &regex(r"/\bx")).unwrap_err().to_string();
        assert_eq!(boundary, r"at character 2: \b would stand where the rewritten prefix ends");
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
        let composed = compose(&gateway, &PathRewrite::Keep, &target).unwrap();
        let both: Vec<_> = composed.into_iter().map(|composed| composed.conditions).collect();
        assert_eq!(
            both,
            [RouteMatch {
                headers: vec![header("a"), header("b")],
                query_parameters: vec![query],
                ..with(Some("GET"))
            }]
        );
        for (one, other, expected) in [
            (None, None, Some(None)),
            (None, Some("PUT"), Some(Some("PUT"))),
            (Some("PUT"), Some("PUT"), Some(Some("PUT"))),
            (Some("GET"), Some("PUT"), None),
        ] {
            let composed = compose(&with(one), &PathRewrite::Keep, &with(other)).unwrap();
            let methods: Vec<_> = composed.iter().map(|composed| composed.conditions.method.as_deref()).collect();
            assert_eq!(methods, expected.into_iter().collect::<Vec<_>>(), "{one:?} {other:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

        #[test]
        fn a_path_is_taken_as_the_target_takes_the_rewritten_one(
            expression in expressions(), prefix in texts(0), value in texts(0), rests in vec(texts(0), 8),
        ) {
            let (prefix, value) = (format!("/{prefix}"), format!("/{value}/"));
            let (gateway, target) = (PathMatch::Prefix(prefix.clone()), PathMatch::Regex(expression.clone()));
            let rewrite = PathRewrite::Prefix(value.clone());
            let Ok(composed) = paths(&gateway, &rewrite, &target) else { return Ok(()) };
            let (part, value) = substitution(&gateway, &rewrite).unwrap();
            let (part, target) = (regex::Regex::new(&part).unwrap(), engine(expression.as_str()));
            let is_taken = |pattern: &Pattern, path: &str| match pattern {
                Pattern::Regex(expression) => engine(expression).is_match(path),
                other => panic!("{other:?}"),
            };
            for rest in rests {
                let path = format!("{prefix}{rest}");
                let is_matched = composed.iter().any(|(pattern, too)| {
                    is_taken(pattern, &path) && too.as_ref().is_none_or(|pattern| is_taken(pattern, &path))
                });
                let rewritten = part.replace(&path, regex::NoExpand(&value));
                prop_assert_eq!(is_matched, target.is_match(&rewritten), "{:?} takes {}", composed, path);
            }
        }
    }
}
