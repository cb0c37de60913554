//! Errors that know their exit code.
//!
//! A tool returns [`anyhow::Error`] with context at every call. Somewhere in the chain an [`Error`] may say which
//! [`Kind`] it is and what to do next; an AWS or Kubernetes error is classified by its own type. Anything else is
//! [`Kind::Failed`].

use std::fmt::Display;

/// What a caller can do about a failure. The number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The world said no, or the answer is bad.
    Failed = 1,
    /// The command line is wrong. clap prints these; a tool returns it only for what clap cannot see.
    Usage = 2,
    /// The document on stdin is wrong.
    Input = 3,
    /// Documents disagree, or what exists is not ours to change.
    Conflict = 4,
    /// Throttled, not ready in time, network: the same call may work later.
    Retry = 5,
}

impl Kind {
    /// The word used in the error line.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Usage => "usage",
            Kind::Input => "input",
            Kind::Conflict => "conflict",
            Kind::Retry => "retry",
        }
    }
}

/// An error whose kind is known.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    /// What failed and on which thing: lower case, no full stop.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Error {
    fn new(kind: Kind, message: impl Display) -> Self {
        Self { kind, message: message.to_string(), hint: None }
    }

    /// The world said no.
    pub fn failed(message: impl Display) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// A combination of flags that clap cannot refuse.
    pub fn usage(message: impl Display) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// The document is wrong.
    pub fn input(message: impl Display) -> Self {
        Self::new(Kind::Input, message)
    }

    /// Somebody else's, or two documents that disagree.
    pub fn conflict(message: impl Display) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// May work later.
    pub fn retry(message: impl Display) -> Self {
        Self::new(Kind::Retry, message)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
}

/// The kind of an error and the hint that goes with it: the outermost link of the chain that knows wins.
pub fn classify(error: &anyhow::Error) -> (Kind, Option<&str>) {
    // An Error given as context is no link of the chain of its own; anyhow itself finds the outermost of these.
    let context = error.downcast_ref::<Error>();
    let mut kind = context.map(|known| known.kind);
    let mut hint = context.and_then(|known| known.hint.as_deref());
    for cause in error.chain() {
        if let Some(known) = cause.downcast_ref::<Error>() {
            kind = kind.or(Some(known.kind));
            hint = hint.or(known.hint.as_deref());
        }
        #[cfg(feature = "aws")]
        if let Some(call) = cause.downcast_ref::<crate::aws::CallError>() {
            kind = kind.or(Some(call.kind()));
            hint = hint.or(call.hint());
        }
        #[cfg(feature = "kube")]
        if let Some(error) = cause.downcast_ref::<::kube::Error>() {
            kind = kind.or(Some(crate::kube::kind(error)));
            hint = hint.or(crate::kube::hint(error));
        }
    }
    (kind.unwrap_or(Kind::Failed), hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_outermost_known_error_decides() {
        let inner = Err::<(), _>(Error::retry("throttled").hint("wait"));
        let outer = inner.context(Error::conflict("role mesh is not ours")).err();
        let outer = outer.as_ref().map(classify);
        assert_eq!(outer, Some((Kind::Conflict, Some("wait"))));
    }

    #[test]
    fn an_unknown_error_is_a_failure() {
        assert_eq!(classify(&anyhow::anyhow!("no")), (Kind::Failed, None));
    }
}
