//! Authenticates xDS clients: an Envoy shows its pod's projected service account token, the API server reviews it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Status, async_trait, metadata::MetadataMap};

use crate::envoy::bootstrap::AUDIENCE;

/// How long a token that was found good is not asked about again: a reconnect costs no call then.
const REMEMBER: Duration = Duration::from_secs(60);
/// How many tokens are remembered; the oldest make room.
const REMEMBERED: usize = 10_000;
/// How many reviews are under way at once: each takes a connection to the API server.
const REVIEWS: usize = 32;
/// How long the API server may take for one.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// The pod that calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid: a later pod of the same name is another.
    pub uid: String,
}

/// Authenticates callers.
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// The pod whose token is in the metadata.
    ///
    /// # Errors
    /// There is no token, it is not good, or nobody can say.
    async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Status>;
}

/// Has the API server review tokens.
pub struct Tokens {
    reviews: Api<TokenReview>,
    under_way: Semaphore,
    known: Mutex<Known>,
}

impl Tokens {
    /// `client` may create TokenReviews.
    pub fn new(client: Client) -> Self {
        Self { reviews: Api::all(client), under_way: Semaphore::new(REVIEWS), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn review(&self, token: &str) -> Result<Caller, Status> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let unavailable = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "cannot review a token");
            Status::unavailable("the API server does not answer")
        };
        let _permit = self.under_way.acquire().await.map_err(|error| unavailable(&error))?;
        let parameters = PostParams::default();
        let reviewed = timeout(REVIEW_TIMEOUT, self.reviews.create(&parameters, &review)).await;
        let reviewed = reviewed.map_err(|error| unavailable(&error))?.map_err(|error| unavailable(&error))?;
        caller(reviewed.status.unwrap_or_default()).map_err(Status::unauthenticated)
    }
}

#[async_trait]
impl Authenticate for Tokens {
    async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| Status::unauthenticated("authorization: Bearer TOKEN is missing"))?;
        let hash = Sha256::digest(token).into();
        let known = self.known().get(&hash, Instant::now());
        if let Some(caller) = known {
            return Ok(caller);
        }
        let caller = self.review(token).await?;
        self.known().insert(hash, caller.clone(), Instant::now());
        Ok(caller)
    }
}

/// A token's hash.
type Hash = [u8; 32];

/// The tokens that were found good, for a while. Each call costs the same, however many there are.
#[derive(Default)]
struct Known {
    callers: HashMap<Hash, (Instant, Caller)>,
    /// The oldest first. One that was found good again is there twice.
    by_age: VecDeque<(Instant, Hash)>,
}

impl Known {
    fn get(&mut self, hash: &Hash, now: Instant) -> Option<Caller> {
        self.expire(now);
        self.callers.get(hash).map(|(_, caller)| caller.clone())
    }

    fn insert(&mut self, hash: Hash, caller: Caller, now: Instant) {
        self.expire(now);
        if self.by_age.len() == REMEMBERED {
            self.drop_oldest();
        }
        self.by_age.push_back((now, hash));
        self.callers.insert(hash, (now, caller));
    }

    fn expire(&mut self, now: Instant) {
        while self.by_age.front().is_some_and(|(since, _)| now.duration_since(*since) >= REMEMBER) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((since, hash)) = self.by_age.pop_front()
            && self.callers.get(&hash).is_some_and(|(latest, _)| *latest == since)
        {
            self.callers.remove(&hash);
        }
    }
}

/// The pod, from what the API server says of its token.
fn caller(status: TokenReviewStatus) -> Result<Caller, String> {
    if status.authenticated != Some(true) {
        return Err(status.error.unwrap_or_else(|| "the token is not valid".to_owned()));
    }
    if !status.audiences.iter().flatten().any(|audience| audience == AUDIENCE) {
        return Err(format!("the token is not for {AUDIENCE}"));
    }
    let user = status.user.unwrap_or_default();
    let extra = |key: &str| user.extra.as_ref()?.get(&format!("authentication.kubernetes.io/{key}"))?.first().cloned();
    let account = user.username.as_deref().and_then(|name| name.strip_prefix("system:serviceaccount:"));
    let namespace = account.and_then(|account| account.split_once(':')).map(|(namespace, _)| namespace.to_owned());
    match (namespace, extra("pod-name"), extra("pod-uid")) {
        (Some(namespace), Some(pod), Some(uid)) => Ok(Caller { namespace, pod, uid }),
        _ => Err("the token is not a pod's".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Json, Router, routing::post};
    use serde_json::{Value, from_value, json};
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    use tokio::{net::TcpListener, sync::Notify};

    #[test]
    fn callers() {
        let user = json!({
            "username": "system:serviceaccount:k8multi:default",
            "extra": {"authentication.kubernetes.io/pod-name": ["front-1"], "authentication.kubernetes.io/pod-uid": ["u"]},
        });
        let front = Caller { namespace: "k8multi".to_owned(), pod: "front-1".to_owned(), uid: "u".to_owned() };
        let no = |message: &str| Err(message.to_owned());
        for (status, expected) in [
            (json!({"authenticated": true, "audiences": ["appmesh-controller"], "user": user}), Ok(front)),
            (
                json!({"authenticated": true, "audiences": ["sts.amazonaws.com"], "user": user}),
                no("the token is not for appmesh-controller"),
            ),
            (json!({"authenticated": true, "user": user}), no("the token is not for appmesh-controller")),
            (json!({"error": "expired"}), no("expired")),
            (json!({}), no("the token is not valid")),
            (
                json!({"authenticated": true, "audiences": ["appmesh-controller"], "user": {"username": "alice"}}),
                no("the token is not a pod's"),
            ),
        ] {
            assert_eq!(caller(from_value(status).unwrap()), expected);
        }
    }
    #[test]
    fn tokens_are_known_for_a_while() {
        let caller = |pod: usize| Caller { namespace: "shop".to_owned(), pod: pod.to_string(), uid: String::new() };
        let hash = |pod: usize| -> Hash { Sha256::digest(pod.to_le_bytes()).into() };
        let mut known = Known::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        known.insert(hash(1), caller(1), start);
        known.insert(hash(2), caller(2), after(30));
        known.insert(hash(1), caller(1), after(30));
        assert_eq!(known.get(&hash(1), after(59)), Some(caller(1)));
        assert_eq!(known.get(&hash(1), after(60)), Some(caller(1)), "it was found good again");
        assert_eq!(known.get(&hash(3), after(60)), None);
        assert_eq!(known.get(&hash(1), after(90)), None);
        assert!(known.callers.is_empty() && known.by_age.is_empty(), "expired ones leave, asked for or not");
        for pod in 0..REMEMBERED + 5 {
            known.insert(hash(pod), caller(pod), after(100));
        }
        assert_eq!((known.callers.len(), known.by_age.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(known.get(&hash(4), after(100)), None);
        assert_eq!(known.get(&hash(5), after(100)), Some(caller(5)));
    }
    /// An API server that says of each token that it is of a pod of this name; of `slow` only when it is released.
    async fn api_server(reviews: Arc<AtomicUsize>, release: Arc<Notify>) -> Client {
        let review = async move |Json(mut review): Json<Value>| {
            reviews.fetch_add(1, Ordering::SeqCst);
            let token = review["spec"]["token"].clone();
            if token == "slow" {
                release.notified().await;
            }
            let extra = json!({
                "authentication.kubernetes.io/pod-name": [token], "authentication.kubernetes.io/pod-uid": ["u"],
            });
            let user = json!({"username": "system:serviceaccount:shop:default", "extra": extra});
            review["status"] = json!({"authenticated": token != "bad", "audiences": [AUDIENCE], "user": user});
            Json(review)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let api = Router::new().route("/apis/authentication.k8s.io/v1/tokenreviews", post(review));
        tokio::spawn(async move { axum::serve(listener, api).await });
        Client::try_from(kube::Config::new(address.parse().unwrap())).unwrap()
    }

    fn metadata(token: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
        metadata
    }

    #[tokio::test]
    async fn a_slow_review_holds_up_nobody_and_a_good_token_is_reviewed_once() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (reviews, release) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
        let tokens = Arc::new(Tokens::new(api_server(reviews.clone(), release.clone()).await));
        let slow = tokio::spawn({
            let tokens = tokens.clone();
            async move { tokens.caller(&metadata("slow")).await }
        });
        for _ in 0..2 {
            assert_eq!(tokens.caller(&metadata("front-1")).await.unwrap().pod, "front-1");
        }
        for _ in 0..2 {
            assert_eq!(tokens.caller(&metadata("bad")).await.unwrap_err().code(), tonic::Code::Unauthenticated);
        }
        assert_eq!(tokens.caller(&MetadataMap::new()).await.unwrap_err().code(), tonic::Code::Unauthenticated);
        assert!(!slow.is_finished());
        release.notify_one();
        assert_eq!(slow.await.unwrap().unwrap().pod, "slow");
        assert_eq!(reviews.load(Ordering::SeqCst), 4, "one each of the good tokens, two of the bad one");
    }
}
