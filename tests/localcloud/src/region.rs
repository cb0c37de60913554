//! Brings the region up: network, names, APIs, two clusters. Everything that can happen at the same time does.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::Value;
use tokio::sync::watch;

use crate::account::Account;
use crate::cloud::{ACCOUNT, Cloud, REGION, write_json};
use crate::cluster::{self, Cluster, kubeconfig};
use crate::environment::Environment;
use crate::gateway::{AUTHORIZATION_PORT, AWS_PORT, DOCKER_PORT, ECR_PORT};
use crate::message::Message;
use crate::node::{self, Machine};
use crate::pki::{Authority, Subject, region_names};
use crate::process::{Program, Supervisor};
use crate::{charts, dns, firewall, gateway, kubernetes, load_balancer, network, pod_identity, ready, registry};

/// The APIs answer after 3 s on 2 cores; a loaded machine gets more.
const PATIENCE: Duration = Duration::from_secs(90);

/// Brings everything up, says so, and stays until it is killed.
pub async fn run(cloud: Cloud) -> Result<()> {
    let (supervisor, mut failed) = Supervisor::new(cloud.clone());
    let up = async {
        tokio::select! {
            up = bring_up(&cloud, &supervisor) => up,
            Some(error) = failed.recv() => Err(error),
        }
    };
    match up.await {
        Ok(_machines) => {
            supervisor.ready();
            Message::Ready.send();
            std::future::pending().await
        }
        Err(error) => {
            Message::Failed(format!("{error:#}")).send();
            Err(error)
        }
    }
}

async fn bring_up(cloud: &Cloud, supervisor: &Arc<Supervisor>) -> Result<Vec<Machine>> {
    let clock = Instant::now();
    let said = |what: String| Message::Progress(format!("{:5.1} s  {what}", clock.elapsed().as_secs_f32())).send();
    network::create().await?;
    let certificates = cloud.state.join("gateway");
    let authority = Authority::create(&certificates, "local cloud")?;
    let clusters = cluster::all(cloud);
    for cluster in &clusters {
        cluster.credentials()?;
    }
    front(cloud, supervisor, &authority, &certificates).await?;
    said("network, certificates, names".to_owned());

    let (laid_down, account) = watch::channel(None);
    let region = async {
        let account = apis(cloud).await?;
        said(format!("AWS account {ACCOUNT} in {REGION}"));
        firewall::follow(cloud).await?;
        laid_down.send_replace(Some(Arc::new(account)));
        anyhow::Ok(())
    };
    let start = |cluster: &Cluster| {
        let (cluster, supervisor, account) = (cluster.clone(), Arc::clone(supervisor), account.clone());
        let (authority, said) = (&authority, &said);
        async move {
            let (machine, client) = start(&cluster, &supervisor, account, authority).await?;
            said(format!("cluster {}", cluster.name));
            anyhow::Ok((cluster.name.to_owned(), machine, client))
        }
    };
    let [first, second] = &clusters;
    let ((), one, two) = tokio::try_join!(region, start(first), start(second))?;

    let account = account.borrow().clone().context("no account")?;
    let (names, (machines, clients)): (Vec<_>, (Vec<_>, Vec<_>)) =
        [one, two].into_iter().map(|(name, machine, client)| (name, (machine, client))).unzip();
    let by_name: HashMap<String, Client> = names.into_iter().zip(clients.iter().cloned()).collect();
    pod_identity::serve(&certificates, &authority, by_name).await?;
    let nodes = clusters.iter().map(|cluster| cluster.subnet.node());
    load_balancer::serve(cloud, clients.into_iter().zip(nodes).collect());
    write_json(
        &cloud.state.join("kubeconfig"),
        &kubeconfig(&clusters.each_ref().map(|cluster| cluster.access("admin"))),
    )?;
    Environment::new(cloud, &account.operator).save(&cloud.state)?;
    answers(&account).await?;
    said("ready".to_owned());
    Ok(machines)
}

/// Starts what everything else talks to: names, registries, APIs and the gateway before them.
async fn front(cloud: &Cloud, supervisor: &Arc<Supervisor>, authority: &Authority, certificates: &Path) -> Result<()> {
    let state = &cloud.state;
    authority.issue("server", Subject { name: "amazonaws.com", organization: "local cloud" }, &region_names())?;
    let system = fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    fs::write(cloud.ca_bundle(), format!("{}{system}", authority.certificate()))?;

    fs::write(state.join("hosts"), "")?;
    fs::write(state.join("Corefile"), dns::region(&state.join("hosts")))?;
    supervisor.start(Program::new("dns", cloud.bin.join("coredns")).arg("-conf").arg(state.join("Corefile")));

    let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("aws/server.py");
    let ports = [("--port", AWS_PORT), ("--authz-port", AUTHORIZATION_PORT), ("--ecr-port", ECR_PORT)];
    let ports = ports.into_iter().flat_map(|(flag, port)| [flag.to_owned(), port.to_string()]);
    supervisor.start(
        Program::new("aws", cloud.python.join("python"))
            .arg("-u")
            .arg(server)
            .arg("--state")
            .arg(state)
            .args(ports)
            .args(cloud.two_vpcs.then_some("--two-vpcs"))
            .env("PYTHONDONTWRITEBYTECODE", "1"),
    );
    let ecr = Program::new("ecr", cloud.python.join("ministack"))
        .env("BIND_HOST", "127.0.0.1")
        .env("MINISTACK_HOST", "127.0.0.1")
        .env("MINISTACK_ACCOUNT_ID", ACCOUNT)
        .env("MINISTACK_REGION", REGION)
        .env("SFTP_ENABLED", "0")
        .env("STATE_DIR", state.join("ecr"))
        .env("GATEWAY_PORT", ECR_PORT.to_string());
    supervisor.start(ecr);

    let config = state.join("docker-registry.yaml");
    let images = cloud.images.clone();
    fs::write(
        &config,
        registry::configuration(&tokio::task::spawn_blocking(move || registry::stock(&images)).await??),
    )?;
    supervisor.start(Program::new("docker", "docker-registry").arg("serve").arg(config));
    fs::create_dir_all(state.join("charts"))?;
    charts::serve(state.join("charts")).await?;

    let bootstrap = certificates.join("envoy.json");
    write_json(&bootstrap, &gateway::bootstrap(certificates, &cloud.log("aws-api")))?;
    let envoy = Program::new("gateway", cloud.bin.join("envoy"))
        .args([
            "--log-level",
            "warn",
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--file-flush-interval-msec",
            "100",
            "-c",
        ])
        .arg(bootstrap);
    supervisor.start(envoy);
    Ok(())
}

/// Waits for the AWS side and returns what it laid down.
async fn apis(cloud: &Cloud) -> Result<Account> {
    let account =
        ready::until("the AWS APIs are ready", "aws", PATIENCE, || async { Account::load(&cloud.state) }).await?;
    let docker = format!("127.0.0.1:{DOCKER_PORT}");
    // It reads its part for a service when that is called first.
    let call = reqwest::Client::new()
        .post(format!("http://127.0.0.1:{ECR_PORT}/"))
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", "AmazonEC2ContainerRegistry_V20150921.DescribeRepositories")
        .body("{}");
    let asked = || async {
        let call = call.try_clone().context("a call that cannot be made twice")?;
        Ok(call.send().await?.error_for_status().map(drop)?)
    };
    tokio::try_join!(
        ready::listening(&docker, "docker", PATIENCE),
        ready::until("ECR is ready", "ecr", PATIENCE, asked)
    )?;
    Ok(account)
}

/// From nothing to a node that is ready and asks the pod identity webhook.
async fn start(
    cluster: &Cluster,
    supervisor: &Arc<Supervisor>,
    mut account: watch::Receiver<Option<Arc<Account>>>,
    authority: &Authority,
) -> Result<(Machine, Client)> {
    let machine = Machine::boot(cluster).await?;
    let pid = machine.pid;
    let store = cluster.start_store(supervisor, pid);
    let ((), ()) = tokio::try_join!(store, node::start_containerd(cluster, supervisor, pid))?;
    let account = account.wait_for(Option::is_some).await?.clone().context("no account")?;
    let eks = account.cluster(cluster.name)?;
    let client = cluster.start_api(supervisor, pid, &eks.issuer).await?;
    node::start_kubelet(cluster, supervisor, pid, eks, &account.node)?;
    cluster.start_services(supervisor, pid)?;
    let mut objects = cluster.addons();
    objects.push(pod_identity::configuration(cluster.name, authority));
    let log = cluster.program_name("apiserver");
    ready::until(&format!("{} has its add-ons", cluster.name), &log, PATIENCE, || kubernetes::apply(&client, &objects))
        .await?;
    node::wait(cluster, &client).await?;
    Ok((machine, client))
}

/// Waits until the region answers the way everybody asks it: by name, over TLS, through the access control.
async fn answers(account: &Account) -> Result<()> {
    for eks in &account.clusters {
        let url = format!("{}/.well-known/openid-configuration", eks.issuer);
        ready::until(&format!("{url} answers"), "gateway", PATIENCE, || async {
            let document: Value =
                serde_json::from_slice(&reqwest::get(&url).await?.error_for_status()?.bytes().await?)?;
            ensure!(document["issuer"] == eks.issuer, "the issuer is {}", document["issuer"]);
            Ok(())
        })
        .await?;
    }
    Ok(())
}
