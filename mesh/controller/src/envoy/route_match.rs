//! Encodes which requests a route takes.

use envoy_types::pb::envoy::{
    config::route::v3::{
        HeaderMatcher, QueryParameterMatcher, RouteMatch,
        header_matcher::HeaderMatchSpecifier,
        query_parameter_matcher::QueryParameterMatchSpecifier,
        route_match::{GrpcRouteMatchOptions, PathSpecifier},
    },
    r#type::{
        matcher::v3::{
            RegexMatcher,
            regex_matcher::{EngineType, GoogleRe2},
            string_matcher::MatchPattern,
        },
        v3::Int64Range,
    },
};

use super::proto::{number, text};
use crate::model::{self, HeaderMatch, PathMatch, QueryMatch, ValueMatch};

/// The pseudo header of a request's method.
pub const METHOD: &str = ":method";

/// Encodes which requests a route takes.
pub fn encode(route_match: &model::RouteMatch) -> RouteMatch {
    let path = match &route_match.path {
        PathMatch::Regex(expression) => PathSpecifier::SafeRegex(regex(expression.as_str())),
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
    };
    let scheme = route_match.scheme.map(|scheme| exactly(":scheme", scheme.as_str()));
    let method = route_match.method.as_ref().map(|method| exactly(METHOD, method));
    RouteMatch {
        path_specifier: Some(path),
        headers: scheme.into_iter().chain(method).chain(route_match.headers.iter().map(header)).collect(),
        grpc: route_match.grpc.then(GrpcRouteMatchOptions::default),
        query_parameters: route_match.query_parameters.iter().map(parameter).collect(),
        ..RouteMatch::default()
    }
}

fn exactly(name: &str, value: &str) -> HeaderMatcher {
    header_is(name, MatchPattern::Exact(value.to_owned()))
}

/// Encodes what the value of a header, or of a pseudo header, must be.
pub fn header_is(name: &str, pattern: MatchPattern) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(text(pattern))),
        ..HeaderMatcher::default()
    }
}

fn header(HeaderMatch { name, value, invert }: &HeaderMatch) -> HeaderMatcher {
    let is = |pattern| HeaderMatchSpecifier::StringMatch(text(pattern));
    HeaderMatcher {
        name: name.as_str().to_owned(),
        header_match_specifier: Some(match value {
            ValueMatch::Present => HeaderMatchSpecifier::PresentMatch(true),
            ValueMatch::Exact(value) => is(MatchPattern::Exact(value.clone())),
            ValueMatch::Prefix(prefix) => is(MatchPattern::Prefix(prefix.clone())),
            ValueMatch::Suffix(suffix) => is(MatchPattern::Suffix(suffix.clone())),
            ValueMatch::Regex(expression) => is(MatchPattern::SafeRegex(regex(expression.as_str()))),
            ValueMatch::Range(start, end) => HeaderMatchSpecifier::RangeMatch(Int64Range { start: *start, end: *end }),
        }),
        invert_match: *invert,
        ..HeaderMatcher::default()
    }
}

fn parameter(QueryMatch { name, exact }: &QueryMatch) -> QueryParameterMatcher {
    let value = exact.clone().map(|exact| QueryParameterMatchSpecifier::StringMatch(text(MatchPattern::Exact(exact))));
    QueryParameterMatcher {
        name: name.clone(),
        query_parameter_match_specifier: value.or(Some(QueryParameterMatchSpecifier::PresentMatch(true))),
    }
}

/// Without Envoy's own limit, which is 100 instructions of RE2, less than a host name takes. What is too large is refused
/// where the expression is made.
#[expect(deprecated, reason = "the other way to lift the limit is the bootstrap, which pods only get when they start")]
pub fn regex(expression: &str) -> RegexMatcher {
    let engine = EngineType::GoogleRe2(GoogleRe2 { max_program_size: number(u32::MAX) });
    RegexMatcher { regex: expression.to_owned(), engine_type: Some(engine) }
}
