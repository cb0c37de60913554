//! Holds what other clusters publish of a VirtualService.

use std::sync::Arc;

use super::Routing;

/// What other clusters publish of a VirtualService, as it was last looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// Nobody publishes it.
    Nobody,
    /// It could not be looked up yet: why.
    Unavailable(String),
    /// Where its requests go.
    Routing(Arc<Routing>),
    /// It needs a newer controller here, or is broken: why, and the last that was understood.
    NotUnderstood(String, Option<Arc<Routing>>),
}

impl Published {
    /// Where its requests go, as far as it was ever understood.
    pub fn routing(&self) -> Option<&Arc<Routing>> {
        match self {
            Self::Routing(routing) | Self::NotUnderstood(_, Some(routing)) => Some(routing),
            Self::Nobody | Self::Unavailable(_) | Self::NotUnderstood(_, None) => None,
        }
    }
}
