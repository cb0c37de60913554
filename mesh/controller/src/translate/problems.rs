//! Collects what is wrong with objects.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use mesh_api::{Mesh, MeshObject as _, PortMapping};

use super::account;
use crate::{
    cluster::Object,
    model::{Account, Invalid, Port, Problem, Protocol, Reason},
};

/// What is wrong with one object, as far as it was found.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Notes a problem.
    pub fn add(&mut self, reason: Reason, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { reason, path: path.into(), message: message.into() });
    }

    /// Notes that a value makes no sense.
    pub fn invalid(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.add(Reason::Invalid, path, message);
    }

    /// The value, or notes why there is none.
    pub fn take<T>(&mut self, path: impl Into<String>, value: Result<T, Invalid>) -> Option<T> {
        value.map_err(|Invalid(message)| self.invalid(path, message)).ok()
    }

    /// All of them, for people.
    pub fn into_words(self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}

/// Where an object is to live.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The account and region.
    pub account: &'a Account,
    /// `awsName` of the mesh of its namespace; none for a Mesh, or when the Mesh is gone.
    pub mesh: Option<&'a str>,
}

/// A kind whose objects can be checked one by one.
pub trait Check {
    /// Notes what makes no sense in an object, or cannot be supported.
    fn check(&self, place: Place<'_>, problems: &mut Problems);
}

/// What is wrong with an object by itself, whatever else there is: admission refuses it for that.
pub fn check<K: Check>(object: &Object<K>, place: Place<'_>) -> Vec<Problem> {
    let mut problems = Problems::default();
    object.check(place, &mut problems);
    problems.into_vec()
}

/// What is wrong by itself with an object of a Mesh.
pub fn check_member<K: Check>(object: &Object<K>, mesh: &Mesh, account: &Account) -> Vec<Problem> {
    check(object, Place { account: &account::owner(account, mesh), mesh: Some(&mesh.aws_name()) })
}

/// Notes a selector that does not parse.
pub fn selector(path: &str, selector: Option<&LabelSelector>, problems: &mut Problems) {
    if let Some(Err(error)) = selector.map(|selector| Selector::try_from(selector.clone())) {
        problems.invalid(path, error.to_string());
    }
}

/// Notes listeners of the same port.
pub fn listeners(ports: impl Iterator<Item = PortMapping>, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (index, PortMapping { port, .. }) in ports.enumerate() {
        if !seen.insert(port) {
            let path = format!("spec.listeners[{index}].portMapping.port");
            problems.invalid(path, format!("{port} is the port of another listener too"));
        }
    }
}

/// A port mapping in the model.
pub fn port(mapping: PortMapping) -> Port {
    Port { port: mapping.port, protocol: protocol(mapping.protocol) }
}

/// A protocol in the model.
pub fn protocol(protocol: mesh_api::Protocol) -> Protocol {
    match protocol {
        mesh_api::Protocol::Grpc => Protocol::Grpc,
        mesh_api::Protocol::Http => Protocol::Http,
        mesh_api::Protocol::Http2 => Protocol::Http2,
        mesh_api::Protocol::Tcp => Protocol::Tcp,
    }
}

/// A duration in milliseconds.
pub fn millis(duration: mesh_api::Duration) -> u64 {
    u64::try_from(std::time::Duration::from(duration).as_millis()).unwrap_or(u64::MAX)
}

/// What may be absent; `None` if it is given and has a problem.
pub fn given_is_fine<T>(given: Option<Option<T>>) -> Option<Option<T>> {
    given.map_or(Some(None), |given| given.map(Some))
}
