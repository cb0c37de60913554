//! Credentials and kubeconfigs are found as the AWS CLI and kubectl find them, and what is missing is said with what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use tempfile::TempDir;
use tests::peer::Peer;
use tests::{error, feed, program};

/// A home, and a server that refuses everything.
struct World {
    home: TempDir,
    server: Peer,
}

/// How a tool ended: what it said, and what the server heard of it.
struct Run {
    exit: Option<i32>,
    /// Message, causes and hint.
    said: String,
    hint: String,
    heard: Vec<String>,
}

impl World {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), server: Peer::refusing("authorization").unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Runs a tool with this home and these variables, and no others.
    fn run(&self, tool: &str, arguments: &str, variables: &[(&str, &str)]) -> Run {
        self.feed(tool, arguments, "{}", variables)
    }

    /// The same with a document.
    fn feed(&self, tool: &str, arguments: &str, document: &str, variables: &[(&str, &str)]) -> Run {
        let mut command = Command::new(program(tool));
        command.args(arguments.split(' ')).args(["--timeout", "5s"]).env_clear().env("HOME", self.home.path());
        command.env("AWS_ENDPOINT_URL", format!("http://{}", self.server.address));
        command.env("AWS_EC2_METADATA_DISABLED", "true").envs(variables.iter().copied());
        let Output { status, stderr, .. } = feed(&mut command, document.as_bytes()).unwrap();
        let told = error(&String::from_utf8(stderr).unwrap());
        let text = |field: &str| told[field].as_str().unwrap_or_default().to_owned();
        let causes = told["causes"].to_string();
        let said = format!("{} {causes}", text("message"));
        Run { exit: status.code(), said, hint: text("hint"), heard: self.server.asked() }
    }

    fn aws(&self, variables: &[(&str, &str)]) -> Run {
        self.run("oidc-assoc", "--cluster c1", variables)
    }

    fn kubernetes(&self, flags: &str, variables: &[(&str, &str)]) -> Run {
        let manifest = self.write("manifest.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}");
        self.run("manifest-apply", &format!("app --file {manifest} {flags}"), variables)
    }

    /// A kubeconfig of one context, with this user.
    fn kubeconfig(&self, name: &str, user: &str) -> String {
        let text = format!(
            "{{clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}], users: [{{name: {name}, user: {user}}}], \
             contexts: [{{name: {name}, context: {{cluster: c, user: {name}}}}}], current-context: {name}}}",
            self.server.address
        );
        self.write(name, &text)
    }
}

#[test]
fn a_profile_is_the_one_that_a_variable_names() {
    let world = World::new();
    world.write(
        ".aws/config",
        "[default]\nregion = us-west-2\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = x\n\
         [profile dev]\nregion = eu-west-1\naws_access_key_id = AKIADEV\naws_secret_access_key = x\n",
    );
    for (variables, key) in [
        (&[][..], "AKIADEFAULT"),
        (&[("AWS_PROFILE", "dev")], "AKIADEV"),
        (&[("AWS_DEFAULT_PROFILE", "dev")], "AKIADEV"),
        (&[("AWS_PROFILE", "default"), ("AWS_DEFAULT_PROFILE", "dev")], "AKIADEFAULT"),
        (&[("AWS_PROFILE", "")], "AKIADEFAULT"),
    ] {
        let run = world.aws(variables);
        let heard = run.heard.first().map(String::as_str).unwrap_or_default();
        assert!(heard.contains(&format!("Credential={key}/")), "{variables:?}: {heard}: {}", run.said);
    }
    // A flag beats the environment's profile and its keys, as it does for the AWS CLI.
    let keys = [("AWS_PROFILE", "default"), ("AWS_ACCESS_KEY_ID", "AKIAHERE"), ("AWS_SECRET_ACCESS_KEY", "x")];
    let run = world.run("oidc-assoc", "--cluster c1 --profile dev", &keys);
    let heard = run.heard.first().map(String::as_str).unwrap_or_default();
    assert!(heard.contains("Credential=AKIADEV/") && heard.contains("/eu-west-1/"), "{heard}: {}", run.said);
    let run = world.run("oidc-assoc", "--cluster c1 --profile nosuch", &keys);
    assert!(run.said.contains("there is no AWS profile nosuch"), "{}", run.said);
    for region in [&[][..], &[("AWS_REGION", "us-west-2")]] {
        let run = world.aws(&[&[("AWS_PROFILE", "nosuch")], region].concat());
        assert_eq!((run.exit, run.hint.as_str()), (Some(1), "aws configure list-profiles"), "{}", run.said);
        assert!(run.said.contains("there is no AWS profile nosuch"), "{}", run.said);
    }
}

/// An address says where a repository is, whatever the region of the cluster; that of another account, too.
#[test]
fn a_repository_is_asked_for_in_the_region_of_its_address() {
    // Each in a world of its own: a call that was under way when its run failed may be heard after the next began.
    let run = |flags: &str, variables: &[(&str, &str)]| World::new().run("ecr-push", flags, variables);
    let keys = [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_REGION", "us-west-2")];
    let address = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/web";
    let binary = program("ecr-push").display().to_string();
    for (flags, variables, region) in [
        (format!("--repository {address} --delete"), &keys[..2], "eu-west-1"),
        (format!("--repository {address} --delete"), &keys, "eu-west-1"),
        (format!("--repository {address} --binary {binary}"), &keys, "eu-west-1"),
        (format!("--repository {address} --region us-east-1 --delete"), &keys, "eu-west-1"),
        ("--repository shop/web --delete".to_owned(), &keys, "us-west-2"),
        ("--repository shop/web --region us-east-1 --delete".to_owned(), &keys, "us-east-1"),
    ] {
        let run = run(&format!("web {flags}"), variables);
        assert!(run.said.contains("HTTP status 400"), "{flags}: {}", run.said);
        let scope = format!("/{region}/ecr/");
        assert!(
            !run.heard.is_empty() && run.heard.iter().all(|heard| heard.contains(&scope)),
            "{flags}: {:?}",
            run.heard
        );
    }
    // The cluster is looked for where the flags say.
    let flags = format!("web --cluster c1 --repository {address} --binary {binary}");
    let found = run(&flags, &keys);
    assert!(found.heard.iter().any(|heard| heard.contains("/us-west-2/eks/")), "{:?}: {}", found.heard, found.said);
    let lost = run(&flags, &keys[..2]);
    assert!(lost.heard.is_empty() && lost.said.contains("no AWS region"), "{:?}: {}", lost.heard, lost.said);
}

/// Facts of a cluster in one region are not used for one in another.
#[test]
fn a_cluster_is_looked_up_in_its_own_region() {
    // In worlds of their own, as above.
    let feed = |arguments: &str, document: &str, keys: &[(&str, &str)]| {
        World::new().feed("oidc-assoc", arguments, document, keys)
    };
    let facts = json!({"name": "c1", "region": "us-west-2", "account": "123456789012", "version": "1.35",
        "arn": "arn:aws:eks:us-west-2:123456789012:cluster/c1", "endpoint": "https://127.0.0.1:1",
        "certificateAuthority": "LS0tLS1CRUdJTg==", "issuer": "https://oidc.eks.us-west-2.amazonaws.com/id/A",
        "vpc": "vpc-1", "securityGroup": "sg-1"});
    let document = json!({ "cluster": facts }).to_string();
    let keys = [("AWS_ACCESS_KEY_ID", "AKIAHERE"), ("AWS_SECRET_ACCESS_KEY", "x")];
    for (arguments, heard) in [
        ("--cluster c2", "/us-west-2/eks/"),
        ("--cluster c2 --region us-west-2", "/us-west-2/eks/"),
        ("--cluster c2 --region eu-west-1", "/eu-west-1/eks/"),
        ("--cluster c1 --region eu-west-1", "/eu-west-1/eks/"),
        ("--cluster c1 --region us-west-2", "/us-west-2/iam/"),
    ] {
        let run = feed(arguments, &document, &keys);
        let first = run.heard.first().map(String::as_str).unwrap_or_default();
        assert!(first.contains(heard), "{arguments}: {first}: {}", run.said);
    }
    let run = feed("--region eu-west-1", &document, &keys);
    assert_eq!((run.exit, run.heard), (Some(4), Vec::new()), "{}", run.said);
}

#[test]
fn a_role_that_wants_a_code_is_told_so() {
    let world = World::new();
    let device = "arn:aws:iam::123456789012:mfa/me";
    world.write(
        ".aws/config",
        &format!(
            "[profile base]\nregion = us-west-2\naws_access_key_id = AKIABASE\naws_secret_access_key = x\n\
             [profile dev]\nregion = us-west-2\nrole_arn = arn:aws:iam::123456789012:role/dev\nsource_profile = base\n\
             mfa_serial = {device}\n\
             [profile chained]\nregion = us-west-2\nrole_arn = arn:aws:iam::123456789012:role/more\nsource_profile = dev\n"
        ),
    );
    for profile in ["dev", "chained"] {
        let run = world.aws(&[("AWS_PROFILE", profile)]);
        assert_eq!(run.exit, Some(1), "{}", run.said);
        assert!(run.said.contains(&format!("profile dev asks for a code of the MFA device {device}")), "{}", run.said);
        assert_eq!(run.hint, "eval \"$(aws configure export-credentials --profile dev --format env)\"");
    }
    let run = world.aws(&[("AWS_PROFILE", "dev"), ("AWS_ACCESS_KEY_ID", "AKIACODED"), ("AWS_SECRET_ACCESS_KEY", "x")]);
    assert!(run.heard.iter().all(|heard| heard.contains("Credential=AKIACODED/")), "{:?}", run.heard);
    assert!(!run.heard.is_empty(), "{}", run.said);
}

#[test]
fn a_profile_of_aws_login_is_read() {
    let world = World::new();
    let session = "arn:aws:sts::123456789012:assumed-role/Dev/me";
    world.write(".aws/config", &format!("[default]\nregion = us-west-2\nlogin_session = {session}\n"));
    let run = world.aws(&[]);
    assert_eq!(run.exit, Some(1), "{}", run.said);
    assert!(run.said.contains("no AWS credentials") && run.hint.contains("aws login"), "{}: {}", run.said, run.hint);

    let token = json!({
        "accessToken": {"accessKeyId": "AKIALOGIN", "secretAccessKey": "x", "sessionToken": "y",
            "accountId": "123456789012", "expiresAt": "2099-01-01T00:00:00Z"},
        "tokenType": "urn:aws:params:oauth:token-type:access_token_sigv4", "clientId": "arn:aws:signin:::devtools/same-device",
        "refreshToken": "z", "idToken": "i",
        "dpopKey": "-----BEGIN EC PRIVATE KEY-----\nk\n-----END EC PRIVATE KEY-----\n"
    });
    // The CLI names the file by the SHA-256 of the session.
    let name = "0edbcbf074898f3940548a76fb0d947a29e5aa17c172ffd62559c05888f6e5c5";
    world.write(&format!(".aws/login/cache/{name}.json"), &token.to_string());
    let run = world.aws(&[]);
    let heard = run.heard.first().map(String::as_str).unwrap_or_default();
    assert!(heard.contains("Credential=AKIALOGIN/"), "{heard}: {}", run.said);
}

#[test]
fn kubeconfigs_that_are_not_there_are_left_out() {
    let world = World::new();
    let (one, two) = (world.kubeconfig("one", "{token: first}"), world.kubeconfig("two", "{token: second}"));
    let list = format!("/nonexistent/config::{one}:{two}");
    for (flags, token) in [("--context one", "Bearer first"), ("--context two", "Bearer second")] {
        let run = world.kubernetes(flags, &[("KUBECONFIG", &list)]);
        assert_eq!(run.heard.first().map(String::as_str), Some(token), "{}", run.said);
    }
    fs::create_dir_all(world.home.path().join(".kube")).unwrap();
    fs::copy(&two, world.home.path().join(".kube/config")).unwrap();
    for variables in [&[][..], &[("KUBECONFIG", "")]] {
        let run = world.kubernetes("--context two", variables);
        assert_eq!(run.heard.first().map(String::as_str), Some("Bearer second"), "{}", run.said);
    }
    let run = world.kubernetes("--context two", &[("KUBECONFIG", "/nonexistent/a:/nonexistent/b")]);
    assert_eq!(run.exit, Some(1));
    assert!(run.said.contains("there is no kubeconfig: /nonexistent/a, /nonexistent/b"), "{}", run.said);
    let run = world.kubernetes("--kubeconfig /nonexistent/a", &[("KUBECONFIG", &list)]);
    assert_eq!(run.exit, Some(1));
    assert!(run.said.contains("/nonexistent/a"), "{}", run.said);
}

#[test]
fn a_context_that_is_not_there_is_told_with_those_that_are() {
    let world = World::new();
    let one = world.kubeconfig("one", "{}");
    let list = format!("{one}:{}", world.kubeconfig("two", "{}"));
    let run = world.kubernetes("--context three", &[("KUBECONFIG", &list)]);
    assert_eq!((run.exit, run.hint.as_str()), (Some(1), "give --context one of: one, two"), "{}", run.said);
    assert!(run.said.contains("the kubeconfig has no context three"), "{}", run.said);
    let text = fs::read_to_string(&one).unwrap().replace("current-context: one", "current-context: ''");
    let run = world.kubernetes(&format!("--kubeconfig {}", world.write("none", &text)), &[]);
    assert_eq!((run.exit, run.hint.as_str()), (Some(1), "give --context one of: one"), "{}", run.said);
    assert!(run.said.contains("the kubeconfig has no current context"), "{}", run.said);
}

#[test]
fn a_credential_plugin_is_run_or_told() {
    let world = World::new();
    let user = |command: &str, hint: &str| {
        let api = "apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never";
        format!("{{exec: {{{api}, command: '{command}', installHint: '{hint}'}}}}")
    };
    let run = |name: &str, user: &str| {
        let file = world.kubeconfig(name, user);
        world.kubernetes(&format!("--kubeconfig {file}"), &[("PATH", "/usr/bin:/bin")])
    };
    let absent = run("absent", &user("no-such-plugin", "brew install no-such-plugin"));
    assert_eq!((absent.exit, absent.hint.as_str()), (Some(1), "brew install no-such-plugin"), "{}", absent.said);
    assert!(absent.said.contains("run the kubeconfig's credential plugin no-such-plugin"), "{}", absent.said);
    let absent = run("bare", &user("no-such-plugin", ""));
    assert_eq!(absent.hint, "install no-such-plugin, or put it in PATH", "{}", absent.said);

    let plugin = |name: &str, text: &str| {
        let path = PathBuf::from(world.write(name, &format!("#!/bin/sh\n{text}\n")));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    let fails = plugin("fails", "echo secret; echo 'log in first' >&2; exit 3");
    let failed = run("failing", &user(&fails, ""));
    assert_eq!(failed.exit, Some(1));
    assert!(failed.said.contains("log in first") && !failed.said.contains("secret"), "{}", failed.said);
    let credential =
        r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t"}}"#;
    let works = plugin("works", &format!("echo '{credential}'"));
    assert_eq!(run("working", &user(&works, "")).heard.first().map(String::as_str), Some("Bearer t"));
}

#[test]
fn helms_own_variables_lead_it_nowhere_else() {
    let world = World::new();
    let log = world.home.path().join("environment");
    let helm = world.write("bin/helm", &format!("#!/bin/sh\nenv > {}\necho v3.14.0\n", log.display()));
    fs::set_permissions(&helm, fs::Permissions::from_mode(0o755)).unwrap();
    let kubeconfig = world.kubeconfig("one", "{}");
    let path = format!("{}:/usr/bin:/bin", world.home.path().join("bin").display());
    let astray = ["KUBECONTEXT", "KUBETOKEN", "KUBEAPISERVER", "NAMESPACE", "DRIVER", "MAX_HISTORY", "DEBUG"];
    let kept = ["CACHE_HOME", "REGISTRY_CONFIG", "REPOSITORY_CACHE"];
    let names: Vec<String> = astray.iter().chain(&kept).map(|name| format!("HELM_{name}")).collect();
    let mut variables: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "/x")).collect();
    variables.push(("PATH", &path));
    // What lies in a registry is Helm's to fetch.
    world.run("appmesh-install", &format!("--kubeconfig {kubeconfig} --chart oci://127.0.0.1:1/c:0.1.0"), &variables);
    let heard = fs::read_to_string(log).unwrap();
    for name in astray {
        assert!(!heard.contains(&format!("HELM_{name}=")), "{name}: {heard}");
    }
    for name in kept {
        assert!(heard.contains(&format!("HELM_{name}=/x")), "{name}: {heard}");
    }
}
