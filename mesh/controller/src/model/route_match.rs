//! Describes which requests a route takes.

use serde::{Deserialize, Serialize};

use super::{Invalid, Regex};

/// The longest name of a query's parameter, in bytes; Envoy's.
const LONGEST_NAME: usize = 1024;

/// Which requests a route takes: those that all of it fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteMatch {
    /// The path, without its query.
    pub path: PathMatch,
    /// Whether requests of gRPC are meant only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub grpc: bool,
    /// The scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The method, such as `GET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Headers, all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// Parameters of the query, all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query_parameters: Vec<QueryMatch>,
}

/// What a path must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// What it begins with.
    Prefix(String),
    /// The whole of it.
    Exact(String),
    /// An expression that matches the whole of it.
    Regex(Regex),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".to_owned())
    }
}

impl PathMatch {
    /// What a path begins with.
    ///
    /// # Errors
    /// It does not begin with `/`.
    pub fn prefix(prefix: String) -> Result<Self, Invalid> {
        rooted(prefix).map(Self::Prefix)
    }

    /// A whole path.
    ///
    /// # Errors
    /// It does not begin with `/`.
    pub fn exact(path: String) -> Result<Self, Invalid> {
        rooted(path).map(Self::Exact)
    }

    /// The path of a method of gRPC, or what those of a service begin with.
    ///
    /// # Errors
    /// A name is empty, or has a `/` in it.
    pub fn grpc(service: &str, method: Option<&str>) -> Result<Self, Invalid> {
        if [Some(service), method].into_iter().flatten().any(|name| name.is_empty() || name.contains('/')) {
            return Err(Invalid::new("is no name of a service and a method of gRPC: it is empty, or has a / in it"));
        }
        Ok(match method {
            Some(method) => Self::Exact(format!("/{service}/{method}")),
            None => Self::Prefix(format!("/{service}/")),
        })
    }

    /// How few paths it takes: the whole of one is more than an expression, that more than a beginning, and of two of a kind
    /// the longer one is. App Mesh tries a longer path first, too.
    pub fn specificity(&self) -> impl Ord + use<> {
        match self {
            Self::Prefix(prefix) => (0, prefix.len()),
            Self::Regex(expression) => (1, expression.as_str().len()),
            Self::Exact(path) => (2, path.len()),
        }
    }
}

fn rooted(path: String) -> Result<String, Invalid> {
    if path.starts_with('/') { Ok(path) } else { Err(Invalid::new("does not begin with /")) }
}

/// A scheme of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the schemes' names say it all")]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// As requests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What a header must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeaderMatch {
    /// Its name.
    pub name: HeaderName,
    /// What its value must be.
    pub value: ValueMatch,
    /// Whether the requests that do not fit are meant.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub invert: bool,
}

/// A header's name, a token of RFC 9110, 5.6.2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct HeaderName(String);

impl HeaderName {
    /// A token.
    ///
    /// # Errors
    /// It is none.
    pub fn new(name: String) -> Result<Self, Invalid> {
        let in_a_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(in_a_token) {
            return Err(Invalid(format!("{name:?} is not a valid header name")));
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ValueMatch {
    /// Any, as long as there is one.
    Present,
    /// The whole value.
    Exact(String),
    /// What it begins with.
    Prefix(String),
    /// What it ends with.
    Suffix(String),
    /// An expression that matches the whole value.
    Regex(Regex),
    /// A whole number from the first to before the second.
    Range(i64, i64),
}

impl ValueMatch {
    /// What a value begins with.
    ///
    /// # Errors
    /// It is empty.
    pub fn prefix(text: String) -> Result<Self, Invalid> {
        filled(text).map(Self::Prefix)
    }

    /// What a value ends with.
    ///
    /// # Errors
    /// It is empty.
    pub fn suffix(text: String) -> Result<Self, Invalid> {
        filled(text).map(Self::Suffix)
    }

    /// A whole number from `start` to before `end`.
    ///
    /// # Errors
    /// There is none.
    pub fn range(start: i64, end: i64) -> Result<Self, Invalid> {
        if start >= end {
            return Err(Invalid(format!("no number is from {start} to before {end}")));
        }
        Ok(Self::Range(start, end))
    }
}

fn filled(text: String) -> Result<String, Invalid> {
    if text.is_empty() { Err(Invalid::new("is empty")) } else { Ok(text) }
}

/// What a parameter of the query must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueryMatch {
    /// Its name, 1 to 1024 bytes.
    pub name: String,
    /// What its value must be; absent, it must only be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
}

impl QueryMatch {
    /// A parameter.
    ///
    /// # Errors
    /// Envoy takes no such name.
    pub fn new(name: String, exact: Option<String>) -> Result<Self, Invalid> {
        if !(1..=LONGEST_NAME).contains(&name.len()) {
            return Err(Invalid(format!("not 1 to {LONGEST_NAME} bytes")));
        }
        Ok(Self { name, exact })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewer_paths_the_more_specific() {
        let exact = |path: &str| PathMatch::exact(path.to_owned()).unwrap();
        let regex = |text: &str| PathMatch::Regex(Regex::new(text.to_owned()).unwrap());
        let prefix = |prefix: &str| PathMatch::prefix(prefix.to_owned()).unwrap();
        let grpc = |service: &str, method| PathMatch::grpc(service, method).unwrap();
        for (more, less) in [
            (exact("/"), regex("/a.*")),
            (regex("/"), prefix("/api/v2")),
            (exact("/ab"), exact("/a")),
            (regex("/a.*"), regex("/.*")),
            (prefix("/api/v2"), prefix("/api")),
            (grpc("shop.Stock", Some("Take")), grpc("shop.v1.Stock", None)),
            (grpc("shop.Stock", None), PathMatch::default()),
        ] {
            assert!(more.specificity() > less.specificity(), "{more:?} {less:?}");
        }
        assert!(prefix("/a").specificity() == prefix("/b").specificity());
    }
}
