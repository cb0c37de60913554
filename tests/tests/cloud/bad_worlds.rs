//! Bad worlds: no credentials, the wrong ones, the wrong region, a cluster that is not there or not ready or not to be
//! reached, no room for the answer, a clock that is off. Each tool ends with the right exit code, nothing on stdout, and
//! one error line that names the cause and says what to do; and make keeps the last good files.
//!
//! One cloud serves the whole file, so this is one test. It needs Linux and root.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Output;
use std::thread;
use tests::cloud::Cloud;
use tests::program;
use tests::report::Row;

/// The tools that ask AWS, with what makes them ask first of all for the cluster NAME.
const FROM_NOTHING: [&str; 7] = [
    "oidc-assoc -n --cluster NAME",
    "irsa-role -n --cluster NAME",
    "cloudmap-ns -n --cluster NAME",
    "sg-open -n --cluster NAME --from-cluster c1",
    "ecr-push app -n --cluster NAME --repository k8multi/app --binary APP",
    "appmesh-install -n --cluster NAME --chart charts/appmesh-controller",
    "manifest-apply app -n --cluster NAME --file MANIFEST",
];

/// The same with the cluster's facts on stdin: what they ask first is a service of their own.
const FROM_A_DOCUMENT: [&str; 7] = [
    "oidc-assoc",
    "irsa-role",
    "cloudmap-ns",
    "sg-open --from PEER",
    "ecr-push app --repository k8multi/app --binary APP",
    "appmesh-install --chart charts/appmesh-controller",
    "manifest-apply app --file MANIFEST",
];

/// The last two of them ask the cluster, not AWS.
const OF_KUBERNETES: usize = 5;

/// What a failed tool must say.
struct Says<'a> {
    exit: i32,
    /// In the message or the causes: one of these.
    cause: &'a [&'a str],
    hint: &'a str,
}

const NO_CREDENTIALS: Says<'_> =
    Says { exit: 1, cause: &["no AWS credentials"], hint: "log in (aws sso login or aws login)" };
const UNAUTHORIZED: Says<'_> = Says { exit: 1, cause: &["Unauthorized"], hint: "the cluster does not know the caller" };

#[test]
fn every_tool_says_what_is_wrong_with_the_world() {
    let world = World::new();
    let clock = world.clock();
    for (bad, checks, converged, told) in [
        ("credentials that are wrong, over or not there", "XM0101", 0, world.credentials() + world.without_metadata()),
        ("a region that is wrong", "XM0101, XM0102", 0, world.regions()),
        ("a cluster that is not there or not active", "XM0102, XM0103", 0, world.clusters()),
        ("a cluster out of reach", "XM0107", 0, world.out_of_reach()),
        ("a clock that is off", "XM0107", clock.0, clock.1),
    ] {
        Row { converged, told, ..Row::new(format!("bad world: {bad} ({checks})")) }.keep().unwrap();
    }
    for (bad, told) in [
        ("no room for the answer", world.full_stdout()),
        ("make keeps its last good files", world.make_keeps_the_last_good_files()),
        ("a call that AWS's models refuse", world.invalid_call()),
    ] {
        Row { told, ..Row::new(format!("bad world: {bad}")) }.keep().unwrap();
    }
}

/// A cloud, and the document of cluster c2.
struct World {
    cloud: Cloud,
    document: String,
    manifest: PathBuf,
    /// The document of cluster c1.
    peer: PathBuf,
}

impl World {
    fn new() -> Self {
        let cloud = Cloud::up("test-bad-worlds").expect("localcloud");
        let manifest = cloud.state.join("settings.yaml");
        let settings = "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {a: b}}\n";
        std::fs::write(&manifest, settings).unwrap();
        let peer = cloud.state.join("one.json");
        let mut world = Self { cloud, document: String::new(), manifest, peer };
        std::fs::write(&world.peer, world.cluster("c1")).unwrap();
        world.document = world.cluster("c2");
        world
    }

    fn cluster(&self, name: &str) -> String {
        let made = self.run(&[], &format!("oidc-assoc -n --cluster {name}"), "");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap()
    }

    fn words(&self, command: &str) -> Vec<String> {
        let files = [("APP", &program("colorapp")), ("MANIFEST", &self.manifest), ("PEER", &self.peer)];
        let named =
            |command: String, (name, file): &(&str, &PathBuf)| command.replace(name, &file.display().to_string());
        let command = files.iter().fold(command.to_owned(), named);
        let (tool, arguments) = command.split_once(' ').unwrap_or((&command, ""));
        let tool = program(tool).display().to_string();
        std::iter::once(tool).chain(arguments.split_whitespace().map(str::to_owned)).collect()
    }

    /// Runs a tool after `before`, a command that runs another.
    fn run(&self, before: &[&str], command: &str, document: &str) -> Output {
        let before = before.iter().map(|word| (*word).to_owned());
        self.cloud.run(before.chain(self.words(command)), document.as_bytes()).unwrap()
    }

    /// Runs all these tools, side by side, and expects the same of each; how many there were.
    #[track_caller]
    fn fails(&self, before: &[&str], commands: &[String], document: &str, says: &Says<'_>) -> usize {
        let outputs: Vec<Output> = thread::scope(|scope| {
            let runs: Vec<_> =
                commands.iter().map(|command| scope.spawn(|| self.run(before, command, document))).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        for (command, output) in commands.iter().zip(&outputs) {
            check(&format!("{before:?} {command}"), output, says);
        }
        commands.len()
    }

    /// mesh-check has a code for such a world.
    #[track_caller]
    fn is_named(&self, before: &[&str], arguments: &str, code: &str) {
        self.is_named_of(before, &format!("-n {arguments}"), "", code);
    }

    /// The same of a document.
    #[track_caller]
    fn is_named_of(&self, before: &[&str], arguments: &str, document: &str, code: &str) {
        let output = self.run(before, &format!("mesh-check {arguments}"), document);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{before:?} {arguments}: {stderr}");
        let found = stderr.lines().any(|line| line.split_whitespace().any(|word| word == code));
        assert!(found, "{before:?} {arguments}: no {code}: {stderr}");
    }

    /// An access key's variables in place of the operator's.
    fn keys(keys: &Value) -> Vec<String> {
        let names = [
            ("AWS_ACCESS_KEY_ID", "accessKeyId"),
            ("AWS_SECRET_ACCESS_KEY", "secretAccessKey"),
            ("AWS_SESSION_TOKEN", "sessionToken"),
        ];
        let set = names.iter().filter_map(|(name, key)| Some(format!("{name}={}", keys[key].as_str()?)));
        std::iter::once("env".to_owned()).chain(set).collect()
    }

    /// Each of the tools asks AWS for the cluster first, or with a document its own service.
    fn credentials(&self) -> usize {
        let account: Value =
            serde_json::from_slice(&std::fs::read(self.cloud.state.join("account.json")).unwrap()).unwrap();
        let operator = &account["operator"];
        let unknown = json!({"accessKeyId": "AKIAAAAAAAAAAAAAAAAA", "secretAccessKey": operator["secretAccessKey"]});
        let forged = json!({"accessKeyId": operator["accessKeyId"], "secretAccessKey": "x".repeat(40)});
        let nobody = ["env", "-u", "AWS_ACCESS_KEY_ID", "-u", "AWS_SECRET_ACCESS_KEY"].map(str::to_owned).to_vec();
        let config = self.cloud.state.join("aws-config");
        std::fs::write(&config, "[profile other]\nregion = us-west-2\n").unwrap();
        let profile = vec!["AWS_PROFILE=nosuch".to_owned(), format!("AWS_CONFIG_FILE={}", config.display())];
        let profile = [nobody.clone(), profile].concat();
        let worlds = [
            (
                Self::keys(&unknown),
                Says {
                    exit: 1,
                    cause: &["UnrecognizedClientException", "InvalidClientTokenId", "AuthFailure"],
                    hint: "AWS does not know these credentials",
                },
            ),
            (
                Self::keys(&forged),
                Says {
                    exit: 1,
                    cause: &["InvalidSignatureException", "SignatureDoesNotMatch", "AuthFailure"],
                    hint: "aws configure list",
                },
            ),
            (
                Self::keys(&account["expired"]),
                Says {
                    exit: 1,
                    cause: &["ExpiredToken: ", "ExpiredTokenException: ", "RequestExpired: "],
                    hint: "the session is over: log in (aws sso login or aws login)",
                },
            ),
            (nobody, NO_CREDENTIALS),
            (
                profile,
                Says { exit: 1, cause: &["there is no AWS profile nosuch"], hint: "aws configure list-profiles" },
            ),
        ];
        let mut tried = 0;
        for (before, says) in &worlds {
            let before: Vec<&str> = before.iter().map(String::as_str).collect();
            tried += self.fails(&before, &named("c2"), "", says);
            // Without a profile nobody can be asked at all.
            if !says.cause[0].starts_with("there is no AWS profile") {
                self.is_named(&before, "--cluster c2", "XM0101");
            }
            let commands = FROM_A_DOCUMENT.map(str::to_owned);
            let (aws, kubernetes) = commands.split_at(OF_KUBERNETES);
            tried += self.fails(&before, aws, &self.document, says);
            let known =
                ["no AWS credentials", "there is no AWS profile"].iter().any(|no| says.cause[0].starts_with(no));
            let says = if known { says } else { &UNAUTHORIZED };
            tried += self.fails(&before, kubernetes, &self.document, says);
        }
        tried
    }

    /// As on a laptop: the address of instance metadata swallows what is sent to it. No tool may wait for it for long.
    fn without_metadata(&self) -> usize {
        let lost = lost("169.254.169.253/24", "169.254.169.254");
        let nobody = ["timeout", "20", "env", "-u", "AWS_ACCESS_KEY_ID", "-u", "AWS_SECRET_ACCESS_KEY"];
        let before: Vec<&str> = lost.iter().map(String::as_str).chain(nobody).collect();
        self.fails(&before, &named("c2"), "", &NO_CREDENTIALS)
    }

    fn regions(&self) -> usize {
        let with =
            |region: &str| named("c2").iter().map(|command| format!("{command} --region {region}")).collect::<Vec<_>>();
        let elsewhere = "there is no cluster c2 in region eu-west-1 of this account";
        let elsewhere = Says { exit: 1, cause: &[elsewhere], hint: "aws eks list-clusters --region eu-west-1" };
        let nowhere = ["cannot reach AWS in region us-west-9"];
        let nowhere = Says { exit: 5, cause: &nowhere, hint: "check that there is such a region" };
        let none = Says { exit: 3, cause: &["no AWS region"], hint: "give --region" };
        self.is_named(&[], "--cluster c2 --region eu-west-1", "XM0102");
        self.is_named(&[], "--cluster c2 --region us-west-9", "XM0101");
        self.fails(&[], &with("eu-west-1"), "", &elsewhere)
            + self.fails(&[], &with("us-west-9"), "", &nowhere)
            + self.fails(&["env", "-u", "AWS_REGION", "-u", "AWS_DEFAULT_REGION"], &named("c2"), "", &none)
    }

    fn clusters(&self) -> usize {
        let python = self.cloud.python().unwrap().display().to_string();
        let script = "import boto3\n\
            eks, iam = boto3.client('eks'), boto3.client('iam')\n\
            subnets = [boto3.client('ec2').describe_subnets()['Subnets'][0]['SubnetId']]\n\
            for name, role in (('coming', 'eks'), ('broken', 'node'), ('going', 'node')):\n    \
                arn = iam.get_role(RoleName=role)['Role']['Arn']\n    \
                eks.create_cluster(name=name, roleArn=arn, resourcesVpcConfig={'subnetIds': subnets})\n\
            eks.delete_cluster(name='going')\n";
        let made = self.cloud.run([&python, "-c", script], b"").unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut tried = 0;
        for (name, code, exit, cause, hint) in [
            (
                "nosuch",
                "XM0102",
                1,
                "there is no cluster nosuch in region us-west-2",
                "aws eks list-clusters --region us-west-2",
            ),
            ("coming", "XM0103", 5, "cluster coming is CREATING", "aws eks wait cluster-active --name coming"),
            ("broken", "XM0103", 1, "cluster broken is FAILED", "aws eks describe-cluster --name broken"),
            ("going", "XM0103", 1, "cluster going is DELETING", "aws eks describe-cluster --name going"),
        ] {
            self.is_named(&[], &format!("--cluster {name}"), code);
            tried += self.fails(&[], &named(name), "", &Says { exit, cause: &[cause], hint });
        }
        tried
    }

    /// The cluster's API: nobody listens, or whatever is sent there is lost.
    fn out_of_reach(&self) -> usize {
        let mut document: Value = serde_json::from_str(&self.document).unwrap();
        let commands: Vec<String> =
            FROM_A_DOCUMENT[OF_KUBERNETES..].iter().map(|command| format!("{command} --timeout 3s")).collect();
        let says = Says { exit: 5, cause: &["onnect"], hint: "a private endpoint answers only within its VPC" };
        document["cluster"]["endpoint"] = "https://127.0.0.1:1".into();
        let refused = self.fails(&[], &commands, &document.to_string(), &says);
        document["cluster"]["endpoint"] = "https://10.99.0.9".into();
        let lost = lost("10.99.0.1/24", "10.99.0.9");
        let before: Vec<&str> = ["timeout", "60"].into_iter().chain(lost.iter().map(String::as_str)).collect();
        // mesh-check asks AWS where the API server is: this one takes calls, and does not answer.
        let pid = self.cloud.pid("c2-apiserver").unwrap();
        let signal = |name| self.cloud.stdout(&format!("kill -{name} {pid}")).unwrap();
        signal("STOP");
        self.is_named(&[], "--cluster c2 --timeout 3s", "XM0107");
        signal("CONT");
        refused + self.fails(&before, &commands, &document.to_string(), &says)
    }

    /// The document cannot be written.
    fn full_stdout(&self) -> usize {
        let commands = FROM_A_DOCUMENT.map(|command| format!("{command} --plan"));
        let full = ["sh", "-c", "exec \"$@\" > /dev/full", "sh"];
        let says = Says { exit: 1, cause: &["No space left on device"], hint: "run it again where there is room" };
        self.fails(&full, &commands, &self.document, &says)
    }

    /// AWS's clock is 20 minutes ahead, then 20 minutes behind: the SDK notices and signs by it. A token for the cluster
    /// is signed by ours. How many end well, and how many give up.
    fn clock(&self) -> (usize, usize) {
        let clock = self.cloud.state.join("clock");
        let commands = FROM_A_DOCUMENT.map(|command| format!("{command} --plan"));
        let (aws, kubernetes) = commands.split_at(OF_KUBERNETES);
        let mut tried = (0, 0);
        for seconds in ["1200", "-1200"] {
            std::fs::write(&clock, seconds).unwrap();
            for command in aws {
                let output = self.run(&[], command, &self.document);
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "clock off by {seconds} s: {command}: {stderr}");
                let planned: Value = serde_json::from_slice(&output.stdout).unwrap();
                let given: Value = serde_json::from_str(&self.document).unwrap();
                assert_eq!(planned["cluster"], given["cluster"], "{command}");
            }
            tried.0 += aws.len();
            tried.1 += self.fails(&[], kubernetes, &self.document, &UNAUTHORIZED);
            self.is_named_of(&[], "", &self.document, "XM0107");
        }
        std::fs::remove_file(clock).unwrap();
        tried
    }

    /// A call that AWS's own models refuse, and so does the local cloud: no test passes without knowing of it.
    fn invalid_call(&self) -> usize {
        assert_eq!(self.cloud.violations().unwrap(), Vec::<Value>::new());
        let says = Says { exit: 1, cause: &["ValidationError: 1 validation error detected"], hint: "" };
        let tried = self.fails(&[], &[format!("irsa-role --role {}", "r".repeat(65))], &self.document, &says);
        let violations = self.cloud.violations().unwrap();
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert_eq!(violations[0]["action"], "iam:GetRole");
        assert_eq!(self.cloud.violations().unwrap(), Vec::<Value>::new(), "a test that has asked knows");
        tried
    }

    /// make, in worlds where it must fail: the files of the last good run stay as they are.
    fn make_keeps_the_last_good_files(&self) -> usize {
        let build = self.cloud.state.join("json");
        std::fs::create_dir(&build).unwrap();
        let bin = program("oidc-assoc").parent().unwrap().display().to_string();
        let build = build.display();
        let make =
            format!("make --no-print-directory BIN={bin} BUILD={build} CLUSTER1=c1 CLUSTER2=c2 {build}/c1/role.json");
        // The files lie on a small disk of their own, which goes with the shell.
        let script = |spoil: &str, spoilt: &str| {
            format!(
                "mount -t tmpfs -o size=64k none {build}\n\
                 {make} 2> /dev/null\n\
                 sums() {{ sha256sum {build}/c1/*.json; }}\n\
                 before=$(sums)\n\
                 {spoil}\n\
                 code=0; {spoilt} {make} -B || code=$?\n\
                 test \"$(sums)\" = \"$before\" || {{ echo changed: \"$before\" \"$(sums)\"; exit 90; }}\n\
                 exit $code\n"
            )
        };
        let full = format!("dd if=/dev/zero of={build}/rest bs=4k 2> /dev/null || true");
        let readonly = format!("mount -o remount,ro {build}");
        let worlds: BTreeMap<&str, (String, &str)> = BTreeMap::from([
            ("no credentials", (script("", "env -u AWS_ACCESS_KEY_ID"), "no AWS credentials")),
            ("wrong secret", (script("", "env AWS_SECRET_ACCESS_KEY=x"), "InvalidSignatureException")),
            ("wrong region", (script("", "env AWS_REGION=eu-west-1"), "there is no cluster c1 in region eu-west-1")),
            ("full disk", (script(&full, ""), "No space left on device")),
            ("read-only disk", (script(&readonly, ""), "Read-only file system")),
        ]);
        for (name, (script, cause)) in &worlds {
            let output = self.cloud.run(["unshare", "--mount", "bash", "-euo", "pipefail", "-c", script], b"").unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{name}: {} {stderr}", String::from_utf8_lossy(&output.stdout));
            assert!(stderr.contains(cause), "{name}: {stderr}");
            // A shell that cannot open the file starts no tool.
            assert_eq!(
                stderr.matches("{\"error\"").count(),
                usize::from(*name != "read-only disk"),
                "{name}: {stderr}"
            );
        }
        worlds.len()
    }
}

/// Runs a command in a network of its own, where `peer` is a neighbour that hears nothing.
fn lost(own: &str, peer: &str) -> [String; 6] {
    let network = format!(
        "ip link add void type veth peer name hole; ip addr add {own} dev void; ip link set void up; ip link set hole up; \
         ip neigh add {peer} lladdr 02:00:00:00:00:01 dev void; exec \"$@\""
    );
    ["unshare", "--net", "sh", "-ec", &network, "sh"].map(str::to_owned)
}

fn named(cluster: &str) -> Vec<String> {
    FROM_NOTHING.iter().map(|command| command.replace("NAME", cluster)).collect()
}

/// The exit code, nothing on stdout, and a last line of stderr that a person understands.
#[track_caller]
fn check(what: &str, output: &Output, says: &Says<'_>) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(says.exit), "{what}: {stderr}");
    assert_eq!(output.stdout, b"", "{what}");
    assert_eq!(stderr.matches("{\"error\"").count(), 1, "{what}: {stderr}");
    let error: Value = serde_json::from_str(stderr.lines().last().unwrap_or_default()).expect(what);
    let error = &error["error"];
    let causes = error["causes"].as_array().into_iter().flatten().chain([&error["message"]]);
    let told: Vec<&str> = causes.map(|cause| cause.as_str().unwrap()).collect();
    let text = told.join("\n");
    assert!(says.cause.iter().any(|cause| text.contains(cause)), "{what}: none of {:?} in {error}", says.cause);
    let hint = error["hint"].as_str().unwrap_or_default();
    assert!(hint.contains(says.hint), "{what}: not {:?}: {error}", says.hint);
    for noise in ["dispatch failure", "Unhandled", "unhandled", "panicked", "Some(", "Attempted:", "source:"] {
        assert!(!stderr.contains(noise), "{what}: {noise:?} is for programmers: {error}");
    }
    assert!(text.len() < 600, "{what}: {} characters is no clear line: {error}", text.len());
}
