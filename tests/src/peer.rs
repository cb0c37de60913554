//! Servers in miniature, on the loopback interface, that tell what was asked of them.

use std::io::{self, Error, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use tokio::net::TcpSocket;

/// Somebody who listens, and what was asked of it.
#[derive(Debug)]
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Receiver<String>,
}

impl Peer {
    /// Serves each connection in a thread of its own. What is asked must be told before it is answered.
    ///
    /// # Errors
    /// No port is free.
    pub fn listen(
        serve: impl Fn(TcpStream, &Sender<String>) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (tell, asked) = channel();
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (serve, tell) = (serve.clone(), tell.clone());
                thread::spawn(move || serve(stream, &tell));
            }
        });
        Ok(Self { address, asked })
    }

    /// Refuses every request, and tells the value of this header.
    ///
    /// # Errors
    /// No port is free.
    pub fn refusing(name: &'static str) -> io::Result<Self> {
        Self::listen(move |stream, tell| refuse(stream, name, tell))
    }

    /// What was asked since the last time.
    pub fn asked(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

/// Refuses a request, and tells the value of this header.
///
/// # Errors
/// The connection ends before the request does.
pub fn refuse(mut stream: impl Read + Write, name: &str, tell: &Sender<String>) -> io::Result<()> {
    let head = head(&mut stream)?;
    tell.send(header(&head, name).unwrap_or_default().to_owned()).map_err(Error::other)?;
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
}

/// A port that nobody else gets as long as the socket is there, and where nothing listens yet.
///
/// # Errors
/// No port is free.
pub fn closed() -> io::Result<(TcpSocket, u16)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

/// A request's first line and headers.
///
/// # Errors
/// They do not end, or are no text.
pub fn head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read(stream, 1)?);
    }
    String::from_utf8(head).map_err(Error::other)
}

/// The value of a header.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// So many bytes.
///
/// # Errors
/// There are not so many.
pub fn read(stream: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).map(|()| bytes)
}
