//! `appmesh-install`: see [`AppmeshInstall`].

mod chart;
mod folder;
mod helm;
mod kube;
mod mesh;
mod plan;
mod release;
mod source;
mod values;
mod want;

use anyhow::Result;
use common::app_mesh::{CONTROLLER, NAMESPACE};
use common::aws::AwsFlags;
use common::kube::KubeFlags;
use common::kube::object::Objects;
use common::plan::Want as _;
use common::{Session, Tool};
use helm::Helm;
use mesh::Mesh;
use plan::{Change, Have, MANAGER, Target};
use source::ChartFlags;
use std::process::ExitCode;
use values::{Facts, ImageFlag, Role, Settings};
use want::Want;

/// Installs the App Mesh controller's chart and waits until its webhook answers.
///
/// Applies the chart's custom resource definitions (Helm itself never upgrades
/// them), the namespace and a service account, annotated with the document's role
/// unless pod-identity made it, then runs helm upgrade --install, but only where
/// chart, values or what the release installed differ. Works for Amazon's chart
/// (https://aws.github.io/eks-charts) and for the one in
/// charts/appmesh-controller, which needs no App Mesh API. A revision that a
/// killed run left pending is put aside. What somebody else made is a conflict
/// unless --adopt. --delete uninstalls the release and removes what is ours, but
/// not while there are objects that only the controller can let go. Values are
/// kept in the document: no place for secrets.
///
///   Reads   cluster, role {arn, associations}, images.IMAGE {digest,
///           repository, tag}, namespace {id, name}
///   Owns    mesh {chart, chartName, namespace, release, serviceAccount,
///           values, version}
///   Calls   helm (3.14 or newer, or 4); eks:DescribeCluster, unless --context
///           or --kubeconfig is given; Kubernetes: get, patch and delete of
///           definitions, namespace, service account and Helm's secrets; as a
///           dry run, patch of what the release installed and create of a Mesh;
///           with --delete list of all that the namespace may hold
///   Exits   0 done, 1 failed, 2 usage, 3 input, 4 conflict, 5 retry
///
/// Examples:
///   cat role.json namespace.json image-*.json |
///     appmesh-install --chart charts/appmesh-controller \
///     --image image=appmesh-controller --image init.image=capture
///   appmesh-install -n --cluster prod --set tracing.enabled=true \
///     --chart https://aws.github.io/eks-charts
#[derive(Debug, clap::Parser)]
#[command(name = "appmesh-install", version, verbatim_doc_comment)]
struct AppmeshInstall {
    #[command(flatten)]
    chart: ChartFlags,
    /// Namespace of the controller [default: appmesh-system]
    #[arg(long)]
    namespace: Option<String>,
    /// Name of the Helm release [default: appmesh-controller]
    #[arg(long)]
    release: Option<String>,
    /// The controller's service account [default: appmesh-controller]
    #[arg(long, value_name = "NAME")]
    service_account: Option<String>,
    /// A value for the chart, as in helm --set; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::settings)]
    set: Vec<Settings>,
    /// A value in JSON, such as a list, as in helm --set-json: set before those of --set; repeatable
    #[arg(long, value_name = "KEY=JSON", value_parser = values::json_settings)]
    set_json: Vec<Settings>,
    /// Set VALUES_PREFIX.repository and .tag from images.IMAGE of the document; repeatable
    #[arg(long, value_name = "VALUES_PREFIX=IMAGE", value_parser = values::image_flag)]
    image: Vec<ImageFlag>,
    /// Take over what somebody else made
    #[arg(long)]
    adopt: bool,
    /// With -n: take the role and the images, which only a document names, from an installation that has them
    #[arg(long)]
    reset: bool,
    #[command(flatten)]
    kube: KubeFlags,
    #[command(flatten)]
    aws: AwsFlags,
}

impl Tool for AppmeshInstall {
    type Section = Mesh;
    type Want = Want;

    fn key(&self) -> Vec<&str> {
        vec!["mesh"]
    }

    async fn want(&self, session: &mut Session, section: Option<Mesh>) -> Result<Want> {
        let mut mesh = section.unwrap_or_default();
        let source = if session.flags.delete { None } else { Some(self.chart.source(&mesh)?) };
        let named = |flag: &Option<String>, key: &mut Option<String>, default: &str| {
            let name = flag.clone().or(key.take()).unwrap_or_else(|| default.to_owned());
            key.insert(name).clone()
        };
        let target = Target {
            namespace: named(&self.namespace, &mut mesh.namespace, NAMESPACE),
            release: named(&self.release, &mut mesh.release, CONTROLLER),
            service_account: named(&self.service_account, &mut mesh.service_account, CONTROLLER),
        };
        let access = session.access(&self.kube, &self.aws).await?;
        let objects = Objects::new(access.client(session).await?, MANAGER);
        let helm = Helm::new(session, &access)?;
        let mut chart = match &source {
            Some(source) => Some(helm.fetch(source).await?),
            None => None,
        };
        let role = Role::of(&session.doc, &format!("{}/{}", target.namespace, target.service_account))?;
        let definitions = chart.as_mut().map(|chart| std::mem::take(&mut chart.definitions)).unwrap_or_default();
        if let Some(content) = &chart {
            let region = self.aws.region.clone().or(session.doc.read(&["cluster", "region"])?);
            let cluster = session.doc.read(&["cluster", "name"])?;
            let namespace: Option<String> = session.doc.read(&["namespace", "name"])?;
            let namespace = namespace.zip(session.doc.read(&["namespace", "id"])?);
            let facts = Facts {
                region,
                cluster_name: content.cluster_name.clone().zip(cluster),
                namespace: content.namespaces.clone().zip(namespace),
                service_account: &target.service_account,
                role: role.as_ref(),
            };
            let given = std::mem::take(&mut mesh.values);
            let settings = self.set_json.iter().chain(&self.set);
            mesh.values = values::resolve(&session.doc, facts, given, &self.image, settings)?;
            mesh.chart = self.chart.chart.clone().or(mesh.chart);
            mesh.chart_name = Some(content.name.clone());
            mesh.version = Some(content.version.clone());
        }
        let manifests = target.manifests(definitions, role.as_ref().and_then(Role::annotation));
        let from_nothing = session.flags.null_input && !self.reset;
        Ok(Want { mesh, target, chart, manifests, adopt: self.adopt, from_nothing, objects, helm })
    }

    async fn observe(&self, session: &Session, want: &Want) -> Result<Have> {
        let client = want.objects.client();
        let objects = want.objects.observe_all(session, &want.manifests, session.flags.delete).await?;
        let mut have = Have { objects, release: kube::release(&client, &want.target).await?, ..Have::default() };
        if session.flags.delete {
            have.definitions = kube::definitions(&client, &session.doc.planned_removals()?).await?;
            have.others = kube::others(&client, &want.target, have.release.as_ref().filter(|it| it.ours())).await?;
        } else if let Some(release) = &have.release {
            if release.ours() || want.adopt {
                have.installed = kube::installed(session, &client, &want.target, release).await?;
            }
            have.silent = kube::silent(&want.objects, &want.target, release).await?;
        }
        // Before anything is changed, and not where nothing is.
        let changes = if session.flags.delete { want.plan_delete(&have)? } else { want.plan(&have)? };
        if !changes.is_empty() {
            want.helm.version().await?;
        }
        Ok(have)
    }

    async fn apply(&self, session: &Session, want: &Want, change: Change) -> Result<()> {
        let target = &want.target;
        match change {
            Change::Apply(step) => want.objects.step(session, &want.manifests, step).await,
            Change::Recover { revision, .. } => kube::recover(session, &want.objects.client(), target, revision).await,
            Change::Install { release, .. } => {
                want.upgrade(want.adopt).await?;
                session.made(format!("release {release}"));
                Ok(())
            }
            Change::Upgrade { force, .. } => {
                if want.adopt {
                    kube::keep_service_account(&want.objects.client(), target).await?;
                }
                want.upgrade(force).await
            }
            Change::AwaitAnswer { .. } => tokio::select! {
                answer = kube::await_answer(session, &want.objects, target) => answer,
                deleted = kube::deletion(&want.objects, &want.manifests) => deleted,
            },
            Change::Uninstall { .. } => kube::uninstall(session, &want.objects, &want.helm, target).await,
            Change::Delete(object) => {
                kube::still_unused(&want.objects, &object).await?;
                want.objects.delete(&object).await?;
                want.objects.wait_gone(session, &object).await
            }
        }
    }

    fn outcome(want: Want, _have: Have) -> Mesh {
        want.mesh
    }
}

fn main() -> ExitCode {
    common::main::<AppmeshInstall>()
}
