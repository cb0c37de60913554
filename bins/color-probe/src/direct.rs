//! Asks one URL without anybody between, with HTTP/1.1 on connections of its own.

mod wire;

use crate::http::{Header, given};
use anyhow::Result;
use common::proxy::{Proxies, basic};
use common::{Dialed, Dialer, Error};
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use http::{Request, Uri};
use percent_encoding::percent_decode_str;
use std::error::Error as StdError;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use url::Url;
use wire::Reader;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Bytes that there is room for when something is read: as most answers are much shorter, one reading takes all of it.
const ROOM: usize = 8192;

/// Asks one URL; through a proxy where the environment says so.
pub struct Direct {
    dialer: Dialer,
    url: Uri,
    /// What the server is sent.
    request: Arc<[u8]>,
    /// What a proxy is sent that forwards it.
    forwarded: Arc<[u8]>,
    keep_alive: bool,
}

/// Connections that nobody asks on; the last used is the last. They are of the runtime in which they were made.
#[derive(Default)]
pub struct Idle(Mutex<Vec<Line>>);

impl Idle {
    fn pop(&self) -> Option<Line> {
        self.lock().pop()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Direct {
    /// Without `keep_alive` every request makes a connection of its own.
    ///
    /// # Errors
    /// The environment names a proxy that is none, or the URL is none of HTTP.
    pub fn new(url: &Url, headers: &[Header], keep_alive: bool) -> Result<Self> {
        let proxies = Proxies::from_environment()?;
        let (url, login) = whole(url)?;
        let mut request = Request::new(());
        let sent = request.headers_mut();
        sent.insert(ACCEPT, HeaderValue::from_static("*/*"));
        let host = url.authority().map(|host| host.as_str()).unwrap_or_default();
        sent.insert(HOST, HeaderValue::from_str(host)?);
        sent.extend(login.map(|login| (AUTHORIZATION, login)));
        // What is given takes the place of what would be sent, as it does for curl.
        headers.iter().for_each(|(name, _)| drop(sent.remove(name)));
        sent.extend(given(headers));
        let mut forwarded = request.clone();
        *request.uri_mut() = url.path_and_query().cloned().map(Uri::from).unwrap_or_default();
        *forwarded.uri_mut() = url.clone();
        proxies.authorize(&mut forwarded);
        let dialer = Dialer::new(proxies)?;
        Ok(Self { dialer, url, request: bytes(&request), forwarded: bytes(&forwarded), keep_alive })
    }

    /// Status and body of one answer; of a body that is too long, only the beginning. `None` if there is none by then.
    ///
    /// # Errors
    /// There is no connection, or no answer on it.
    pub async fn get(&self, idle: &Idle, end: Instant) -> Result<Option<(u16, Vec<u8>)>, BoxError> {
        while let Some(line) = idle.pop() {
            // One that the server has closed meanwhile is found out by asking.
            match self.ask(line, idle, end).await? {
                Outcome::Unsent => {}
                Outcome::Answered(status, body) => return Ok(Some((status, body))),
                Outcome::Late => return Ok(None),
            }
        }
        let Ok(line) = timeout_at(end, self.dial()).await else { return Ok(None) };
        match self.ask(line?, idle, end).await? {
            Outcome::Unsent => Err("the connection was closed before anything was sent".into()),
            Outcome::Answered(status, body) => Ok(Some((status, body))),
            Outcome::Late => Ok(None),
        }
    }

    /// Asks on this connection, and keeps it if it can be asked on again.
    async fn ask(&self, mut line: Line, idle: &Idle, end: Instant) -> Result<Outcome, BoxError> {
        let asked = line.ask(end).await?;
        if !self.keep_alive {
            line.close();
        } else if line.goes_on {
            idle.lock().push(line);
        }
        Ok(asked)
    }

    async fn dial(&self) -> Result<Line, BoxError> {
        let (connection, forwards) = self.dialer.dial(self.url.clone()).await?;
        let request = if forwards { &self.forwarded } else { &self.request };
        let alarm = Alarm(Box::pin(sleep(Duration::MAX)));
        Ok(Line { connection, alarm, request: request.clone(), brought: Vec::new(), goes_on: true })
    }
}

/// A request without a body as HTTP/1.1 writes it.
fn bytes(request: &Request<()>) -> Arc<[u8]> {
    let mut bytes = format!("GET {} HTTP/1.1\r\n", request.uri()).into_bytes();
    for (name, value) in request.headers() {
        let header = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
        header.iter().for_each(|part| bytes.extend_from_slice(part));
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

/// A URL without what is not sent as a part of it, and the login that it holds.
fn whole(url: &Url) -> Result<(Uri, Option<HeaderValue>)> {
    let decoded = |text| percent_decode_str(text).decode_utf8_lossy();
    let (user, password) = (decoded(url.username()), url.password().map(decoded));
    let has_login = !user.is_empty() || password.is_some();
    let login = has_login.then(|| basic(&user, &password.unwrap_or_default())).flatten();
    let mut whole = url.clone();
    // An http URL has a host, so that both can be taken away.
    let _ = (whole.set_username(""), whole.set_password(None));
    whole.set_fragment(None);
    let parsed = whole.as_str().parse();
    Ok((parsed.map_err(|error| Error::input(format!("{whole} is no URL of HTTP: {error}")))?, login))
}

/// What came of asking on a connection.
enum Outcome {
    /// The connection was closed before anything was sent.
    Unsent,
    /// Status and body.
    Answered(u16, Vec<u8>),
    /// No answer in time.
    Late,
}

/// A connection, and what is asked on it.
struct Line {
    connection: Box<dyn Dialed>,
    alarm: Alarm,
    request: Arc<[u8]>,
    /// What has come since the last request.
    brought: Vec<u8>,
    /// Whether it may be asked on again.
    goes_on: bool,
}

impl Line {
    async fn ask(&mut self, end: Instant) -> Result<Outcome, BoxError> {
        let Self { connection, alarm, request, brought, goes_on } = self;
        *goes_on = false;
        let asked = async {
            others_first().await;
            if stirs(connection).await {
                return Ok(Outcome::Unsent);
            }
            connection.write_all(request).await?;
            connection.flush().await?;
            brought.clear();
            let mut reader = Reader::default();
            loop {
                brought.reserve(ROOM);
                let ended = connection.read_buf(brought).await? == 0;
                if let Some(read) = reader.read(brought, ended)? {
                    *goes_on = read.goes_on;
                    return Ok(Outcome::Answered(read.status, read.body));
                }
            }
        };
        alarm.limit(asked, end).await.unwrap_or(Ok(Outcome::Late))
    }

    /// Tells the server, without waiting for it.
    fn close(mut self) {
        // What comes of it is no matter: the connection is dropped.
        let _ = Pin::new(&mut self.connection).poll_shutdown(&mut Context::from_waker(Waker::noop()));
    }
}

/// Whether something comes on a connection though nothing was asked, most likely its end.
async fn stirs(connection: &mut Box<dyn Dialed>) -> bool {
    let mut room = [0];
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *connection).poll_read(cx, &mut ReadBuf::new(&mut room)).is_ready())).await
}

/// Lets the other tasks go on that can. They then have read all answers before the first of them writes its next
/// request: a server that is woken for several at once serves more of them.
async fn others_first() {
    let mut first = true;
    poll_fn(|cx| {
        if std::mem::take(&mut first) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

/// A timer for one request after the other. It is set anew only when it rings, or would ring too late: most answers
/// come long before.
struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    /// What the future brings; `None` if it has not by then.
    async fn limit<T>(&mut self, future: impl Future<Output = T>, end: Instant) -> Option<T> {
        let mut future = pin!(future);
        if self.0.deadline() > end {
            self.0.as_mut().reset(end);
        }
        poll_fn(|cx| {
            if let Poll::Ready(brought) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(brought));
            }
            while self.0.as_mut().poll(cx).is_ready() {
                if self.0.deadline() >= end {
                    return Poll::Ready(None);
                }
                self.0.as_mut().reset(end);
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::http::header;
    use tokio::net::TcpListener;
    use tokio::task::yield_now;

    #[tokio::test]
    async fn a_connection_that_was_closed_meanwhile_is_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let direct = Direct::new(&url, &[], true).unwrap();
        let idle = Idle::default();
        for _ in 0..3 {
            let serve = async {
                let mut stream = listener.accept().await.unwrap().0;
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nred").await.unwrap();
                stream
            };
            let (stream, answer) = tokio::join!(serve, direct.get(&idle, Instant::now() + Duration::from_secs(60)));
            assert_eq!(answer.unwrap(), Some((200, b"red".to_vec())));
            assert_eq!(idle.lock().len(), 1);
            drop(stream);
            // Then the runtime looks at its sockets.
            yield_now().await;
        }
    }

    #[test]
    fn a_header_that_is_given_takes_the_place_of_another() {
        for (url, headers, expected) in [
            ("http://h/", &[][..], &["accept: */*", "host: h"][..]),
            ("http://u:p@h/", &[], &["accept: */*", "authorization: Basic dTpw", "host: h"]),
            ("http://u:p@h/", &["Authorization: Bearer t"], &["accept: */*", "authorization: Bearer t", "host: h"]),
            ("http://u:p@h/", &["authorization:"], &["accept: */*", "host: h"]),
            ("http://h/", &["Accept:", "Host: shop", "X-A: 1", "X-A: 2"], &["host: shop", "x-a: 1", "x-a: 2"]),
            ("http://h/", &["Accept;", "X-None:"], &["accept: ", "host: h"]),
        ] {
            let headers: Vec<Header> = headers.iter().map(|text| header(text).unwrap()).collect();
            let direct = Direct::new(&url.parse().unwrap(), &headers, true).unwrap();
            let text = String::from_utf8(direct.request.to_vec()).unwrap();
            let mut lines: Vec<&str> = text.lines().skip(1).filter(|line| !line.is_empty()).collect();
            lines.sort_unstable();
            assert_eq!(lines, expected, "{url} {headers:?}");
        }
    }

    #[tokio::test]
    async fn an_alarm_rings_when_it_was_last_set_for() {
        let mut alarm = Alarm(Box::pin(sleep(Duration::MAX)));
        let silence = || std::future::pending::<()>();
        let begin = Instant::now();
        let end = |millis| begin + Duration::from_millis(millis);
        assert_eq!(alarm.limit(silence(), end(20)).await, None);
        assert!(Instant::now() >= end(20));
        assert_eq!(alarm.limit(async { 1 }, end(20)).await, Some(1), "what is there is not late");
        assert_eq!(alarm.limit(yield_now(), begin + Duration::from_secs(60)).await, Some(()));
        assert_eq!(alarm.limit(silence(), end(40)).await, None, "earlier than set before");
        assert!(Instant::now() >= end(40));
    }
}
