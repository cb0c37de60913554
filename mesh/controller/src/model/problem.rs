//! Says what is wrong with an object. Admission refuses, conditions report and routing leaves out by the same problems.

use std::fmt;

use serde::Serialize;

/// Why a value cannot be part of a mesh, such as `does not begin with /`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    /// From any words.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// What is wrong at one place of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The condition's reason.
    pub reason: Reason,
    /// Such as `spec.listeners[0].tls`; empty where it is the object as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What is wrong there, in words.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// Reason of a condition, for machines. They are sorted: the first is the one that a condition names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Reason {
    /// The object does not parse, or makes no sense.
    Invalid,
    /// A field that this controller does not support.
    Unsupported,
    /// The object was made before the webhook, and has no `meshRef`.
    MeshUnknown,
    /// The Mesh of `meshRef` does not exist.
    MeshNotFound,
    /// A VirtualService that a VirtualNode names as a backend does not exist, or it names none yet.
    BackendNotFound,
    /// The VirtualGateway of a GatewayRoute does not exist.
    GatewayNotFound,
    /// The VirtualGateway of a GatewayRoute has no listener for it; or a VirtualRouter has none, or the VirtualNode that a
    /// VirtualService names.
    ListenerNotFound,
    /// What a VirtualRouter or GatewayRoute names as a target does not exist.
    TargetNotFound,
    /// The VirtualService that a GatewayRoute names as its target has a problem.
    TargetNotActive,
    /// Which paths of a GatewayRoute are those of its target's route cannot be said.
    PathUndecided,
    /// The VirtualRouter or VirtualNode that a VirtualService names does not exist.
    ProviderNotFound,
    /// The VirtualRouter that a VirtualService names has a problem.
    ProviderNotActive,
    /// Another VirtualService of the mesh has the same host, and is older.
    HostConflict,
    /// Two backends are called by TCP on the same port, and nothing tells their connections apart.
    PortConflict,
    /// All targets of a route have weight 0.
    NoWeight,
    /// The Cloud Map namespace does not exist.
    CloudMapNamespaceNotFound,
    /// Cloud Map does not answer.
    CloudMapUnavailable,
    /// Cloud Map refuses what other clusters are to hear of the VirtualService.
    NotPublished,
    /// The VirtualService of a backend's ARN could not be looked up yet.
    BackendUnavailable,
    /// No cluster publishes the VirtualService of a backend's ARN.
    BackendNotPublished,
    /// What another cluster publishes needs a newer controller here.
    BackendNotUnderstood,
    /// The VirtualNode selects no pods.
    NoPods,
    /// None of the pods that the VirtualNode selects is ready.
    PodsNotReady,
}

impl Reason {
    /// Whether admission refuses an object for it: whatever can only be mended by changing this very object.
    pub fn refuses(self) -> bool {
        matches!(self, Self::Invalid | Self::Unsupported)
    }

    /// Whether the object is in force all the same: it is right, and something else is not there yet.
    pub fn waits(self) -> bool {
        matches!(
            self,
            Self::NotPublished
                | Self::BackendUnavailable
                | Self::BackendNotPublished
                | Self::BackendNotUnderstood
                | Self::NoPods
                | Self::PodsNotReady
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants' names are the reasons.
        fmt::Debug::fmt(self, f)
    }
}
