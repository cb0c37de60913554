//! Translates what a listener asks of connections: timeouts, limits, and when callers leave out a pod.

use mesh_api::{
    ConnectionPool, Listener, ListenerTimeout, OutlierDetection, RequestTimeout, TcpTimeout,
    VirtualGatewayConnectionPool, VirtualGatewayListener,
};

use super::{
    problems::{Problems, given_is_fine, millis, port, protocol},
    tls,
};
use crate::model::{self, Port, Protocol, Timeouts};

/// A listener as its own Envoys need it; `None` if it has a problem, and nothing may come to the application by it.
pub fn listener(given: &Listener, path: &str, problems: &mut Problems) -> Option<model::Listener> {
    let port = port(given.port_mapping);
    // All of them, so that all problems are found.
    let timeouts = match &given.timeout {
        None => Some(Timeouts::default()),
        Some(timeout) => timeouts(timeout, port.protocol, &format!("{path}.timeout"), problems),
    };
    let pool = given.connection_pool.as_ref();
    let pool = pool.map(|pool| connection_pool(pool, port.protocol, &format!("{path}.connectionPool"), problems));
    let tls = tls::listener(given.tls.as_ref(), &format!("{path}.tls"), problems);
    Some(model::Listener { port, timeouts: timeouts?, connection_pool: given_is_fine(pool)?, tls: tls? })
}

/// A listener of a gateway; `None` if it has a problem, and the gateway does not listen then.
pub fn of_gateway(given: &VirtualGatewayListener, path: &str, problems: &mut Problems) -> Option<model::Listener> {
    let mapping = given.port_mapping;
    let port = Port { port: mapping.port, protocol: protocol(mapping.protocol.into()) };
    let pool = given.connection_pool.map(|VirtualGatewayConnectionPool { grpc, http, http2 }| {
        let pool = ConnectionPool { grpc, http, http2, tcp: None };
        connection_pool(&pool, port.protocol, &format!("{path}.connectionPool"), problems)
    });
    let tls = tls::listener(given.tls.as_ref(), &format!("{path}.tls"), problems);
    Some(model::Listener { connection_pool: given_is_fine(pool)?, tls: tls?, ..model::Listener::new(port) })
}

fn timeouts(given: &ListenerTimeout, protocol: Protocol, path: &str, problems: &mut Problems) -> Option<Timeouts> {
    let ListenerTimeout { grpc, http, http2, tcp } = *given;
    let given = [grpc.is_some(), http.is_some(), http2.is_some(), tcp.is_some()];
    of_protocol(given, protocol, path, problems)?;
    let RequestTimeout { per_request, idle } = grpc.or(http).or(http2).unwrap_or_default();
    let idle = idle.or(tcp.and_then(|TcpTimeout { idle }| idle));
    Some(Timeouts { request_millis: per_request.map(millis), idle_millis: idle.map(millis) })
}

fn connection_pool(
    given: &ConnectionPool,
    protocol: Protocol,
    path: &str,
    problems: &mut Problems,
) -> Option<model::ConnectionPool> {
    let ConnectionPool { grpc, http, http2, tcp } = *given;
    let given = [grpc.is_some(), http.is_some(), http2.is_some(), tcp.is_some()];
    of_protocol(given, protocol, path, problems)?;
    let max_connections = http.map(|http| http.max_connections).or(tcp.map(|tcp| tcp.max_connections));
    let pool = model::ConnectionPool {
        max_connections,
        max_pending_requests: http.and_then(|http| http.max_pending_requests),
        max_requests: grpc.or(http2).map(|pool| pool.max_requests),
    };
    problems.take(path, pool.checked())
}

/// When callers leave out a pod behind a listener.
pub fn outlier_detection(
    given: &OutlierDetection,
    path: &str,
    problems: &mut Problems,
) -> Option<model::OutlierDetection> {
    let detection = model::OutlierDetection {
        max_server_errors: given.max_server_errors,
        interval_millis: millis(given.interval),
        base_ejection_millis: millis(given.base_ejection_duration),
        max_ejection_percent: given.max_ejection_percent,
    };
    problems.take(path, detection.checked())
}

/// Notes what is given for a protocol that is not the listener's: as in App Mesh, only that of the port mapping may be.
fn of_protocol(given: [bool; 4], own: Protocol, path: &str, problems: &mut Problems) -> Option<()> {
    let protocols = [Protocol::Grpc, Protocol::Http, Protocol::Http2, Protocol::Tcp];
    let given = protocols.into_iter().zip(given).filter(|(_, given)| *given);
    let others: Vec<_> = given.map(|(protocol, _)| protocol).filter(|protocol| *protocol != own).collect();
    for other in &others {
        let message = format!("the listener's protocol is {}", own.as_str());
        problems.invalid(format!("{path}.{}", other.as_str()), message);
    }
    others.is_empty().then_some(())
}
