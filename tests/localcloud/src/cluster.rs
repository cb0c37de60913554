//! An EKS cluster's control plane: etcd, API server, controller manager, scheduler, authenticator.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::cloud::{ACCOUNT, Cloud, REGION, write_json};
use crate::network::{CLUSTER_DNS, SERVICES, Subnet, VPC};
use crate::pki::{Authority, Subject, service_account_keys};
use crate::process::{Program, Supervisor};
use crate::ready;

/// From nothing to an API server that answers takes 5 s on 2 cores; a loaded machine gets more.
const PATIENCE: Duration = Duration::from_secs(90);
/// Where the authenticator answers the API server, on the node only.
const AUTHENTICATOR_PORT: u16 = 21362;

/// One of the region's clusters.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Name at EKS and of its kubeconfig context.
    pub name: &'static str,
    /// Its subnet of the VPC.
    pub subnet: Subnet,
    /// The cloud it is part of.
    pub cloud: Cloud,
}

/// The clusters of the region.
pub fn all(cloud: &Cloud) -> [Cluster; 2] {
    [("c1", 1), ("c2", 2)].map(|(name, number)| Cluster { name, subnet: Subnet { number }, cloud: cloud.clone() })
}

/// Kubernetes users with a certificate: file, user and group.
fn users(node: &str) -> Vec<(&'static str, String, &'static str)> {
    vec![
        ("admin", "kubernetes-admin".to_owned(), "system:masters"),
        ("apiserver-kubelet-client", "kube-apiserver-kubelet-client".to_owned(), "system:masters"),
        ("controller-manager", "system:kube-controller-manager".to_owned(), "eks"),
        ("scheduler", "system:kube-scheduler".to_owned(), "eks"),
        ("kube-proxy", "system:kube-proxy".to_owned(), "eks"),
        ("coredns", "system:coredns".to_owned(), "eks"),
        ("kubelet", format!("system:node:{node}"), "system:nodes"),
    ]
}

impl Cluster {
    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.cloud.cluster(self.name)
    }

    /// A file of its folder, as an argument of a program.
    pub fn file(&self, name: &str) -> String {
        self.folder().join(name).display().to_string()
    }

    /// One of its programs; the name of the log is `CLUSTER-PROGRAM`.
    pub fn program(&self, name: &str, file: &str) -> Program {
        Program::new(self.program_name(name), self.cloud.bin.join(file))
    }

    /// The name of one of its programs, and of its log.
    pub fn program_name(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// The node's name, as EC2 gives it.
    pub fn node(&self) -> String {
        format!("ip-{}.{REGION}.compute.internal", self.subnet.node().to_string().replace('.', "-"))
    }

    /// Makes keys, certificates and kubeconfigs.
    pub fn credentials(&self) -> Result<()> {
        let (pki, node) = (self.cloud.pki(self.name), self.subnet.node().to_string());
        let authority = Authority::create(&pki, &format!("{} kubernetes", self.name))?;
        service_account_keys(&pki)?;
        let kubernetes = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "127.0.0.1",
            "172.20.0.1",
        ];
        let endpoint = [self.subnet.endpoint().to_string(), node.clone()];
        let names: Vec<String> = kubernetes.into_iter().map(str::to_owned).chain(endpoint).collect();
        authority.issue("apiserver", Subject { name: "kube-apiserver", organization: "eks" }, &names)?;
        for (file, name, organization) in users(&self.node()) {
            authority.issue(file, Subject { name: &name, organization }, &[self.node(), node.clone()])?;
            write_json(&self.folder().join(format!("{file}.kubeconfig")), &kubeconfig(&[self.access(file)]))?;
        }
        Ok(())
    }

    /// A kubeconfig context named after the cluster, for the user of `file`.
    pub fn access(&self, file: &str) -> Access {
        let pki = self.cloud.pki(self.name);
        Access {
            name: self.name,
            server: format!("https://{}:6443", self.subnet.endpoint()),
            authority: pki.join("ca.crt"),
            certificate: pki.join(format!("{file}.crt")),
            key: pki.join(format!("{file}.key")),
        }
    }

    /// Starts etcd and the authenticator, which need nothing else, in the namespaces `machine` holds.
    pub async fn start_store(&self, supervisor: &Arc<Supervisor>, machine: u32) -> Result<()> {
        let folder = self.folder();
        fs::create_dir_all(folder.join("authenticator"))?;
        write_json(&folder.join("authenticator/config.yaml"), &self.authenticator())?;
        let authenticator = self
            .program("authenticator", "aws-iam-authenticator")
            .args(["server", "--backend-mode", "MountedFile", "--config"])
            .arg(self.file("authenticator/config.yaml"))
            .on(machine);
        supervisor.start(authenticator);
        let etcd = self
            .program("etcd", "etcd")
            .args(["--data-dir", &self.file("etcd"), "--unsafe-no-fsync"])
            .args([
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
            ])
            .on(machine);
        supervisor.start(etcd);
        let webhook = folder.join("authenticator/webhook.yaml");
        ready::until(
            &format!("{} authenticator wrote its configuration", self.name),
            &self.program_name("authenticator"),
            PATIENCE,
            || async {
                ensure!(fs::metadata(&webhook)?.len() > 0, "{} is empty", webhook.display());
                Ok(())
            },
        )
        .await
    }

    /// Starts the rest of the control plane and waits until the API answers.
    pub async fn start_api(&self, supervisor: &Arc<Supervisor>, machine: u32, issuer: &str) -> Result<Client> {
        supervisor.start(self.program("apiserver", "kube-apiserver").args(self.apiserver(issuer)).on(machine));
        let client = self.client().await?;
        ready::until(
            &format!("{} API server is ready", self.name),
            &self.program_name("apiserver"),
            PATIENCE,
            || async {
                let request = axum::http::Request::get("/readyz").body(Vec::new())?;
                let _ok: String = client.request_text(request).await?;
                Ok(())
            },
        )
        .await?;
        let manager = self
            .program("controller-manager", "kube-controller-manager")
            .args(["--leader-elect=false", "--use-service-account-credentials", "--profiling=false"])
            // With its default of 20 requests a second it starts its controllers for 4 s.
            .args(["--kube-api-qps=200", "--kube-api-burst=400"])
            .arg(format!("--kubeconfig={}", self.file("controller-manager.kubeconfig")))
            .arg(format!("--service-account-private-key-file={}", self.file("pki/sa.key")))
            .arg(format!("--root-ca-file={}", self.file("pki/ca.crt")));
        supervisor.start(manager.on(machine));
        let scheduler = self.program("scheduler", "kube-scheduler").args(["--leader-elect=false", "--profiling=false"]);
        supervisor.start(scheduler.arg(format!("--kubeconfig={}", self.file("scheduler.kubeconfig"))).on(machine));
        Ok(client)
    }

    /// A client with every right.
    async fn client(&self) -> Result<Client> {
        let config = Kubeconfig::read_from(self.folder().join("admin.kubeconfig"))?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        Client::try_from(config).with_context(|| format!("connecting to {}", self.name))
    }

    /// EKS's access entries: the operator, who created the cluster, and a role CLUSTER-admin may do everything.
    fn authenticator(&self) -> Value {
        let folder = self.folder().join("authenticator");
        let operator = format!("arn:aws:iam::{ACCOUNT}:user/operator");
        let admin = format!("arn:aws:iam::{ACCOUNT}:role/{}-admin", self.name);
        json!({
            "clusterID": self.name,
            "server": {
                "address": "127.0.0.1",
                "port": AUTHENTICATOR_PORT,
                "stateDir": folder,
                "generateKubeconfig": folder.join("webhook.yaml"),
                "mapUsers": [{"userARN": operator, "username": "operator", "groups": ["system:masters"]}],
                "mapRoles": [{"roleARN": admin, "username": "admin", "groups": ["system:masters"]}],
            },
        })
    }

    fn apiserver(&self, issuer: &str) -> Vec<String> {
        let file = |name: &str| self.file(name);
        vec![
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--advertise-address={}", self.subnet.endpoint()),
            format!("--tls-cert-file={}", file("pki/apiserver.crt")),
            format!("--tls-private-key-file={}", file("pki/apiserver.key")),
            format!("--client-ca-file={}", file("pki/ca.crt")),
            format!("--kubelet-certificate-authority={}", file("pki/ca.crt")),
            format!("--kubelet-client-certificate={}", file("pki/apiserver-kubelet-client.crt")),
            format!("--kubelet-client-key={}", file("pki/apiserver-kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--service-account-key-file={}", file("pki/sa.pub")),
            format!("--service-account-signing-key-file={}", file("pki/sa.key")),
            format!("--service-account-issuer={issuer}"),
            "--api-audiences=https://kubernetes.default.svc".to_owned(),
            format!("--authentication-token-webhook-config-file={}", file("authenticator/webhook.yaml")),
            "--authentication-token-webhook-cache-ttl=7m".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            // EKS runs no kube-proxy beside its API servers: they call webhooks at the addresses of their pods.
            "--enable-aggregator-routing=true".to_owned(),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--allow-privileged".to_owned(),
            "--profiling=false".to_owned(),
        ]
    }

    /// What EKS puts into a new cluster: the rights of its add-ons and the DNS service, whose server runs on the node.
    pub fn addons(&self) -> Vec<Value> {
        let binding = |name: &str, role: &str, user: &str| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
            })
        };
        let ports = |target: bool| {
            let port = |protocol: &str| {
                let mut port = json!({"name": if protocol == "UDP" { "dns" } else { "dns-tcp" }, "port": 53, "protocol": protocol});
                if target {
                    port["targetPort"] = 53.into();
                }
                port
            };
            [port("UDP"), port("TCP")]
        };
        vec![
            binding("eks:kube-proxy", "system:node-proxier", "system:kube-proxy"),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "system:coredns"},
                "rules": [
                    {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
                    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
                ],
            }),
            binding("system:coredns", "system:coredns", "system:coredns"),
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
                "spec": {"clusterIP": CLUSTER_DNS, "ports": ports(true)},
            }),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": "kube-dns-node", "namespace": "kube-system", "labels": {"kubernetes.io/service-name": "kube-dns"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [self.subnet.node()], "conditions": {"ready": true}}],
                "ports": ports(false),
            }),
        ]
    }

    /// Starts the programs that serve Services on the node: kube-proxy and CoreDNS.
    pub fn start_services(&self, supervisor: &Arc<Supervisor>, machine: u32) -> Result<()> {
        let proxy = self
            .program("kube-proxy", "kube-proxy")
            .args([
                "--proxy-mode=nftables",
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=0",
                "--conntrack-tcp-timeout-close-wait=0",
            ])
            .arg(format!("--kubeconfig={}", self.file("kube-proxy.kubeconfig")))
            .arg(format!("--cluster-cidr={VPC}"))
            .arg(format!("--nodeport-addresses={}/32", self.subnet.node()))
            .arg(format!("--hostname-override={}", self.node()));
        supervisor.start(proxy.on(machine));
        let corefile = self.folder().join("Corefile");
        fs::write(&corefile, crate::dns::cluster(self.subnet.node(), &self.folder().join("coredns.kubeconfig")))?;
        supervisor.start(self.program("dns", "coredns").arg("-conf").arg(corefile).on(machine));
        Ok(())
    }
}

/// One context of a kubeconfig, with the files it names.
#[derive(Clone, Debug)]
pub struct Access {
    name: &'static str,
    server: String,
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// A kubeconfig with these contexts, the first one current.
pub fn kubeconfig(contexts: &[Access]) -> Value {
    let named = |key: &str, body: &dyn Fn(&Access) -> Value| -> Vec<Value> {
        let entry =
            |context: &Access| Value::from_iter(BTreeMap::from([("name", json!(context.name)), (key, body(context))]));
        contexts.iter().map(entry).collect()
    };
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": contexts.first().map(|context| context.name),
        "clusters": named("cluster", &|c| json!({"server": c.server, "certificate-authority": c.authority})),
        "users": named("user", &|c| json!({"client-certificate": c.certificate, "client-key": c.key})),
        "contexts": named("context", &|c| json!({"cluster": c.name, "user": c.name})),
    })
}
