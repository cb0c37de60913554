//! What is answered.

use axum::Router;
use axum::routing::get;

/// The colour when COLOR is unset or empty, as in the walkthrough's own application.
const NO_COLOR: &str = "n/a";

/// What COLOR says.
pub fn color(environment: impl Fn(&str) -> Option<String>) -> String {
    environment("COLOR").filter(|color| !color.is_empty()).unwrap_or_else(|| NO_COLOR.to_owned())
}

/// The routes; anything else is 404.
pub fn router(color: String) -> Router {
    Router::new().route("/", get(async || color)).route("/ping", get(async || "Pong"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn color_is_what_the_environment_says() {
        assert_eq!(color(|_| None), "n/a");
        assert_eq!(color(|_| Some(String::new())), "n/a");
        assert_eq!(color(|name| (name == "COLOR").then(|| "red".into())), "red");
    }
}
