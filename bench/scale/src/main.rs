//! Measures the real controller against a real API server and the local cloud's Cloud Map, with simulated pods and real
//! xDS clients: memory, CPU, how fast a change is with the last Envoy, and what is asked of AWS.
//!
//! It runs inside a local cloud, see `bench/scale.py`, and prints one JSON object.

mod calls;
mod figures;
mod mesh;
mod process;
mod sidecar;
mod world;

use std::{
    collections::BTreeMap,
    io::{Write as _, stderr, stdout},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use kube::Api;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use calls::Calls;
use figures::{Churn, Figures, Remote, Restart, Sidecars, Spread, Start, Weight, Window, load, round, seconds};
use mesh::{Mesh, SHARED, pod_name};
use process::{Controller, Program};
use sidecar::Sidecar;
use world::World;

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long one change may take until the last Envoy has it.
const CHANGE_PATIENCE: Duration = Duration::from_secs(60);
/// Without a call of Cloud Map but the comparison for so long, everything has settled.
const QUIET: Duration = Duration::from_secs(5);
/// What takes longer is told at once: the spread does not say whether it was one Envoy or all of them.
const SLOW: Duration = Duration::from_millis(500);
/// How many pods come before the first goes.
const EXTRA_PODS: usize = 10;
/// One of so many pods that come is of the service that all call.
const SHARED_EVERY: usize = 10;
/// How many weights change, and how long after each is waited for what should not come.
const WEIGHTS: usize = 10;
const AFTER_WEIGHT: Duration = Duration::from_secs(2);

/// Measures the controller with many VirtualNodes, pods and sidecars
#[derive(Parser)]
struct Args {
    /// The controller
    #[arg(long)]
    controller: PathBuf,
    /// The local cloud's log of AWS API calls
    #[arg(long)]
    calls: PathBuf,
    /// An empty folder
    #[arg(long)]
    work: PathBuf,
    /// VirtualNodes, an even number
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// Pods of each VirtualNode
    #[arg(long, default_value_t = 10)]
    pods: usize,
    /// Sidecars, a growing list
    #[arg(long, value_delimiter = ',', default_value = "100")]
    sidecars: Vec<usize>,
    /// How long the controller is looked at while nothing happens, and while pods come and go
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Services of another cluster, a growing list
    #[arg(long, value_delimiter = ',', default_value = "10,100")]
    remote: Vec<usize>,
    /// How long nothing happens before these are looked at: until each is looked up once a minute
    #[arg(long, default_value_t = 120)]
    rest: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Refused only where somebody has installed one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let figures = measure(Args::parse()).await?;
    writeln!(stdout(), "{}", serde_json::to_string(&figures)?)?;
    Ok(())
}

fn report(text: &str) {
    // Nobody reads it any more: the figures matter.
    let _ = writeln!(stderr(), "scale: {text}");
}

async fn measure(args: Args) -> anyhow::Result<Figures> {
    let mesh = Mesh { nodes: args.nodes, pods: args.pods, uid: String::new() };
    report(&format!("making {} VirtualNodes and {} pods", mesh.nodes, mesh.nodes * mesh.pods));
    let world = World::make(mesh).await?;
    let program = Program { path: args.controller, folder: args.work };
    let authority = Program::certify(&Api::default_namespaced(world.client.clone())).await?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)).domain_name("localhost");
    let server = Endpoint::from_shared(format!("https://{}", process::XDS))?.tls_config(tls)?;

    let mut bench = Bench {
        world,
        calls: Calls::new(args.calls),
        controller: program.start()?,
        program,
        server,
        sidecars: Vec::new(),
        tasks: JoinSet::new(),
        time: Duration::from_secs(args.seconds),
        pods: 0,
        weights: 0,
    };
    bench.calls.since()?;
    let start = bench.start().await?;
    report(&format!("{start:?}"));
    let mut by_sidecars = Vec::new();
    for count in args.sidecars {
        report(&format!("{count} sidecars"));
        let figures = bench.with_sidecars(count).await?;
        report(&format!("{figures:?}"));
        by_sidecars.push(figures);
    }
    let mut remote = Vec::new();
    for services in args.remote {
        let figures = bench.remote(services, Duration::from_secs(args.rest)).await?;
        report(&format!("{figures:?}"));
        remote.push(figures);
    }
    let Mesh { nodes, pods, .. } = bench.world.mesh;
    bench.tasks.shutdown().await;
    bench.controller.stop().await?;
    Ok(Figures { nodes, pods: nodes * pods, start, sidecars: by_sidecars, remote })
}

struct Bench {
    world: World,
    calls: Calls,
    program: Program,
    controller: Controller,
    server: Endpoint,
    sidecars: Vec<Arc<Sidecar>>,
    /// The sidecars' connections.
    tasks: JoinSet<()>,
    /// How long the controller is looked at.
    time: Duration,
    /// How many pods came besides the first ones.
    pods: usize,
    /// How many weights have changed, each to another than before.
    weights: usize,
}

impl Bench {
    async fn start(&mut self) -> anyhow::Result<Start> {
        let ready = self.controller.ready().await?;
        let (settled, calls) = self.settle().await?;
        let (memory, peak) = self.controller.memory()?;
        Ok(Start {
            ready_seconds: seconds(ready),
            settled_seconds: seconds(settled.duration_since(self.controller.since)),
            cpu_seconds: self.controller.cpu()?,
            memory_mb: [memory, peak].map(|megabytes| round(megabytes, 1)),
            calls,
            load: load(),
        })
    }

    /// Waits until all pods are registered, every status is written, and Cloud Map is asked for nothing but comparisons.
    /// Returns since when, and the calls until then.
    async fn settle(&mut self) -> anyhow::Result<(Instant, BTreeMap<String, u64>)> {
        let Mesh { nodes, pods, .. } = self.world.mesh;
        let (started, mut last) = (Instant::now(), Instant::now());
        let mut total = BTreeMap::<String, u64>::new();
        let mut is_settled = false;
        while !is_settled || last.elapsed() < QUIET {
            ensure!(started.elapsed() < PATIENCE, "the controller does not settle: {total:?}");
            sleep(Duration::from_secs(1)).await;
            for (operation, count) in self.calls.since()? {
                if operation != "DiscoverInstances" {
                    last = Instant::now();
                }
                *total.entry(operation).or_default() += count;
            }
            if !is_settled && last.elapsed() >= Duration::from_secs(2) {
                let (registered, active) = self.world.settled().await?;
                is_settled = registered >= nodes * pods && active >= 2 * nodes;
                if !is_settled {
                    report(&format!("{registered} pods registered, {active} objects in force, {total:?}"));
                    last = Instant::now();
                }
            }
        }
        Ok((last, total))
    }

    async fn with_sidecars(&mut self, count: usize) -> anyhow::Result<Sidecars> {
        self.connect(count).await?;
        self.settle().await?;
        let rest = self.window(None).await?;
        report(&format!("at rest: {rest:?}"));
        let churn = self.churn().await?;
        report(&format!("pods come and go: {churn:?}"));
        self.settle().await?;
        let weights = self.weights().await?;
        report(&format!("weights: {weights:?}"));
        let restart = self.restart(false).await?;
        report(&format!("restart: {restart:?}"));
        self.settle().await?;
        let restart_with_new_envoys = self.restart(true).await?;
        self.settle().await?;
        Ok(Sidecars { count, rest, churn, weights, restart, restart_with_new_envoys })
    }

    /// Connects more sidecars, until there are so many.
    async fn connect(&mut self, count: usize) -> anyhow::Result<()> {
        for sidecar in self.sidecars.len()..count {
            let (node, pod) = self.world.mesh.place(sidecar, count);
            // Those of a smaller count are connected already, elsewhere in the order.
            if self.sidecars.iter().any(|there| (there.node, there.pod) == (node, pod)) {
                continue;
            }
            let token = self.world.token(&pod_name(node, pod)).await?;
            let sidecar = Arc::new(Sidecar::new(node, pod, mesh::workload(node), token));
            self.tasks.spawn(sidecar.clone().run(self.server.clone()));
            self.sidecars.push(sidecar);
        }
        self.configured().await?;
        Ok(())
    }

    /// Waits until all Envoys have all that they need; returns when the last one had.
    async fn configured(&self) -> anyhow::Result<Instant> {
        let started = Instant::now();
        loop {
            let times: Vec<_> = self.sidecars.iter().filter_map(|sidecar| sidecar.configured()).collect();
            if times.len() == self.sidecars.len() {
                return times.into_iter().max().context("no sidecars");
            }
            let errors: Vec<_> = self.sidecars.iter().filter_map(|sidecar| sidecar.error()).take(1).collect();
            let (has, all) = (times.len(), self.sidecars.len());
            ensure!(started.elapsed() < PATIENCE, "{has} of {all} Envoys are configured: {errors:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Looks at the controller until the work is done, or for the usual time.
    async fn window(&mut self, work: Option<JoinSet<()>>) -> anyhow::Result<Window> {
        self.calls.since()?;
        let (since, cpu) = (Instant::now(), self.controller.cpu()?);
        match work {
            Some(work) => drop(work.join_all().await),
            None => sleep(self.time).await,
        }
        let time = since.elapsed();
        let cpu = self.controller.cpu()? - cpu;
        let (memory, peak) = self.controller.memory()?;
        Ok(Window {
            seconds: seconds(time),
            cpu_percent: round(100.0 * cpu / time.as_secs_f64(), 2),
            memory_mb: [memory, peak].map(|megabytes| round(megabytes, 1)),
            calls: self.calls.since()?,
            load: load(),
        })
    }

    /// The sidecars that call a service.
    fn users(&self, service: usize) -> Vec<Arc<Sidecar>> {
        let calls = |sidecar: &&Arc<Sidecar>| self.world.mesh.called_by(sidecar.node).contains(&service);
        self.sidecars.iter().filter(calls).cloned().collect()
    }

    /// A pod comes each second, and another goes.
    async fn churn(&mut self) -> anyhow::Result<Churn> {
        let services: Vec<_> =
            (0..self.world.mesh.services()).filter(|service| !self.users(*service).is_empty()).collect();
        ensure!(!services.is_empty(), "no sidecar calls anything");
        let (came, went) = (Arc::<Times>::default(), Arc::<Times>::default());
        let mut plan = Vec::new();
        let first = self.pods;
        for number in first..first + usize::try_from(self.time.as_secs())? {
            let service = match number % SHARED_EVERY {
                0 => SHARED,
                // Far from each other, one after the other.
                _ => services[number * 7 % services.len()],
            };
            let node = 2 * service + number % 2;
            let address = mesh::address(self.world.mesh.nodes * self.world.mesh.pods + number);
            plan.push((format!("{}-extra-{number}", mesh::node_name(node)), node, address, self.users(service)));
        }
        self.pods += plan.len();
        let (world, times) = (self.world.clone(), (came.clone(), went.clone()));
        let mut work = JoinSet::new();
        work.spawn(async move {
            let mut pods = JoinSet::new();
            let mut clock = interval(Duration::from_secs(1));
            for (number, (name, node, address, users)) in plan.iter().cloned().enumerate() {
                clock.tick().await;
                let (world_of_pod, came) = (world.clone(), times.0.clone());
                pods.spawn(async move { came.add(come(&world_of_pod, &name, node, &address, &users).await) });
                let Some((name, _, address, users)) =
                    number.checked_sub(EXTRA_PODS).and_then(|old| plan.get(old)).cloned()
                else {
                    continue;
                };
                let (world, went) = (world.clone(), times.1.clone());
                pods.spawn(async move { went.add(go(&world, &name, &address, &users).await) });
            }
            pods.join_all().await;
        });
        let window = self.window(Some(work)).await?;
        Ok(Churn { window, came: came.spread()?, went: went.spread()? })
    }

    /// Changes weights, one after the other.
    async fn weights(&mut self) -> anyhow::Result<Vec<Weight>> {
        let services = (1..self.world.mesh.services()).filter(|service| !self.users(*service).is_empty());
        let mut weights = Vec::new();
        for service in services.take(WEIGHTS).collect::<Vec<_>>() {
            let users = self.users(service);
            let before: Vec<_> = self.sidecars.iter().map(|sidecar| sidecar.counts()).collect();
            let routes: Vec<_> = users.iter().map(|user| user.counts().routes()).collect();
            let since = Instant::now();
            self.weights += 1;
            self.world.set_weight(service, 1 + self.weights).await?;
            let have = || users.iter().zip(&routes).all(|(user, before)| user.counts().routes() > *before);
            wait("a weight", have).await?;
            let last = users.iter().filter_map(|user| user.last()).max().unwrap_or(since);
            sleep(AFTER_WEIGHT).await;
            let sent = |(sidecar, before): &(&Arc<Sidecar>, &sidecar::Counts)| sidecar.counts() != **before;
            let sent: Vec<_> = self.sidecars.iter().zip(&before).filter(sent).map(|(sidecar, _)| sidecar).collect();
            let others = sent.iter().filter(|sidecar| !users.iter().any(|user| Arc::ptr_eq(user, sidecar)));
            weights.push(Weight {
                users: users.len(),
                sent: sent.len(),
                sent_others: others.count(),
                seconds: seconds(last.duration_since(since)),
            });
        }
        Ok(weights)
    }

    /// Ends the controller and starts it again.
    async fn restart(&mut self, with_new_envoys: bool) -> anyhow::Result<Restart> {
        self.controller.stop().await?;
        if with_new_envoys {
            self.sidecars.iter().for_each(|sidecar| sidecar.forget());
        }
        self.controller = self.program.start()?;
        let ready = self.controller.ready().await?;
        let cpu_ready = self.controller.cpu()?;
        let configured = if with_new_envoys {
            self.configured().await?
        } else {
            let started = Instant::now();
            while process::current_streams().await? < self.sidecars.len() {
                ensure!(started.elapsed() < PATIENCE, "not all Envoys are configured again");
                sleep(Duration::from_millis(250)).await;
            }
            Instant::now()
        };
        let (memory, peak) = self.controller.memory()?;
        Ok(Restart {
            ready_seconds: seconds(ready),
            configured_seconds: seconds(configured.duration_since(self.controller.since)),
            cpu_seconds: [cpu_ready, self.controller.cpu()?],
            memory_mb: [memory, peak].map(|megabytes| round(megabytes, 1)),
            load: load(),
        })
    }

    /// Has the node of the first sidecar call services of another cluster.
    async fn remote(&mut self, services: usize, rest: Duration) -> anyhow::Result<Remote> {
        let caller = self.sidecars.first().cloned().context("no sidecars")?;
        let addresses = self.world.call_remote(caller.node, services).await?;
        wait("the services of another cluster", || addresses.iter().all(|address| caller.came(address).is_some()))
            .await?;
        self.settle().await?;
        sleep(rest).await;
        let window = self.window(None).await?;
        Ok(Remote { services, window })
    }
}

/// Makes a pod and makes it ready; returns how long it took until the last of its users had it.
async fn come(
    world: &World,
    name: &str,
    node: usize,
    address: &str,
    users: &[Arc<Sidecar>],
) -> anyhow::Result<Duration> {
    world.make_pod(name, node).await?;
    let since = Instant::now();
    world.make_ready(name, address).await?;
    last(name, since, since.elapsed(), users, |user| user.came(address)).await
}

/// Deletes a pod; returns how long it took until the last of its users had it no more.
async fn go(world: &World, name: &str, address: &str, users: &[Arc<Sidecar>]) -> anyhow::Result<Duration> {
    let since = Instant::now();
    world.delete_pod(name).await?;
    last(name, since, since.elapsed(), users, |user| user.went(address)).await
}

/// How long it took since then until the last of the users had a change, which the API server answered after a while.
async fn last(
    name: &str,
    since: Instant,
    answered: Duration,
    users: &[Arc<Sidecar>],
    time: impl Fn(&Sidecar) -> Option<Instant>,
) -> anyhow::Result<Duration> {
    wait(name, || users.iter().all(|user| time(user).is_some())).await?;
    let times: Vec<_> = users.iter().filter_map(|user| time(user)).map(|time| time.duration_since(since)).collect();
    let [first, last] = [times.iter().min(), times.iter().max()].map(Option::<&Duration>::copied);
    let last = last.context("no users")?;
    if last > SLOW {
        report(&format!(
            "{name} was slow: the API server answered after {answered:?}, the first Envoy had it after {first:?}, the last \
             of {} after {last:?}",
            times.len()
        ));
    }
    Ok(last)
}

async fn wait(what: &str, holds: impl Fn() -> bool) -> anyhow::Result<()> {
    let poll = async {
        while !holds() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(CHANGE_PATIENCE, poll).await.with_context(|| format!("not in time: {what}"))
}

/// Times that are gathered by several tasks.
#[derive(Default)]
struct Times(std::sync::Mutex<Vec<anyhow::Result<Duration>>>);

impl Times {
    fn add(&self, time: anyhow::Result<Duration>) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(time);
    }

    fn spread(&self) -> anyhow::Result<Spread> {
        let mut times = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let times: Vec<_> = times.drain(..).collect::<anyhow::Result<_>>()?;
        Ok(Spread::of(&times))
    }
}
