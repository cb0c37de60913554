//! `manifest-apply`: see [`ManifestApply`].

mod app;
mod files;
mod mesh;
mod plan;
mod template;
mod words;

use anyhow::Result;
use app::App;
use common::app_mesh::{GROUP, MESH};
use common::aws::AwsFlags;
use common::kube::KubeFlags;
use common::kube::apply::{Manifest, Observed};
use common::kube::content;
use common::kube::object::{ObjectRef, Objects};
use common::plan::UNKNOWN;
use common::{Document, Error, Session, Tool};
use files::{Source, Unknown};
use plan::{Change, Have, MANAGER, Want};
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;

/// Applies manifests, and templates of them, and waits until they work.
///
/// Manifests are read as kubectl reads them. A file is a template in Jinja's
/// language with --template, or if its name ends in .j2, .jinja, .jinja2 or
/// .tmpl, last or before .yaml: {{ images.colorapp.uri }} is filled in from the
/// document, {{ peer.… }} from the other side's, and what is missing is an error;
/// {{ x | tojson }} puts any value safely into YAML, quotes and all; braces of
/// others stand between {% raw %} and {% endraw %}. All other files are taken as
/// they stand.
///
/// --set replaces a word, such as ECR_IMAGE_PREFIX, in the values of any file:
/// where it stands as a whole, not as $WORD, ${WORD} or between double braces,
/// and a number stays one unless it is in quotes. Words and what replaces them
/// are kept in the document, so they are no place for secrets.
///
/// Objects are applied server-side, namespaces and custom resource definitions
/// first, and waited for: rollouts as far as kubectl rollout status does, Jobs,
/// Pods, App Mesh conditions, load balancers; with --no-wait App Mesh conditions
/// only, for their ARNs are what another cluster waits for. What somebody else
/// made or another field manager holds is a conflict unless --adopt; what kubectl
/// changed by hand about an object of ours is put right, and what a controller
/// sets, such as an autoscaler the replicas, is left to it. --delete removes what
/// was applied, in reverse order, and waits for finalizers; without --file it
/// goes by the objects in the document.
///
///   Reads   cluster, and whatever the templates name
///   Owns    apps.NAME {endpoint, files, from, namespace, objects, set, template,
///           virtualServices}
///   Calls   eks:DescribeCluster, unless --context or --kubeconfig is given;
///           Kubernetes: get, watch, patch and delete of the objects, list of
///           pods, events and pods/log to say what is stuck, of all kinds before
///           a namespace is deleted
///   Exits   0 done, 1 failed, 2 usage, 3 input, 4 conflict, 5 retry
///
/// Examples:
///   manifest-apply web -n --kubeconfig ~/.kube/config --file manifests/ \
///     --set VERSION=1.2.3
///   manifest-apply feapp --file feapp.yaml.j2 --from cluster2.json \
///     < cluster1.json
#[derive(Debug, clap::Parser)]
#[command(name = "manifest-apply", version, verbatim_doc_comment)]
struct ManifestApply {
    /// Name of the application: the key is apps.NAME
    #[arg(default_value_if("schema", "true", "NAME"))]
    name: String,
    /// A manifest, or a folder of manifests; repeatable
    #[arg(long, short, value_name = "FILE")]
    file: Vec<String>,
    /// Take every file for a template, whatever its name
    #[arg(long)]
    template: bool,
    /// Replace a word in the values of the manifests; repeatable
    #[arg(long, value_name = "WORD=VALUE", value_parser = words::parse)]
    set: Vec<(String, String)>,
    /// The other side's document, for templates: {{ peer.… }}
    #[arg(long, value_name = "FILE")]
    from: Option<String>,
    /// Namespace of objects that name none [default: default]
    #[arg(long)]
    namespace: Option<String>,
    /// Wait for App Mesh objects only, not for rollouts and load balancers
    #[arg(long)]
    no_wait: bool,
    /// Take over objects that somebody else made, and fields that other managers hold
    #[arg(long)]
    adopt: bool,
    #[command(flatten)]
    kube: KubeFlags,
    #[command(flatten)]
    aws: AwsFlags,
}

impl Tool for ManifestApply {
    type Section = App;
    type Want = Want;

    fn key(&self) -> Vec<&str> {
        vec!["apps", &self.name]
    }

    async fn want(&self, session: &mut Session, section: Option<App>) -> Result<Want> {
        let mut app = section.unwrap_or_default();
        if !self.file.is_empty() {
            app.files.clone_from(&self.file);
            // What was asked of other files: their words would occur nowhere.
            app.set.clear();
            app.template = false;
        }
        app.template |= self.template;
        app.set.extend(self.set.iter().cloned());
        app.from = self.from.clone().or(app.from);
        app.namespace = self.namespace.clone().or(app.namespace);
        let by_name = session.flags.delete && self.file.is_empty() && !app.objects.is_empty();
        let bodies = if by_name { Vec::new() } else { self.bodies(session, &app)? };

        let client = session.access(&self.kube, &self.aws).await?.client(session).await?;
        let namespace = app.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        let objects = Objects::new(client, MANAGER);
        let manifests = if by_name {
            let nameonly = |object: &ObjectRef| Manifest { object: object.clone(), body: Value::Null };
            app.objects.iter().map(nameonly).collect()
        } else {
            // The controller that is planned brings the kinds of App Mesh with it.
            let coming = session.doc.plans("mesh")?.then_some(GROUP);
            let unknown = if session.flags.delete { Unknown::Any } else { Unknown::Of(coming) };
            files::manifests(&objects, bodies, &namespace, unknown).await?
        };
        app.namespace = Some(plan::namespace(&manifests, namespace));
        Ok(Want { app, manifests, adopt: self.adopt, no_wait: self.no_wait, objects })
    }

    async fn observe(&self, session: &Session, want: &Want) -> Result<Have> {
        let objects = want.objects.observe_all(session, &want.manifests, session.flags.delete).await?;
        let mut have = Have { objects, ..Have::default() };
        if session.flags.delete {
            let (client, removals) = (want.objects.client(), session.doc.planned_removals()?);
            // Of the manifests' objects, others may have made some: those stay.
            let objects = want.manifests.iter().map(|manifest| &manifest.object).zip(&have.objects);
            let ours = objects.filter(|(_, observed)| observed.managed_by(MANAGER));
            let ours: Vec<(&ObjectRef, &Observed)> = ours.collect();
            let goes = |object: &ObjectRef| {
                ours.iter().any(|(our, _)| our.is(object)) || removals.contains(&format!("delete {object}"))
            };
            for (object, observed) in &ours {
                let Some(live) = &observed.live else { continue };
                let others = match object.kind.as_str() {
                    "Namespace" => content::of_namespace(&client, &object.name, goes).await?,
                    "CustomResourceDefinition" => content::of_definition(&client, live, goes).await?,
                    MESH if object.group() == GROUP => mesh::members(&want.objects, &object.name, goes).await?,
                    _ => continue,
                };
                have.others.insert((*object).clone(), others);
            }
        }
        Ok(have)
    }

    async fn apply(&self, session: &Session, want: &Want, change: Change) -> Result<()> {
        match change {
            Change::Apply(step) => want.objects.step(session, &want.manifests, step).await,
            Change::Delete(objects) => {
                for object in &objects {
                    want.objects.delete(object).await?;
                }
                for object in &objects {
                    want.objects.wait_gone(session, object).await?;
                }
                Ok(())
            }
        }
    }

    fn outcome(want: Want, have: Have) -> App {
        let objects: Vec<ObjectRef> = want.manifests.iter().map(|manifest| manifest.object.clone()).collect();
        let virtual_services = plan::virtual_services(&want.manifests, &have, None);
        App { endpoint: plan::endpoint(&have), virtual_services, objects, ..want.app }
    }

    fn planned(want: Want, have: Have) -> App {
        let virtual_services = plan::virtual_services(&want.manifests, &have, Some(UNKNOWN));
        let balanced = want.manifests.iter().any(|manifest| manifest.body["spec"]["type"] == "LoadBalancer");
        let mut app = App { virtual_services, ..Self::outcome(want, have) };
        if app.endpoint.is_none() && balanced {
            app.endpoint = Some(UNKNOWN.to_owned());
        }
        app
    }
}

impl ManifestApply {
    /// The filled-in objects of the files.
    fn bodies(&self, session: &Session, app: &App) -> Result<Vec<Value>> {
        if app.files.is_empty() {
            return Err(Error::input("no manifests").hint(format!("give --file, or apps.{}.files", self.name)).into());
        }
        let mut document = session.doc.as_object().clone();
        if let Some(from) = &app.from
            && !session.flags.delete
        {
            let peer: Document = session.peer(Path::new(from))?;
            document.insert("peer".to_owned(), Value::Object(peer.as_object().clone()));
        }
        let document = Value::Object(document);
        let names_only = session.flags.delete;
        let source =
            Source { files: &app.files, template: app.template, words: &app.set, document: &document, names_only };
        let content = source.read()?;
        content.remarks.iter().for_each(|remark| session.stderr.line(format_args!("{remark}")));
        Ok(content.objects)
    }
}

fn main() -> ExitCode {
    common::main::<ManifestApply>()
}
