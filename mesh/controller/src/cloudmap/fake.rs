//! Stands in for Cloud Map, below the SDK's client.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_servicediscovery::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use super::client::{CloudMap, Creation, NamespaceIds};
use crate::{
    metrics::Metrics,
    model::{Attributes, ServiceKey},
};

/// What a test waits for is there long before, or never.
const PATIENCE: Duration = Duration::from_secs(20);
const ACCOUNT: &str = "123456789012";

/// One account and region. Ids are names, but for namesakes'.
#[derive(Debug, Default)]
pub struct Fake {
    state: Mutex<State>,
    called: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Names and owners' accounts by id.
    namespaces: BTreeMap<String, (String, &'static str)>,
    services: BTreeMap<ServiceKey, Service>,
    operations: Vec<Operation>,
    held: bool,
    failing: BTreeMap<String, String>,
    refused: BTreeMap<String, &'static str>,
    calls: Vec<String>,
}

#[derive(Debug, Default)]
struct Service {
    managed: bool,
    /// By CreateService.
    asked: Value,
    instances: BTreeMap<String, Attributes>,
}

#[derive(Debug)]
struct Operation {
    key: ServiceKey,
    id: String,
    /// None removes.
    attributes: Option<Attributes>,
    outcome: Option<Result<(), String>>,
}

type Answer = Result<Value, (&'static str, String)>;

impl Fake {
    /// One with these namespaces.
    pub fn new(namespaces: &[&str]) -> Arc<Self> {
        let fake = Arc::new(Self::default());
        namespaces.iter().for_each(|name| fake.namespace(name));
        fake
    }

    /// A client of it.
    pub fn client(self: &Arc<Self>) -> CloudMap {
        self.client_of(Creation::default(), NamespaceIds::default())
    }

    /// A client of it that makes services so, and means these namespaces.
    pub fn client_of(self: &Arc<Self>, creation: Creation, ids: NamespaceIds) -> CloudMap {
        let connector = SharedHttpConnector::new(Connector(self.clone()));
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-west-2"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new("a", "b", None, None, "fake")))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build();
        CloudMap::new(&config, ACCOUNT.to_owned(), creation, ids, Metrics::new())
    }

    /// What a service was made by.
    pub fn asked(&self, key: &ServiceKey) -> Value {
        self.lock().services[key].asked.clone()
    }

    /// Makes a namespace.
    pub fn namespace(&self, name: &str) {
        self.namesake(name, name);
    }

    /// Makes a namespace of a name that another may have.
    pub fn namesake(&self, name: &str, id: &str) {
        self.lock().namespaces.insert(id.to_owned(), (name.to_owned(), ACCOUNT));
    }

    /// Shares a namespace of another account with this one.
    pub fn share(&self, name: &str, id: &str) {
        self.lock().namespaces.insert(id.to_owned(), (name.to_owned(), "210987654321"));
    }

    /// Registers an instance as somebody else.
    pub fn register(&self, key: &ServiceKey, id: &str, attributes: &Attributes) {
        self.lock().put(key, id, Some(attributes.clone()));
    }

    /// Removes an instance as somebody else.
    pub fn deregister(&self, key: &ServiceKey, id: &str) {
        self.lock().put(key, id, None);
    }

    /// Keeps operations pending, or does those that are.
    pub fn hold(&self, held: bool) {
        self.lock().held = held;
    }

    /// Lets operations on this instance fail, or no more.
    pub fn fail(&self, id: &str, reason: Option<&str>) {
        let mut state = self.lock();
        match reason {
            Some(reason) => drop(state.failing.insert(id.to_owned(), reason.to_owned())),
            None => drop(state.failing.remove(id)),
        }
    }

    /// Refuses calls of an operation with this code, or no more.
    pub fn refuse(&self, operation: &str, code: Option<&'static str>) {
        let mut state = self.lock();
        match code {
            Some(code) => drop(state.refused.insert(operation.to_owned(), code)),
            None => drop(state.refused.remove(operation)),
        }
    }

    /// The instances of a service; none where there is no such service.
    pub fn instances(&self, key: &ServiceKey) -> Option<BTreeMap<String, Attributes>> {
        self.lock().services.get(key).map(|service| service.instances.clone())
    }

    /// Ids of the instances of a service.
    pub fn ids(&self, key: &ServiceKey) -> Vec<String> {
        self.instances(key).unwrap_or_default().into_keys().collect()
    }

    /// The calls since the last time, such as `RegisterInstance shop/front 10.0.0.1`.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().calls)
    }

    /// Waits until a condition holds. It is looked at after each call.
    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let mut called = self.called.subscribe();
        let wait = async {
            while !holds() {
                // Some conditions come true after the answer only.
                let _ = timeout(Duration::from_millis(50), called.changed()).await;
            }
        };
        assert!(timeout(PATIENCE, wait).await.is_ok(), "{what}: {:#?}", self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn put(&mut self, key: &ServiceKey, id: &str, attributes: Option<Attributes>) {
        let service = self.services.entry(key.clone()).or_default();
        match attributes {
            Some(attributes) => service.instances.insert(id.to_owned(), attributes),
            None => service.instances.remove(id),
        };
    }

    fn settle(&mut self) {
        let held = self.held;
        let mut done = Vec::new();
        for operation in self.operations.iter_mut().filter(|operation| !held && operation.outcome.is_none()) {
            operation.outcome = Some(self.failing.get(&operation.id).map_or(Ok(()), |reason| Err(reason.clone())));
            if operation.outcome == Some(Ok(())) {
                done.push((operation.key.clone(), operation.id.clone(), operation.attributes.clone()));
            }
        }
        for (key, id, attributes) in done {
            self.put(&key, &id, attributes);
        }
    }

    fn start(&mut self, key: ServiceKey, id: &str, attributes: Option<Attributes>) -> Answer {
        let pending = self.operations.iter().enumerate();
        let same = |operation: &Operation| operation.key == key && operation.id == id && operation.outcome.is_none();
        if let Some((index, pending)) = pending.into_iter().find(|(_, operation)| same(operation)) {
            let duplicate = pending.attributes == attributes;
            return Err((if duplicate { "DuplicateRequest" } else { "ResourceInUse" }, format!("operation {index}")));
        }
        self.operations.push(Operation { key, id: id.to_owned(), attributes, outcome: None });
        Ok(json!({"OperationId": (self.operations.len() - 1).to_string()}))
    }

    fn key(&self, id: &str) -> Result<ServiceKey, (&'static str, String)> {
        let found = self.services.keys().find(|key| path(key) == id);
        found.cloned().ok_or(("ServiceNotFound", id.to_owned()))
    }

    fn discovered(&self, asked: &Value) -> Result<(&ServiceKey, &Service), (&'static str, String)> {
        let key = ServiceKey { namespace: text(asked, "NamespaceName"), service: text(asked, "ServiceName") };
        if !self.namespaces.contains_key(&key.namespace) {
            return Err(("NamespaceNotFound", key.namespace));
        }
        self.services.get_key_value(&key).ok_or(("ServiceNotFound", key.service))
    }

    fn answer(&mut self, operation: &str, asked: &Value) -> Answer {
        if let Some(code) = self.refused.get(operation) {
            return Err((code, operation.to_owned()));
        }
        match operation {
            "ListNamespaces" => {
                let shape = |(id, (name, owner)): (&String, &(String, &str))| {
                    let arn = format!("arn:aws:servicediscovery:us-west-2:{owner}:namespace/{id}");
                    json!({"Id": id, "Arn": arn, "Name": name, "Type": "DNS_PRIVATE"})
                };
                Ok(json!({"Namespaces": self.namespaces.iter().map(shape).collect::<Vec<_>>()}))
            }
            "ListServices" => {
                let of = self.services.iter().filter(|(key, _)| asked["Filters"][0]["Values"][0] == key.namespace);
                let shape = |(key, service): (&ServiceKey, &Service)| {
                    let count = service.instances.len();
                    json!({"Id": path(key), "Arn": path(key), "Name": key.service, "InstanceCount": count})
                };
                Ok(json!({"Services": of.map(shape).collect::<Vec<_>>()}))
            }
            "CreateService" => {
                let key = ServiceKey { namespace: text(asked, "NamespaceId"), service: text(asked, "Name") };
                self.services
                    .insert(key.clone(), Service { managed: true, asked: asked.clone(), ..Service::default() });
                Ok(json!({"Service": {"Id": path(&key), "Arn": path(&key)}}))
            }
            "ListTagsForResource" => {
                let key = self.key(&text(asked, "ResourceARN"))?;
                let managed = json!([{"Key": "managed-by", "Value": "appmesh-controller"}]);
                Ok(json!({"Tags": if self.services[&key].managed { managed } else { json!([]) }}))
            }
            "DeleteService" => {
                let key = self.key(&text(asked, "Id"))?;
                let busy = self.operations.iter().any(|operation| operation.key == key && operation.outcome.is_none());
                if busy || !self.services[&key].instances.is_empty() {
                    return Err(("ResourceInUse", path(&key)));
                }
                self.services.remove(&key);
                Ok(json!({}))
            }
            "ListInstances" => {
                let instances = &self.services[&self.key(&text(asked, "ServiceId"))?].instances;
                let shape = |(id, attributes)| json!({"Id": id, "Attributes": attributes});
                Ok(json!({"Instances": instances.iter().map(shape).collect::<Vec<_>>()}))
            }
            "RegisterInstance" => {
                let key = self.key(&text(asked, "ServiceId"))?;
                let attributes = serde_json::from_value(asked["Attributes"].clone()).unwrap();
                self.start(key, &text(asked, "InstanceId"), Some(attributes))
            }
            "DeregisterInstance" => {
                let (key, id) = (self.key(&text(asked, "ServiceId"))?, text(asked, "InstanceId"));
                if !self.services[&key].instances.contains_key(&id) {
                    return Err(("InstanceNotFound", id));
                }
                self.start(key, &id, None)
            }
            "GetOperation" => {
                let index: usize = text(asked, "OperationId").parse().unwrap();
                Ok(match &self.operations[index].outcome {
                    None => json!({"Operation": {"Status": "PENDING"}}),
                    Some(Ok(())) => json!({"Operation": {"Status": "SUCCESS"}}),
                    Some(Err(why)) => {
                        json!({"Operation": {"Status": "FAIL", "ErrorCode": "ACCESS_DENIED", "ErrorMessage": why}})
                    }
                })
            }
            "DiscoverInstances" => {
                let (_, service) = self.discovered(asked)?;
                let shape = |(id, attributes)| json!({"InstanceId": id, "Attributes": attributes});
                let instances: Vec<_> = service.instances.iter().map(shape).collect();
                Ok(json!({"Instances": instances}))
            }
            _ => Err(("UnknownOperation", operation.to_owned())),
        }
    }
}

/// Reaches the fake in place of the network.
#[derive(Debug)]
struct Connector(Arc<Fake>);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let operation = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next()).unwrap();
        let asked: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let answer = {
            let mut state = self.0.lock();
            state.settle();
            if !matches!(operation, "GetOperation" | "ListNamespaces") {
                let named = [text(&asked, "ServiceId"), text(&asked, "ServiceName"), text(&asked, "InstanceId")];
                let named: Vec<_> = named.into_iter().filter(|name| !name.is_empty()).collect();
                state.calls.push(format!("{operation} {}", named.join(" ")).trim_end().to_owned());
            }
            state.answer(operation, &asked)
        };
        self.0.called.send_modify(|called| *called += 1);
        let (status, body) = match answer {
            Ok(answer) => (200, answer),
            Err((code, message)) => (400, json!({"__type": code, "Message": message})),
        };
        let status = StatusCode::try_from(status).unwrap();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body.to_string()))))
    }
}

fn path(key: &ServiceKey) -> String {
    format!("{}/{}", key.namespace, key.service)
}

fn text(asked: &Value, member: &str) -> String {
    asked[member].as_str().unwrap_or_default().to_owned()
}
