//! Every client of every tool goes through the proxy that the environment or a kubeconfig names, and past it where NO_PROXY
//! says so; and trusts whom the environment names. Proxies and servers listen on the loopback interface, the names are those
//! of nobody: only a proxy can reach them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may stop at the first surprise")]

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tempfile::TempDir;
use tests::peer::{Peer, head, header, read, refuse};
use tests::{error, feed, program};

/// Who asks: a tool of each client, given a URL of a server `HOST:PORT` of this scheme.
const CLIENTS: [&str; 4] = ["aws", "kubernetes", "probe", "registry"];

/// What a client asked a proxy for.
fn asks(client: &str, scheme: &str, kind: &str) -> String {
    let host = if client == "registry" { "registry.example" } else { "server.example" };
    let port = if scheme == "https" { 443 } else { 80 };
    match (kind, scheme) {
        ("socks5", _) => format!("SOCKS5 {host}:{port} user:pass word"),
        // RFC 9112, 3.2.2: what is forwarded is asked for by its whole URL.
        (_, "http") => format!("http://{host}/ Basic dXNlcjpwYXNzIHdvcmQ="),
        _ => format!("CONNECT {host}:{port} Basic dXNlcjpwYXNzIHdvcmQ="),
    }
}

#[test]
fn every_client_asks_the_proxy_for_its_scheme() {
    let world = World::new();
    for (variable, scheme, kind, prefix) in [
        ("HTTPS_PROXY", "https", "http", "http://"),
        ("https_proxy", "https", "http", ""),
        ("https_proxy", "https", "socks5", "socks5://"),
        ("HTTP_PROXY", "http", "http", "http://"),
        ("http_proxy", "http", "socks5", "socks5h://"),
    ] {
        // A registry is asked by https only.
        for client in CLIENTS.into_iter().filter(|client| scheme == "https" || *client != "registry") {
            let proxy = proxy(None, None);
            let value = format!("{prefix}user:pass%20word@{}", proxy.address);
            let run = world.ask(client, &format!("{scheme}://server.example"), &[(variable, &value)]);
            let asked = proxy.asked();
            assert_eq!(asked.first(), Some(&asks(client, scheme, kind)), "{variable}={value} {client}: {}", run.stderr);
            assert!(
                !run.stderr.contains("pass word") && !run.stderr.contains("pass%20word"),
                "{client}: {}",
                run.stderr
            );
        }
    }
}

#[test]
fn no_client_asks_a_proxy_for_what_no_proxy_lists() {
    let world = World::new();
    for (variable, list) in [("NO_PROXY", "other.example, .EXAMPLE"), ("no_proxy", "server.example:443,*.example:443")]
    {
        for client in CLIENTS {
            let proxy = proxy(None, None);
            let value = format!("http://{}", proxy.address);
            let variables = [("HTTPS_PROXY", value.as_str()), ("ALL_PROXY", value.as_str()), (variable, list)];
            let run = world.ask(client, "https://server.example", &variables);
            assert_ne!(run.exit, Some(0), "{client} has asked somebody");
            assert_eq!(proxy.asked(), Vec::<String>::new(), "{client}: {}", run.stderr);
        }
    }
    // Nor for anything where only proxies of other schemes are named.
    for client in CLIENTS {
        let proxy = proxy(None, None);
        let value = format!("http://{}", proxy.address);
        world.ask(client, "https://server.example", &[("HTTP_PROXY", &value), ("ALL_PROXY", &value)]);
        assert_eq!(proxy.asked(), Vec::<String>::new(), "{client}");
    }
}

#[test]
fn a_tunnel_leads_to_the_server_through_proxies_of_every_kind() {
    let world = World::new();
    let server = server(world.tls("server.example"));
    for (kind, tls) in [("http", None), ("https", Some(world.tls("127.0.0.1"))), ("socks5", None)] {
        for client in ["aws", "kubernetes", "probe"] {
            let proxy = proxy(tls.clone(), Some(server.address));
            let value = format!("{kind}://{}", proxy.address);
            let authority = world.authority.display().to_string();
            let variables = [("HTTPS_PROXY", value.as_str()), ("SSL_CERT_FILE", &authority)];
            let run = world.ask(client, "https://server.example", &variables);
            assert!(server.asked().contains(&"server.example".to_owned()), "{kind}: {client}: {}", run.stderr);
            assert!(!proxy.asked().is_empty(), "{kind}: {client}");
        }
        // A kubeconfig's own proxy comes before the environment's, and is asked whatever NO_PROXY says.
        let proxy = proxy(tls, Some(server.address));
        let authority = world.authority.display().to_string();
        let variables = [("HTTPS_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "*"), ("SSL_CERT_FILE", &authority)];
        let url = format!("proxy-url: '{kind}://{}', server: 'https://server.example'", proxy.address);
        let run = world.ask("kubernetes", &url, &variables);
        assert!(server.asked().contains(&"server.example".to_owned()), "{kind}: {}", run.stderr);
        assert!(!proxy.asked().is_empty(), "{kind}");
    }
}

#[test]
fn a_certificate_of_an_unknown_authority_is_told_with_what_to_do() {
    let world = World::new();
    let server = server(world.tls("localhost"));
    let authority = world.authority.display().to_string();
    for (client, variable) in [("aws", "AWS_CA_BUNDLE"), ("aws", "SSL_CERT_FILE"), ("probe", "SSL_CERT_FILE")] {
        let url = format!("https://localhost:{}", server.address.port());
        let run = world.ask(client, &url, &[]);
        let told = error(&run.stderr);
        assert_eq!(run.exit, Some(1), "{client}: {}", run.stderr);
        assert!(run.stderr.contains("UnknownIssuer"), "{client}: {}", run.stderr);
        assert!(told["hint"].as_str().unwrap().contains(variable), "{client}: {told}");
        let run = world.ask(client, &url, &[(variable, &authority)]);
        assert!(!server.asked().is_empty(), "{client}: {}", run.stderr);
    }
    let url = format!("https://localhost:{}", server.address.port());
    let run = world.ask("aws", &url, &[("AWS_CA_BUNDLE", "/nonexistent/ca.pem")]);
    assert!(run.stderr.contains("AWS_CA_BUNDLE is /nonexistent/ca.pem: "), "{}", run.stderr);
    let run = world.ask("kubernetes", &url, &[]);
    assert_eq!((run.exit, run.stderr.contains("NO_PROXY")), (Some(1), true), "{}", run.stderr);
    let registry = proxy(None, Some(server.address));
    let value = format!("http://{}", registry.address);
    let run = world.ask("registry", "", &[("HTTPS_PROXY", &value)]);
    assert_eq!((run.exit, run.stderr.contains("AWS_CA_BUNDLE")), (Some(1), true), "{}", run.stderr);
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_at_once() {
    let world = World::new();
    let past = |params: &mut CertificateParams| params.not_after = date_time_ymd(2000, 1, 1);
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(3000, 1, 1);
    // An authority of the same name, as a cluster's is that was deleted and made again.
    let anew = World::new();
    for client in CLIENTS {
        let name = if client == "registry" { "registry.example" } else { "localhost" };
        let other_name = format!("certificate not valid for name \"{name}\"");
        for (tls, trusted, wrong, hint) in [
            (world.tls(name), &anew, "BadSignature", "AWS_CA_BUNDLE"),
            (world.tls_with(name, past), &world, "certificate expired", "clock"),
            (world.tls_with(name, future), &world, "certificate not valid yet", "clock"),
            (world.tls("other.example"), &world, &other_name, "hosts file"),
        ] {
            let server = server(tls);
            let proxy = proxy(None, Some(server.address));
            let (tunnel, authority) = (format!("http://{}", proxy.address), trusted.authority.display().to_string());
            let mut variables = vec![("SSL_CERT_FILE", authority.as_str())];
            variables.extend((client == "registry").then_some(("HTTPS_PROXY", tunnel.as_str())));
            let run = world.ask(client, &format!("https://localhost:{}", server.address.port()), &variables);
            let told = error(&run.stderr);
            assert_eq!((run.exit, &told["kind"]), (Some(1), &json!("failed")), "{client}: {}", run.stderr);
            assert!(told.to_string().replace('\\', "").contains(wrong), "{client}: {told}");
            assert!(told["hint"].as_str().unwrap().contains(hint), "{client}: {told}");
        }
    }
}

#[test]
fn a_server_or_a_proxy_that_is_silent_is_given_up() {
    let world = World::new();
    for client in ["aws", "kubernetes", "probe"] {
        let silent = Peer::listen(|mut stream, _| stream.read_to_end(&mut Vec::new()).map(drop)).unwrap();
        let url = format!("http://{}", silent.address);
        assert_eq!(world.ask(client, &url, &[]).exit, Some(5), "{client}");
        assert_eq!(world.ask(client, "https://server.example", &[("HTTPS_PROXY", &url)]).exit, Some(5), "{client}");
    }
}

#[test]
fn a_variable_that_makes_no_sense_is_named() {
    let world = World::new();
    for client in CLIENTS {
        let url = "https://server.example";
        let run = world.ask(client, url, &[("https_proxy", "ftp://user:secret@proxy.example")]);
        let told = error(&run.stderr)["message"].to_string();
        assert_eq!(run.exit, Some(2), "{client}: {}", run.stderr);
        assert!(told.contains("https_proxy is not the URL of a proxy") && !told.contains("secret"), "{client}: {told}");
    }
}

/// A certificate authority, and a folder for it and what the tools read.
struct World {
    folder: TempDir,
    authority: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// Answers for ECR.
    ecr: SocketAddr,
}

/// How a tool ended.
struct Run {
    exit: Option<i32>,
    stderr: String,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = folder.path().join("authority.pem");
        fs::write(&authority, params.self_signed(&key).unwrap().pem()).unwrap();
        let manifest = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}";
        fs::write(folder.path().join("manifest.yaml"), manifest).unwrap();
        Self { folder, authority, issuer: Issuer::new(params, key), ecr: ecr() }
    }

    /// A server's side of TLS, under this name.
    fn tls(&self, name: &str) -> Arc<ServerConfig> {
        self.tls_with(name, |_| {})
    }

    /// The same, with a certificate that is changed before it is signed.
    fn tls_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let tls = tls.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = key.serialize_der().try_into().unwrap();
        Arc::new(tls.with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }

    /// Lets a client ask a URL, in this environment and no other.
    fn ask(&self, client: &str, url: &str, variables: &[(&str, &str)]) -> Run {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let ecr = format!("http://{}", self.ecr);
        let (tool, arguments) = match client {
            "aws" => ("oidc-assoc", vec!["--cluster".to_owned(), "c1".to_owned()]),
            "kubernetes" => {
                let cluster = if url.contains("server: ") { url.to_owned() } else { format!("server: '{url}'") };
                let kubeconfig = format!(
                    "{{clusters: [{{name: c, cluster: {{{cluster}}}}}], contexts: [{{name: c, context: {{cluster: c}}}}], \
                     current-context: c}}"
                );
                fs::write(path("kubeconfig"), kubeconfig).unwrap();
                let flags = ["app", "--kubeconfig", &path("kubeconfig"), "--file", &path("manifest.yaml")];
                ("manifest-apply", flags.map(str::to_owned).to_vec())
            }
            "probe" => ("color-probe", vec![url.to_owned()]),
            _ => ("ecr-push", vec!["app".to_owned(), "--binary".to_owned(), program("colorapp").display().to_string()]),
        };
        let mut command = Command::new(program(tool));
        command.args(arguments).args(["-n", "--timeout", "3s"]).env_clear();
        command.env("AWS_ENDPOINT_URL", if client == "registry" { &ecr } else { url });
        command.env("AWS_REGION", "us-west-2").env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "secret");
        let output = feed(command.envs(variables.iter().copied()), b"").unwrap();
        Run { exit: output.status.code(), stderr: String::from_utf8(output.stderr).unwrap() }
    }
}

/// A proxy that speaks HTTP, over TLS if given, and SOCKS5. Whatever is asked for is at `upstream`, if anywhere.
fn proxy(tls: Option<Arc<ServerConfig>>, upstream: Option<SocketAddr>) -> Peer {
    Peer::listen(move |stream, tell| {
        let socket = stream.try_clone()?;
        match &tls {
            Some(tls) => {
                let tls = ServerConnection::new(tls.clone()).map_err(io::Error::other)?;
                serve_proxy(StreamOwned::new(tls, stream), &socket, tell, upstream)
            }
            None => serve_proxy(stream, &socket, tell, upstream),
        }
    })
    .unwrap()
}

fn serve_proxy(
    mut stream: impl Duplex,
    socket: &TcpStream,
    tell: &Sender<String>,
    upstream: Option<SocketAddr>,
) -> io::Result<()> {
    let first = read_exactly::<1>(&mut stream)?[0];
    let (question, yes) = if first == 5 {
        (socks(&mut stream)?, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0][..])
    } else {
        let head = format!("{}{}", char::from(first), head(&mut stream)?);
        let login = header(&head, "proxy-authorization").map(|login| format!(" {login}")).unwrap_or_default();
        let words: Vec<&str> = head.split_whitespace().take(2).collect();
        let question = if words[0] == "CONNECT" {
            format!("CONNECT {}{login}", words[1])
        } else {
            let url = words[1].splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
            format!("{url}/{login}")
        };
        (question, &b"HTTP/1.1 200 OK\r\n\r\n"[..])
    };
    tell.send(question).map_err(io::Error::other)?;
    let Some(upstream) = upstream else {
        return stream.write_all(b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    };
    stream.write_all(yes)?;
    stream.flush()?;
    carry(stream, socket, TcpStream::connect(upstream)?)
}

/// RFC 1928, with the password of RFC 1929 if it is offered: the answer to all but the last of its three questions.
fn socks(stream: &mut impl Duplex) -> io::Result<String> {
    let methods = read_exactly::<1>(stream)?[0];
    let methods = read(stream, methods.into())?;
    let login = if methods.contains(&2) {
        stream.write_all(&[5, 2])?;
        stream.flush()?;
        read_exactly::<1>(stream)?;
        let (user, password) = (counted(stream)?, counted(stream)?);
        stream.write_all(&[1, 0])?;
        format!(" {user}:{password}")
    } else {
        stream.write_all(&[5, 0])?;
        String::new()
    };
    stream.flush()?;
    let [_, _, _, kind] = read_exactly(stream)?;
    assert_eq!(kind, 3, "the proxy looks names up");
    let host = counted(stream)?;
    let port = u16::from_be_bytes(read_exactly(stream)?);
    Ok(format!("SOCKS5 {host}:{port}{login}"))
}

/// A server that refuses every request and tells which host was asked for.
fn server(tls: Arc<ServerConfig>) -> Peer {
    Peer::listen(move |stream, tell| {
        let tls = ServerConnection::new(tls.clone()).map_err(io::Error::other)?;
        refuse(StreamOwned::new(tls, stream), "host", tell)
    })
    .unwrap()
}

/// ECR with the repository `app`, empty, of a registry that only a proxy can reach.
fn ecr() -> SocketAddr {
    let answers = |action: &str| match action {
        "BatchGetImage" => json!({"images": [], "failures": [{"failureCode": "ImageNotFound"}]}),
        "DescribeRepositories" => json!({"repositories": [{"repositoryArn": "arn:aws:ecr:us-west-2:1:repository/app",
            "repositoryUri": "registry.example/app"}]}),
        "GetAuthorizationToken" => json!({"authorizationData": [{"authorizationToken": "QVdTOng=",
            "proxyEndpoint": "https://registry.example"}]}),
        "ListTagsForResource" => json!({"tags": [{"Key": "managed-by", "Value": "crossmesh"}]}),
        _ => panic!("{action}"),
    };
    let ecr = Peer::listen(move |mut stream, _| {
        let head = head(&mut stream)?;
        read(&mut stream, header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0))?;
        let action = header(&head, "x-amz-target").and_then(|target| target.rsplit('.').next()).unwrap_or_default();
        let body = answers(action).to_string();
        write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    });
    ecr.unwrap().address
}

trait Duplex: Read + Write {}

impl<T: Read + Write> Duplex for T {}

fn read_exactly<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map(|()| bytes)
}

fn counted(stream: &mut impl Read) -> io::Result<String> {
    let length = read_exactly::<1>(stream)?[0];
    String::from_utf8(read(stream, length.into())?).map_err(io::Error::other)
}

/// Carries bytes both ways until one side ends. `socket` is what `near` stands on: it may be TLS, which cannot be split.
fn carry(mut near: impl Duplex, socket: &TcpStream, mut far: TcpStream) -> io::Result<()> {
    for side in [socket, &far] {
        side.set_read_timeout(Some(Duration::from_millis(5)))?;
    }
    while pass(&mut near, &mut far)? && pass(&mut far, &mut near)? {}
    Ok(())
}

/// Passes on what there is; whether there can be more.
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<bool> {
    let mut bytes = [0; 16384];
    match from.read(&mut bytes) {
        Ok(0) => Ok(false),
        Ok(length) => to.write_all(&bytes[..length]).and_then(|()| to.flush()).map(|()| true),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(true),
        Err(error) => Err(error),
    }
}
