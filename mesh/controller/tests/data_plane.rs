//! Tries what an application does with its network once as it is and once through its Envoy, with the real redirect and the
//! real Envoy: what the server reads, and what the client reads, must be the same but for the headers that Envoy adds.
//!
//! Here Envoy is root, whose connections are not redirected: a client of root shows how things are without the mesh. The
//! pod's network needs root, and Envoy is the one of $ENVOY or in PATH.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]
#![expect(clippy::print_stdout, reason = "a test that says what it saw")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use appmesh_controller::{
    envoy::{self, Settings},
    model::{
        Backend, CloudMapDiscovery, Discovery, Egress, Listener, PackedMap, Port, Protocol, Proxy, Route,
        RoutedListener, Routing, ServiceKey, Target, Upstream, Workload,
    },
    xds::{self, Snapshot},
};
use backon::{BlockingRetryable as _, ConstantBuilder};
use tests::{
    pod::{Pod, as_user},
    program,
    report::IN_A_CLUSTER,
};

#[path = "support/controller.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod controller;
#[path = "data_plane/http2.rs"]
mod http2;
#[path = "data_plane/nothing_lost.rs"]
mod nothing_lost;
mod support;
#[path = "data_plane/tls.rs"]
mod tls;

use controller::{Controller, STATS_PORT, envoy, workload_name};
use http2::HTTP2;
use support::certificates;

/// The node's addresses.
const NODE: &str = "10.77.0.1";
const NODE_TOO: &str = "10.77.0.9";
/// The pod's address.
const POD: &str = "10.77.0.2";
const BACKEND: &str = "back.shop.svc.cluster.local";
/// The node, the pod and the pod to itself, by IPv4 and by IPv6.
const V4: [&str; 3] = [NODE, POD, "127.0.0.1"];
const V6: [&str; 3] = ["fd77::1", "fd77::2", "::1"];
/// Users.
const ENVOY: u32 = 0;
const APPLICATION: u32 = 1000;
/// Port of the application in the pod, which the mesh knows, and of the backend.
const LISTENER: Port = Port { port: 8080, protocol: Protocol::Http };
/// A port of the pod that the mesh does not know.
const BESIDE: u16 = 9090;
/// Longer than nothing happens in any conversation, and shorter than the five seconds in which Envoy waits for a protocol.
const PATIENCE: Duration = Duration::from_secs(4);

/// What stands above the table in `docs/data-plane.md`.
const DOCS: &str = "\
# What an application can do in the mesh

Each line was tried without the mesh and through the pod's Envoy, there by IPv4 and by IPv6: to a backend, from outside into
the pod, and under `ALLOW_ALL` to a host that the mesh does not know. What the server reads, and what the client reads, must
be the same but for the headers that Envoy adds (`x-request-id`, `x-forwarded-proto`, `x-envoy-…`). The last column is what
becomes of it under `DROP_ALL`: HTTP that is refused gets an answer of 404, and other connections are closed. The table is
written by `mesh/controller/tests/data_plane.rs`, which fails if it does not hold.

Where the server speaks first, Envoy cannot tell what is spoken: on ports 21 to 25, 110, 143, 587 and 3306 it does not try;
on others such a connection waits five seconds, unless the pod's annotation `appmesh.k8s.aws/egressIgnoredPorts` names the
port. A client that closes its side of such a connection in the same moment in which it has sent its first bytes may find
the connection closed.

A request that may be sent twice (GET, HEAD, OPTIONS, TRACE, PUT, DELETE) is sent again, up to twice, where its connection
ends before the answer, be it that of a pod that is no more or one that the application closed; others only where nothing
of them was sent, and all of them after an answer of 503, unless the route has a `retryPolicy` of its own. Connections to
the application are closed after a second without a request, before the application does it. A pod that ends leaves Cloud
Map at once; its Envoy tells its callers to go, and stays until they have, have been silent for three seconds, or fifteen
seconds have passed. That of a VirtualGateway goes on for five seconds at least, for load balancers send it connections
until they have heard of its end. The pods of a lost node leave as soon as Kubernetes takes the condition `Ready` from them.
A pod that comes beside ready ones of its VirtualNode becomes ready itself when other clusters can have heard of it, four
seconds after it was registered (`cloudMap.maxPollInterval`, 1.5 s, and 2.5 more), and only then does a rollout take away an old one.
[Nothing lost](../bench/README.md#nothing-lost) is what that comes to under load.

What a pod's containers send is redirected to Envoy's port 15001 on the loopback interface, which nobody reaches from
outside: who did would speak to the mesh as that pod, with its certificate.

A VirtualGateway's Envoy believes the load balancer in front of it: the scheme of a request is that of `x-forwarded-proto`,
and the client's address the last of `x-forwarded-for`; without them it is that of the connection. So a client that reaches
the gateway's pods directly can state its own.

| what it does | to a backend | into the pod | to the outside | in the mesh | under `DROP_ALL` |
| --- | --- | --- | --- | --- | --- |
";

/// One side of a conversation: what it says, waits for and sees.
type Side = fn(&mut Talk) -> std::io::Result<()>;

/// What an application does.
struct Row {
    name: &'static str,
    /// Where it is tried.
    to: &'static [Direction],
    /// Where the server listens outside.
    port: u16,
    client: Side,
    server: Side,
    /// Why it is otherwise in the mesh; empty if it is the same.
    differs: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// To a host that the mesh routes.
    Backend,
    /// From outside to the pod itself.
    Inbound,
    /// To a host that the mesh does not know, which its egress filter lets pass.
    Outside,
    /// From outside to a port of the pod that is no listener's.
    OtherPort,
    /// From one container of the pod to another.
    Loopback,
}

use Direction::{Backend as ToBackend, Inbound, Loopback, OtherPort, Outside};

const EVERYWHERE: &[Direction] = &[ToBackend, Inbound, Outside];

/// A connection, and what was seen on it.
struct Talk {
    stream: BufReader<TcpStream>,
    host: &'static str,
    seen: Vec<String>,
}

impl Talk {
    fn new(stream: TcpStream, host: &'static str) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream), host, seen: Vec::new() }
    }

    fn say(&mut self, text: &str) -> std::io::Result<()> {
        let text = text.replace("{host}", self.host);
        self.stream.get_mut().write_all(text.as_bytes())
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Reads and notes the head of a message, sorted, but for what Envoy adds or what is between two neighbours only.
    fn head(&mut self) -> std::io::Result<BTreeMap<String, String>> {
        let first = self.line()?;
        // An answer to HTTP/1.0 may be of HTTP/1.1, and a request is.
        self.seen.push(first.replace("HTTP/1.0", "HTTP/1.1"));
        let (mut headers, mut shown) = (BTreeMap::new(), Vec::new());
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let lower = name.to_lowercase();
            headers.insert(lower.clone(), value.trim().to_owned());
            let hop =
                ["connection", "keep-alive", "date", "x-request-id", "x-forwarded-proto", "upgrade", "http2-settings"];
            if !hop.contains(&lower.as_str()) && !lower.starts_with("x-envoy-") {
                shown.push(format!("{name}: {}", value.trim()));
            }
        }
        shown.sort();
        self.seen.extend(shown);
        Ok(headers)
    }

    /// Reads and notes a message with its body.
    fn message(&mut self) -> std::io::Result<()> {
        let headers = self.head()?;
        if let Some(length) = headers.get("content-length").and_then(|length| length.parse().ok()) {
            self.body(length)?;
        } else if headers.contains_key("transfer-encoding") {
            self.chunks()?;
        }
        Ok(())
    }

    fn body(&mut self, length: usize) -> std::io::Result<()> {
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let text = String::from_utf8_lossy(&body);
        self.seen.push(if length > 100 { format!("{length} bytes") } else { text.into_owned() });
        Ok(())
    }

    /// Notes what a chunk holds.
    fn chunk(&mut self) -> std::io::Result<()> {
        let chunk = self.read_chunk()?;
        self.seen.push(String::from_utf8_lossy(&chunk).into_owned());
        Ok(())
    }

    /// Reads a chunk; the last is empty, and trailers follow it.
    fn read_chunk(&mut self) -> std::io::Result<Vec<u8>> {
        let length = usize::from_str_radix(&self.line()?, 16).map_err(|_| ErrorKind::InvalidData)?;
        let mut chunk = vec![0; length];
        self.stream.read_exact(&mut chunk)?;
        if length > 0 {
            self.line()?;
        }
        Ok(chunk)
    }

    /// Notes what the chunks hold together, and the trailers.
    fn chunks(&mut self) -> std::io::Result<()> {
        let mut body = Vec::new();
        loop {
            let chunk = self.read_chunk()?;
            if chunk.is_empty() {
                break;
            }
            body.extend(chunk);
        }
        self.seen.push(String::from_utf8_lossy(&body).into_owned());
        loop {
            match self.line()?.as_str() {
                "" => return Ok(()),
                // Only of headers Envoy keeps the case.
                trailer => self.seen.push(format!("trailer {}", trailer.to_lowercase())),
            }
        }
    }

    /// Notes bytes.
    fn bytes(&mut self, length: usize) -> std::io::Result<()> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        self.seen.push(String::from_utf8_lossy(&bytes).into_owned());
        Ok(())
    }

    /// Notes what comes until the other side ends.
    fn rest(&mut self) -> std::io::Result<()> {
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest)?;
        self.seen.push(format!("{rest} and the end"));
        Ok(())
    }

    fn end_writing(&mut self) -> std::io::Result<()> {
        self.stream.get_mut().shutdown(Shutdown::Write)
    }

    /// What was seen, and how it went.
    fn told(mut self, outcome: std::io::Result<()>) -> Vec<String> {
        if let Err(error) = outcome {
            self.seen.push(format!("then {:?}", error.kind()));
        }
        self.seen
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn answers(talk: &mut Talk) -> std::io::Result<()> {
    while talk.message().is_ok() {
        talk.say(OK)?;
    }
    Ok(())
}

fn answer(talk: &mut Talk) -> std::io::Result<()> {
    talk.message()?;
    talk.say(OK)
}

fn rows() -> Vec<Row> {
    let row = |name, to, client: Side, server: Side| Row { name, to, port: LISTENER.port, client, server, differs: "" };
    vec![
        row(
            "a request",
            EVERYWHERE,
            |c| {
                c.say("GET /a?b=c HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
                c.message()
            },
            answer,
        ),
        row(
            "HTTP/1.0",
            EVERYWHERE,
            |c| {
                c.say("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
                c.message()
            },
            answer,
        ),
        row(
            "HTTP/1.0 kept alive",
            EVERYWHERE,
            |c| {
                for _ in 0..2 {
                    c.say("GET / HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n")?;
                    c.message()?;
                }
                Ok(())
            },
            answers,
        ),
        row(
            "two requests at once",
            EVERYWHERE,
            |c| {
                c.say("GET /1 HTTP/1.1\r\nHost: {host}\r\n\r\nGET /2 HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
                c.message()?;
                c.message()
            },
            answers,
        ),
        row(
            "the host with its port",
            EVERYWHERE,
            |c| {
                c.say("GET / HTTP/1.1\r\nHost: {host}:8080\r\n\r\n")?;
                c.message()
            },
            answer,
        ),
        row(
            "header names in their case",
            EVERYWHERE,
            |c| {
                c.say("GET / HTTP/1.1\r\nHost: {host}\r\nX-Trace-ID: 1\r\nSOAPAction: x\r\n\r\n")?;
                c.message()
            },
            |s| {
                s.message()?;
                s.say("HTTP/1.1 299 Fine By Me\r\nSERVER: mine\r\nETag: x\r\nContent-Length: 0\r\n\r\n")
            },
        ),
        row(
            "HEAD",
            EVERYWHERE,
            |c| {
                c.say("HEAD / HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
                c.head().map(drop)
            },
            |s| {
                s.message()?;
                s.say("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
            },
        ),
        row(
            "a method of its own",
            EVERYWHERE,
            |c| {
                c.say("PROPFIND / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n")?;
                c.message()
            },
            answer,
        ),
        row(
            "chunks with trailers, both ways",
            EVERYWHERE,
            |c| {
                c.say("POST / HTTP/1.1\r\nHost: {host}\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                c.say("3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n")?;
                c.message()
            },
            |s| {
                s.message()?;
                s.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Took: 1\r\n\r\n")
            },
        ),
        row(
            "a body that waits for 100",
            EVERYWHERE,
            |c| {
                c.say("PUT / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")?;
                c.head()?;
                c.say("body")?;
                c.message()
            },
            |s| {
                s.head()?;
                s.say("HTTP/1.1 100 Continue\r\n\r\n")?;
                s.body(4)?;
                s.say(OK)
            },
        ),
        row(
            "a body that is not asked for",
            EVERYWHERE,
            |c| {
                c.say("PUT / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")?;
                c.message()
            },
            |s| {
                s.head()?;
                s.say("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
            },
        ),
        row(
            "an offer to speak TLS",
            EVERYWHERE,
            |c| {
                c.say("GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: TLS/1.2\r\nConnection: Upgrade\r\n\r\n")?;
                c.message()
            },
            answer,
        ),
        row(
            "an offer to speak HTTP/2",
            EVERYWHERE,
            |c| {
                c.say("GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n")?;
                c.say("HTTP2-Settings: AAMAAABk\r\n\r\n")?;
                c.message()
            },
            answer,
        ),
        row(
            "a websocket",
            EVERYWHERE,
            |c| {
                c.say("GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")?;
                c.head()?;
                c.say("ping")?;
                c.bytes(4)
            },
            |s| {
                s.head()?;
                s.say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")?;
                s.bytes(4)?;
                s.say("pong")
            },
        ),
        row(
            "a stream of events, each answered",
            EVERYWHERE,
            |c| {
                c.say("POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                c.head()?;
                c.chunk()?;
                c.say("5\r\nheard\r\n")?;
                c.chunk()
            },
            |s| {
                s.head()?;
                s.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                s.say("7\r\nevent 1\r\n")?;
                s.chunk()?;
                s.say("7\r\nevent 2\r\n")
            },
        ),
        row(
            "headers of 60 kB",
            EVERYWHERE,
            |c| {
                let long = "x".repeat(60_000);
                c.say(&format!("GET / HTTP/1.1\r\nHost: {{host}}\r\nCookie: {long}\r\n\r\n"))?;
                c.message()
            },
            answer,
        ),
        row(
            "a body of 10 MB",
            EVERYWHERE,
            |c| {
                let long = "x".repeat(10_000_000);
                c.say("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10000000\r\n\r\n")?;
                c.say(&long)?;
                c.message()
            },
            answer,
        ),
        row(
            "a body of 100 MB",
            &[ToBackend],
            |c| {
                let part = "x".repeat(1_000_000);
                c.say("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000000\r\n\r\n")?;
                (0..100).try_for_each(|_| c.say(&part))?;
                c.message()
            },
            answer,
        ),
        row(
            "a body that comes byte by byte",
            EVERYWHERE,
            |c| {
                c.stream.get_ref().set_nodelay(true)?;
                c.say("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 50\r\n\r\n")?;
                (0..50).try_for_each(|_| c.say("x"))?;
                c.message()
            },
            answer,
        ),
        row(
            "a request to a port that no listener has",
            &[OtherPort],
            |c| {
                c.say("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
                c.message()
            },
            answer,
        ),
        row(
            "a request from one container to another",
            &[Loopback],
            |c| {
                c.say("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
                c.message()
            },
            answer,
        ),
        row(
            "a name of a StatefulSet's pod, or an ExternalName",
            &[Outside],
            |c| {
                c.say("GET / HTTP/1.1\r\nHost: db-0.db.shop.svc.cluster.local\r\n\r\n")?;
                c.message()
            },
            answer,
        ),
        Row {
            port: 443,
            ..row("TLS with certificates of both sides, SNI and ALPN", &[Outside], tls::client, tls::server)
        },
        Row {
            port: 53,
            ..row(
                "DNS over TCP",
                &[Outside],
                |c| {
                    c.say("\0\u{4}ask?")?;
                    c.bytes(4)
                },
                |s| {
                    s.bytes(6)?;
                    s.say("\0\u{2}ok")
                },
            )
        },
        Row {
            differs: "Envoy takes it for the end of the connection, and the request is not answered: a client that shuts its \
                      side down must wait for the answer first",
            ..row(
                "a request, then half closed",
                EVERYWHERE,
                |c| {
                    c.say("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
                    c.end_writing()?;
                    c.message()
                },
                |s| {
                    s.message()?;
                    s.rest()?;
                    s.say(OK)
                },
            )
        },
        Row {
            differs: "Envoy ignores the offer, and the answer is of HTTP/1.1, as the client must expect: a listener of `http2` \
                      takes HTTP/2 by prior knowledge",
            ..row(
                "an offer to speak HTTP/2 that is taken",
                EVERYWHERE,
                |c| {
                    c.say("GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n")?;
                    c.say("HTTP2-Settings: AAMAAABk\r\n\r\n")?;
                    c.head().map(drop)
                },
                |s| {
                    let headers = s.head()?;
                    let offered = headers.get("upgrade").is_some_and(|upgrade| upgrade == "h2c");
                    let taken = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n";
                    s.say(if offered { taken } else { OK })
                },
            )
        },
        Row {
            differs: "Envoy sends the path alone, which a forward proxy refuses: name the proxy's port in the pod's annotation \
                      `appmesh.k8s.aws/egressIgnoredPorts`",
            ..row(
                "a request through a proxy outside",
                &[Outside],
                |c| {
                    c.say("GET http://{host}/a HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
                    c.message()
                },
                answer,
            )
        },
        row(
            "a tunnel through a proxy outside",
            &[Outside],
            |c| {
                c.say("CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n")?;
                c.head()?;
                c.say("hello")?;
                c.bytes(5)
            },
            |s| {
                s.head()?;
                s.say("HTTP/1.1 200 OK\r\n\r\n")?;
                s.bytes(5)?;
                s.say("world")
            },
        ),
        row(
            "bytes that are no HTTP, then half closed",
            &[Outside],
            |c| {
                c.say("\u{1}\u{2}\u{3} bytes")?;
                c.bytes(2)?;
                c.end_writing()?;
                c.rest()
            },
            |s| {
                s.bytes(9)?;
                s.say("hi")?;
                s.rest()?;
                s.say("bye")
            },
        ),
        Row {
            port: 3306,
            ..row(
                "a server that speaks first",
                &[Outside],
                |c| {
                    c.bytes(5)?;
                    c.say("login")?;
                    c.bytes(2)
                },
                |s| {
                    s.say("8.0.1")?;
                    s.bytes(5)?;
                    s.say("ok")
                },
            )
        },
    ]
}

/// Serves every connection until `done`, and returns what was seen on them: Envoy may take another for the next request.
fn serve(listener: TcpListener, host: &'static str, side: Side, done: Arc<AtomicBool>) -> JoinHandle<Vec<String>> {
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let mut served = Vec::new();
        let accept = || match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                let (connection, same) = (stream.try_clone().unwrap(), stream.try_clone().unwrap());
                let conversation = move || {
                    let seen = ask(stream, host, side);
                    // Dropping it would not end it, for there is a second handle. The client may have gone already.
                    let _ = same.shutdown(Shutdown::Both);
                    seen
                };
                served.push((connection, thread::spawn(conversation)));
                Err(())
            }
            Err(_) if done.load(Ordering::Acquire) => Ok(()),
            Err(_) => Err(()),
        };
        let often = ConstantBuilder::default().with_delay(Duration::from_millis(2)).with_max_times(10_000);
        accept.retry(often).call().unwrap();
        let ended = served.into_iter().flat_map(|(connection, seen)| {
            // It may wait for a request that does not come.
            let _ = connection.shutdown(Shutdown::Read);
            seen.join().unwrap()
        });
        ended.collect()
    })
}

fn ask(stream: TcpStream, host: &'static str, side: Side) -> Vec<String> {
    let mut talk = Talk::new(stream, host);
    let outcome = side(&mut talk);
    talk.told(outcome)
}

/// Listens at an address. A process that another test starts holds what is open here until it becomes another program, so
/// that a port may still be listened on for a moment after its listener has gone.
fn listen(address: impl ToSocketAddrs) -> TcpListener {
    let often = ConstantBuilder::default().with_delay(Duration::from_millis(2)).with_max_times(5_000);
    let bind = || TcpListener::bind(&address);
    bind.retry(often).when(|error| error.kind() == ErrorKind::AddrInUse).call().unwrap()
}

/// One conversation: what the client saw and what the server saw.
fn conversation(pod: &Pod, row: &Row, direction: Direction, is_mesh: bool, family: [&str; 3]) -> [Vec<String>; 2] {
    let [of_node, of_pod, to_itself] = family;
    let host = if direction == Outside { "example.com" } else { BACKEND };
    let port = match (direction, is_mesh) {
        (Inbound, false) | (OtherPort, _) => BESIDE,
        _ => row.port,
    };
    let connect = |ip| TcpStream::connect((ip, port)).unwrap();
    let bind = || listen(("::", port));
    let client_of_pod = |ip| Ok(as_user(if is_mesh { APPLICATION } else { ENVOY }, || connect(ip)));
    let (server, client) = if matches!(direction, Inbound | OtherPort) {
        (bind(), pod.on_the_node(|| connect(of_pod)))
    } else if direction == Loopback {
        (bind(), client_of_pod(to_itself))
    } else {
        let server = pod.on_the_node(bind).unwrap();
        (server, client_of_pod(of_node))
    };
    let done = Arc::new(AtomicBool::new(false));
    let served = serve(server, host, row.server, done.clone());
    let seen = ask(client.unwrap(), host, row.client);
    done.store(true, Ordering::Release);
    [seen, served.join().unwrap()]
}

/// The backend's pods are at these addresses.
fn snapshot(addresses: &[&str]) -> Snapshot {
    snapshot_of(addresses, Egress::AllowAll)
}

fn snapshot_of(addresses: &[&str], egress: Egress) -> Snapshot {
    let key = ServiceKey { namespace: "shop".to_owned(), service: "back".to_owned() };
    let discovery = Discovery::CloudMap(CloudMapDiscovery { key, attributes: PackedMap::default() });
    let (mut listeners, mut upstreams) = (Vec::new(), BTreeMap::new());
    for (name, port) in [("back", LISTENER), ("back:50051", HTTP2)] {
        upstreams.insert(name.to_owned(), Upstream::new(port, discovery.clone()));
        let targets = vec![Target { upstream: name.to_owned(), weight: 1 }];
        listeners.push(RoutedListener { port, routes: vec![Route::of_everything("all".to_owned(), targets)] });
    }
    let routing = Routing { listeners, upstreams };
    let workload = Workload {
        name: workload_name(),
        listeners: [LISTENER, HTTP2].map(Listener::new).to_vec(),
        egress,
        access_log: None,
        backends: vec![Backend::new("k8multi".to_owned(), BACKEND.to_owned(), Some(Arc::new(routing)))],
        left_out: Vec::new(),
    };
    let settings = Settings { ipv6: true, ..Settings::default() };
    let configuration = envoy::encode(&Proxy::Sidecar(workload), settings);
    let instance = |address: &&str| {
        let attributes = PackedMap::from([("AWS_INSTANCE_IPV4", *address)]);
        ((*address).to_owned(), Arc::new(attributes))
    };
    let instances = addresses.iter().map(instance).collect();
    let upstreams = configuration.upstreams.iter();
    let endpoints =
        upstreams.map(|(name, upstream)| (name.clone(), envoy::endpoint::encode(name, upstream, &instances)));
    Snapshot {
        endpoints: endpoints.collect(),
        clusters: configuration.clusters,
        listeners: configuration.listeners,
        secrets: configuration.secrets,
        routes: configuration.routes,
        ..Snapshot::default()
    }
}

/// Inside the pod all of Envoy's administration is there, and from outside only what shows how it is.
fn administration(pod: &Pod) {
    let status = |ip: &str, path: &str| {
        let mut talk = Talk::new(TcpStream::connect((ip, STATS_PORT)).unwrap(), "localhost");
        talk.say(&format!("GET {path} HTTP/1.1\r\nHost: {{host}}\r\n\r\n")).unwrap();
        talk.line().unwrap()
    };
    let shown = ["/ready", "/stats", "/stats/prometheus"].map(|path| (path, "200 OK"));
    let hidden = ["/clusters", "/listeners", "/certs", "/config_dump"].map(|path| (path, "404 Not Found"));
    for (path, expected) in shown.into_iter().chain(hidden) {
        assert_eq!(status("127.0.0.1", path), "HTTP/1.1 200 OK", "{path}");
        assert_eq!(pod.on_the_node(|| status(POD, path)).unwrap(), format!("HTTP/1.1 {expected}"), "{path}");
    }
}

fn redirect() {
    let redirect = Command::new(program("capture"))
        .env("APPMESH_START_ENABLED", "1")
        .env("APPMESH_IGNORE_UID", ENVOY.to_string())
        .env("APPMESH_ENVOY_INGRESS_PORT", envoy::INGRESS_PORT.to_string())
        .env("APPMESH_ENVOY_EGRESS_PORT", envoy::EGRESS_PORT.to_string())
        .env("APPMESH_APP_PORTS", format!("{},{}", LISTENER.port, HTTP2.port))
        .env("APPMESH_EGRESS_IGNORED_IP", "")
        .env("APPMESH_EGRESS_IGNORED_PORTS", "22")
        .env("APPMESH_ENABLE_IPV6", "1")
        .status();
    assert!(redirect.unwrap().success());
}

/// An Envoy in the pod's network, and its controller.
struct Running {
    // Apart from the threads of the conversations, which block, and in the pod's network as they are.
    runtime: tokio::runtime::Runtime,
    controller: Controller,
    envoy: tokio::process::Child,
    _folder: tempfile::TempDir,
}

impl Running {
    /// Starts them, with the pod's traffic redirected; `None` if there is no Envoy.
    fn start() -> Option<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let Some((controller, envoy)) = runtime.block_on(start(folder.path())) else {
            println!("not tested: there is no envoy in PATH, and ENVOY names none, as `make test` does");
            return None;
        };
        redirect();
        Some(Self { runtime, controller, envoy, _folder: folder })
    }
}

/// Starts Envoy in the pod's network; `None` if there is no Envoy.
async fn start(folder: &Path) -> Option<(Controller, tokio::process::Child)> {
    let ca = certificates(folder);
    let controller = Controller::start(folder, 0, None).await;
    controller.set(snapshot(&[NODE]));
    let child = envoy(folder, xds::Protocol::Delta, controller.address, &ca)?;
    controller.settled().await;
    Some((controller, child))
}

#[test]
fn an_application_does_in_the_mesh_what_it_did_outside() {
    Pod::with("an_application_does_in_the_mesh_what_it_did_outside", |pod| {
        let Some(running) = Running::start() else { return };
        administration(pod);
        let (mut differences, mut table) = (Vec::new(), Vec::new());
        let mut compare = |name: &str, tried, differs: &str, [without, with]: [&[Vec<String>; 2]; 2]| {
            if (with == without) != differs.is_empty() {
                differences.push(format!("{name}, {tried:?}\n  without {without:?}\n  with    {with:?}"));
            }
        };
        let tried = |to: &[Direction], directions: &[Direction]| {
            let is_tried = directions.iter().any(|direction| to.contains(direction));
            (if is_tried { "tried" } else { "" }).to_owned()
        };
        let cells = |name: &str, to: &[Direction], differs: &str| {
            let columns: [&[Direction]; 3] = [&[ToBackend], &[Inbound, OtherPort, Loopback], &[Outside]];
            let outcome = if differs.is_empty() { "the same" } else { differs };
            let columns = columns.map(|directions| tried(to, directions));
            [&[name.to_owned()][..], &columns, &[outcome.to_owned()]].concat()
        };
        let mut outside = Vec::new();
        for row in rows() {
            for direction in row.to {
                let without = conversation(pod, &row, *direction, false, V4);
                for family in [V4, V6] {
                    let with = conversation(pod, &row, *direction, true, family);
                    compare(row.name, (*direction, family), row.differs, [&without, &with]);
                }
                if *direction == Outside {
                    outside.push((table.len(), without));
                }
            }
            table.push(cells(row.name, row.to, row.differs));
        }
        for call in http2::CALLS {
            for direction in EVERYWHERE {
                let without = http2::call(pod, &running, call, *direction, false, V4);
                for family in [V4, V6] {
                    let with = http2::call(pod, &running, call, *direction, true, family);
                    compare(call.name, (*direction, family), "", [&without, &with]);
                }
            }
            table.push(cells(call.name, EVERYWHERE, ""));
        }
        running.controller.set(snapshot_of(&[NODE], Egress::DropAll));
        running.runtime.block_on(running.controller.settled());
        let rows = rows();
        for (index, without) in outside {
            let with = conversation(pod, &rows[index], Outside, true, V4);
            let [client, server] = &with;
            let is_refused = |first: &String| first.contains(" 404 ") || first.starts_with("then ");
            let cell = if with == without {
                "the same"
            } else {
                assert!(server.is_empty() && client.first().is_some_and(is_refused), "{}: {with:?}", rows[index].name);
                "refused"
            };
            table[index].push(cell.to_owned());
        }
        let table: String = table.iter().fold(String::new(), |mut text, cells| {
            let none = if cells.len() < 6 { vec![String::new()] } else { Vec::new() };
            writeln!(text, "| {} |", [cells.as_slice(), &none].concat().join(" | ")).unwrap();
            text
        });
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        let docs = tests::root().join("docs/data-plane.md");
        let text = std::fs::read_to_string(&docs).unwrap();
        // Another test writes the rest.
        let rest = text.find(IN_A_CLUSTER).map(|start| &text[start..]).unwrap_or_default();
        snapbox::assert_data_eq!(format!("{DOCS}{table}{rest}"), snapbox::Data::read_from(&docs, None).raw());
    });
}
