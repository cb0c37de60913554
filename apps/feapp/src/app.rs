//! What is answered.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::colorapp::{Answer, Colorapp, Silence};

/// The routes; anything else is 404.
pub fn router(colorapp: Colorapp) -> Router {
    Router::new().route("/color", get(color)).route("/ping", get(async || "Pong")).with_state(colorapp)
}

async fn color(State(colorapp): State<Colorapp>, headers: HeaderMap) -> Response {
    match colorapp.ask(&headers).await {
        Ok(answer) => passed_on(answer),
        Err(silence) => {
            server::log(&silence.to_string());
            (status(&silence), silence.to_string()).into_response()
        }
    }
}

/// The status tells a proxy's refusal from a colour: upstream's own feapp loses it.
fn passed_on(answer: Answer) -> Response {
    let mut response = (answer.status, answer.body).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    if let Some(kind) = answer.content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

fn status(silence: &Silence) -> StatusCode {
    match silence {
        Silence::Late(_) => StatusCode::GATEWAY_TIMEOUT,
        Silence::Failed(..) => StatusCode::BAD_GATEWAY,
    }
}
