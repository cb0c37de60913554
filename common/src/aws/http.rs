//! Carries the AWS SDK's requests, over connections made as every other client's.

use super::ATTEMPT_TIMEOUT;
use crate::connect::{Connector, HttpClient, Obstacle, client};
use crate::proxy::Proxies;
use anyhow::{Chain, Result};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::ErrorKind;
use hyper_util::client::legacy::Error;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The SDK's HTTP client.
///
/// # Errors
/// The environment names a proxy that is none.
pub(super) fn http_client() -> Result<SharedHttpClient> {
    let proxies = Proxies::from_environment()?;
    let connector = Connector::new(proxies.clone(), &[])?.https()?;
    let proxies = Arc::new(proxies);
    // The SDK asks for each call, and limits how long it takes. Calls with the same timeout share their connections.
    let clients = Mutex::new(HashMap::new());
    Ok(http_client_fn(move |settings, _| {
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = settings.connect_timeout().unwrap_or(ATTEMPT_TIMEOUT);
        let client = clients.entry(limit).or_insert_with(|| client(connector.clone(), limit, None));
        SharedHttpConnector::new(Http { client: client.clone(), proxies: proxies.clone() })
    }))
}

struct Http {
    client: HttpClient<SdkBody>,
    proxies: Arc<Proxies>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl HttpConnector for Http {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (client, proxies) = (self.client.clone(), self.proxies.clone());
        HttpConnectorFuture::new(async move {
            let mut request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            proxies.authorize(&mut request);
            let response = client.request(request).await.map_err(failed)?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// Tells the SDK what may be tried again.
fn failed(error: Error) -> ConnectorError {
    let hyper = Chain::new(&error).find_map(|link| link.downcast_ref::<hyper::Error>());
    if let Some(Obstacle::Certificate(_)) = Obstacle::of(&error) {
        ConnectorError::other(error.into(), None)
    } else if hyper.is_some_and(hyper::Error::is_incomplete_message) {
        ConnectorError::other(error.into(), Some(ErrorKind::TransientError))
    } else if hyper.is_some_and(hyper::Error::is_parse) {
        ConnectorError::other(error.into(), None)
    } else if hyper.is_some_and(hyper::Error::is_user) {
        ConnectorError::user(error.into())
    } else {
        ConnectorError::io(error.into())
    }
}
