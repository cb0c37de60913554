//! A cloud, who else changes things in it, and what is asserted of a tool that runs there.

use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};
use tests::cloud::{Cloud, writes};
use tests::{error, foresaw, program, root, said};

/// How long others' changes may take. Nothing here takes more than two seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a tool printed: the document, and its stderr.
pub struct Said {
    pub document: String,
    stderr: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.document).unwrap()
    }

    /// The lines of stderr that begin with `start` after the tool's name, without it.
    pub fn lines(&self, start: &str) -> Vec<&str> {
        self.stderr.lines().filter_map(|line| said(line)?.strip_prefix(start)).collect()
    }

    /// It found nothing to do.
    #[track_caller]
    pub fn idle(&self) {
        assert!(!self.lines("nothing to do for ").is_empty(), "{}", self.stderr);
    }

    #[track_caller]
    pub fn tells(&self, line: &str) {
        assert!(self.lines("").contains(&line), "{line:?} is no line of: {}", self.stderr);
    }

    /// The error object, the last line.
    fn error(&self) -> Value {
        let error = error(&self.stderr);
        assert_ne!(error, Value::Null, "no error line: {}", self.stderr);
        error
    }
}

/// A cloud of its own for these tests.
pub struct Region {
    // Ends before the cloud does.
    others: RefCell<Others>,
    marks: Cell<usize>,
    pub cloud: Cloud,
}

/// A process inside that makes the calls it is told to.
struct Others {
    process: Child,
    calls: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Drop for Others {
    fn drop(&mut self) {
        self.calls.take();
        let _its_end = self.process.wait();
    }
}

impl Region {
    pub fn up(name: &str) -> Self {
        let cloud = Cloud::up(name).unwrap();
        let (python, call) = (cloud.python().unwrap(), root().join("tests/aws/call.py"));
        let mut command = cloud.command([python, call]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (calls, answers) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()));
        // Of an earlier run, if it kept its log.
        let marks = cloud.calls().map_or(0, |calls| calls.iter().filter(|call| is_mark(call)).count());
        Self { others: RefCell::new(Others { process, calls, answers }), marks: Cell::new(marks), cloud }
    }

    /// A call of somebody else, behind the tools' back.
    #[track_caller]
    pub fn aws(&self, service: &str, operation: &str, parameters: Value) -> Value {
        let mut others = self.others.borrow_mut();
        writeln!(others.calls.as_mut().unwrap(), "{}", json!([service, operation, parameters])).unwrap();
        let mut line = String::new();
        others.answers.read_line(&mut line).unwrap();
        let mut said: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(said["error"], Value::Null, "{service} {operation} {parameters}");
        said["answer"].take()
    }

    /// Runs `TOOL ARGS` and expects that exit code.
    #[track_caller]
    fn exits(&self, code: i32, command: &str, document: &str) -> Said {
        let mut words = command.split_ascii_whitespace();
        let tool = program(words.next().unwrap()).into_os_string();
        let inside = std::iter::once(tool).chain(words.map(Into::into));
        let output = self.cloud.run(inside, document.as_bytes()).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{command}: {stderr}");
        Said { document: String::from_utf8(output.stdout).unwrap(), stderr }
    }

    /// A failure with that exit code: its error object.
    #[track_caller]
    pub fn fails(&self, code: i32, command: &str, document: &str) -> Value {
        self.exits(code, command, document).error()
    }

    #[track_caller]
    pub fn done(&self, command: &str, document: &str) -> Said {
        self.exits(0, command, document)
    }

    /// The same document again: nothing to do, nothing written, and not a byte changes.
    #[track_caller]
    pub fn steady(&self, command: &str, document: &str) -> Said {
        let (again, written) = self.writes(|| self.done(command, document));
        again.idle();
        assert_eq!((again.document.as_str(), &written[..]), (document, &[][..]), "{command}");
        again
    }

    /// `--plan` names these changes and no others, a run makes these writes and no others, and then nothing is left
    /// to do. What the run said.
    #[track_caller]
    pub fn repairs(&self, command: &str, document: &str, changes: &[&str], writes: &[&str]) -> Said {
        let (repaired, written) = self.writes(|| {
            let plan = self.done(&format!("{command} --plan"), document);
            assert_eq!(plan.lines("would "), changes, "{command}");
            let repaired = self.done(command, document);
            foresaw(&plan.document, &repaired.document).unwrap();
            repaired
        });
        assert_eq!(written, writes, "{command}");
        self.steady(command, &repaired.document);
        repaired
    }

    /// As `repairs`, and the document comes out as it went in.
    #[track_caller]
    pub fn restores(&self, command: &str, document: &str, changes: &[&str], writes: &[&str]) {
        assert_eq!(self.repairs(command, document, changes, writes).document, document, "{command}");
    }

    /// A conflict: this message, a hint with these words, nothing on stdout and nothing written, with `--plan` too.
    #[track_caller]
    pub fn refuses(&self, command: &str, document: &str, message: &str, hint: &str) {
        let (refused, written) = self.writes(|| {
            let plan = format!("{command} --plan");
            [command, &plan].map(|command| self.exits(4, command, document))
        });
        assert_eq!(written, [""; 0], "{command}");
        for said in refused {
            let error = said.error();
            assert_eq!((&error["kind"], &error["message"]), (&json!("conflict"), &json!(message)), "{command}");
            assert!(error["hint"].as_str().unwrap_or_default().contains(hint), "{error}");
            assert_eq!(said.document, "", "{command}");
        }
    }

    /// `--delete`: leaves these and says why, makes these writes and no others, and a second time finds nothing to do.
    #[track_caller]
    pub fn deletes(&self, command: &str, document: &str, left: &[&str], writes: &[&str]) -> Said {
        let command = format!("{command} --delete");
        let (deleted, written) = self.writes(|| {
            let plan = self.done(&format!("{command} --plan"), document);
            let deleted = self.done(&command, document);
            foresaw(&plan.document, &deleted.document).unwrap();
            assert_eq!(plan.lines("would ").len(), writes.len(), "{command} --plan");
            deleted
        });
        assert_eq!(deleted.lines("left alone: "), left, "{command}");
        assert_eq!(written, writes, "{command}");
        let (again, written) = self.writes(|| self.done(&command, document));
        assert_eq!((again.lines("left alone: "), written), (left.to_vec(), Vec::new()), "{command}");
        again.idle();
        assert_eq!(again.document, deleted.document, "{command}");
        deleted
    }

    /// What is written in AWS meanwhile, in order, as `iam:CreateRole`.
    #[track_caller]
    pub fn writes<T>(&self, act: impl FnOnce() -> T) -> (T, Vec<String>) {
        let (done, calls) = self.calls(act);
        (done, writes(&calls))
    }

    /// What AWS is asked meanwhile, by whomever, as the gateway logs it.
    #[track_caller]
    pub fn calls<T>(&self, act: impl FnOnce() -> T) -> (T, Vec<Value>) {
        let start = self.mark();
        let done = act();
        let end = self.mark();
        // The gateway writes its log in order and a little later: when the end mark is there, all before it is.
        let calls = until("the gateway's log", || {
            let calls = self.cloud.calls().unwrap();
            let mut marks = calls.iter().enumerate().filter(|(_, call)| is_mark(call)).map(|(place, _)| place);
            let (start, end) = (marks.nth(start), marks.nth(end - start - 1));
            start.zip(end).map(|(start, end)| calls[start..end].to_vec()).or_else(|| {
                self.mark();
                None
            })
        });
        (done, calls)
    }

    /// Leaves a mark in the gateway's log; how many there are before it.
    fn mark(&self) -> usize {
        self.aws("sts", "get_caller_identity", json!({}));
        self.marks.replace(self.marks.get() + 1)
    }

    /// A file for the tools to read.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let file = self.cloud.state.join(name);
        std::fs::write(&file, content).unwrap();
        file
    }

    /// A cluster in a VPC of its own with a private endpoint. No machine is behind it, so it never becomes active: its
    /// facts are a document from elsewhere.
    pub fn cluster_apart(&self, name: &str) -> String {
        let vpc = self.aws("ec2", "create_vpc", json!({"CidrBlock": "10.9.0.0/16"}));
        let subnet = json!({"VpcId": vpc["Vpc"]["VpcId"], "CidrBlock": "10.9.1.0/24"});
        let subnet = self.aws("ec2", "create_subnet", subnet);
        let network = json!({"subnetIds": [subnet["Subnet"]["SubnetId"]], "endpointPublicAccess": false, "endpointPrivateAccess": true});
        let role = "arn:aws:iam::123456789012:role/eks";
        let made = json!({"name": name, "roleArn": role, "resourcesVpcConfig": network});
        let made = &self.aws("eks", "create_cluster", made)["cluster"];
        let facts = json!({
            "name": name,
            "region": "us-west-2",
            "account": "123456789012",
            "arn": made["arn"],
            "endpoint": "https://9A9A.gr7.us-west-2.eks.amazonaws.com",
            "certificateAuthority": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==",
            "issuer": "https://oidc.eks.us-west-2.amazonaws.com/id/9A9A",
            "vpc": made["resourcesVpcConfig"]["vpcId"],
            "securityGroup": made["resourcesVpcConfig"]["clusterSecurityGroupId"],
            "version": "1.35",
        });
        json!({"cluster": facts, "v": 1}).to_string()
    }
}

/// Asks until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let asked = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(asked.elapsed() < PATIENCE, "waited for {what}");
    }
}

/// Whether it is a call that says nothing else: no tool makes it, and who else does is no boto3.
fn is_mark(call: &Value) -> bool {
    call["action"] == "sts:GetCallerIdentity" && call["agent"].as_str().is_some_and(|agent| agent.contains("Boto3"))
}

/// Parameters with more of them.
pub fn with(parameters: &Value, more: Value) -> Value {
    let (mut all, Value::Object(more)) = (parameters.clone(), more) else { panic!("{parameters}") };
    all.as_object_mut().unwrap().extend(more);
    all
}
