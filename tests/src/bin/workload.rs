//! Serves, asks, and keeps up a load and counts what it loses: the tests run it in pods.
//!
//!   workload serve WORD PORT…      answers each request with WORD, and logs its path; on 50051 and 50052 it is healthy by gRPC
//!   workload ask URL               prints status and body of an answer, or why there is none
//!   workload ask-until URL         asks until the answer is 200
//!   workload dns udp|tcp NAME      prints how many addresses the pod's name server has for NAME
//!   workload idle                  waits for SIGTERM
//!   workload load URL WORD RATE    asks RATE times a second until SIGTERM; on port 9000 it tells how many requests there
//!                                  were, and which were not answered with WORD; at /NUMBER once there were so many

#![allow(clippy::unwrap_used, clippy::panic, reason = "a program of the tests may stop at the first surprise")]

use std::io::{BufRead as _, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Response};
use nss as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::signal::unix::{SignalKind, signal};

/// Ports on which gRPC's health service answers.
const GRPC: [u16; 2] = [50051, 50052];
/// Where a load tells what it counted.
const COUNTS: u16 = 9000;
/// Clients of a load. Every other one makes a connection for each request.
const CLIENTS: u32 = 16;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a client asks until it is answered with 200.
const LONG_PATIENCE: Duration = Duration::from_secs(120);
/// Authority of the API server.
const AUTHORITY: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &words[..] {
        ["serve", word, ports @ ..] => {
            for port in ports {
                serve(port.parse().unwrap(), (*word).to_owned());
            }
            until_terminated();
        }
        ["idle"] => until_terminated(),
        ["load", url, word, rate] => {
            load(&Url::of(url), (*word).to_owned(), rate.parse().unwrap());
            until_terminated();
        }
        ["ask", url] => say(&told(ask(&Url::of(url)))),
        ["ask-until", url] => return ask_until(&Url::of(url)),
        ["dns", transport, name] => {
            say(&addresses(name, *transport == "tcp").unwrap_or_else(|error| error.to_string()))
        }
        _ => panic!("see the head of the source"),
    }
    ExitCode::SUCCESS
}

fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn log(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The first process of a container is not ended by a signal that it does not ask for.
fn until_terminated() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { signal(SignalKind::terminate()).unwrap().recv().await });
}

/// Serves a port in the background; what it logs first says that it listens.
fn serve(port: u16, word: String) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    log(&format!("listening on {port}"));
    if GRPC.contains(&port) {
        thread::spawn(move || serve_grpc(listener));
        return;
    }
    answer(listener, move |path| {
        log(path);
        word.clone()
    });
}

/// Answers HTTP/1.1 in the background.
fn answer(listener: TcpListener, answer: impl Fn(&str) -> String + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                while let Ok(head) = head(&mut stream) {
                    let body = answer(head.first.split(' ').nth(1).unwrap_or_default());
                    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    if stream.get_mut().write_all(response.as_bytes()).is_err() || head.is_last {
                        return;
                    }
                }
            });
        }
    });
}

/// Answers `grpc.health.v1.Health/Check`, and whatever else is asked, with SERVING.
fn serve_grpc(listener: TcpListener) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await?;
                while let Some(request) = connection.accept().await {
                    let (_, mut respond) = request?;
                    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                    let mut stream = respond.send_response(head, false)?;
                    // A message of two bytes, whose field 1 is 1.
                    stream.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]), false)?;
                    stream.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), 0.into())]))?;
                }
                Ok::<(), h2::Error>(())
            });
        }
    });
}

/// `http://HOST:PORT/PATH`, or `https://`.
struct Url {
    is_tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    fn of(text: &str) -> Self {
        let (scheme, rest) = text.split_once("://").unwrap();
        let is_tls = scheme == "https";
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let default = if is_tls { 443 } else { 80 };
        let (host, port) =
            authority.split_once(':').map_or((authority, default), |(host, port)| (host, port.parse().unwrap()));
        Self { is_tls, host: host.to_owned(), port, path: format!("/{path}") }
    }

    fn address(&self) -> Result<SocketAddr> {
        (self.host.as_str(), self.port).to_socket_addrs()?.next().ok_or_else(|| Error::other("no address"))
    }

    fn request(&self, is_last: bool) -> String {
        let (path, host, port) = (&self.path, &self.host, self.port);
        let connection = if is_last { "connection: close\r\n" } else { "" };
        format!("GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\n{connection}\r\n")
    }
}

/// The head of a message.
struct Head {
    first: String,
    length: Option<usize>,
    /// Whether the connection ends after the message.
    is_last: bool,
}

fn head(stream: &mut BufReader<impl Read>) -> Result<Head> {
    let mut head = Head { first: line(stream)?, length: None, is_last: false };
    loop {
        let line = line(stream)?.to_ascii_lowercase();
        match line.split_once(": ") {
            _ if line.is_empty() => return Ok(head),
            Some(("content-length", length)) => head.length = length.parse().ok(),
            Some(("connection", "close")) => head.is_last = true,
            _ => {}
        }
    }
}

fn line(stream: &mut BufReader<impl Read>) -> Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

/// An answer.
struct Answer {
    status: String,
    body: String,
    is_last: bool,
}

fn exchange<S: Read + Write>(stream: &mut BufReader<S>, request: &str) -> Result<Answer> {
    stream.get_mut().write_all(request.as_bytes())?;
    let head = head(stream)?;
    let mut body = vec![0; head.length.unwrap_or_default()];
    stream.read_exact(&mut body)?;
    let status = head.first.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), is_last: head.is_last })
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn ask(url: &Url) -> Result<Answer> {
    let stream = connect(url.address()?)?;
    if url.is_tls {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(AUTHORITY).map_err(Error::other)?).map_err(Error::other)?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from(url.host.clone()).map_err(Error::other)?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(Error::other)?;
        return exchange(&mut BufReader::new(StreamOwned::new(connection, stream)), &url.request(true));
    }
    exchange(&mut BufReader::new(stream), &url.request(true))
}

/// An answer in a few words: of a long body only its length counts.
fn told(answer: Result<Answer>) -> String {
    match answer {
        Ok(Answer { status, body, .. }) if body.len() > 20 => format!("{status}, a body"),
        Ok(Answer { status, body, .. }) => format!("{status} {body}"),
        Err(error) => format!("{}", error.kind()),
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the wait for the fact")]
fn ask_until(url: &Url) -> ExitCode {
    let asked = Instant::now();
    loop {
        let answer = ask(url);
        let is_right = answer.as_ref().is_ok_and(|answer| answer.status == "200");
        if is_right || asked.elapsed() > LONG_PATIENCE {
            say(&told(answer));
            return if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Asks the first name server of the pod for the IPv4 addresses of a full name.
fn addresses(name: &str, by_tcp: bool) -> Result<String> {
    let configuration = std::fs::read_to_string("/etc/resolv.conf")?;
    let server = configuration.lines().find_map(|line| line.strip_prefix("nameserver "));
    let server: SocketAddr = format!("{}:53", server.unwrap_or_default()).parse().map_err(Error::other)?;
    // Recursion is desired, one question: type A, class IN.
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).map_err(Error::other)?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let mut reply = [0; 512];
    if by_tcp {
        let mut stream = connect(server)?;
        let length = u16::try_from(query.len()).map_err(Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &query].concat())?;
        stream.read_exact(&mut reply[..2])?;
        stream.read_exact(&mut reply[..12])?;
    } else {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(&query, server)?;
        socket.recv(&mut reply)?;
    }
    Ok(format!("code {}, addresses: {}", reply[3] & 15, u16::from_be_bytes([reply[6], reply[7]])))
}

/// What a load has seen.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    failed: AtomicU64,
    /// Milliseconds of the slowest answer since the counts were told at once.
    slowest: AtomicU64,
    /// The first failures: when, and why.
    failures: Mutex<Vec<String>>,
}

impl Counts {
    fn count(&self, asked: Instant, outcome: std::result::Result<(), String>) {
        self.requests.fetch_add(1, Relaxed);
        self.slowest.fetch_max(u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
        if let Err(wrong) = outcome {
            self.failed.fetch_add(1, Relaxed);
            let mut failures = self.failures.lock().unwrap();
            if failures.len() < 10_000 {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                failures.push(format!("{:.3} {wrong}", now.as_secs_f64()));
            }
        }
    }

    /// As JSON, at once, or once there were so many requests.
    #[allow(clippy::disallowed_methods, reason = "this is the wait for the fact")]
    fn told(&self, at_least: Option<u64>) -> String {
        while at_least.is_some_and(|at_least| self.requests.load(Relaxed) < at_least) {
            thread::sleep(Duration::from_millis(20));
        }
        let (requests, failed) = (self.requests.load(Relaxed), self.failed.load(Relaxed));
        let failures = self.failures.lock().unwrap();
        let failures: Vec<String> = failures.iter().map(|failure| format!("{failure:?}")).collect();
        let slowest = if at_least.is_some() { self.slowest.load(Relaxed) } else { self.slowest.swap(0, Relaxed) };
        let failures = failures.join(",");
        format!(r#"{{"requests":{requests},"failed":{failed},"slowest":{slowest},"failures":[{failures}]}}"#)
    }
}

/// Asks so many times a second, in the background, whatever comes of it.
fn load(url: &Url, word: String, rate: u32) {
    let (address, counts, word) = (url.address().unwrap(), Arc::new(Counts::default()), Arc::new(word));
    let each = Duration::from_secs(1) * CLIENTS / rate;
    for client in 0..CLIENTS {
        let (counts, word, is_last) = (counts.clone(), word.clone(), client % 2 == 0);
        let (request, first) = (url.request(is_last), Instant::now() + each * client / CLIENTS);
        thread::spawn(move || client_of_load(address, &request, &word, (first, each), &counts));
    }
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, COUNTS)).unwrap();
    answer(listener, move |path| counts.told(path[1..].parse().ok()));
}

#[allow(clippy::disallowed_methods, reason = "the rate is what the load is")]
fn client_of_load(
    address: SocketAddr,
    request: &str,
    word: &str,
    (mut due, each): (Instant, Duration),
    counts: &Counts,
) {
    let mut kept = None;
    loop {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // What could not be asked in time is left out, not caught up with.
        due = (due + each).max(Instant::now());
        let asked = Instant::now();
        let stream = kept.take().map_or_else(|| connect(address).map(BufReader::new), Ok);
        let answer = stream.and_then(|mut stream| exchange(&mut stream, request).map(|answer| (answer, stream)));
        let outcome = match answer {
            Ok((answer, stream)) => {
                if !answer.is_last {
                    kept = Some(stream);
                }
                let is_right = answer.status == "200" && answer.body == word;
                if is_right { Ok(()) } else { Err(format!("{} {:.200}", answer.status, answer.body)) }
            }
            Err(error) => Err(error.to_string()),
        };
        counts.count(asked, outcome);
    }
}
