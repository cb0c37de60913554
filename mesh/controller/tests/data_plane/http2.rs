//! Speaks HTTP/2 and gRPC, both ways at once.

use bytes::Bytes;
use h2::{RecvStream, SendStream, client, server};
use http::{HeaderMap, Request, Response};
use tokio::sync::oneshot;

use super::*;

/// Port of the application and of the backend that speaks it.
pub const HTTP2: Port = Port { port: 50051, protocol: Protocol::Grpc };

/// What a client of HTTP/2 sends.
#[derive(Clone, Copy)]
pub struct Call {
    pub name: &'static str,
    method: &'static str,
    content_type: &'static str,
}

pub const CALLS: [Call; 2] = [
    Call { name: "HTTP/2 without TLS, by prior knowledge", method: "PUT", content_type: "text/plain" },
    Call { name: "gRPC, messages both ways", method: "POST", content_type: "application/grpc" },
];

/// One call: what the client saw and what the server saw.
pub fn call(
    pod: &Pod,
    running: &Running,
    call: Call,
    direction: Direction,
    is_mesh: bool,
    family: [&str; 3],
) -> [Vec<String>; 2] {
    let [of_node, of_pod, _] = family;
    let host = if direction == Outside { "example.com" } else { BACKEND };
    let port = if direction == Inbound && !is_mesh { BESIDE } else { HTTP2.port };
    let connect = |ip| TcpStream::connect((ip, port)).unwrap();
    let bind = || listen(("::", port));
    let (listener, connection) = if direction == Inbound {
        (bind(), pod.on_the_node(|| connect(of_pod)).unwrap())
    } else {
        let listener = pod.on_the_node(bind).unwrap();
        (listener, as_user(if is_mesh { APPLICATION } else { ENVOY }, || connect(of_node)))
    };
    listener.set_nonblocking(true).unwrap();
    connection.set_nonblocking(true).unwrap();
    running.runtime.block_on(async {
        let (done, gone) = oneshot::channel();
        let served = tokio::spawn(serve(tokio::net::TcpListener::from_std(listener).unwrap(), gone));
        let connection = tokio::net::TcpStream::from_std(connection).unwrap();
        let seen = tokio::time::timeout(Duration::from_secs(30), ask(connection, host, call)).await.unwrap();
        // The server has noticed by itself where the client was its only neighbour.
        let _ = done.send(());
        [seen, served.await.unwrap()]
    })
}

async fn ask(connection: tokio::net::TcpStream, host: &str, call: Call) -> Vec<String> {
    let (mut requests, connection) = client::handshake(connection).await.unwrap();
    let connection = tokio::spawn(connection);
    let uri = format!("http://{host}:{}/shop.Stock/Watch", HTTP2.port);
    let request = Request::builder().method(call.method).uri(uri);
    let request = request.header("content-type", call.content_type).header("te", "trailers").body(()).unwrap();
    let (response, mut sends) = requests.send_request(request, false).unwrap();
    sends.send_data(Bytes::from_static(b"one"), false).unwrap();
    let (head, mut receives) = response.await.unwrap().into_parts();
    let mut seen = vec![format!("{} {:?}", head.status, head.headers.get("content-type"))];
    next(&mut receives, &mut seen).await;
    sends.send_data(Bytes::from_static(b"two"), true).unwrap();
    next(&mut receives, &mut seen).await;
    let trailers = receives.trailers().await.unwrap().unwrap_or_default();
    seen.push(format!("{:?}", trailers.get("grpc-status")));
    connection.abort();
    seen
}

/// Answers each message by itself, as soon as it has come.
async fn serve(listener: tokio::net::TcpListener, gone: oneshot::Receiver<()>) -> Vec<String> {
    let (connection, _) = listener.accept().await.unwrap();
    let mut connection = server::handshake(connection).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    let conversation = tokio::spawn(async move {
        let (head, mut receives) = request.into_parts();
        let named = ["content-type", "te"].map(|name| head.headers.get(name).cloned());
        let mut seen = vec![format!("{} {} {named:?}", head.method, head.uri)];
        let response = Response::builder().header("content-type", "text/plain").body(()).unwrap();
        let mut sends: SendStream<Bytes> = respond.send_response(response, false).unwrap();
        while let Some(data) = next(&mut receives, &mut seen).await {
            sends.send_data(data, false).unwrap();
        }
        sends.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())])).unwrap();
        seen
    });
    // Nothing is sent but from here. Envoy would keep the connection for the next request.
    tokio::select! {
        _ = async { while let Some(Ok(_)) = connection.accept().await {} } => {}
        _ = gone => {}
    }
    conversation.await.unwrap()
}

/// Reads and notes a message.
async fn next(stream: &mut RecvStream, seen: &mut Vec<String>) -> Option<Bytes> {
    let data = stream.data().await?.unwrap();
    stream.flow_control().release_capacity(data.len()).unwrap();
    if data.is_empty() {
        return None;
    }
    seen.push(String::from_utf8_lossy(&data).into_owned());
    Some(data)
}
