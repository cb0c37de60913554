//! Finds which URL is asked, and where its name leads.

use anyhow::Result;
use common::plan::UNKNOWN;
use common::{Document, Error};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use tokio::net::lookup_host;
use url::{Position, Url};

/// What the sample's front end serves its colour on.
const PATH: &str = "/color";

/// What this tool reads of an application that manifest-apply left in the document.
#[derive(Debug, Deserialize)]
struct App {
    /// `HOST:PORT` or a URL; absent without a load balancer.
    endpoint: Option<String>,
}

/// The URL of `apps.<name>.endpoint`, of this application or the only one that has an endpoint; none if the document is a
/// plan and its load balancer does not exist yet.
///
/// # Errors
/// There is none, there are several, or it does not read.
pub fn from_apps(doc: &Document, name: Option<&str>) -> Result<Option<Url>> {
    let apps: BTreeMap<String, App> = doc.read(&["apps"])?.unwrap_or_default();
    let mut found = apps
        .iter()
        .filter(|(app, _)| name.is_none_or(|name| name == *app))
        .filter_map(|(app, about)| about.endpoint.as_ref().map(|endpoint| (app, endpoint)));
    match (found.next(), found.next(), name) {
        (Some((_, endpoint)), None, _) if endpoint == UNKNOWN => Ok(None),
        (Some((app, endpoint)), None, _) => {
            url(endpoint).map(Some).map_err(|why| Error::input(format!("apps.{app}.endpoint: {why}")).into())
        }
        (Some((one, _)), Some((other, _)), _) => {
            Err(Error::usage(format!("{one} and {other} have an endpoint: choose one with --app")).into())
        }
        (None, _, Some(name)) => Err(Error::input(format!("apps.{name}.endpoint is not there"))
            .hint("manifest-apply leaves it once the load balancer has a name")
            .into()),
        (None, _, None) => Err(Error::usage("no URL to ask")
            .hint("give one as argument, or a document in which manifest-apply left apps.<name>.endpoint")
            .into()),
    }
}

/// The URL of `HOST:PORT`, with the path of the sample's front end unless it has one.
///
/// # Errors
/// Says why it is none.
pub fn url(endpoint: &str) -> Result<Url, String> {
    let text = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    let mut url = http(&text)?;
    if url.path() == "/" {
        url.set_path(PATH);
    }
    Ok(url)
}

/// A URL that can be asked.
///
/// # Errors
/// Says why it can't.
pub fn http(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{:?} is not a URL: {error}", masked(text)))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(format!("{:?} is not a URL that begins with http:// or https://", masked(text))),
    }
}

/// A URL for people: without its password.
pub fn shown(url: &Url) -> String {
    match url.password() {
        Some(_) => format!("{}…{}", &url[..Position::BeforePassword], &url[Position::AfterPassword..]),
        None => url.to_string(),
    }
}

/// What is no such URL, for people: without what may be a password.
fn masked(text: &str) -> String {
    let login = text.find("://").map_or(0, |scheme| scheme + "://".len());
    match (text[login..].find(':'), text.rfind('@')) {
        (Some(colon), Some(at)) if login + colon < at => format!("{}:…{}", &text[..login + colon], &text[at..]),
        _ => text.to_owned(),
    }
}

/// The addresses of a URL's host, if all of them are private: from elsewhere than its network nobody gets an answer.
pub async fn private_addresses(url: &Url) -> Option<String> {
    let place = (url.host_str()?.trim_matches(['[', ']']), url.port_or_known_default()?);
    let found: BTreeSet<IpAddr> = lookup_host(place).await.ok()?.map(|address| address.ip()).collect();
    let private = !found.is_empty() && found.iter().all(is_private);
    private.then(|| found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "))
}

/// Whether it is of a network of somebody's own: RFC 1918, RFC 4193, or what providers share (RFC 6598).
fn is_private(address: &IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_private() || (first, second & 0xc0) == (100, 64)
        }
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn the_only_endpoint_is_asked_unless_one_is_chosen() {
        const TWO: &str = r#"{"apps":{"a":{"endpoint":"h:1"},"b":{"endpoint":"h:2"},"c":{}}}"#;
        for (doc, app, found) in [
            (r#"{"apps":{"feapp":{"endpoint":"lb.example:8080"}}}"#, None, Ok("http://lb.example:8080/color")),
            (r#"{"apps":{"feapp":{"endpoint":"http://lb:80/x"}}}"#, None, Ok("http://lb/x")),
            (r#"{"apps":{"a":{"namespace":"n"},"b":{"endpoint":"h:1"}}}"#, None, Ok("http://h:1/color")),
            (r#"{"apps":{"a":{"endpoint":"(known after apply)"}}}"#, None, Ok(UNKNOWN)),
            (TWO, Some("b"), Ok("http://h:2/color")),
            (TWO, None, Err("a and b have an endpoint: choose one with --app")),
            (TWO, Some("c"), Err("apps.c.endpoint is not there")),
            ("{}", None, Err("no URL to ask")),
            (
                r#"{"apps":{"a":{"endpoint":"h:x"}}}"#,
                None,
                Err("apps.a.endpoint: \"http://h:x\" is not a URL: invalid port number"),
            ),
            (r#"{"apps":{"a":{"endpoint":7}}}"#, None, Err("apps.a.endpoint: invalid type: number, expected a string")),
        ] {
            let doc = Document::parse("stdin", doc.as_bytes()).unwrap();
            let url = from_apps(&doc, app)
                .map(|url| url.map_or(UNKNOWN.to_owned(), String::from))
                .map_err(|error| error.to_string());
            assert_eq!(url.as_deref().map_err(String::as_str), found);
        }
    }

    #[tokio::test]
    async fn private_addresses_are_named() {
        for (url, private) in [
            ("http://10.0.1.20:8080/color", Some("10.0.1.20")),
            ("http://172.31.0.1/", Some("172.31.0.1")),
            ("http://100.64.0.1/", Some("100.64.0.1")),
            ("https://[fd00:ec2::23]/", Some("fd00:ec2::23")),
            ("http://[::ffff:192.168.0.1]/", Some("::ffff:192.168.0.1")),
            ("http://127.0.0.1/", None),
            ("http://172.32.0.1/", None),
            ("http://100.128.0.1/", None),
            ("http://[2600:1f00::1]/", None),
        ] {
            let url = http(url).unwrap();
            assert_eq!(private_addresses(&url).await.as_deref(), private, "{url}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        for (url, expected) in [
            ("http://h:8080/a@b:c?d=e@f", "http://h:8080/a@b:c?d=e@f"),
            ("http://u@h/", "http://u@h/"),
            ("http://u:p@h:8080/a#b", "http://u:…@h:8080/a#b"),
            ("https://:p%40q@[::1]/", "https://:…@[::1]/"),
        ] {
            assert_eq!(shown(&http(url).unwrap()), expected);
        }
        for (text, expected) in [
            ("localhost:8080", "localhost:8080"),
            ("ftp://u:p@h/", "ftp://u:…@h/"),
            ("u:p@h", "u:…@h"),
            ("http://u:p/q@h:1/", "http://u:…@h:1/"),
            ("http://u@h:x/", "http://u@h:x/"),
            ("é@", "é@"),
        ] {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn only_http_is_asked() {
        assert!(http("http://127.0.0.1:8080/color").is_ok());
        for bad in ["localhost:8080", "ftp://h/", "/color", ""] {
            assert!(http(bad).is_err(), "{bad}");
        }
    }
}
