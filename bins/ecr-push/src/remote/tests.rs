#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use super::*;
use crate::registry::tests::Fake;
use ::tests::hostile::spoiled;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use common::Kind;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

/// The tag of the image that a source has.
const TAG: &str = "v1";

/// A registry to read from. It gives a token to whoever asks, and everything to whoever has one.
#[derive(Clone)]
struct Source {
    shelf: Arc<Mutex<Shelf>>,
    address: SocketAddr,
}

#[derive(Default)]
struct Shelf {
    address: String,
    asked: Vec<String>,
    /// `Authorization` of those who asked for a token, and for what.
    logins: Vec<(Option<String>, String)>,
    /// What is answered to requests that begin so, one after the other.
    refuse: VecDeque<(&'static str, u16, &'static str)>,
    /// Bytes after which the connection is cut, one blob after the other.
    cut: VecDeque<usize>,
    content: BTreeMap<String, Vec<u8>>,
    top: String,
}

async fn answer(State(shelf): State<Arc<Mutex<Shelf>>>, request: Request) -> Response {
    let say = |status: u16, header: (&str, &str), body: Body| {
        Response::builder().status(status).header(header.0, header.1).body(body).unwrap()
    };
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let mut shelf = shelf.lock().unwrap();
    if path == "/token" {
        shelf.logins.push((authorization, query));
        return say(200, ("x", "y"), Body::from(r#"{"token":"t0ken"}"#));
    }
    let line = format!("{} {}", request.method(), path.trim_start_matches("/v2/").trim_start_matches("shop/web/"));
    if line != "GET " {
        shelf.asked.push(line.clone());
    }
    if shelf.refuse.front().is_some_and(|(what, ..)| line.starts_with(what)) {
        let (_, status, body) = shelf.refuse.pop_front().unwrap();
        return say(status, ("x", "y"), Body::from(body));
    }
    if authorization.as_deref() != Some("Bearer t0ken") {
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"fake\"", shelf.address);
        return say(401, ("WWW-Authenticate", &challenge), Body::empty());
    }
    let last = path.rsplit('/').next().unwrap();
    let digest = if last == TAG { shelf.top.clone() } else { last.to_owned() };
    let Some(content) = shelf.content.get(&digest).cloned() else {
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        return say(404, ("x", "y"), Body::from(body));
    };
    if path.contains("/blobs/")
        && let Some(at) = shelf.cut.pop_front()
    {
        let half = content[..at].to_vec();
        let pieces = [Ok(half), Err(std::io::Error::other("cut"))];
        return say(200, ("x", "y"), Body::from_stream(futures::stream::iter(pieces)));
    }
    let body = if request.method() == "HEAD" { Body::empty() } else { Body::from(content) };
    say(200, ("Docker-Content-Digest", &digest), body)
}

impl Source {
    /// A source of an index of two platforms and what is known of how they were built.
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let source = Self { shelf: Arc::default(), address: listener.local_addr().unwrap() };
        source.shelf().address = source.address.to_string();
        let router = Router::new().fallback(answer).with_state(source.shelf.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let unknown = source.platform("unknown", "unknown");
        let manifests = [source.platform("linux", "amd64"), source.platform("linux", "arm64"), unknown];
        let index =
            source.put(INDEXES[0], json!({"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": manifests}));
        source.shelf().top = digest_of(&index);
        source
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap()
    }

    fn put(&self, kind: &str, content: Value) -> Value {
        let content = content.to_string().into_bytes();
        let (digest, size) = (sha256(&content), content.len());
        self.shelf().content.insert(digest.clone(), content);
        json!({"mediaType": kind, "digest": digest, "size": size})
    }

    /// An image of two layers, one of which all platforms have.
    fn platform(&self, os: &str, architecture: &str) -> Value {
        let platform = json!({"os": os, "architecture": architecture});
        let config = self.put("application/vnd.oci.image.config.v1+json", platform.clone());
        let layer = |content: String| self.put("application/vnd.oci.image.layer.v1.tar", content.into());
        let layers = [layer("base".repeat(1000)), layer(format!("{os} {architecture}"))];
        let foreign = json!({"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "size": 1,
            "digest": sha256(b"elsewhere"), "urls": ["https://example.com/"]});
        let layers = json!([layers[0], layers[1], foreign]);
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut named = self.put(MANIFEST, manifest);
        named["platform"] = platform;
        named
    }

    fn name(&self, end: &str) -> Reference {
        format!("{}/shop/web{end}", self.address).parse().unwrap()
    }

    /// Reads the image, nothing of which is known.
    async fn image(&self, end: &str) -> Result<Image> {
        image(&self.name(end), async || Ok(RegistryAuth::Anonymous), async |_: &str| Ok(None)).await
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shelf().asked)
    }
}

fn digest_of(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_image_is_copied_with_all_its_platforms() {
    let (source, target) = (Source::start().await, Fake::start(&[]).await);
    let image = source.image(":v1").await.unwrap();
    let top = source.shelf().top.clone();
    assert_eq!((image.top().unwrap().digest.as_str(), image.manifests.len()), (top.as_str(), 4));
    assert_eq!(Vec::from_iter(&image.platforms), ["linux/amd64", "linux/arm64"]);
    let asked = source.asked();
    assert_eq!((asked[0].as_str(), asked[1].as_str()), ("HEAD manifests/v1", format!("GET manifests/{top}").as_str()));
    assert_eq!((asked.len(), asked.iter().filter(|line| line.contains("blobs")).count()), (5, 0), "{asked:?}");

    // Each blob once, though several images have it; what is elsewhere stays there.
    assert_eq!(target.push(&image).await.unwrap().blobs, 7);
    let asked = source.asked();
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 7, "{asked:?}");
    assert!(asked.iter().all(|line| line.starts_with("GET blobs/sha256:")), "{asked:?}");
    target.has(&source.shelf().content);
    assert_eq!(target.push(&image).await.unwrap().blobs, 0);
    assert_eq!(source.asked(), [""; 0], "nothing is read that is there already");
}

#[tokio::test]
async fn what_is_known_is_not_asked_for() {
    let source = Source::start().await;
    let whole = source.image(":v1").await.unwrap();
    let top = whole.top().unwrap().clone();
    source.asked();
    let logins = std::mem::take(&mut source.shelf().logins).len();
    assert!(logins > 0);
    let known = async |digest: &str| Ok(whole.manifests.iter().find(|manifest| manifest.digest == digest).cloned());
    let login = async || Ok(RegistryAuth::Anonymous);
    let by_tag = image(&source.name(":v1"), &login, &known).await.unwrap();
    assert_eq!(source.asked(), ["HEAD manifests/v1"]);
    source.shelf().logins.clear();
    // The digest says all.
    let by_digest = image(&source.name(&format!(":v2@{}", top.digest)), &login, &known).await.unwrap();
    assert_eq!((source.asked().len(), source.shelf().logins.len()), (0, 0));
    for image in [by_tag, by_digest] {
        assert_eq!((&image.top().unwrap().digest, image.blobs.len()), (&top.digest, 0));
        assert_eq!(Vec::from_iter(&image.platforms), ["linux/amd64", "linux/arm64"]);
    }
    // Half of a copy that was stopped.
    let half = async |digest: &str| known(digest).await.map(|found| found.filter(|found| found.digest != top.digest));
    let image = image(&source.name(":v1"), &login, half).await.unwrap();
    assert_eq!((image.manifests.len(), image.blobs.len()), (4, 0));
    assert_eq!(source.asked().len(), 2);
}

#[tokio::test]
async fn a_single_image_says_what_it_runs_on() {
    let source = Source::start().await;
    let arm64 = digest_of(&source.platform("linux", "arm64"));
    let image = source.image(&format!("@{arm64}")).await.unwrap();
    assert_eq!(Vec::from_iter(&image.platforms), ["linux/arm64"]);
    assert_eq!((image.top().unwrap().digest.as_str(), image.blobs.len()), (arm64.as_str(), 3));
    let asked = source.asked();
    assert_eq!(asked.iter().filter(|line| line.contains("blobs")).count(), 1, "its configuration only: {asked:?}");
}

#[tokio::test]
async fn the_login_goes_for_a_token_to_read() {
    for (login, sent) in [
        (RegistryAuth::Anonymous, None),
        (RegistryAuth::Basic("user".into(), "secret".into()), Some("Basic dXNlcjpzZWNyZXQ=".to_owned())),
    ] {
        let source = Source::start().await;
        image(&source.name(":v1"), async || Ok(login), async |_: &str| Ok(None)).await.unwrap();
        let logins = source.shelf().logins.clone();
        let scope = "scope=repository%3Ashop%2Fweb%3Apull&service=fake";
        assert!(logins.iter().all(|asked| *asked == (sent.clone(), scope.to_owned())), "{logins:?}");
    }
}

#[tokio::test]
async fn a_registry_that_refuses_is_named_with_the_reason() {
    const DENIED: &str = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    const LIMIT: &str = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    const UNKNOWN: &str = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}"#;
    type Case = (&'static [(&'static str, u16, &'static str)], Option<(Kind, &'static str, &'static str)>);
    let denied =
        Some((Kind::Failed, "HOST refused it", "if there is such an image, it needs a login: docker login HOST"));
    let limit =
        Some((Kind::Retry, "HOST asks to come back later", "run it again later, or log in, which raises the limit"));
    let cases: [Case; 11] = [
        (&[("GET manifests", 503, "")], None),
        (&[("HEAD", 503, ""), ("GET manifests", 502, ""), ("GET manifests", 500, "")], None),
        (&[("GET manifests", 429, LIMIT)], None),
        (&[("GET manifests", 404, UNKNOWN)], Some((Kind::Failed, "HOST has no such image", ""))),
        (&[("HEAD", 404, ""), ("GET manifests", 404, "")], Some((Kind::Failed, "HOST has no such image", ""))),
        (&[("GET manifests", 401, "")], denied),
        (&[("GET manifests", 403, DENIED)], denied),
        (&[("GET manifests", 403, "no")], denied),
        (&[("GET manifests", 429, LIMIT); 5], limit),
        (
            &[("GET manifests", 503, "busy"); 5],
            Some((Kind::Retry, "HOST did not give it", "run it again: it sends only what is missing")),
        ),
        (&[("GET manifests", 200, "red")], Some((Kind::Failed, "HOST: it is not what its digest says", ""))),
    ];
    let runs = cases.map(async |(refuse, end)| {
        let source = Source::start().await;
        source.shelf().refuse.extend(refuse);
        let read = source.image(":v1").await;
        assert!(source.shelf().refuse.is_empty(), "{refuse:?}");
        let Some((kind, message, hint)) = end else {
            assert_eq!(read.unwrap().manifests.len(), 4, "{refuse:?}");
            return;
        };
        let error = read.unwrap_err();
        let host = source.address.to_string();
        let text = format!("{error:#}").replace(&host, "HOST");
        assert!(text.starts_with("read HOST/shop/web:v1: ") && text.contains(message), "{text}");
        let classified = common::classify(&error);
        assert_eq!(
            (classified.0, classified.1.unwrap_or_default().replace(&host, "HOST")),
            (kind, hint.to_owned()),
            "{text}"
        );
    });
    let nobody = async {
        // Nobody listens there any more.
        let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let name = format!("{address}/web").parse().unwrap();
        let read = image(&name, async || Ok(RegistryAuth::Anonymous), async |_: &str| Ok(None)).await;
        let error = read.unwrap_err();
        assert_eq!(common::classify(&error).0, Kind::Retry);
        assert!(
            format!("{error:#}").starts_with(&format!("read {address}/web:latest: cannot reach {address}: ")),
            "{error:#}"
        );
    };
    tokio::join!(futures::future::join_all(runs), nobody);
}

#[tokio::test]
async fn what_is_no_image_for_ecr_is_refused() {
    let source = Source::start().await;
    let signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    for (content, message) in [
        (
            json!({"schemaVersion": 1, "mediaType": signed, "layers": []}),
            format!("is a manifest that ECR does not keep: {signed}"),
        ),
        (json!({"schemaVersion": 2}), format!("is a manifest that ECR does not keep: {MANIFEST}")),
    ] {
        let digest = digest_of(&source.put("x", content));
        let error = source.image(&format!("@{digest}")).await.unwrap_err();
        assert_eq!(error.root_cause().to_string(), format!("{digest} {message}"));
    }
    let mut deep = digest_of(&source.platform("linux", "amd64"));
    for _ in 0..DEPTH {
        let child = json!([{"mediaType": INDEXES[0], "digest": deep, "size": 1}]);
        deep = digest_of(&source.put(INDEXES[0], json!({"mediaType": INDEXES[0], "manifests": child})));
    }
    let error = source.image(&format!("@{deep}")).await.unwrap_err();
    assert!(error.root_cause().to_string().ends_with(": indexes within indexes"), "{error:#}");
}

#[tokio::test]
async fn a_blob_that_does_not_arrive_is_read_again() {
    let (source, target) = (Source::start().await, Fake::start(&[]).await);
    let image = source.image(":v1").await.unwrap();
    source.shelf().cut.extend([3, 0]);
    source.shelf().refuse.push_back(("GET blobs", 503, ""));
    assert_eq!(target.push(&image).await.unwrap().blobs, 7);
    target.has(&source.shelf().content);
}

#[tokio::test]
async fn a_blob_that_is_not_what_its_digest_says_is_not_sent_on() {
    let (source, target) = (Source::start().await, Fake::start(&[]).await);
    let image = source.image(":v1").await.unwrap();
    let base = format!("\"{}\"", "base".repeat(1000)).into_bytes();
    let digest = sha256(&base);
    let changed = [b"x", &base[1..]].concat();
    source.shelf().content.insert(digest.clone(), changed).unwrap();
    let error = target.push(&image).await.unwrap_err();
    assert_eq!(common::classify(&error).0, Kind::Failed);
    let text = format!("{error:#}").replace(&source.address.to_string(), "HOST");
    assert!(text.starts_with(&format!("send {digest} to r: HOST: it is not what its digest says")), "{text}");
    target.has_no_manifest();
}

#[tokio::test]
async fn the_last_piece_waits_for_the_end() {
    let given = async |pieces: Vec<Result<&'static str, &'static str>>| {
        let pieces = pieces.into_iter().map(|piece| piece.map(Bytes::from));
        last_held_back(futures::stream::iter(pieces))
            .map_ok(|piece| String::from_utf8(piece.to_vec()).unwrap())
            .collect::<Vec<_>>()
            .await
    };
    assert_eq!(given(vec![]).await, []);
    assert_eq!(given(vec![Ok("a"), Ok("b")]).await, [Ok("a".to_owned()), Ok("b".to_owned())]);
    assert_eq!(given(vec![Ok("a"), Ok("b"), Err("damaged")]).await, [Ok("a".to_owned()), Err("damaged")]);
}

#[test]
fn only_this_machine_is_asked_without_tls() {
    for (host, expected) in [
        ("localhost", true),
        ("localhost:5000", true),
        ("127.0.0.1:5000", true),
        ("127.1.2.3", true),
        ("registry-1.docker.io", false),
        ("localhost.example.com", false),
        ("10.0.0.1:5000", false),
        ("127.example.com", false),
    ] {
        assert_eq!(is_loopback(host), expected, "{host}");
    }
}

/// Whatever is asked, one answer after the other.
async fn say(answers: Vec<(u16, &'static str, Vec<u8>)>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let turns = Arc::new(Mutex::new(answers.into_iter().cycle()));
    let answer = move || {
        let (status, header, body) = turns.lock().unwrap().next().unwrap();
        // Nowhere else: a registry may send its own clients where it likes, a test may not.
        let header = header.replace("REALM", &format!("http://{address}/"));
        let answer = Response::builder().status(status).header("Docker-Content-Digest", header.as_str());
        let answer = answer.header("WWW-Authenticate", header).body(Body::from(body));
        std::future::ready(answer.unwrap_or_default())
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    address
}

::tests::property! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn spoiled_answers_of_a_source_are_an_error_that_tells_no_secret(answers in vec(
        (
            select(&[200, 201, 204, 400, 401, 403, 404][..]),
            select(&["Bearer realm=\"REALM\",service=\"s\"", "Bearer realm=\"\"", "Basic realm=\"r\"", "sha256:0123", ""][..]),
            spoiled([r#"{"token":"t"}"#, r#"{"schemaVersion":2,"config":{"mediaType":"m","digest":"sha256:0","size":2}}"#]),
        ),
        1..6,
    )) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = runtime.block_on(async {
            let name: Reference = format!("{}/web", say(answers).await).parse().unwrap();
            let login = async || Ok(RegistryAuth::Basic("user".into(), "pa55word".into()));
            let read = image(&name, login, async |_: &str| Ok(None));
            let read = tokio::time::timeout(std::time::Duration::from_secs(60), read).await.unwrap();
            read.map_or_else(|error| format!("{error:#}"), |_| String::new())
        });
        prop_assert!(!told.contains("pa55word"), "{}", told);
    }
}
