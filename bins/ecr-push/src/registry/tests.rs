#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use super::*;
use crate::image::{Origin, sha256};
use crate::oci::{self, Descriptor};
use ::tests::hostile::{spoiled, spoiled_text};
use ::tests::report::Row;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::Kind;
use futures::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// ECR's own words, of its registry.
const ENDED: &str =
    r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}"#;

/// A registry of one repository that says what it was asked, and refuses what it is told to.
#[derive(Clone)]
pub struct Fake {
    shelf: Arc<Mutex<Shelf>>,
    address: SocketAddr,
}

#[derive(Default)]
struct Shelf {
    asked: Vec<String>,
    /// What is answered to requests that begin so, one after the other.
    refuse: VecDeque<(&'static str, StatusCode)>,
    /// How many blobs a pass is good for, then for looks only; none: for all.
    good_for: Option<usize>,
    /// Passes given, and blobs taken with the last of them.
    passes: usize,
    taken: usize,
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, Vec<u8>>,
    upload: Vec<u8>,
}

async fn answer(State(shelf): State<Arc<Mutex<Shelf>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 1 << 24).await else { return Response::default() };
    let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
    let last = path.rsplit('/').next().unwrap().to_owned();
    let line = format!("{} {}", parts.method, path.trim_start_matches("/v2/").trim_start_matches("r/"));
    let say = |status, text: &str| {
        let answer = Response::builder().status(status).header("WWW-Authenticate", "Basic realm=\"r\"");
        answer.body(Body::from(text.to_owned())).unwrap()
    };
    let reply = |status| {
        Response::builder().status(status).header("Location", "/v2/r/blobs/uploads/1").body(Body::empty()).unwrap()
    };

    let mut shelf = shelf.lock().unwrap();
    if line != "GET " {
        shelf.asked.push(line.clone());
    }
    if shelf.refuse.front().is_some_and(|(what, _)| line.starts_with(what)) {
        let status = shelf.refuse.pop_front().unwrap().1;
        return Response::builder().status(status).body(Body::empty()).unwrap();
    }
    let pass = format!("Basic {}", STANDARD.encode(format!("AWS:secret{}", shelf.passes)));
    if parts.headers.get("Authorization").is_none_or(|given| *given != *pass) {
        return say(StatusCode::UNAUTHORIZED, "Not Authorized");
    }
    if parts.method != Method::HEAD && shelf.good_for.is_some_and(|blobs| shelf.taken >= blobs) {
        return say(StatusCode::FORBIDDEN, ENDED);
    }
    match parts.method.as_str() {
        "HEAD" if shelf.blobs.contains_key(&last) => reply(StatusCode::OK),
        "HEAD" => reply(StatusCode::NOT_FOUND),
        "POST" => {
            shelf.upload.clear();
            reply(StatusCode::ACCEPTED)
        }
        "PATCH" => {
            shelf.upload.extend(body);
            reply(StatusCode::ACCEPTED)
        }
        "PUT" if path.contains("manifests") => {
            shelf.manifests.insert(last, body.to_vec());
            // As ECR does: no Location.
            say(StatusCode::CREATED, "")
        }
        "PUT" => {
            let mut content = std::mem::take(&mut shelf.upload);
            content.extend(body);
            let digest = query.replace("%3A", ":").trim_start_matches("digest=").to_owned();
            if sha256(&content) != digest {
                return say(StatusCode::BAD_REQUEST, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
            }
            shelf.blobs.insert(digest, content);
            shelf.taken += 1;
            reply(StatusCode::CREATED)
        }
        method => panic!("{method} {path}"),
    }
}

impl Fake {
    pub async fn start(refuse: &[(&'static str, StatusCode)]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self { shelf: Arc::default(), address: listener.local_addr().unwrap() };
        fake.shelf().refuse.extend(refuse);
        let router = Router::new().fallback(answer).with_state(fake.shelf.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap()
    }

    /// Pushes by way of an address, which may be a proxy's.
    async fn push_by(&self, address: SocketAddr, image: &Image) -> Result<Sent> {
        let pass = async || {
            let mut shelf = self.shelf();
            shelf.passes += 1;
            shelf.taken = 0;
            let auth = RegistryAuth::Basic("AWS".into(), format!("secret{}", shelf.passes));
            Ok(Pass { host: address.to_string(), auth })
        };
        Registry::new("r", ClientProtocol::Http, pass).push(image, &ProgressBar::hidden()).await
    }

    pub async fn push(&self, image: &Image) -> Result<Sent> {
        self.push_by(self.address, image).await
    }

    /// What was asked since the last time, with the image's digests as words.
    fn asked(&self, image: &Image) -> Vec<String> {
        let names = [(&image.blobs[0].digest, "BLOB"), (&image.manifests[0].digest, "MANIFEST")];
        let rename = |line: String| names.iter().fold(line, |line, (digest, name)| line.replace(*digest, name));
        std::mem::take(&mut self.shelf().asked).into_iter().map(rename).collect()
    }

    /// No manifest is there before every blob is.
    #[track_caller]
    fn holds_no_half(&self, image: &Image) {
        let shelf = self.shelf();
        let whole = image.blobs.iter().all(|blob| shelf.blobs.contains_key(&blob.digest));
        assert!(whole || shelf.manifests.is_empty(), "{:?}", shelf.asked);
    }

    /// Every one of these, as a blob or as a manifest.
    #[track_caller]
    pub fn has(&self, content: &BTreeMap<String, Vec<u8>>) {
        let shelf = self.shelf();
        for (digest, content) in content {
            let found = shelf.blobs.get(digest) == Some(content) || shelf.manifests.values().any(|one| one == content);
            assert!(found, "{digest}");
        }
    }

    pub fn has_no_manifest(&self) {
        assert_eq!(self.shelf().manifests.len(), 0);
    }

    #[track_caller]
    fn holds(&self, image: &Image) {
        let shelf = self.shelf();
        for blob in &image.blobs {
            let content = blob.bytes().unwrap();
            assert!(shelf.blobs[&blob.digest] == content, "{}", blob.digest);
        }
        assert_eq!(shelf.manifests[&image.manifests[0].digest], image.manifests[0].bytes);
    }
}

/// What came of a kind of fault, for `docs/faults.md`.
#[track_caller]
fn keep(fault: &str, converged: usize, told: usize) {
    Row { converged, told, ..Row::new(fault) }.keep().unwrap();
}

/// An image of one blob of two parts, one in a file.
fn image(folder: &std::path::Path) -> Image {
    let path = folder.join("content");
    std::fs::write(&path, b"..content..").unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let file = Part::File { origin: Origin::open(&path, file), offset: 2, size: 7 };
    let blob = Blob::of(vec![Part::Bytes("head ".into()), file]).unwrap();
    assert_eq!((blob.digest.clone(), blob.size), (sha256(b"head content"), 12));
    let manifests = vec![Manifest::new("application/vnd.oci.image.manifest.v1+json", "{}")];
    Image { blobs: vec![blob], manifests, ..Image::default() }
}

/// An image of blobs of these sizes.
fn image_of(sizes: &[usize]) -> Image {
    let blob = |size: &usize| Blob::of(vec![Part::Bytes(vec![sizes.len() as u8; *size].into())]).unwrap();
    let manifests = vec![Manifest::new("application/vnd.oci.image.manifest.v1+json", "{}")];
    Image { blobs: sizes.iter().map(blob).collect(), manifests, ..Image::default() }
}

#[tokio::test]
async fn only_missing_blobs_are_sent_and_the_manifest_last() {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::start(&[]).await);
    let image = image(folder.path());
    assert_eq!(fake.push(&image).await.unwrap(), Sent { blobs: 1, bytes: 12, mounted: 0 });
    let expected = ["HEAD blobs/BLOB", "POST blobs/uploads/", "PUT blobs/uploads/1", "PUT manifests/MANIFEST"];
    assert_eq!(fake.asked(&image), expected);
    fake.holds(&image);
    assert_eq!(fake.push(&image).await.unwrap(), Sent::default());
    assert_eq!(fake.asked(&image), ["HEAD blobs/BLOB", "PUT manifests/MANIFEST"]);
}

/// What a registry may answer once or for good, request by request.
#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_is_told() {
    type Refusals = &'static [(&'static str, StatusCode)];
    type Case = (Refusals, &'static [&'static str], Option<(Kind, &'static str)>);
    const HEAD: &str = "HEAD";
    const FIVE: &[&str] = &["POST"; 5];
    use StatusCode as S;
    // What is refused, what is asked between HEAD and manifest, and how it ends.
    let cases: [Case; 21] = [
        (&[("GET", S::SERVICE_UNAVAILABLE)], &["POST", "PUT blobs"], None),
        // How to log in is asked for both ways, and then for the first request.
        (&[("GET", S::SERVICE_UNAVAILABLE); 3], &[HEAD, "POST", "PUT blobs"], None),
        (&[(HEAD, S::BAD_GATEWAY)], &[HEAD, "POST", "PUT blobs"], None),
        (&[("POST", S::NOT_FOUND)], &["POST", "POST", "PUT blobs"], None),
        (&[("POST", S::INTERNAL_SERVER_ERROR)], &["POST", "POST", "PUT blobs"], None),
        (&[("POST", S::UNAUTHORIZED)], &["POST", "POST", "PUT blobs"], None),
        (&[("PUT blobs", S::TOO_MANY_REQUESTS)], &["POST", "PUT blobs", "POST", "PUT blobs"], None),
        (&[("PUT blobs", S::NOT_FOUND)], &["POST", "PUT blobs", "POST", "PUT blobs"], None),
        (&[("PUT manifests", S::SERVICE_UNAVAILABLE)], &["POST", "PUT blobs", "PUT manifests"], None),
        (&[("PUT blobs", S::PAYLOAD_TOO_LARGE)], &["POST", "PUT blobs", "POST", "PATCH", "PATCH", "PUT blobs"], None),
        (&[("PUT blobs", S::METHOD_NOT_ALLOWED)], &["POST", "PUT blobs", "POST", "PATCH", "PATCH", "PUT blobs"], None),
        (&[("PUT blobs", S::NOT_IMPLEMENTED)], &["POST", "PUT blobs", "POST", "PATCH", "PATCH", "PUT blobs"], None),
        (
            &[("PUT blobs", S::LENGTH_REQUIRED), ("PATCH", S::BAD_GATEWAY)],
            &["POST", "PUT blobs", "POST", "PATCH", "POST", "PUT blobs"],
            None,
        ),
        (&[(HEAD, S::FORBIDDEN)], &[], Some((Kind::Failed, "the registry refused it"))),
        (&[("POST", S::FORBIDDEN)], &["POST"], Some((Kind::Failed, "the registry refused it"))),
        (&[("POST", S::BAD_REQUEST)], &["POST"], Some((Kind::Failed, "the registry refused it"))),
        (&[("POST", S::UNAUTHORIZED); 5], FIVE, Some((Kind::Failed, "the registry refused it"))),
        (&[("POST", S::SERVICE_UNAVAILABLE); 5], FIVE, Some((Kind::Retry, "the registry did not take it"))),
        (&[("PUT blobs", S::FORBIDDEN)], &["POST", "PUT blobs"], Some((Kind::Failed, "the registry refused it"))),
        (
            &[("PUT manifests", S::BAD_REQUEST)],
            &["POST", "PUT blobs", "PUT manifests"],
            Some((Kind::Failed, "the registry refused it")),
        ),
        (
            &[("PUT manifests", S::TOO_MANY_REQUESTS); 5],
            &["POST", "PUT blobs", "PUT manifests", "PUT manifests", "PUT manifests", "PUT manifests", "PUT manifests"],
            Some((Kind::Retry, "the registry did not take it")),
        ),
    ];
    let told = cases.iter().filter(|(_, _, end)| end.is_some()).count();
    let runs = cases.map(async |(refuse, expected, end)| {
        let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::start(refuse).await);
        let image = image(folder.path());
        let done = fake.push(&image).await;
        let asked = fake.asked(&image);
        fake.holds_no_half(&image);
        assert!(fake.shelf().refuse.is_empty(), "{refuse:?}");
        let mut lines = vec![HEAD];
        lines.extend(expected);
        lines.extend(end.is_none().then_some("PUT manifests"));
        let same = asked.len() == lines.len() && asked.iter().zip(&lines).all(|(line, begin)| line.starts_with(begin));
        assert!(same, "{refuse:?}: {asked:?} instead of {lines:?}");
        match end {
            None => assert_eq!(done.unwrap().blobs, 1, "{refuse:?}"),
            Some((kind, message)) => {
                let error = done.unwrap_err();
                let text = format!("{error:#}");
                assert_eq!(common::classify(&error).0, kind, "{text}");
                assert!(text.contains(message) && !text.contains("secret"), "{text}");
                let denied = [S::UNAUTHORIZED, S::FORBIDDEN].contains(&refuse[0].1);
                let hint = common::classify(&error).1.unwrap_or_default();
                assert_eq!(hint.contains("ecr:"), denied, "{text}: {hint}");
                // The next run sends only what is missing.
                fake.push(&image).await.unwrap();
            }
        }
        fake.holds(&image);
    });
    let tried = join_all(runs).await.len();
    keep("registry: refuses a request once, or for good", tried - told, told);
}

#[tokio::test]
async fn a_pass_that_ends_is_renewed_while_it_is_good_for_something() {
    let fake = Fake::start(&[]).await;
    let image = image_of(&[100, 200, 300, 400, 500, 600, 700]);
    fake.shelf().good_for = Some(3);
    fake.push(&image).await.unwrap();
    assert_eq!(fake.shelf().passes, 3);
    fake.holds(&image);

    let other = image_of(&[1, 2]);
    fake.shelf().good_for = Some(0);
    let error = fake.push(&other).await.unwrap_err();
    assert_eq!(common::classify(&error).0, Kind::Retry, "{error:#}");
    assert!(format!("{error:#}").contains("the registry's token ended"), "{error:#}");
    assert_eq!(fake.shelf().passes, 5, "passes that are good for nothing are not asked for again and again");
    assert_eq!(fake.shelf().manifests.len(), 1);
    keep("registry: its token ends half way", 1, 1);
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_is_refused_for_good() {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::start(&[]).await);
    let image = image(folder.path());
    // Changed between reading and sending, or damaged in an archive.
    std::fs::write(folder.path().join("content"), b"..CONTENT..").unwrap();
    let error = fake.push(&image).await.unwrap_err();
    assert_eq!(common::classify(&error).0, Kind::Failed);
    assert!(format!("{error:#}").contains("it is not what its digest says"), "{error:#}");
    assert_eq!(fake.asked(&image), ["HEAD blobs/BLOB", "POST blobs/uploads/", "PUT blobs/uploads/1"]);
    fake.holds_no_half(&image);
    keep("registry: gets a blob that is not what its digest says", 0, 1);
}

/// Passes bytes on, and cuts this many connections, each after so many bytes of its client.
async fn cutting(server: SocketAddr, cuts: usize, after: u64) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, cuts) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(cuts)));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let cuts = cuts.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.split(), server.split());
                let up = async {
                    tokio::io::copy(&mut AsyncReadExt::take(&mut from_client, after), &mut to_server).await?;
                    if cuts.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err() {
                        tokio::io::copy(&mut from_client, &mut to_server).await?;
                    }
                    io::Result::Ok(())
                };
                tokio::select! {
                    _ = up => {}
                    _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_push_cut_in_the_middle_of_a_blob_goes_on() {
    let image = image_of(&[1000, 4 << 20]);
    let once = async {
        let fake = Fake::start(&[]).await;
        let proxy = cutting(fake.address, 2, 1 << 20).await;
        assert_eq!(fake.push_by(proxy, &image).await.unwrap().blobs, 2);
        fake.holds(&image);
    };
    let always = async {
        let fake = Fake::start(&[]).await;
        let proxy = cutting(fake.address, usize::MAX, 1 << 20).await;
        let error = fake.push_by(proxy, &image).await.unwrap_err();
        assert_eq!(common::classify(&error).0, Kind::Retry, "{error:#}");
        assert!(format!("{error:#}").starts_with(&format!("send {} to r", image.blobs[1].digest)), "{error:#}");
        fake.holds_no_half(&image);
        // A later run sends the rest only.
        assert_eq!(fake.push(&image).await.unwrap(), Sent { blobs: 1, bytes: 4 << 20, mounted: 0 });
        fake.holds(&image);
    };
    tokio::join!(once, always);
    keep("registry: connection cut in the middle of a blob, twice or for good", 1, 1);
}

/// Debian's docker-registry, on loopback.
struct Real {
    process: Child,
    host: String,
    _storage: tempfile::TempDir,
}

impl Real {
    async fn start() -> Self {
        let storage = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = storage.path().join("config.yml");
        let root = storage.path().display();
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\n\
                 http: {{addr: '127.0.0.1:{port}'}}\n"
            ),
        )
        .unwrap();
        let mut command = Command::new("docker-registry");
        let process = command.arg("serve").arg(&config).stderr(Stdio::null()).stdout(Stdio::null()).spawn();
        let process = process.unwrap_or_else(|error| panic!("this test needs Debian's docker-registry: {error}"));
        let connect = || TcpStream::connect(("127.0.0.1", port));
        let pauses = ExponentialBuilder::default().with_min_delay(Duration::from_millis(20)).with_max_times(12);
        connect.retry(pauses).await.unwrap();
        Self { process, host: format!("127.0.0.1:{port}"), _storage: storage }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_real_registry_takes_an_image_and_gives_it_back() {
    let (folder, real) = (tempfile::tempdir().unwrap(), Real::start().await);
    let program = folder.path().join("web");
    let mut content = ::tests::elf::program(62, None);
    content.resize(9 << 20, 7);
    std::fs::write(&program, content).unwrap();
    let image = crate::binary::image(&[program]).unwrap();
    let pass = async || Ok(Pass { host: real.host.clone(), auth: RegistryAuth::Anonymous });
    let registry = Registry::new("shop/web", ClientProtocol::Http, pass);
    let bar = ProgressBar::hidden();
    assert_eq!(registry.push(&image, &bar).await.unwrap().blobs, 3);
    let (top, login) = (image.top().unwrap(), registry.log_in().await.unwrap());
    let reference = login.reference(&top.digest);
    let accepted = [top.media_type.as_str()];
    let pulled = login.whole.pull_manifest_raw(&reference, &RegistryAuth::Anonymous, &accepted).await.unwrap();
    assert_eq!(pulled, (top.bytes.clone(), top.digest.clone()));
    assert_eq!(registry.push(&image, &bar).await.unwrap(), Sent::default());

    let damaged = Blob { digest: sha256(b"else"), ..image_of(&[10]).blobs.remove(0) };
    let image = Image { blobs: vec![damaged], ..image_of(&[]) };
    let error = registry.push(&image, &bar).await.unwrap_err();
    assert_eq!(common::classify(&error).0, Kind::Failed);
    assert!(format!("{error:#}").contains("it is not what its digest says"), "{error:#}");
}

#[tokio::test]
async fn a_real_registry_takes_blobs_over_from_another_of_its_repositories() {
    let real = Real::start().await;
    let pass = async || Ok(Pass { host: real.host.clone(), auth: RegistryAuth::Anonymous });
    let bar = ProgressBar::hidden();
    let mut image = image_of(&[100, 200]);
    let named = |blob: &Blob| Descriptor::new(oci::LAYER, &blob.digest, blob.size);
    image.manifests = vec![Manifest::of(&image.blobs[0], vec![named(&image.blobs[1])]).unwrap()];
    Registry::new("shop/web", ClientProtocol::Http, pass).push(&image, &bar).await.unwrap();
    let name = format!("{}/shop/web@{}", real.host, image.top().unwrap().digest).parse().unwrap();
    let copy = remote::image(&name, async || Ok(RegistryAuth::Anonymous), async |_: &str| Ok(None)).await.unwrap();
    let sent = Registry::new("shop/copy", ClientProtocol::Http, pass).push(&copy, &bar).await.unwrap();
    // Its configuration was read for the platform, and so is here already.
    assert_eq!(sent, Sent { blobs: 1, bytes: 100, mounted: 1 });
}

/// What a registry answers to anything: only what is not tried again, so that a test of many answers is short.
async fn say(answers: Vec<(u16, String, Vec<u8>)>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let turns = Arc::new((AtomicUsize::new(0), answers));
    let answer = move || {
        let (turn, answers) = &*turns;
        let (status, location, body) = answers[turn.fetch_add(1, Relaxed) % answers.len()].clone();
        // Nowhere else: a registry may send its own clients where it likes, a test may not.
        let location = if location.contains("//") { "/v2/r/blobs/uploads/1".to_owned() } else { location };
        let answer = Response::builder().status(status).header("Docker-Content-Digest", location.as_str());
        let answer = answer.header("Location", location).body(Body::from(body));
        ready(answer.unwrap_or_default())
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    address
}

::tests::property! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn spoiled_answers_are_an_error_that_tells_no_secret(answers in vec(
        (
            select(&[200, 201, 202, 204, 301, 307, 400, 403, 413, 415][..]),
            spoiled_text(["/v2/r/blobs/uploads/1?state=a%20b", "uploads/1", "sha256:0123"]),
            spoiled([r#"{"errors":[{"code":"DENIED","message":"not authorized to perform: ecr:PutImage on x"}]}"#, ENDED]),
        ),
        1..6,
    )) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = runtime.block_on(async {
            let address = say(answers).await;
            let auth = || RegistryAuth::Basic("AWS".into(), "pa55word".into());
            let pass = async || Ok(Pass { host: address.to_string(), auth: auth() });
            let (registry, image) = (Registry::new("r", ClientProtocol::Http, pass), image_of(&[10]));
            let bar = ProgressBar::hidden();
            let pushed = tokio::time::timeout(Duration::from_secs(60), registry.push(&image, &bar)).await.unwrap();
            pushed.map_or_else(|error| format!("{error:#}"), |_| String::new())
        });
        prop_assert!(!told.contains("pa55word") && !told.contains(&STANDARD.encode("AWS:pa55word")), "{}", told);
    }
}
