//! Which URL is asked. Pure.

use anyhow::Result;
use common::plan::UNKNOWN;
use common::{Document, Error};
use reqwest::Url;
use serde::Deserialize;
use std::collections::BTreeMap;

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

fn url(endpoint: &str) -> Result<Url, String> {
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
    let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL: {error}"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(format!("{text:?} is not a URL that begins with http:// or https://")),
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

    #[test]
    fn only_http_is_asked() {
        assert!(http("http://127.0.0.1:8080/color").is_ok());
        for bad in ["localhost:8080", "ftp://h/", "/color", ""] {
            assert!(http(bad).is_err(), "{bad}");
        }
    }
}
