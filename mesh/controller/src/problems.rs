//! What makes no sense, or what Envoy would refuse with all the rest of its configuration. Asked of what users write and of
//! what other clusters publish.

use mesh_api::{HealthCheckPolicy, HttpRetryPolicy, HttpRouteHeader, HttpRouteMatch, Protocol};

/// The longest name of a query's parameter, in bytes; Envoy's.
const LONGEST_NAME: usize = 1024;

/// Each problem of a health check as `: what is wrong`.
pub fn of_health_check(policy: &HealthCheckPolicy) -> Vec<String> {
    let mut problems = Vec::new();
    if !matches!(policy.protocol, Protocol::Http | Protocol::Tcp) {
        problems.push(".protocol: only http and tcp are served".to_owned());
    }
    if policy.path.as_ref().is_some_and(|path| !path.starts_with('/')) {
        problems.push(".path: does not begin with /".to_owned());
    }
    let HealthCheckPolicy { healthy_threshold, interval_millis, timeout_millis, unhealthy_threshold, .. } = policy;
    if [healthy_threshold, interval_millis, timeout_millis, unhealthy_threshold].contains(&&0) {
        problems.push(": a threshold or time is 0".to_owned());
    }
    problems
}

/// Each problem of a route as `.match.prefix: what is wrong`.
pub fn of_route(match_: &HttpRouteMatch, retry_policy: Option<&HttpRetryPolicy>) -> Vec<String> {
    let mut problems = Vec::new();
    let path = match (&match_.prefix, match_.path.as_ref().map(|path| &path.exact)) {
        (Some(prefix), None) => rooted("prefix", prefix),
        (None, Some(Some(exact))) => rooted("path.exact", exact),
        (None, Some(None)) => Some(".match.path: exact is missing".to_owned()),
        _ => Some(".match: needs one of path and prefix".to_owned()),
    };
    problems.extend(path);
    for (index, header) in match_.headers.iter().flatten().enumerate() {
        problems.extend(self::header(header).map(|problem| format!(".match.headers[{index}]{problem}")));
    }
    for (index, parameter) in match_.query_parameters.iter().flatten().enumerate() {
        if !(1..=LONGEST_NAME).contains(&parameter.name.len()) {
            problems.push(format!(".match.queryParameters[{index}].name: not 1 to {LONGEST_NAME} bytes"));
        }
    }
    let eventless = |policy: &HttpRetryPolicy| {
        policy.http_retry_events.iter().flatten().next().is_none()
            && policy.tcp_retry_events.iter().flatten().next().is_none()
    };
    if retry_policy.is_some_and(eventless) {
        problems.push(".retryPolicy: needs one of httpRetryEvents and tcpRetryEvents".to_owned());
    }
    problems
}

fn rooted(field: &str, path: &str) -> Option<String> {
    (!path.starts_with('/')).then(|| format!(".match.{field}: does not begin with /"))
}

fn header(HttpRouteHeader { name, match_, .. }: &HttpRouteHeader) -> Option<String> {
    // RFC 9110, 5.1 and 5.6.2
    let in_a_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(in_a_token) {
        return Some(format!(".name: {name:?} is no name of a header"));
    }
    let method = match_.as_ref()?;
    let texts = [&method.exact, &method.prefix, &method.suffix];
    if texts.iter().filter(|text| text.is_some()).count() + usize::from(method.range.is_some()) != 1 {
        return Some(".match: needs one of exact, prefix, range and suffix".to_owned());
    }
    if [&method.prefix, &method.suffix].into_iter().flatten().any(String::is_empty) {
        return Some(".match: is empty".to_owned());
    }
    let range = method.range.filter(|range| range.start >= range.end)?;
    Some(format!(".match.range: no number is from {} to before {}", range.start, range.end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn told(match_: Value, retry_policy: Option<Value>) -> String {
        let policy = retry_policy.map(|policy| from_value(policy).unwrap());
        of_route(&from_value(match_).unwrap(), policy.as_ref()).join("; ")
    }

    #[test]
    fn what_a_health_check_cannot_be_is_named() {
        let policy = |protocol: &str, path: &str, interval: u32| {
            let policy = json!({"protocol": protocol, "path": path, "intervalMillis": interval, "timeoutMillis": 2000,
                "healthyThreshold": 2, "unhealthyThreshold": 2});
            of_health_check(&from_value(policy).unwrap()).join("; ")
        };
        assert_eq!(policy("http", "/ping", 5000), "");
        assert_eq!(policy("tcp", "/", 5000), "");
        assert_eq!(
            policy("grpc", "ping", 0),
            ".protocol: only http and tcp are served; .path: does not begin with /; : a threshold or time is 0"
        );
    }

    #[test]
    fn what_makes_no_sense_of_a_route_is_named() {
        let header = |name: &str, match_: Value| json!({"prefix": "/", "headers": [{"name": name, "match": match_}]});
        for (match_, expected) in [
            (json!({"prefix": "/"}), ""),
            (json!({"path": {"exact": "/a"}, "method": "GET"}), ""),
            (json!({}), ".match: needs one of path and prefix"),
            (json!({"prefix": "/", "path": {"exact": "/"}}), ".match: needs one of path and prefix"),
            (json!({"prefix": "a"}), ".match.prefix: does not begin with /"),
            (json!({"path": {"exact": "a"}}), ".match.path.exact: does not begin with /"),
            (json!({"path": {}}), ".match.path: exact is missing"),
            (json!({"prefix": "/", "headers": [{"name": "x-a"}]}), ""),
            (header("x-a", json!({"range": {"start": 0, "end": 1}})), ""),
            (header("a:", json!({"exact": ""})), ".match.headers[0].name: \"a:\" is no name of a header"),
            (header("a", json!({})), ".match.headers[0].match: needs one of exact, prefix, range and suffix"),
            (
                header("a", json!({"exact": "b", "prefix": "b"})),
                ".match.headers[0].match: needs one of exact, prefix, range and suffix",
            ),
            (header("a", json!({"suffix": ""})), ".match.headers[0].match: is empty"),
            (
                header("a", json!({"range": {"start": 2, "end": 2}})),
                ".match.headers[0].match.range: no number is from 2 to before 2",
            ),
            (
                json!({"prefix": "/", "queryParameters": [{"name": "a"}, {"name": ""}]}),
                ".match.queryParameters[1].name: not 1 to 1024 bytes",
            ),
        ] {
            assert_eq!(told(match_.clone(), None), expected, "{match_}");
        }
        let retry = |events: &Value| json!({"maxRetries": 1, "perRetryTimeout": {"unit": "s", "value": 1}, "httpRetryEvents": events});
        assert_eq!(told(json!({"prefix": "/"}), Some(retry(&json!(["server-error"])))), "");
        let eventless = ".retryPolicy: needs one of httpRetryEvents and tcpRetryEvents";
        assert_eq!(told(json!({"prefix": "/"}), Some(retry(&json!([])))), eventless);
    }
}
