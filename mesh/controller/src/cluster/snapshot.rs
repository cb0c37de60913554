//! Holds the objects of the cluster at one moment, with what finds them.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Resource, ResourceExt as _, api::ListParams, runtime::reflector};
use mesh_api::{BackendGroup, GatewayRoute, Mesh, VirtualGateway, VirtualNode, VirtualRouter, VirtualService};

use super::{
    kinds::with_kinds,
    object::{Object, Parsed, Unreadable},
    services::{Service, Services},
};

/// The objects of one kind, sorted by namespace and name.
#[derive(Clone, Debug)]
pub struct Objects<K>(Vec<Arc<Object<K>>>);

impl<K> Default for Objects<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Resource> FromIterator<Arc<Object<K>>> for Objects<K> {
    fn from_iter<I: IntoIterator<Item = Arc<Object<K>>>>(objects: I) -> Self {
        let mut objects: Vec<_> = objects.into_iter().collect();
        objects.sort_by(|a, b| key(a).cmp(&key(b)));
        Self(objects)
    }
}

impl<K: Resource> Objects<K> {
    /// The object of that name; the namespace of a Mesh is empty.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object<K>>> {
        let index = self.0.binary_search_by(|object| key(object).cmp(&(namespace, name))).ok()?;
        self.0.get(index)
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Object<K>>> {
        self.0.iter()
    }

    /// Those of one namespace.
    pub fn of_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Object<K>>> {
        let start = self.0.partition_point(|object| key(object).0 < namespace);
        self.0.iter().skip(start).take_while(move |object| key(object).0 == namespace)
    }
}

fn key<K: Resource>(object: &Object<K>) -> (&str, &str) {
    let meta = object.meta();
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

macro_rules! snapshot {
    ($($field:ident: $kind:ident,)+) => {
        /// All objects but the pods.
        #[derive(Clone, Debug, Default)]
        pub struct Snapshot {
            $(
                #[doc = concat!("Each ", stringify!($kind), " that parses.")]
                pub $field: Objects<$kind>,
            )+
            /// The labels of each namespace, by its name.
            pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
            /// The Services.
            pub services: Services,
            /// The objects that do not parse. Nothing else of them is known, and the others do without them.
            pub unreadable: Vec<Arc<Unreadable>>,
        }

        /// Local copies of all objects but the pods.
        #[derive(Clone)]
        pub struct Copies {
            $(pub $field: reflector::Store<Parsed<$kind>>,)+
            pub namespaces: reflector::Store<Namespace>,
            pub services: reflector::Store<Service>,
        }

        impl Copies {
            /// Waits until everything that exists has been listed.
            pub async fn wait_until_ready(&self) -> anyhow::Result<()> {
                $(self.$field.wait_until_ready().await.context(concat!("listing ", stringify!($field)))?;)+
                self.namespaces.wait_until_ready().await.context("listing namespaces")?;
                self.services.wait_until_ready().await.context("listing services")
            }

            /// The objects now.
            pub fn snapshot(&self) -> Snapshot {
                let mut snapshot = Snapshot::default();
                $(snapshot.$field = snapshot.read(&self.$field);)+
                let labels = |namespace: &Arc<Namespace>| (namespace.name_any(), namespace.labels().clone());
                snapshot.namespaces = self.namespaces.state().iter().map(labels).collect();
                snapshot.services = self.services.state().into_iter().collect();
                snapshot
            }
        }
    };
}
with_kinds!(snapshot);

impl Snapshot {
    /// Reads from the API server what a decision about an object of one namespace rests on: the meshes, the
    /// VirtualGateways, the namespace and its VirtualNodes.
    ///
    /// # Errors
    /// The API server does not answer, or there is no such namespace.
    pub async fn ask(client: &Client, namespace: &str) -> anyhow::Result<Self> {
        let every = ListParams::default();
        let meshes = Api::<Parsed<Mesh>>::all(client.clone());
        let nodes = Api::<Parsed<VirtualNode>>::namespaced(client.clone(), namespace);
        let gateways = Api::<Parsed<VirtualGateway>>::all(client.clone());
        let namespaces = Api::<Namespace>::all(client.clone());
        let (meshes, nodes, gateways, metadata) = tokio::try_join!(
            meshes.list(&every),
            nodes.list(&every),
            gateways.list(&every),
            namespaces.get_metadata(namespace)
        )
        .with_context(|| format!("reading what namespace {namespace} holds"))?;
        Ok(Self {
            meshes: meshes.items.into_iter().filter_map(Parsed::object).collect(),
            virtual_nodes: nodes.items.into_iter().filter_map(Parsed::object).collect(),
            virtual_gateways: gateways.items.into_iter().filter_map(Parsed::object).collect(),
            namespaces: [(namespace.to_owned(), metadata.metadata.labels.unwrap_or_default())].into(),
            ..Self::default()
        })
    }

    /// The Mesh of that name.
    pub fn mesh(&self, name: &str) -> Option<&Arc<Object<Mesh>>> {
        self.meshes.get("", name)
    }

    fn read<K>(&mut self, copy: &reflector::Store<Parsed<K>>) -> Objects<K>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        let objects = copy.state();
        let unreadable = objects.iter().filter_map(|object| match object.as_ref() {
            Parsed::Unreadable(unreadable) => Some(unreadable.clone()),
            Parsed::Object(_) => None,
        });
        self.unreadable.extend(unreadable);
        objects.iter().filter_map(|object| object.as_ref().clone().object()).collect()
    }
}
