//! Whose stream it is: a sidecar shows its pod's projected service account token, the API server says whose that is.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest as _, Sha256};
use tonic::{Status, async_trait, metadata::MetadataMap};

/// Audience of the sidecars' tokens.
pub const AUDIENCE: &str = "appmesh-controller";
/// How long a token that was found good is not asked about again: a reconnect costs no call then.
const REMEMBER: Duration = Duration::from_secs(60);

/// The pod that calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid: a later pod of the same name is another.
    pub uid: String,
}

/// Tells callers.
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// The pod whose token is in the metadata.
    async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Status>;
}

/// Asks the API server.
pub struct Tokens {
    reviews: Api<TokenReview>,
    /// By hash of the token.
    known: Mutex<HashMap<[u8; 32], (Instant, Caller)>>,
}

impl Tokens {
    /// `client` may create TokenReviews.
    pub fn new(client: Client) -> Self {
        Self { reviews: Api::all(client), known: Mutex::default() }
    }

    fn remembered(&self, token: &[u8; 32]) -> Option<Caller> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (since, _)| since.elapsed() < REMEMBER);
        known.get(token).map(|(_, caller)| caller.clone())
    }

    async fn review(&self, token: &str) -> Result<Caller, Status> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) },
            ..TokenReview::default()
        };
        let reviewed = self.reviews.create(&PostParams::default(), &review).await.map_err(|error| {
            tracing::warn!(%error, "cannot review a sidecar's token");
            Status::unavailable("the API server does not answer")
        })?;
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
        if let Some(caller) = self.remembered(&hash) {
            return Ok(caller);
        }
        let caller = self.review(token).await?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(hash, (Instant::now(), caller.clone()));
        Ok(caller)
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
    use serde_json::{from_value, json};

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
}
