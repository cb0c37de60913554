//! Translates which requests a route takes.

use mesh_api::{GrpcRouteMatch, HeaderMatchMethod, HttpPathMatch, HttpRouteHeader, HttpRouteMatch, HttpScheme};

use super::problems::Problems;
use crate::model::{HeaderMatch, HeaderName, Invalid, PathMatch, QueryMatch, Regex, RouteMatch, Scheme, ValueMatch};

/// The requests that a route for HTTP takes; `None` if that makes no sense.
pub fn http(given: &HttpRouteMatch, path: &str, problems: &mut Problems) -> Option<RouteMatch> {
    let matched = match (&given.prefix, &given.path) {
        (Some(prefix), None) => problems.take(format!("{path}.prefix"), PathMatch::prefix(prefix.clone())),
        (None, Some(HttpPathMatch { exact, regex })) => {
            let exact = exact.clone().map(|exact| ("exact", PathMatch::exact(exact)));
            let regex = regex.clone().map(|regex| ("regex", Regex::new(regex).map(PathMatch::Regex)));
            one_of([exact, regex], "exact and regex", &format!("{path}.path"), problems)
        }
        _ => {
            problems.invalid(path, "needs one of path and prefix");
            None
        }
    };
    let headers = self::headers(given.headers.as_deref(), &format!("{path}.headers"), problems);
    let parameters = given.query_parameters.iter().flatten().enumerate();
    let parameters: Vec<_> = parameters
        .map(|(index, given)| {
            let exact = given.match_.as_ref().and_then(|value| value.exact.clone());
            problems.take(format!("{path}.queryParameters[{index}].name"), QueryMatch::new(given.name.clone(), exact))
        })
        .collect();
    Some(RouteMatch {
        path: matched?,
        grpc: false,
        scheme: given.scheme.map(|scheme| match scheme {
            HttpScheme::Http => Scheme::Http,
            HttpScheme::Https => Scheme::Https,
        }),
        method: given.method.map(|method| method.to_string()),
        headers: headers?,
        query_parameters: parameters.into_iter().collect::<Option<_>>()?,
    })
}

/// The requests that a route for gRPC takes; `None` if that makes no sense.
pub fn grpc(given: &GrpcRouteMatch, path: &str, problems: &mut Problems) -> Option<RouteMatch> {
    let matched = match (&given.service_name, given.method_name.as_deref()) {
        (None, None) => Some(PathMatch::default()),
        (Some(service), method) => problems.take(path, PathMatch::grpc(service, method)),
        (None, Some(_)) => {
            problems.invalid(format!("{path}.methodName"), "needs serviceName too");
            None
        }
    };
    let metadata = headers(given.metadata.as_deref(), &format!("{path}.metadata"), problems);
    Some(RouteMatch { path: matched?, grpc: true, headers: metadata?, ..RouteMatch::default() })
}

/// What headers must be; `None` if that makes no sense.
pub fn headers(given: Option<&[HttpRouteHeader]>, path: &str, problems: &mut Problems) -> Option<Vec<HeaderMatch>> {
    let given = given.unwrap_or_default().iter().enumerate();
    // All of them, so that all problems are found.
    let headers: Vec<_> = given.map(|(index, given)| header(given, &format!("{path}[{index}]"), problems)).collect();
    headers.into_iter().collect()
}

/// What a header must be; `None` if that makes no sense.
pub fn header(given: &HttpRouteHeader, path: &str, problems: &mut Problems) -> Option<HeaderMatch> {
    let name = problems.take(format!("{path}.name"), HeaderName::new(given.name.clone()));
    let value = given
        .match_
        .as_ref()
        .map_or(Some(ValueMatch::Present), |given| value(given, &format!("{path}.match"), problems));
    Some(HeaderMatch { name: name?, value: value?, invert: given.invert.unwrap_or_default() })
}

fn value(given: &HeaderMatchMethod, path: &str, problems: &mut Problems) -> Option<ValueMatch> {
    let HeaderMatchMethod { exact, prefix, suffix, regex, range } = given.clone();
    let given = [
        exact.map(|exact| ("exact", Ok(ValueMatch::Exact(exact)))),
        prefix.map(|prefix| ("prefix", ValueMatch::prefix(prefix))),
        suffix.map(|suffix| ("suffix", ValueMatch::suffix(suffix))),
        regex.map(|regex| ("regex", Regex::new(regex).map(ValueMatch::Regex))),
        range.map(|range| ("range", ValueMatch::range(range.start, range.end))),
    ];
    one_of(given, "exact, prefix, range, regex and suffix", path, problems)
}

/// A value that is given by one of several fields.
fn one_of<T, const N: usize>(
    given: [Option<(&str, Result<T, Invalid>)>; N],
    fields: &str,
    path: &str,
    problems: &mut Problems,
) -> Option<T> {
    let mut given = given.into_iter().flatten();
    if let (Some((field, value)), None) = (given.next(), given.next()) {
        return problems.take(format!("{path}.{field}"), value);
    }
    problems.invalid(path, format!("needs one of {fields}"));
    None
}
