//! Decides which backend a connection is for. Unlike a request it names no host: all there is are the address and the port
//! that it was made to.

use super::{Backend, RoutedListener, Target, Upstream};

/// A backend that is called by TCP.
#[derive(Clone, Copy, Debug)]
pub struct TcpBackend<'a> {
    /// The backend.
    pub backend: &'a Backend,
    /// The listener whose first route takes all connections.
    pub listener: &'a RoutedListener,
}

/// Where connections go.
#[derive(PartialEq)]
struct Destination<'a> {
    mesh: &'a str,
    /// The upstreams with their shares.
    targets: Vec<(&'a Target, Option<&'a Upstream>)>,
    /// How long a connection may stay silent.
    idle_millis: Option<u64>,
}

impl<'a> TcpBackend<'a> {
    /// All of these backends, each port of one by itself.
    pub fn all(backends: &'a [Backend]) -> Vec<Self> {
        let listeners = |backend: &'a Backend| {
            let routing = backend.routing.as_deref().into_iter();
            routing.flat_map(|routing| routing.tcp()).map(move |listener| Self { backend, listener })
        };
        backends.iter().flat_map(listeners).collect()
    }

    /// Those whose connections nothing else may be meant by. Of several that lead to the same it is the first.
    pub fn distinct(backends: &'a [Backend]) -> Vec<Self> {
        let all = Self::all(backends);
        let mut distinct: Vec<Self> = Vec::new();
        for one in &all {
            let is_twin = distinct.iter().any(|other| other.overlaps(one));
            if !is_twin && !all.iter().any(|other| other.conflicts(one)) {
                distinct.push(*one);
            }
        }
        distinct
    }

    /// Whether a connection may be for either, and they do not lead to the same.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.overlaps(other) && self.leads_to() != other.leads_to()
    }

    fn leads_to(&self) -> Destination<'_> {
        let route = self.listener.routes.first();
        let upstreams = self.backend.routing.as_deref().map(|routing| &routing.upstreams);
        let targets = route.into_iter().flat_map(|route| &route.targets).filter(|target| target.weight > 0);
        let targets = targets.map(|target| (target, upstreams.and_then(|upstreams| upstreams.get(&target.upstream))));
        let idle_millis = route.and_then(|route| route.timeouts.idle_millis);
        Destination { mesh: &self.backend.mesh, targets: targets.collect(), idle_millis }
    }

    /// Whether a connection may be for either. One that is known by its address is told from one that is not.
    fn overlaps(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.backend.addresses, &other.backend.addresses);
        let same_address = if ours.is_empty() || theirs.is_empty() {
            ours.is_empty() && theirs.is_empty()
        } else {
            !ours.is_disjoint(theirs)
        };
        self.listener.port.port == other.listener.port.port && same_address
    }
}
