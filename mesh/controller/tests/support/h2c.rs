//! Speaks HTTP/2 in plain text, with prior knowledge of it, as gRPC does.

use std::net::Ipv4Addr;

use bytes::Bytes;
use h2::{client, server};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};

/// The answer to a request: a body, and a status of gRPC if it is one of gRPC.
pub type Answer = (&'static str, Option<u8>);

/// A server that answers its n-th request so.
pub async fn serve(answer: impl Fn(usize) -> Answer + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (requests, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let requests = requests.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = server::handshake(connection).await else { return };
                while let Some(Ok((_, respond))) = connection.accept().await {
                    let _ = requests.send(respond);
                }
            });
        }
    });
    tokio::spawn(async move {
        for n in 0.. {
            let Some(respond) = waiting.recv().await else { return };
            // A caller may have gone.
            let _ = respond_with(respond, answer(n));
        }
    });
    port
}

fn respond_with(mut respond: server::SendResponse<Bytes>, (body, status): Answer) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    let Some(status) = status else {
        head.headers_mut().insert("content-length", body.len().into());
        let mut stream = respond.send_response(head, false)?;
        return stream.send_data(Bytes::from_static(body.as_bytes()), true);
    };
    let status = ("grpc-status".parse().unwrap(), u16::from(status).into());
    head.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    if body.is_empty() {
        // As gRPC's servers do, and only then does Envoy try again.
        head.headers_mut().extend([status]);
        respond.send_response(head, true)?;
        return Ok(());
    }
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(Bytes::from_static(body.as_bytes()), false)?;
    stream.send_trailers(HeaderMap::from_iter([status]))
}

/// Status and body of an answer, and its status of gRPC if there is one.
pub async fn ask(port: u16, host: &str, what: &str, headers: &[(&'static str, &'static str)]) -> String {
    let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let (mut requests, connection) = client::handshake(connection).await.unwrap();
    let connection = tokio::spawn(connection);
    let (method, path) = what.split_once(' ').unwrap();
    let mut request = Request::new(());
    *request.method_mut() = method.parse().unwrap();
    *request.uri_mut() = format!("http://{host}{path}").parse().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let (response, _) = requests.send_request(request, true).unwrap();
    let (head, mut stream) = response.await.unwrap().into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        body.extend_from_slice(&data.unwrap());
    }
    let trailers = stream.trailers().await.unwrap().unwrap_or_default();
    connection.abort();
    let status = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
    let status = status.map(|status| format!(" {}", status.to_str().unwrap())).unwrap_or_default();
    format!("{} {}{status}", head.status.as_u16(), String::from_utf8_lossy(&body))
}
