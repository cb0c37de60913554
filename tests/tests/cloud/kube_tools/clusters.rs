//! The two clusters, and what was said and changed in them.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Output;
use tests::cloud::Cloud;
use tests::{TOOLS, error, foresaw, program, said};

/// What a tool printed.
pub struct Said {
    pub document: String,
    pub stderr: String,
}

impl Said {
    #[track_caller]
    pub fn tells(&self, text: &str) {
        assert!(self.stderr.contains(text), "{text:?} is not in: {}", self.stderr);
    }

    /// The changes that `--plan` named.
    pub fn would(&self) -> Vec<&str> {
        self.stderr.lines().filter_map(|line| said(line)?.strip_prefix("would ")).collect()
    }

    /// The error object of a failed run.
    #[track_caller]
    pub fn error(&self) -> Value {
        let error = error(&self.stderr);
        assert_ne!(error, Value::Null, "no error line: {}", self.stderr);
        error
    }
}

/// A change behind a tool's back.
pub struct Drift<'a> {
    /// The script that makes it.
    pub hand: &'a str,
    /// All that `--plan` then names; what ends in `…` is only begun so.
    pub would: &'a [&'a str],
    /// The objects a run then changes, such as `Service app`: these and no others.
    pub touches: &'a [&'a str],
}

/// Something that others made, in the way of a tool.
pub struct Conflict<'a> {
    /// The script that makes it.
    pub theirs: &'a str,
    /// The tool and its arguments.
    pub command: &'a str,
    /// What the tool says of it.
    pub says: &'a [&'a str],
}

/// What is looked at to see what a run changes: a cluster, and what `kubectl get` gets, in one or several calls.
pub struct Scope<'a> {
    pub cluster: &'a str,
    pub get: &'a [&'a str],
}

pub struct Clusters(Cloud);

impl Clusters {
    pub fn up(name: &str) -> Self {
        let clusters = Self(Cloud::up(name).unwrap());
        for folder in [clusters.path(""), clusters.charts()] {
            fs::create_dir_all(folder).unwrap();
        }
        clusters
    }

    /// Where a file for this run lies. Scripts start in this folder.
    pub fn path(&self, name: &str) -> String {
        self.0.state.join("test").join(name).display().to_string()
    }

    /// The folder that is served as https://aws.github.io/eks-charts.
    pub fn charts(&self) -> String {
        self.0.state.join("charts").display().to_string()
    }

    /// Writes a file for this run; its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes a file of several objects; its path.
    pub fn manifest(&self, name: &str, objects: &[Value]) -> String {
        let documents: Vec<String> = objects.iter().map(|object| format!("---\n{object:#}\n")).collect();
        self.file(&format!("{name}.yaml"), &documents.concat())
    }

    /// Runs `TOOL ARGS` inside, or any other command, and expects that exit code.
    #[track_caller]
    pub fn exits(&self, code: i32, command: &str, document: &str) -> Said {
        let registry = format!("HELM_REGISTRY_CONFIG={}", self.path("helm.json"));
        let words = command.split_whitespace().map(|word| match TOOLS.contains(&word) {
            true => program(word).into_os_string(),
            false => word.into(),
        });
        let env = ["env", &registry].map(Into::into);
        let Output { status, stdout, stderr } = self.0.run(env.into_iter().chain(words), document.as_bytes()).unwrap();
        let [document, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(status.code(), Some(code), "{command}: {document}{stderr}");
        Said { document, stderr }
    }

    #[track_caller]
    pub fn done(&self, command: &str, document: &str) -> Said {
        self.exits(0, command, document)
    }

    /// The same document again: nothing to do, and not a byte changes.
    #[track_caller]
    pub fn steady(&self, command: &str, document: &str) {
        let again = self.done(command, document);
        again.tells("nothing to do");
        assert_eq!(again.document, document, "{command}");
    }

    /// Runs a script inside that must succeed, for changes behind the tools' back; its stdout.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let bin = program("localcloud").parent().unwrap().display().to_string();
        let folder = self.path("");
        let script = format!("export PATH=$PATH:{bin} HELM_REGISTRY_CONFIG={folder}helm.json; cd {folder}\n{script}");
        let output = self.0.sh(&script).unwrap();
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "{script}\n{stdout}{stderr}");
        stdout
    }

    /// A call of an AWS API. Its answer may be a secret.
    #[track_caller]
    pub fn aws(&self, service: &str, operation: &str, parameters: &Value) -> Value {
        self.0.aws(service, operation, parameters).unwrap()
    }

    /// Every object of the scope and its version: `Service app` and its resourceVersion. Of what a
    /// controller reports in at any time, the generation.
    #[track_caller]
    pub fn versions(&self, scope: &Scope<'_>) -> BTreeMap<String, String> {
        let columns =
            "KIND:.kind,NAME:.metadata.name,VERSION:.metadata.resourceVersion,GENERATION:.metadata.generation";
        let get = |what: &&str| {
            format!("kubectl --context {} get {what} --no-headers -o custom-columns={columns}", scope.cluster)
        };
        let lines = self.sh(&scope.get.iter().map(get).collect::<Vec<_>>().join("\n"));
        let version = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [kind, name, version, generation] = words[..] else { panic!("{line}") };
            let reported = ["Deployment", "PodDisruptionBudget"].contains(&kind);
            let version = if reported { generation } else { version };
            (format!("{kind} {name}"), version.to_owned())
        };
        lines.lines().map(version).collect()
    }

    /// `--plan` names exactly the drift, and a run repairs exactly it.
    #[track_caller]
    pub fn drifts(&self, scope: &Scope<'_>, command: &str, document: &str, cases: &[Drift<'_>]) {
        for Drift { hand, would, touches } in cases {
            self.sh(hand);
            let plan = self.done(&format!("{command} --plan"), document);
            let (found, same) = (plan.would(), |found: &&str, expected: &&str| match expected.strip_suffix('…') {
                Some(start) => found.starts_with(start),
                None => found == expected,
            });
            // A plan leaves out what would then be waited for, unless that is all.
            let waits = |step: &&str| step.starts_with("wait for ");
            let only_waits = would.iter().all(&waits);
            let changes: Vec<_> = would.iter().filter(|step| only_waits || !waits(step)).collect();
            let all = found.len() == changes.len()
                && found.iter().zip(&changes).all(|(found, expected)| same(found, expected));
            assert!(all, "{hand}\nfound    {found:#?}\nexpected {changes:#?}");
            foresaw(&plan.document, document).unwrap();

            let before = self.versions(scope);
            assert_eq!(self.done(command, document).document, document, "{hand}");
            let after = self.versions(scope);
            let changed = before.keys().chain(after.keys()).filter(|object| before.get(*object) != after.get(*object));
            let changed: BTreeSet<&str> = changed.map(String::as_str).collect();
            assert_eq!(changed, touches.iter().copied().collect(), "{hand}");
            self.steady(command, document);
        }
    }

    /// What others made is not changed: the tool says what it found, whose it is, and what takes it over. Then that
    /// does; what came out last.
    #[track_caller]
    pub fn conflict(&self, scope: &Scope<'_>, conflict: &Conflict<'_>, document: &str) -> Said {
        let Conflict { theirs, command, says } = conflict;
        self.sh(theirs);
        let before = self.versions(scope);
        for command in [format!("{command} --plan"), (*command).to_owned()] {
            let refused = self.exits(4, &command, document);
            says.iter().for_each(|text| refused.tells(text));
            let error = refused.error();
            assert_eq!(error["kind"], "conflict", "{error}");
            assert!(error["hint"].as_str().unwrap_or_default().contains("--adopt"), "{error}");
            assert_eq!(refused.document, "", "{command}");
        }
        assert_eq!(self.versions(scope), before, "{theirs}");
        self.done(&format!("{command} --adopt"), document)
    }
}
