//! Looks at a cluster, as far as it can be seen.

use crate::plan::Want;
use crate::world::{ClusterView, Fault, Kubernetes, Lookup};
use crate::{kube, live};
use anyhow::Result;
use common::Session;
use common::app_mesh::NAMESPACE;
use common::aws::AwsFlags;
use common::cluster::Cluster;
use pod_role::Agent;
use std::time::Duration;
use tokio::time::timeout;

/// How long an API server may take to answer: one that cannot be reached does not refuse, it is silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the objects and pods of a mesh may take, which can be thousands.
const MESH_PATIENCE: Duration = Duration::from_secs(30);

/// The namespaces of the flow, and the field managers that make them.
const NAMESPACES: [(&str, &[&str]); 2] = [(NAMESPACE, &["appmesh-install", "helm"]), ("k8multi", &["manifest-apply"])];

/// A cluster, as far as it can be seen.
pub async fn view(session: &Session, aws: &AwsFlags, want: &Want, name: &str, facts: Option<Cluster>) -> ClusterView {
    let view = |lookup| ClusterView { name: name.to_owned(), lookup, agent: None };
    let found = match facts {
        Some(facts) => Ok(facts),
        None => session.look_up_cluster(aws, name, None).await,
    };
    let cluster = match found {
        Ok(cluster) => cluster,
        Err(error) => {
            return view(match session.has_cluster(aws, name).await {
                Ok(true) => Lookup::Inactive(Fault::of(&error)),
                Ok(false) => Lookup::Absent(Fault::of(&error)),
                Err(error) => Lookup::Refused(Fault::of(&error)),
            });
        }
    };
    let looked = look(session, aws, want, cluster.clone()).await.map(Box::new).map_err(|error| Fault::of(&error));
    view(Lookup::Active(Box::new(cluster), looked))
}

/// The agent of EKS Pod Identity.
pub async fn agent(session: &Session, aws: &AwsFlags, cluster: &str) -> Result<Agent, Fault> {
    let agent = async { pod_role::agent(&session.aws(aws).await?, cluster).await };
    agent.await.map_err(|error| Fault::of(&error))
}

async fn look(session: &Session, aws: &AwsFlags, want: &Want, cluster: Cluster) -> Result<Kubernetes> {
    let client = session.eks_access(aws, cluster.clone()).await?.client(session).await?;
    let looked = async {
        let late = || anyhow::anyhow!("its API server {} does not answer", cluster.endpoint);
        timeout(PATIENCE, kube::look(&client, &NAMESPACES)).await.unwrap_or_else(|_| Err(late()))
    };
    let mesh = async {
        let look = async { if want.of_a_mesh() { live::look(&client, &cluster).await } else { Ok(None) } };
        let late = |_| Err(Fault { reason: format!("not within {MESH_PATIENCE:?}"), hint: None });
        Ok(timeout(MESH_PATIENCE, look).await.unwrap_or_else(late))
    };
    // Where the API server does not answer, nobody waits for the mesh.
    let (looked, mesh) = tokio::try_join!(looked, mesh)?;
    Ok(Kubernetes { mesh, ..looked })
}
