//! Shows how a real Envoy asks pods for their health.

use super::{
    policies::{INGRESS, backend, cloud_map, listening, snapshot_of},
    *,
};

/// What a connection of HTTP/2 begins with, and the types and flags of its frames; RFC 9113.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200`, `content-type: application/grpc`; RFC 7541.
const HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// A HealthCheckResponse of status SERVING, in a frame of gRPC.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 2];
/// `grpc-status: 0`
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A pod whose health service gives this answer to all calls.
async fn health_service(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer_calls(connection, answer));
        }
    });
    port
}

async fn answer_calls(mut connection: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    connection.read_exact(&mut [0; PREFACE.len()]).await?;
    connection.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await?;
        let [high, middle, low, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap()];
        connection.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes(stream);
        if kind == SETTINGS && flags & ACK == 0 {
            connection.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            let head = frame(HEADERS, END_HEADERS, stream, HEAD);
            let trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, TRAILERS);
            connection.write_all(&[head, frame(DATA, 0, stream, answer), trailers].concat()).await?;
        }
    }
}

fn check(protocol: HealthCheckProtocol) -> Option<HealthCheck> {
    let healthy_threshold = 1;
    let (interval_millis, timeout_millis) = (5000, 2000);
    Some(HealthCheck { protocol, healthy_threshold, unhealthy_threshold: 1, interval_millis, timeout_millis })
}

/// By HTTP/2 Envoy's own ingress is asked, which takes it; by gRPC a pod that serves, and one that does not.
pub async fn health_checks(controller: &Controller) {
    let http2 = Port { protocol: Protocol::Http2, ..INGRESS };
    let grpc = || check(HealthCheckProtocol::grpc(http2.protocol).unwrap());
    let by_http2 = check(HealthCheckProtocol::http2("/ping".to_owned()).unwrap());
    let application = app("well").await;
    for (name, port, health_check, expected) in [
        ("http2", INGRESS, by_http2, "success"),
        ("serving", Port { port: health_service(SERVING).await, ..http2 }, grpc(), "success"),
        ("not-serving", Port { port: health_service(NOT_SERVING).await, ..http2 }, grpc(), "failure"),
    ] {
        let upstream = Upstream { port, health_check, ..cloud_map(name, port.port) };
        let workload = listening(Listener::new(INGRESS), vec![backend(name, upstream)]);
        let http2_connections =
            async || stat("http.cds_ingress_k8multi_front_k8multi_http_15000.downstream_cx_http2_total").await;
        let before = http2_connections().await;
        controller.set(snapshot_of(&workload, application, &["127.0.0.1"]));
        controller.settled().await;
        let checks = format!("cluster.cds_egress_k8multi_{name}_{}_{}.health_check", port.protocol.as_str(), port.port);
        wait_for("a health check", async || stat(&format!("{checks}.attempt")).await > 0).await;
        wait_for(expected, async || stat(&format!("{checks}.{expected}")).await > 0).await;
        assert_eq!(http2_connections().await > before, name == "http2", "{name}");
    }
}
