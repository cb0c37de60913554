#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use super::*;
use crate::image::sha256;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// A registry of one repository that says what it was asked, and refuses what it is told to.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Shelf>>);

#[derive(Default)]
struct Shelf {
    asked: Vec<String>,
    refuse: VecDeque<(&'static str, StatusCode)>,
    blobs: BTreeMap<String, Vec<u8>>,
    upload: Vec<u8>,
}

async fn answer(State(fake): State<Fake>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
    let last = path.rsplit('/').next().unwrap().to_owned();
    let mut shelf = fake.0.lock().unwrap();
    let reply = |status: StatusCode| {
        Response::builder().status(status).header("Location", "/v2/r/blobs/uploads/1").body(Body::empty()).unwrap()
    };
    if !(parts.method == Method::GET && path == "/v2/") {
        shelf.asked.push(format!("{} {}", parts.method, path.trim_start_matches("/v2/r/")));
    }
    if shelf.refuse.front().is_some_and(|(method, _)| parts.method == *method) {
        return reply(shelf.refuse.pop_front().unwrap().1);
    }
    let ecr = |status| Response::builder().status(status).body(Body::empty()).unwrap();
    match parts.method.as_str() {
        "GET" => ecr(StatusCode::OK),
        "HEAD" if shelf.blobs.contains_key(&last) => reply(StatusCode::OK),
        "HEAD" => reply(StatusCode::NOT_FOUND),
        "POST" => reply(StatusCode::ACCEPTED),
        "PATCH" => {
            shelf.upload.extend(body);
            reply(StatusCode::ACCEPTED)
        }
        "PUT" if path.contains("manifests") => {
            shelf.blobs.insert(last, body.to_vec());
            // As ECR does: no Location.
            ecr(StatusCode::CREATED)
        }
        "PUT" => {
            let mut content = std::mem::take(&mut shelf.upload);
            content.extend(body);
            let digest = query.replace("%3A", ":").trim_start_matches("digest=").to_owned();
            assert_eq!(sha256(&content), digest);
            shelf.blobs.insert(digest, content);
            reply(StatusCode::CREATED)
        }
        method => panic!("{method} {path}"),
    }
}

impl Fake {
    /// A registry to push to.
    async fn serve(&self) -> Registry {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("{}/r", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        registry(&uri)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }
}

fn registry(uri: &str) -> Registry {
    Registry::new(uri, RegistryAuth::Basic("AWS".into(), "secret".into()), ClientProtocol::Http).unwrap()
}

/// An image of one blob of two parts, one in a file.
fn image(folder: &std::path::Path) -> Image {
    let path = folder.join("content");
    std::fs::write(&path, b"..content..").unwrap();
    let file = Part::File { path: path.into(), offset: 2, size: 7 };
    let blob = Blob::of(vec![Part::Bytes("head ".into()), file]).unwrap();
    assert_eq!((blob.digest.clone(), blob.size), (sha256(b"head content"), 12));
    let manifests = vec![Manifest::new("application/vnd.oci.image.manifest.v1+json", "{}")];
    Image { blobs: vec![blob], manifests, ..Image::default() }
}

fn short(asked: Vec<String>, image: &Image) -> Vec<String> {
    let names = [(&image.blobs[0].digest, "BLOB"), (&image.manifests[0].digest, "MANIFEST")];
    let rename = |line: String| names.iter().fold(line, |line, (digest, name)| line.replace(*digest, name));
    asked.into_iter().map(rename).collect()
}

#[tokio::test]
async fn only_missing_blobs_are_sent_and_the_manifest_last() {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let (image, registry) = (image(folder.path()), fake.serve().await);
    let sent = registry.push(&image, |_| ProgressBar::hidden()).await.unwrap();
    assert_eq!(sent, Sent { blobs: 1, bytes: 12 });
    let expected = ["HEAD blobs/BLOB", "POST blobs/uploads/", "PUT blobs/uploads/1", "PUT manifests/MANIFEST"];
    assert_eq!(short(fake.take(), &image), expected);
    let sent = registry.push(&image, |_| ProgressBar::hidden()).await.unwrap();
    assert_eq!(sent, Sent { blobs: 0, bytes: 0 });
    assert_eq!(short(fake.take(), &image), ["HEAD blobs/BLOB", "PUT manifests/MANIFEST"]);
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_is_told() {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let (image, registry) = (image(folder.path()), fake.serve().await);
    let refuse = |refused: &[(&'static str, StatusCode)]| fake.0.lock().unwrap().refuse.extend(refused);
    refuse(&[
        ("HEAD", StatusCode::BAD_GATEWAY),
        ("POST", StatusCode::NOT_FOUND),
        ("PUT", StatusCode::TOO_MANY_REQUESTS),
    ]);
    let bar = ProgressBar::hidden();
    registry.push(&image, |_| bar.clone()).await.unwrap();
    assert_eq!(bar.position(), 12);
    let expected = [
        "HEAD blobs/BLOB",
        "HEAD blobs/BLOB",
        "POST blobs/uploads/",
        "POST blobs/uploads/",
        "PUT blobs/uploads/1",
        "POST blobs/uploads/",
        "PUT blobs/uploads/1",
        "PUT manifests/MANIFEST",
    ];
    assert_eq!(short(fake.take(), &image), expected);

    refuse(&[("HEAD", StatusCode::FORBIDDEN)]);
    let error = registry.push(&image, |_| ProgressBar::hidden()).await.unwrap_err();
    let (kind, hint) = common::classify(&error);
    assert_eq!(kind, common::Kind::Failed);
    assert!(hint.unwrap().contains("ecr:BatchCheckLayerAvailability"), "{error:#}");
    assert!(!format!("{error:#}").contains("secret"));
}

#[tokio::test]
async fn a_blob_refused_in_one_piece_goes_in_several() {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let (image, registry) = (image(folder.path()), fake.serve().await);
    fake.0.lock().unwrap().refuse.push_back(("PUT", StatusCode::PAYLOAD_TOO_LARGE));
    registry.push(&image, |_| ProgressBar::hidden()).await.unwrap();
    assert_eq!(fake.0.lock().unwrap().blobs[&image.blobs[0].digest], b"head content");
}

/// Debian's docker-registry, on loopback.
struct Real {
    process: Child,
    uri: String,
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
        let connect = || tokio::net::TcpStream::connect(("127.0.0.1", port));
        let pauses = ExponentialBuilder::default().with_min_delay(Duration::from_millis(20)).with_max_times(12);
        connect.retry(pauses).await.unwrap();
        Self { process, uri: format!("127.0.0.1:{port}/shop/web"), _storage: storage }
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
    let mut content = crate::binary::tests::program(62, None);
    content.resize(9 << 20, 7);
    std::fs::write(&program, content).unwrap();
    let image = crate::binary::image(&[program]).unwrap();
    let registry = registry(&real.uri);
    let sent = registry.push(&image, |_| ProgressBar::hidden()).await.unwrap();
    assert_eq!(sent.blobs, 3);
    let top = image.top().unwrap();
    let reference = registry.reference(&top.digest);
    let pulled = registry.whole.pull_manifest_raw(&reference, &registry.auth, &[&top.media_type]).await.unwrap();
    assert_eq!(pulled, (top.bytes.clone(), top.digest.clone()));
    assert_eq!(registry.push(&image, |_| ProgressBar::hidden()).await.unwrap(), Sent { blobs: 0, bytes: 0 });
}
