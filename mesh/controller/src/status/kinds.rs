//! Says what of each kind's status and end is its own.

use std::{collections::BTreeSet, sync::Arc};

use mesh_api::{
    Arn, BackendGroup, GatewayRoute, Mesh, MeshMember as _, MeshObject, VirtualGateway, VirtualNode, VirtualRouter,
    VirtualService,
};

use super::{CloudMapResource, View, writer::Target};
use crate::{
    cluster::{Object, Snapshot, Unreadable, kinds::with_kinds},
    model::{ObjectKey, ServiceKey},
    translate::object_key,
};

/// Keeps a Mesh until its members are gone.
pub const MESH_MEMBERS: &str = "finalizers.appmesh.k8s.aws/mesh-members";
/// Keeps a VirtualGateway until its GatewayRoutes are gone.
pub const GATEWAY_MEMBERS: &str = "finalizers.appmesh.k8s.aws/virtualgateway-members";
/// Keeps an object until what Cloud Map holds of it is gone.
pub const CLOUDMAP_RESOURCES: &str = "finalizers.appmesh.k8s.aws/aws-cloudmap-resources";
/// Amazon's controller sets it; with no App Mesh API there is nothing to clean up behind it.
pub const APPMESH_RESOURCES: &str = "finalizers.appmesh.k8s.aws/aws-appmesh-resources";

/// A kind with a status.
pub trait Reported: MeshObject {
    /// Keeps an object until what must go before it is gone.
    const FINALIZER: Option<&'static str> = None;
    /// Whether other objects must go before it.
    const HAS_MEMBERS: bool = false;

    /// The objects that must go before it.
    fn members(&self, _: &Snapshot) -> Vec<ObjectKey> {
        Vec::new()
    }

    /// uid of the Mesh that it is a member of.
    fn mesh_uid(&self) -> Option<&str> {
        None
    }

    /// The Cloud Map namespace that must be there.
    fn cloud_map_namespace(&self) -> Option<&str> {
        None
    }

    /// What of it is in Cloud Map. `arn` is its ARN, if its mesh is known or was.
    fn cloud_map_resource(&self, _arn: Option<&Arn>) -> Option<CloudMapResource> {
        None
    }

    /// Whether it has pods.
    fn selects_pods(&self) -> bool {
        false
    }
}

impl Reported for Mesh {
    const FINALIZER: Option<&'static str> = Some(MESH_MEMBERS);
    const HAS_MEMBERS: bool = true;

    fn members(&self, snapshot: &Snapshot) -> Vec<ObjectKey> {
        let uid = self.metadata.uid.as_deref();
        let mut members = Vec::new();
        macro_rules! gather {
            ($($field:ident: $kind:ident,)+) => {$(
                let of_mesh = snapshot.$field.iter().filter(|object| object.mesh_uid().is_some_and(|mesh| Some(mesh) == uid));
                members.extend(of_mesh.map(|object| object_key::<$kind>(object)));
            )+};
        }
        with_kinds!(gather);
        members
    }
}

impl Reported for VirtualGateway {
    const FINALIZER: Option<&'static str> = Some(GATEWAY_MEMBERS);
    const HAS_MEMBERS: bool = true;

    fn members(&self, snapshot: &Snapshot) -> Vec<ObjectKey> {
        let is_member = |route: &&Arc<Object<GatewayRoute>>| {
            let reference = route.spec.virtual_gateway_ref.as_ref();
            reference.is_some_and(|reference| self.metadata.uid.as_ref() == Some(&reference.uid))
        };
        let members = snapshot.gateway_routes.iter().filter(is_member);
        members.map(|route| object_key::<GatewayRoute>(route)).collect()
    }

    fn mesh_uid(&self) -> Option<&str> {
        self.mesh_ref().map(|reference| reference.uid.as_str())
    }

    fn selects_pods(&self) -> bool {
        self.spec.pod_selector.is_some()
    }
}

impl Reported for GatewayRoute {
    fn mesh_uid(&self) -> Option<&str> {
        self.mesh_ref().map(|reference| reference.uid.as_str())
    }
}

impl Reported for VirtualNode {
    const FINALIZER: Option<&'static str> = Some(CLOUDMAP_RESOURCES);

    fn mesh_uid(&self) -> Option<&str> {
        self.mesh_ref().map(|reference| reference.uid.as_str())
    }

    fn cloud_map_namespace(&self) -> Option<&str> {
        Some(&self.spec.service_discovery.as_ref()?.aws_cloud_map.as_ref()?.namespace_name)
    }

    fn cloud_map_resource(&self, _: Option<&Arn>) -> Option<CloudMapResource> {
        let discovery = self.spec.service_discovery.as_ref()?.aws_cloud_map.as_ref()?;
        let (namespace, service) = (discovery.namespace_name.clone(), discovery.service_name.clone());
        Some(CloudMapResource::Service(ServiceKey { namespace, service }))
    }

    fn selects_pods(&self) -> bool {
        self.spec.pod_selector.is_some()
    }
}

impl Reported for BackendGroup {
    fn mesh_uid(&self) -> Option<&str> {
        self.mesh_ref().map(|reference| reference.uid.as_str())
    }
}

impl Reported for VirtualRouter {
    fn mesh_uid(&self) -> Option<&str> {
        self.mesh_ref().map(|reference| reference.uid.as_str())
    }
}

impl Reported for VirtualService {
    const FINALIZER: Option<&'static str> = Some(CLOUDMAP_RESOURCES);

    fn mesh_uid(&self) -> Option<&str> {
        self.mesh_ref().map(|reference| reference.uid.as_str())
    }

    fn cloud_map_resource(&self, arn: Option<&Arn>) -> Option<CloudMapResource> {
        let present = || self.arn().and_then(|arn| arn.parse().ok());
        arn.cloned().or_else(present).map(CloudMapResource::Publication)
    }
}

/// The names of all objects.
pub fn keys(snapshot: &Snapshot) -> Vec<ObjectKey> {
    let mut keys: Vec<_> = snapshot.unreadable.iter().map(|object| unreadable_key(object)).collect();
    macro_rules! gather {
        ($($field:ident: $kind:ident,)+) => {$(
            keys.extend(snapshot.$field.iter().map(|object| object_key::<$kind>(object)));
        )+};
    }
    with_kinds!(gather);
    keys
}

/// Names an object that does not parse.
pub fn unreadable_key(object: &Unreadable) -> ObjectKey {
    Target { resource: &object.resource, metadata: &object.metadata }.key()
}

/// The objects that came, went, were changed or are reported otherwise. One that is being deleted after its
/// members is always among them, since any change may be the end of the last.
pub fn changed(before: &View, now: &View) -> BTreeSet<ObjectKey> {
    let version = |object: &Arc<Unreadable>| (unreadable_key(object), object.metadata.resource_version.clone());
    let unreadable = |view: &View| view.snapshot.unreadable.iter().map(version).collect::<BTreeSet<_>>();
    let unreadable = unreadable(before).symmetric_difference(&unreadable(now)).map(|(key, _)| key.clone()).collect();
    let mut changed: BTreeSet<ObjectKey> = unreadable;
    let (reported, reports) = (&before.translation.reports, &now.translation.reports);
    macro_rules! gather {
        ($($field:ident: $kind:ident,)+) => {$(
            let (known, objects) = (&before.snapshot.$field, &now.snapshot.$field);
            for object in objects.iter() {
                let key = object_key::<$kind>(object);
                let same = known.get(&key.namespace, &key.name).is_some_and(|known| Arc::ptr_eq(known, object));
                if !same || reported.get(&key) != reports.get(&key) || ends_with_members(object) {
                    changed.insert(key);
                }
            }
            let keys = known.iter().map(|object| object_key::<$kind>(object));
            changed.extend(keys.filter(|key| objects.get(&key.namespace, &key.name).is_none()));
        )+};
    }
    with_kinds!(gather);
    changed
}

fn ends_with_members<K: Reported>(object: &Object<K>) -> bool {
    K::HAS_MEMBERS && object.meta().deletion_timestamp.is_some()
}
