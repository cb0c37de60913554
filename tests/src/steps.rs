//! The tools that write to AWS alone, each as steps from a known start: what the tests of faults disturb.

use crate::cloud::Cloud;
use crate::program;
use serde_json::{Value, json};
use std::io::{Error, Result};
use std::process::Output;

/// More often than anybody calls.
pub const EVER: usize = 1_000_000;

/// One run of a tool.
#[derive(Clone, Debug)]
pub struct Step {
    /// `TOOL ARGS`, words apart by single spaces.
    pub command: String,
    /// Its stdin.
    pub document: String,
}

/// A step that is disturbed.
#[derive(Debug)]
pub struct Case {
    /// Told in the report.
    pub name: &'static str,
    /// What leads to its start from wherever a disturbed run ended.
    pub start: Vec<Step>,
    /// The step itself.
    pub step: Step,
}

/// A tool with its cases, which share what they change and so run one after another.
#[derive(Debug)]
pub struct Family {
    /// The tool.
    pub tool: &'static str,
    /// The calls that only this family makes, as patterns.
    pub calls: &'static [&'static str],
    /// What only its clients call themselves; Kubernetes' and Helm have no name of ours.
    pub agent: String,
    /// Where what it changes is seen.
    pub place: Place,
    /// Fields of its key that are another each time, as JSON pointers.
    pub generated: &'static [&'static str],
    /// In an order in which each may follow the other.
    pub cases: Vec<Case>,
}

/// Where the changes of a family are seen.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Parts of what `tests/flow/account.py` tells.
    Account(&'static [&'static str]),
    /// Objects of these kinds (as kubectl takes them) in cluster 1.
    Cluster(&'static str),
}

impl Step {
    /// A step on a document.
    pub fn new(command: impl Into<String>, document: &str) -> Self {
        Self { command: command.into(), document: document.to_owned() }
    }

    /// The program and its arguments.
    pub fn words(&self) -> Vec<std::ffi::OsString> {
        let mut words = self.command.split(' ');
        let tool = program(words.next().unwrap_or_default()).into_os_string();
        std::iter::once(tool).chain(words.map(Into::into)).collect()
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, cloud: &Cloud) -> Result<Output> {
        cloud.run(self.words(), self.document.as_bytes())
    }

    /// Runs it; its stdout.
    ///
    /// # Errors
    /// It fails.
    pub fn done(&self, cloud: &Cloud) -> Result<String> {
        let output = self.run(cloud)?;
        if output.status.success() {
            return String::from_utf8(output.stdout).map_err(Error::other);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(Error::other(format!("{}: {}: {stderr}", self.command, output.status)))
    }
}

/// What an undisturbed run of a case leads to.
#[derive(Debug)]
pub struct Clean {
    /// Without what is another each time.
    pub document: Value,
    /// See [`Family::look`].
    pub world: Value,
    /// The calls of the family's that were asked for, in their order.
    pub calls: Vec<String>,
}

impl Case {
    /// Goes to its start.
    ///
    /// # Errors
    /// A step of the way fails.
    pub fn prepare(&self, cloud: &Cloud) -> Result<()> {
        self.start.iter().try_for_each(|step| step.done(cloud).map(drop))
    }

    /// What the report calls it.
    pub fn told(&self, family: &Family) -> String {
        if self.name == "--delete" { format!("{} --delete", family.tool) } else { self.name.to_owned() }
    }
}

impl Family {
    /// A document without what is another each time.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn plain(&self, document: &str) -> Result<Value> {
        let mut document: Value =
            serde_json::from_str(document).map_err(|error| Error::other(format!("{error}: {document}")))?;
        for pointer in self.generated {
            if let Some(value) = document.pointer_mut(pointer) {
                *value = Value::Null;
            }
        }
        Ok(document)
    }

    /// A rule for this family's calls: all, or those that write.
    pub fn rule(&self, mut rule: Value, writes: bool) -> Value {
        rule["action"] = self.calls.into();
        rule["agent"] = self.agent.as_str().into();
        rule["writes"] = writes.into();
        rule
    }

    /// Runs a case from its start, and counts its calls: all, or those that write.
    ///
    /// # Errors
    /// It fails.
    pub fn clean(&self, cloud: &Cloud, case: &Case, writes: bool) -> Result<Clean> {
        case.prepare(cloud)?;
        let count = cloud.fault(&self.rule(json!({"kind": "count", "times": EVER}), writes))?;
        let document = case.step.done(cloud)?;
        Ok(Clean { document: self.plain(&document)?, world: self.look(cloud)?, calls: count.struck() })
    }

    /// Whether a run that was disturbed ended as one that was not; else, how not.
    ///
    /// # Errors
    /// The difference, or that it cannot be seen.
    pub fn same(&self, cloud: &Cloud, document: &str, clean: &Clean) -> Result<()> {
        let (document, world) = (self.plain(document)?, self.look(cloud)?);
        if document == clean.document && world == clean.world {
            return Ok(());
        }
        Err(Error::other(format!("{document}\n{world}\ninstead of {}\n{}", clean.document, clean.world)))
    }

    /// What there is of what this family changes.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn look(&self, cloud: &Cloud) -> Result<Value> {
        match self.place {
            Place::Account(parts) => cloud.listed(parts),
            Place::Cluster(kinds) => cloud.objects(kinds),
        }
    }
}

impl Cloud {
    /// What the account holds that crossmesh could make.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn account(&self) -> Result<Value> {
        self.listed(&[])
    }

    fn listed(&self, parts: &[&str]) -> Result<Value> {
        let python = self.python()?.display().to_string();
        let output = self.run([&[python.as_str(), "tests/flow/account.py"], parts].concat(), b"")?;
        serde_json::from_slice(&output.stdout).map_err(|_| Error::other(String::from_utf8_lossy(&output.stderr)))
    }
}

impl Cloud {
    /// The objects of these kinds in cluster 1, but for what the cluster itself makes; Helm's revisions count as one.
    fn objects(&self, kinds: &str) -> Result<Value> {
        let columns = "KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name";
        let list = format!("kubectl --context c1 get {kinds} -A --no-headers -o custom-columns={columns}");
        let output = self.sh(&list)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            return Err(Error::other(String::from_utf8_lossy(&output.stderr)));
        }
        let own = |name: &str| ["default", "kube-root-ca.crt"].contains(&name);
        let objects = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let objects = objects.filter(|words| words.last().is_some_and(|name| !own(name)));
        let objects = objects.map(|words| words.join(" "));
        let objects = objects.map(|line| match line.split_once(".v1.") {
            Some((helm, release)) => format!("{helm} {}", release.split('.').next().unwrap_or_default()),
            None => line,
        });
        let objects: std::collections::BTreeSet<String> = objects.collect();
        Ok(objects.into_iter().collect())
    }
}

/// The families of AWS; makes the documents of both clusters.
///
/// # Errors
/// The documents cannot be made.
pub fn aws(cloud: &Cloud) -> Result<Vec<Family>> {
    let facts = |cluster| {
        let made = Step::new(format!("oidc-assoc -n --cluster {cluster}"), "").done(cloud)?;
        let mut made: Value = serde_json::from_str(&made)?;
        Ok::<_, Error>(json!({"cluster": made["cluster"].take()}).to_string())
    };
    let (one, two) = (facts("c1")?, facts("c2")?);
    let file = |name: &str, text: &str| {
        let path = cloud.state.join(name);
        std::fs::write(&path, text).map(|()| path.display().to_string())
    };
    let peer = file("one.json", &one)?;
    let allow = |action| {
        format!(r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"{action}","Resource":"*"}}]}}"#)
    };
    let (first, second) =
        (file("first.json", &allow("s3:GetObject"))?, file("second.json", &allow("sqs:SendMessage"))?);
    let image = program("capture").display().to_string();
    let push = Step::new(format!("ecr-push web --repository faults/web --tag v1 --binary {image}"), &one);
    // The registry keeps blobs whose repository is gone: a first push sends more than the next.
    push.done(cloud)?;
    Ok(vec![
        made_and_removed(
            "oidc-assoc",
            (&["iam:*OpenID*", "eks:DescribeCluster"], Place::Account(&["oidcProviders"]), &[]),
            &Step::new("oidc-assoc -n --cluster c1", ""),
            vec![],
            "oidc-assoc -n --cluster c1 --delete",
        ),
        {
            let bounds = "--permissions-boundary arn:aws:iam::aws:policy";
            let make = format!(
                "irsa-role --service-account jobs/* --role jobs --path /mesh/ --tag team=a --policy AmazonEBSCSIDriverPolicy \
                 --policy ViewOnlyAccess --policy-document {first} {bounds}/PowerUserAccess"
            );
            let change = format!(
                "irsa-role --service-account jobs/x --role jobs --path /mesh/ --tag team=b --policy AWSCloudMapFullAccess \
                 --policy-document {second} {bounds}/AdministratorAccess"
            );
            made_and_removed(
                "irsa-role",
                (&["iam:*Role*", "iam:*Polic*"], Place::Account(&["roles/mesh/"]), &[]),
                &Step::new(make, &one),
                vec![("irsa-role with another wish", Step::new(change, &one))],
                "irsa-role -n --cluster c1 --role jobs --delete",
            )
        },
        {
            let make = "pod-identity --service-account jobs/report --role reports --path /pods/ --policy AmazonS3ReadOnlyAccess";
            let change = "pod-identity --service-account jobs/report --service-account jobs/bill --role reports --path /pods/ \
                          --policy AmazonEBSCSIDriverPolicy";
            made_and_removed(
                "pod-identity",
                (
                    &["iam:*Role*", "iam:*Polic*", "eks:*PodIdentity*"],
                    Place::Account(&["associations", "roles/pods/"]),
                    &["/role/associations/jobs~1report", "/role/associations/jobs~1bill"],
                ),
                &Step::new(make, &one),
                vec![("pod-identity with another wish", Step::new(change, &one))],
                "pod-identity -n --cluster c1 --role reports --delete",
            )
        },
        made_and_removed(
            "cloudmap-ns",
            (
                &["servicediscovery:*"],
                Place::Account(&["namespaces"]),
                &["/namespace/arn", "/namespace/id", "/namespace/hostedZone"],
            ),
            &Step::new("cloudmap-ns --name faults.local", &two),
            vec![],
            "cloudmap-ns -n --cluster c2 --name faults.local --delete",
        ),
        made_and_removed(
            "sg-open",
            (&["ec2:*"], Place::Account(&["securityGroupRules"]), &["/ingress/rules/0/id", "/ingress/rules/1/id"]),
            &Step::new(format!("sg-open --from {peer} --port 8080 --port 9901"), &two),
            vec![],
            "sg-open -n --cluster c2 --from-cluster c1 --delete",
        ),
        made_and_removed(
            "ecr-push",
            (&["ecr:*", "registry:*", "eks:*Nodegroup*"], Place::Account(&["repositories"]), &[]),
            &push,
            vec![],
            &format!("ecr-push web -n --cluster c1 --repository faults/web --tag v1 --binary {image} --delete"),
        ),
    ])
}

/// Cases that make, change and remove one thing.
fn made_and_removed(
    tool: &'static str,
    (calls, place, generated): (&'static [&'static str], Place, &'static [&'static str]),
    make: &Step,
    changes: Vec<(&'static str, Step)>,
    remove: &str,
) -> Family {
    let remove = Step::new(remove, "");
    let mut cases = vec![Case { name: tool, start: vec![remove.clone()], step: make.clone() }];
    let from_made = |name, step| Case { name, start: vec![remove.clone(), make.clone()], step };
    cases.extend(changes.into_iter().map(|(name, step)| from_made(name, step)));
    cases.push(from_made("--delete", remove.clone()));
    let agent = if matches!(place, Place::Account(_)) { format!("crossmesh-{tool}") } else { String::new() };
    Family { tool, calls, agent, place, generated, cases }
}

/// The families of Kubernetes, which meet the cluster through the local cloud's faults.
///
/// # Errors
/// What they need cannot be made.
pub fn kubernetes(cloud: &Cloud) -> Result<Vec<Family>> {
    let kubeconfig = cloud.faulty_kubeconfig("c1", 1)?;
    let manifests = cloud.state.join("shop.yaml");
    std::fs::write(&manifests, SHOP)?;
    let apply = format!("manifest-apply shop -n --kubeconfig {kubeconfig} --file {}", manifests.display());
    let calls: (&[&str], Place, &[&str]) = (&["c1:*"], Place::Cluster("ns,sa,cm,svc,deploy"), &[]);
    let shop = made_and_removed("manifest-apply", calls, &Step::new(&apply, ""), vec![], &format!("{apply} --delete"));

    let document = controller(cloud)?;
    let install = format!("appmesh-install --kubeconfig {kubeconfig} --chart charts/appmesh-controller");
    let images = "--image image=appmesh-controller --image init.image=capture";
    let everything = "ns,sa,cm,svc,deploy,secret,role,rolebinding,clusterrole,clusterrolebinding,crd,\
                      mutatingwebhookconfigurations,validatingwebhookconfigurations";
    let remove = install.replacen("appmesh-install", "appmesh-install -n", 1);
    let mesh = made_and_removed(
        "appmesh-install",
        (&["c1:*"], Place::Cluster(everything), &[]),
        &Step::new(format!("{install} {images}"), &document),
        vec![],
        &format!("{remove} --delete"),
    );
    Ok(vec![shop, mesh])
}

/// The document that appmesh-install needs: role and images of the controller of cluster 1.
///
/// # Errors
/// They cannot be made.
pub fn controller(cloud: &Cloud) -> Result<String> {
    let mut document = Step::new("oidc-assoc -n --cluster c1", "").done(cloud)?;
    document = Step::new("irsa-role", &document).done(cloud)?;
    for image in ["appmesh-controller", "capture"] {
        let push = format!("ecr-push {image} --repository faults/{image} --binary {}", program(image).display());
        document = Step::new(push, &document).done(cloud)?;
    }
    Ok(document)
}

impl Cloud {
    /// A kubeconfig that leads to a cluster through the local cloud's faults.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn faulty_kubeconfig(&self, name: &str, number: u16) -> Result<String> {
        let server = format!("http://127.0.0.1:{}", 5560 + number);
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": server}}],
            "users": [{"name": name, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        });
        let path = self.state.join(format!("faulty-{name}.kubeconfig"));
        std::fs::write(&path, kubeconfig.to_string())?;
        Ok(path.display().to_string())
    }
}

/// A small application of what everybody has.
pub const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: shop}
data: {greeting: hello}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: "registry.k8s.io/pause:3.10"}]
"#;

/// A script that runs make for the two clusters of a cloud, with all it says on stdout.
pub fn make(cloud: &Cloud, goals: &str) -> String {
    make_of(cloud, &format!("{goals} CLUSTER1=c1 CLUSTER2=c2"))
}

/// A script that runs make with these goals and variables, with all it says on stdout.
pub fn make_of(cloud: &Cloud, goals: &str) -> String {
    let bin = program("oidc-assoc").parent().map(std::path::Path::to_path_buf).unwrap_or_default();
    let build = cloud.state.join("json");
    let (bin, build) = (bin.display(), build.display());
    format!("exec make --no-print-directory {goals} BIN={bin} BUILD={build} 2>&1")
}
