//! Tries the xDS server with many clients at once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::{net::Ipv4Addr, sync::Arc};

use appmesh_controller::{
    envoy::{Resource, Resources},
    http,
    metrics::{Metrics, ResourceType},
    model::{WorkloadKind, WorkloadName},
    tls::{Policy, TlsListener},
    xds::{
        Ads, Cache, Identify, Kind, Snapshot,
        auth::{Authenticate, Caller},
    },
};
use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    google::protobuf::Any,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status, async_trait,
    metadata::MetadataMap,
    transport::{Certificate as Authority, Channel, ClientTlsConfig},
};

mod support;

use support::{certificates, served, wait_for};

/// Clients of each of two workloads.
const CLIENTS: usize = 20;

/// Takes the token for the pod's name.
struct TokensAreNames;

#[async_trait]
impl Authenticate for TokensAreNames {
    async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        let pod = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let pod = pod.ok_or_else(|| Status::unauthenticated("no token"))?.to_owned();
        Ok(Caller { namespace: "shop".to_owned(), pod, uid: String::new() })
    }
}

/// The pods of a workload have its name.
struct PodsAreWorkloads;

impl Identify for PodsAreWorkloads {
    fn workload(&self, caller: &Caller, claimed: &str) -> Result<WorkloadName, Status> {
        let own = workload(&caller.pod);
        if own.to_string() == claimed { Ok(own) } else { Err(Status::permission_denied("it is another's")) }
    }
}

fn workload(name: &str) -> WorkloadName {
    WorkloadName { mesh: "shop".to_owned(), kind: WorkloadKind::VirtualNode, name: name.to_owned() }
}

fn set(name: &str, version: &str) -> Resources {
    let body = Any { type_url: String::new(), value: version.as_bytes().to_vec() };
    Resources::from([(
        name.to_owned(),
        Arc::new(Resource { name: name.to_owned(), version: version.to_owned(), body }),
    )])
}

fn snapshot(route: &str) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        clusters: set("red", "1"),
        endpoints: set("red", "1"),
        listeners: set("egress", "1"),
        routes: set("routes", route),
        ..Snapshot::default()
    })
}

/// Accepts all it is sent, and asks for what that names.
async fn client(
    mut server: AggregatedDiscoveryServiceClient<Channel>,
    pod: &str,
    claimed: WorkloadName,
    received: mpsc::UnboundedSender<DeltaDiscoveryResponse>,
) -> Result<(), Status> {
    let (sender, requests) = mpsc::channel(8);
    let node = Some(Node { id: claimed.to_string(), ..Node::default() });
    let ask = |kind: Kind, names: &[&str], nonce: &str| DeltaDiscoveryRequest {
        node: node.clone(),
        type_url: kind.type_url(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    sender.send(ask(Kind::Cluster, &[], "")).await.unwrap();
    sender.send(ask(Kind::Listener, &[], "")).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(requests));
    request.metadata_mut().insert("authorization", pod.parse().unwrap());
    let mut responses = server.delta_aggregated_resources(request).await?.into_inner();
    while let Some(response) = responses.message().await? {
        let (kind, nonce) = (Kind::of(&response.type_url).unwrap(), response.nonce.clone());
        let _ = received.send(response);
        let named = match kind {
            Kind::Cluster => Some((Kind::Endpoint, "red")),
            Kind::Listener => Some((Kind::Route, "routes")),
            Kind::Secret | Kind::Endpoint | Kind::Route => None,
        };
        if let Some((kind, name)) = named {
            sender.send(ask(kind, &[name], "")).await.unwrap();
        }
        sender.send(ask(kind, &[], &nonce)).await.unwrap();
    }
    Ok(())
}

#[tokio::test]
async fn a_change_is_sent_to_those_that_need_it() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let authority = certificates(folder.path());
    let (cache, metrics, stop) = (Arc::new(Cache::default()), Metrics::new(), CancellationToken::new());
    let listener = http::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let listener = TlsListener::new(listener, served(folder.path()), "h2", &Policy::default()).unwrap();
    let ads = Ads::new(TokensAreNames, Arc::new(PodsAreWorkloads), cache.clone(), metrics.clone(), stop.clone());
    let server = tokio::spawn(ads.serve(listener));

    let tls = ClientTlsConfig::new().ca_certificate(Authority::from_pem(authority)).domain_name("localhost");
    let endpoint = Channel::from_shared(format!("https://127.0.0.1:{port}")).unwrap().tls_config(tls).unwrap();
    let connect = async || AggregatedDiscoveryServiceClient::new(endpoint.connect().await.unwrap());
    let (sender, mut received) = mpsc::unbounded_channel();
    let refused = client(connect().await, "front", workload("back"), sender.clone()).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::PermissionDenied);
    assert_eq!(metrics.xds_streams.get(), 0);

    let greedy = DeltaDiscoveryRequest {
        node: Some(Node { id: workload("front").to_string(), ..Node::default() }),
        type_url: Kind::Endpoint.type_url(),
        resource_names_subscribe: (0..20_000).map(|n| n.to_string()).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    let mut request = Request::new(tokio_stream::iter([greedy]));
    request.metadata_mut().insert("authorization", "front".parse().unwrap());
    let mut responses = connect().await.delta_aggregated_resources(request).await.unwrap().into_inner();
    assert_eq!(responses.message().await.unwrap_err().code(), tonic::Code::ResourceExhausted);

    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        for name in ["front", "back"] {
            let (server, sender) = (connect().await, sender.clone());
            clients.spawn(async move { client(server, name, workload(name), sender).await });
        }
    }
    let both = i64::try_from(2 * CLIENTS).unwrap();
    wait_for("all streams", async || metrics.xds_streams.get() == both).await;
    assert_eq!(cache.waiting(), ["back", "front"].map(workload).into());
    let count = |kind: &str| metrics.xds_acks.get_or_create(&ResourceType { r#type: kind.to_owned() }).get();
    let clients_of = |workloads: usize| u64::try_from(workloads * CLIENTS).unwrap();
    cache.set(&workload("front"), snapshot("1"));
    cache.set(&workload("back"), snapshot("1"));
    wait_for("all have all", async || count("rds") == clients_of(2)).await;
    assert_eq!(["cds", "eds", "lds"].map(count), [clients_of(2); 3]);
    while received.try_recv().is_ok() {}

    cache.set(&workload("front"), snapshot("2"));
    wait_for("all of one workload have the change", async || count("rds") == clients_of(3)).await;
    for _ in 0..CLIENTS {
        let response = received.try_recv().unwrap();
        let resources: Vec<_> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
        assert_eq!(resources, ["routes"]);
    }
    assert!(received.try_recv().is_err(), "nobody else was sent anything, and nothing else");
    assert_eq!(["cds", "eds", "lds"].map(count), [clients_of(2); 3]);
    let converged = format!("appmesh_controller_xds_convergence_seconds_count {}", 3 * CLIENTS);
    wait_for("the times of all changes", async || metrics.text().unwrap().contains(&converged)).await;

    clients.shutdown().await;
    wait_for("all streams are gone", async || metrics.xds_streams.get() == 0 && cache.connected().is_empty()).await;
    stop.cancel();
    server.await.unwrap().unwrap();
}
