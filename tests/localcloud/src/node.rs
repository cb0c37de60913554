//! An EC2 instance that is a cluster's node: containerd and kubelet in namespaces of their own.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::{Api, Client};
use nix::sched::CloneFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::account::{Eks, Keys};
use crate::cloud::{Cloud, REGION, write_json};
use crate::cluster::Cluster;
use crate::namespace::{bind, leave, resolve_by, shadow, share_mounts, this_program};
use crate::network::{self, CLUSTER_DNS};
use crate::process::{Supervisor, inside};
use crate::ready;

/// A node reports itself ready within 4 s on 2 cores; a loaded machine gets more.
const PATIENCE: Duration = Duration::from_secs(90);
/// Where the programs of a node keep their things, hidden from the host. `/var/lib/kubelet` is on the disk of the state
/// folder, as it holds the pods' volumes.
const SHADOWED: [&str; 3] = ["/run", "/var/lib", "/var/log"];
const SOCKET: &str = "/run/containerd/containerd.sock";
/// As `parts` names it.
const PAUSE: &str = "registry.k8s.io/pause:3.10";
/// Debian's package containernetworking-plugins.
pub const CNI: &str = "/usr/lib/cni";

/// A running machine: the process that holds its namespaces. It ends when this is dropped.
#[derive(Debug)]
pub struct Machine {
    /// Its number inside the cloud.
    pub pid: u32,
    _holder: Child,
}

/// The stage that is a machine: makes its namespaces, says so on stdout, and holds them.
pub fn hold(cloud: &Cloud, name: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    leave(CloneFlags::CLONE_NEWNET)?;
    let folder = cloud.cluster(name);
    let keep: [&Path; 2] = [&cloud.state, &cloud.bin];
    for (number, path) in SHADOWED.iter().enumerate() {
        shadow(Path::new(path), &folder.join("machine").join(number.to_string()), &keep)?;
    }
    for path in ["kubelet", "containerd"] {
        let (source, target) = (folder.join(path), Path::new("/var/lib").join(path));
        fs::create_dir_all(&source)?;
        fs::create_dir_all(&target)?;
        bind(&source, &target)?;
    }
    resolve_by(&cloud.state.join("resolv.conf"))?;
    share_mounts()?;
    std::io::Write::write_all(&mut std::io::stdout(), b"up\n")?;
    SigSet::empty().suspend().context("waiting")
}

impl Machine {
    /// Boots the machine of `cluster` and connects it to the VPC.
    pub async fn boot(cluster: &Cluster) -> Result<Self> {
        let log =
            fs::File::options().create(true).append(true).open(cluster.cloud.log(&cluster.program_name("machine")))?;
        let mut holder = Command::from(this_program())
            .args(["stage", "machine", "--name", cluster.name, "--state"])
            .arg(&cluster.cloud.state)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let mut said = [0; 3];
        let mut stdout = holder.stdout.take().context("a machine without stdout")?;
        if stdout.read_exact(&mut said).await.is_err() {
            bail!(
                "{} machine did not boot: {}",
                cluster.name,
                crate::process::last_line(&cluster.cloud.log(&cluster.program_name("machine")))
            );
        }
        let pid = holder.id().context("a machine that ended at once")?;
        network::connect(cluster.subnet, pid, |program| inside(pid, program))
            .await
            .with_context(|| format!("connecting {}", cluster.name))?;
        Ok(Self { pid, _holder: holder })
    }
}

/// Starts containerd and waits for its socket.
pub async fn start_containerd(cluster: &Cluster, supervisor: &Arc<Supervisor>, machine: u32) -> Result<()> {
    let folder = cluster.folder();
    fs::create_dir_all(folder.join("cni"))?;
    write_json(&folder.join("cni/10-vpc.conflist"), &cni(cluster))?;
    write_json(&folder.join("container.json"), &container(cluster).await?)?;
    let config = folder.join("containerd.toml");
    fs::write(&config, containerd(&folder, &cluster.cloud.bin, snapshotter(&folder)?))?;
    supervisor.start(cluster.program("containerd", "containerd").arg("-c").arg(config).on(machine));
    // The socket is seen through the machine's own root.
    let socket = format!("/proc/{machine}/root{SOCKET}");
    ready::until(
        &format!("{} containerd listens", cluster.name),
        &cluster.program_name("containerd"),
        PATIENCE,
        || async { tokio::net::UnixStream::connect(&socket).await.map(drop).context("connecting to its socket") },
    )
    .await
}

/// Starts kubelet as the instance `eks` with the keys of the node's role, which only the ECR credential provider gets.
pub fn start_kubelet(
    cluster: &Cluster,
    supervisor: &Arc<Supervisor>,
    machine: u32,
    eks: &Eks,
    role: &Keys,
) -> Result<()> {
    let folder = cluster.folder();
    write_json(&folder.join("credential-provider.json"), &credential_provider(role))?;
    write_json(&folder.join("kubelet.json"), &kubelet(cluster, &eks.node.provider_id))?;
    let labels = [
        "eks.amazonaws.com/nodegroup=nodes".to_owned(),
        "node.kubernetes.io/instance-type=m5.large".to_owned(),
        format!("topology.kubernetes.io/region={REGION}"),
        format!("topology.kubernetes.io/zone={}", cluster.subnet.zone()),
    ];
    let program = cluster
        .program("kubelet", "kubelet")
        .arg(format!("--config={}", cluster.file("kubelet.json")))
        .arg(format!("--kubeconfig={}", cluster.file("kubelet.kubeconfig")))
        .arg(format!("--hostname-override={}", cluster.node()))
        .arg(format!("--node-ip={}", cluster.subnet.node()))
        .arg(format!("--node-labels={}", labels.join(",")))
        .arg(format!("--image-credential-provider-config={}", cluster.file("credential-provider.json")))
        .arg(format!("--image-credential-provider-bin-dir={}", cluster.cloud.bin.display()));
    supervisor.start(program.on(machine));
    Ok(())
}

/// Waits until pods can run: the node is ready and the default service account is there.
pub async fn wait(cluster: &Cluster, client: &Client) -> Result<()> {
    let (nodes, name) = (Api::<Node>::all(client.clone()), cluster.node());
    ready::until(&format!("{} node is ready", cluster.name), &cluster.program_name("kubelet"), PATIENCE, || async {
        let status = nodes.get(&name).await?.status.unwrap_or_default();
        let ready = status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .find(|condition| condition.type_ == "Ready")
            .context("no condition yet")?;
        ensure!(ready.status == "True", "{}", ready.message.unwrap_or_default());
        Ok(())
    })
    .await?;
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
    ready::until(
        &format!("{} has service accounts", cluster.name),
        &cluster.program_name("controller-manager"),
        PATIENCE,
        || async { Ok(accounts.get("default").await.map(drop)?) },
    )
    .await
}

/// Every pod has an address of the VPC and a route of its own on the node, as Amazon's CNI plugin does it.
fn cni(cluster: &Cluster) -> Value {
    let (first, last) = cluster.subnet.pods();
    let (subnet, gateway) = (cluster.subnet.cidr(), cluster.subnet.endpoint());
    let range = json!({"subnet": subnet, "rangeStart": first, "rangeEnd": last, "gateway": gateway});
    let ipam =
        json!({"type": "host-local", "dataDir": "/run/cni", "ranges": [[range]], "routes": [{"dst": "0.0.0.0/0"}]});
    json!({"cniVersion": "0.4.0", "name": "vpc", "plugins": [{"type": "ptp", "ipMasq": false, "ipam": ipam}]})
}

/// Overlayfs cannot lie on overlayfs, as the files of a container do.
fn snapshotter(folder: &Path) -> Result<&'static str> {
    let on_overlay = nix::sys::statfs::statfs(folder)?.filesystem_type() == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC;
    Ok(if on_overlay { "native" } else { "overlayfs" })
}

/// What every container starts from: containerd's own, in which images find the region's authority beside those that
/// they trust, at the place where nearly all look. On AWS they need no such help.
async fn container(cluster: &Cluster) -> Result<Value> {
    let output =
        Command::new(cluster.cloud.bin.join("ctr")).args(["oci", "spec"]).output().await.context("ctr oci spec")?;
    let mut spec: Value = serde_json::from_slice(&output.stdout).context("ctr oci spec")?;
    // A limit for shells at a terminal, which a node's containers do not have.
    spec["process"]["rlimits"] = json!([]);
    let mounts = spec["mounts"].as_array_mut().context("ctr oci spec: no mounts")?;
    mounts.push(json!({
        "destination": "/etc/ssl/certs/ca-certificates.crt",
        "type": "bind",
        "source": cluster.cloud.ca_bundle(),
        "options": ["rbind", "ro"],
    }));
    Ok(spec)
}

/// What the host has for containerd, which are its settings and plugins, is not this node's.
fn containerd(folder: &Path, bin: &Path, snapshotter: &str) -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
imports = []
disabled_plugins = [{unused}]
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  # The other way, by its transfer service, takes a quarter more of the CPU.
  use_local_image_pull = true
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  # Without CAP_SYS_RESOURCE a score below the own one can't be set.
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    runtime_path = "{shim}"
    base_runtime_spec = "{container}"
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{CNI}"]
    conf_dir = "{cni}"
"#,
        cni = folder.join("cni").display(),
        container = folder.join("container.json").display(),
        shim = bin.join("containerd-shim-runc-v2").display(),
        unused = [
            "nri.v1.nri",
            "snapshotter.v1.blockfile",
            "snapshotter.v1.btrfs",
            "snapshotter.v1.devmapper",
            "snapshotter.v1.erofs",
            "snapshotter.v1.zfs"
        ]
        .map(|name| format!("\"io.containerd.{name}\""))
        .join(", "),
    )
}

fn kubelet(cluster: &Cluster, provider_id: &str) -> Value {
    let pki = |name: &str| cluster.file(&format!("pki/{name}"));
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki("kubelet.crt"),
        "tlsPrivateKeyFile": pki("kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "clusterDomain": "cluster.local",
        "clusterDNS": [CLUSTER_DNS],
        "resolvConf": cluster.cloud.state.join("resolv.conf"),
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "providerID": provider_id,
        "registryPullQPS": 0,
        "serializeImagePulls": false,
        "imageGCHighThresholdPercent": 100,
        "volumeStatsAggPeriod": "0s",
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "50Mi"},
    })
}

fn credential_provider(role: &Keys) -> Value {
    let variables: Vec<Value> =
        role.variables().into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": [{
            "name": "ecr-credential-provider",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "defaultCacheDuration": "1h",
            "matchImages": ["*.dkr.ecr.*.amazonaws.com"],
            "env": variables,
        }],
    })
}
