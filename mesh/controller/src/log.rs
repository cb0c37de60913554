//! Chooses what is logged.

use tracing_subscriber::{EnvFilter, filter::ParseError};

/// The levels that stand for this controller alone.
const VERBOSE: [&str; 2] = ["debug", "trace"];

/// What other crates log unless they are named. Of the SDK's configuration, the controller says itself what is missing.
const OTHERS: &str = "info,aws_config=error";

/// The filter of a level, or of directives as tracing's EnvFilter reads them. `debug` and `trace` alone are this
/// controller's level: what rustls, hyper or kube say of each connection is only logged where it is asked for, such as by
/// `debug,hyper=debug`.
///
/// # Errors
/// A directive does not parse.
pub fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    // Of two directives for the same target, the later holds.
    let mut all = OTHERS.to_owned();
    for directive in directives.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        if directive.eq_ignore_ascii_case("off") {
            all.clear();
        }
        let verbose = VERBOSE.iter().any(|level| level.eq_ignore_ascii_case(directive));
        let directive =
            if verbose { format!("{}={directive}", env!("CARGO_CRATE_NAME")) } else { directive.to_owned() };
        all = format!("{all},{directive}");
    }
    EnvFilter::builder().parse(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing::{Level, Metadata, subscriber::with_default};
    use tracing_subscriber::{Layer, layer::SubscriberExt as _, registry};

    /// Notes what is logged.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl<S: tracing::Subscriber> Layer<S> for Notes {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            let metadata: &Metadata<'_> = event.metadata();
            self.0.lock().unwrap().push(format!("{} {}", metadata.target(), metadata.level()));
        }
    }

    /// The most verbose level of each target that is logged.
    fn logged(directives: &str) -> String {
        let notes = Notes::default();
        with_default(registry().with(filter(directives).unwrap()).with(notes.clone()), || {
            macro_rules! say {
                ($($target:literal),+) => {$(
                    tracing::event!(target: $target, Level::ERROR, "");
                    tracing::event!(target: $target, Level::WARN, "");
                    tracing::event!(target: $target, Level::INFO, "");
                    tracing::event!(target: $target, Level::DEBUG, "");
                    tracing::event!(target: $target, Level::TRACE, "");
                )+};
            }
            say!("appmesh_controller::status", "hyper::client", "aws_config::sts");
        });
        let notes = notes.0.lock().unwrap();
        let last = |target: &str| {
            let mut of_target = notes.iter().filter_map(|note| note.strip_prefix(target));
            of_target.next_back().unwrap_or(" OFF").trim().to_lowercase()
        };
        let targets = ["appmesh_controller::status", "hyper::client", "aws_config::sts"];
        targets.map(last).join(" ")
    }

    #[test]
    fn a_level_is_this_controllers() {
        for (directives, expected) in [
            ("", "info info error"),
            ("info", "info info error"),
            ("debug", "debug info error"),
            ("DEBUG", "debug info error"),
            ("trace", "trace info error"),
            ("warn", "warn warn error"),
            ("error", "error error error"),
            ("off", "off off off"),
            ("debug,hyper=debug", "debug debug error"),
            ("info,appmesh_controller::status=debug", "debug info error"),
            ("debug,aws_config=info", "debug info info"),
        ] {
            assert_eq!(logged(directives), expected, "{directives:?}");
        }
        assert!(filter("hyper=loud").is_err());
    }
}
