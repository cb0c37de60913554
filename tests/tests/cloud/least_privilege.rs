//! Least privilege: an operator who has `policies/operator.json` and nothing else does the whole flow; every action in
//! it is needed; and a tool whose caller lacks one says which. The controllers have `policies/controller.json` and
//! nothing else, and do all that it allows.
//!
//! The operator's policy is made from the tools' own `--help`. The local cloud enforces IAM, and one serves the whole file; it
//! needs Linux and root.

use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;
use std::time::Duration;
use tests::cloud::Cloud;
use tests::faults::until;
use tests::policy::allowing;
use tests::steps::make;
use tests::{TOOLS, program, root, run};

/// Listed, but nothing fails without it here: of what deleting a namespace needs, Cloud Map's reference names only
/// servicediscovery:DeleteNamespace, while AWS's own AWSCloudMapFullAccess has this, too.
const EXCUSED: (&str, &str) = ("cloudmap-ns", "route53:DeleteHostedZone");

/// What a controller is not seen to call in the flow: the first only a service with 1,000 instances brings about; the
/// others Cloud Map needs for CreateService with tags, and for instances with DNS records, and refuses these without.
const UNSEEN: [&str; 3] =
    ["servicediscovery:GetInstancesHealthStatus", "servicediscovery:TagResource", "route53:ChangeResourceRecordSets"];

/// The IAM actions in the `Calls` paragraph of a tool's `--help`.
fn actions(tool: &str) -> BTreeSet<String> {
    let help = run(tool, ["--help"], b"").expect(tool);
    let help = String::from_utf8(help.stdout).expect(tool);
    let (_, calls) = help.split_once("\n  Calls ").expect(tool);
    let (calls, _) = calls.split_once("\n  Exits ").expect(tool);
    let is_action = |word: &&str| {
        let (service, operation) = word.split_once(':').unwrap_or_default();
        !service.is_empty() && operation.starts_with(|c: char| c.is_ascii_uppercase())
    };
    calls.split(|c: char| c.is_whitespace() || ",;()".contains(c)).filter(is_action).map(str::to_owned).collect()
}

/// Every tool with each of its actions.
fn listed() -> BTreeSet<(String, String)> {
    let of = |tool: &&str| actions(tool).into_iter().map(|action| (tool.to_string(), action)).collect::<Vec<_>>();
    TOOLS.iter().chain(&["mesh-map"]).flat_map(of).collect()
}

fn all_actions() -> BTreeSet<String> {
    listed().into_iter().map(|(_, action)| action).collect()
}

/// After a change of a header: `SNAPSHOTS=overwrite cargo test --workspace --test cloud the_policy`.
#[test]
fn the_policy_is_what_the_headers_say() {
    let policy = allowing(&all_actions());
    let length = policy.to_string().len();
    assert!(length <= 6144, "a managed policy has at most 6,144 characters, this one {length}");
    let committed = root().join("policies/operator.json");
    snapbox::assert_data_eq!(format!("{policy:#}\n"), snapbox::Data::read_from(&committed, None).raw());
}

#[test]
fn it_suffices_and_every_action_is_needed() {
    let account = Account::new();
    account.flow();
    account.oidc_assoc();
    account.irsa_role();
    account.pod_identity();
    account.cloudmap_ns();
    account.sg_open();
    account.ecr_push();
    account.lacks("eks:DescribeCluster", "appmesh-install -n --cluster c1 --chart charts/appmesh-controller", "");
    account.lacks("eks:DescribeCluster", "mesh-check -n --cluster c1 --and-cluster c2", "");
    account.lacks("eks:DescribeCluster", "mesh-map -n --cluster c1 --and-cluster c2", "");
    account.lacks(
        "eks:DescribeCluster",
        "manifest-apply feapp -n --cluster c1 --file manifests/feapp.yaml --delete",
        "",
    );

    let mut needed = listed();
    assert!(needed.remove(&(EXCUSED.0.to_owned(), EXCUSED.1.to_owned())), "{EXCUSED:?} is listed no more");
    assert_eq!(account.proved.into_inner(), needed);
}

/// Keys, as environment variables.
type Keys = BTreeMap<String, String>;

/// A cloud whose operator has the policy and nothing more, and one user for each action, who lacks just that one.
struct Account {
    cloud: Cloud,
    admin: Keys,
    lacking: BTreeMap<String, Keys>,
    /// Tools and actions that they were seen to need.
    proved: RefCell<BTreeSet<(String, String)>>,
}

impl Account {
    fn new() -> Self {
        // Of two VPCs, which ask for more: what joins them.
        let cloud = Cloud::up_with("test-privilege", &["--two-vpcs"]).expect("localcloud");
        let all = all_actions();
        let administrator = "arn:aws:iam::aws:policy/AdministratorAccess";
        let mut users = json!({"admin": administrator});
        for action in &all {
            users[action.replace(':', ".")] = allowing(all.iter().filter(|other| *other != action));
        }
        let python = cloud.python().unwrap().display().to_string();
        let made = cloud.run([python.as_str(), "tests/aws/users.py"], users.to_string().as_bytes()).unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut keys: BTreeMap<String, Keys> = serde_json::from_slice(&made.stdout).unwrap();
        let admin = keys.remove("admin").unwrap();
        let account = Self { cloud, admin, lacking: keys, proved: RefCell::default() };

        let committed = root().join("policies/operator.json");
        account.boto3(&format!(
            "iam = boto3.client('iam')\n\
             document = open('{}').read()\n\
             policy = iam.create_policy(PolicyName='crossmesh-operator', PolicyDocument=document)['Policy']['Arn']\n\
             iam.detach_user_policy(UserName='operator', PolicyArn='{administrator}')\n\
             iam.attach_user_policy(UserName='operator', PolicyArn=policy)",
            committed.display()
        ));
        account
    }

    /// Runs `TOOL ARGS` as somebody.
    fn run_as(&self, keys: &Keys, command: &str, document: &str) -> Output {
        let mut words = command.split(' ');
        let tool = program(words.next().unwrap()).display().to_string();
        let variables = keys.iter().map(|(name, value)| format!("{name}={value}"));
        let command = std::iter::once("env".to_owned()).chain(variables).chain([tool]).chain(words.map(str::to_owned));
        self.cloud.run(command, document.as_bytes()).unwrap()
    }

    /// As the operator, who may.
    #[track_caller]
    fn done(&self, command: &str, document: &str) -> String {
        let output = self.run_as(&Keys::new(), command, document);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// As one who may do all but `action`: it fails, and the hint names the action.
    #[track_caller]
    fn lacks(&self, action: &str, command: &str, document: &str) {
        let output = self.run_as(&self.lacking[&action.replace(':', ".")], command, document);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let error: Value = serde_json::from_str(stderr.lines().last().unwrap_or_default()).unwrap_or_default();
        let error = &error["error"];
        assert_eq!((output.status.code(), error["kind"].as_str()), (Some(1), Some("failed")), "{command}: {stderr}");
        assert_eq!(output.stdout, b"", "{command}");
        assert_eq!(error["hint"], format!("the caller needs the permission {action}"), "{command}: {error}");
        let tool = command.split(' ').next().unwrap().to_owned();
        self.proved.borrow_mut().insert((tool, action.to_owned()));
    }

    /// Runs a Python script as the administrator.
    #[track_caller]
    fn boto3(&self, script: &str) {
        let python = self.cloud.python().unwrap().display().to_string();
        let variables = self.admin.iter().map(|(name, value)| format!("{name}={value}"));
        let script = [python, "-c".to_owned(), format!("import boto3\n{script}")];
        let output = self.cloud.run(std::iter::once("env".to_owned()).chain(variables).chain(script), b"").unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Everything that make can do, and who called what: each tool only what its help lists, each controller all that
    /// its policy allows, and nobody in vain.
    fn flow(&self) {
        let before = self.cloud.log("aws-api").unwrap().len();
        self.boto3(
            "eks = boto3.client('eks')\n\
             for c in ('c1', 'c2'): eks.create_addon(clusterName=c, addonName='eks-pod-identity-agent')",
        );
        let profiles = self.profiles();
        // The second goes over from the one way to a role to the other, and the last takes both away.
        for goals in ["all", "-B all IDENTITY=pod-identity", "plan IDENTITY=pod-identity", "map", "destroy"] {
            if goals.starts_with("map") {
                self.mesh_check();
            }
            let goals = format!("-j8 {goals} NAMESPACE_TYPE=http PROFILE1=one PROFILE2=two");
            self.cloud.stdout(&format!("export AWS_CONFIG_FILE={profiles}\n{}", make(&self.cloud, &goals))).unwrap();
        }
        let (mut called, mut by_controllers, mut with_pods) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for call in &self.cloud.log("aws-api").unwrap()[before..] {
            let [action, agent, caller] =
                ["action", "agent", "caller"].map(|key| call[key].as_str().unwrap_or_default());
            let denied_on_purpose = agent.contains("app/crossmesh-mesh-check");
            assert!(caller == "anonymous" || denied_on_purpose || call["code"] != 403, "{call}");
            // Whoever has credentials may ask whose they are, without a policy. Profiles are the operator in a role.
            if ["sts:GetCallerIdentity", "sts:AssumeRole"].contains(&action) {
                continue;
            }
            if caller.contains(":assumed-role/") && caller.contains("-appmesh-controller/") {
                by_controllers.insert(action.to_owned());
                let by_association = |cluster: &&str| caller.contains(&format!("/eks-{cluster}-"));
                with_pods.extend(["c1", "c2"].into_iter().filter(by_association));
            }
            let by_admin = caller.contains(":assumed-role/c1-admin/") || caller.contains(":assumed-role/c2-admin/");
            let by_operator = caller.ends_with(":user/operator");
            assert!(denied_on_purpose || !by_operator, "{call}");
            if !(by_admin || by_operator) || action == "ecr:Ping" {
                continue;
            }
            let tool = match agent.split_once("app/crossmesh-") {
                Some((_, tool)) => tool.split(' ').next().unwrap(),
                // Registries are asked by ecr-push alone, and not through the SDK.
                None if agent.starts_with("crossmesh-ecr-push/") && action.starts_with("ecr:") => "ecr-push",
                None => panic!("whose call is this? {call}"),
            };
            called.insert((tool.to_owned(), action.to_owned()));
        }
        assert!(called.len() > 30, "the log tells who called what: {called:?}");
        assert_eq!(called.difference(&listed()).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
        let policy = std::fs::read(root().join("policies/controller.json")).unwrap();
        let mut allowed: BTreeSet<String> =
            tests::policy::actions(&serde_json::from_slice(&policy).unwrap()).into_iter().collect();
        allowed.retain(|action| !UNSEEN.contains(&action.as_str()));
        assert_eq!(by_controllers, allowed);
        assert_eq!(with_pods, BTreeSet::from(["c1", "c2"]), "who got credentials by EKS Pod Identity");
    }

    /// Of a mesh that stands, what a caller may not look at is said, and is no failure. It is the operator who is denied
    /// some actions at a time, as the clusters know nobody else.
    fn mesh_check(&self) {
        // A second namespace of the name, of nobody's: where it is seen, only its hosted zone tells.
        self.boto3(
            "vpc = boto3.client('eks').describe_cluster(name='c2')['cluster']['resourcesVpcConfig']['vpcId']\n\
             c = boto3.client('servicediscovery')\n\
             o = c.create_private_dns_namespace(Name='svc2.svc.local', Vpc=vpc)['OperationId']\n\
             while c.get_operation(OperationId=o)['Operation']['Status'] != 'SUCCESS': pass",
        );
        let command = "mesh-check -n --cluster c1 --and-cluster c2 --namespace-type http";
        // The controllers were made anew just now, and on a busy machine the leader may be another: for a moment nobody
        // holds their lease.
        let passes = || {
            let mut stderr = String::new();
            let well = until(Duration::from_secs(60), || {
                let output = self.run_as(&Keys::new(), command, "");
                stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                output.status.success()
            });
            (well, stderr)
        };
        let (well, stderr) = passes();
        assert!(well && !stderr.contains("not looked at"), "{stderr}");
        // Each hides the next: what is not listed cannot be asked for.
        for actions in [
            &[
                "eks:ListPodIdentityAssociations",
                "iam:GetOpenIDConnectProvider",
                "ec2:DescribeInstances",
                "ec2:DescribeVpcPeeringConnections",
                "servicediscovery:ListNamespaces",
            ][..],
            &[
                "eks:DescribePodIdentityAssociation",
                "ec2:DescribeSecurityGroupRules",
                "ec2:DescribeTransitGatewayVpcAttachments",
                "servicediscovery:ListServices",
            ],
            &["iam:GetRole", "eks:DescribeAddon", "servicediscovery:ListInstances"],
            &["iam:ListRolePolicies", "servicediscovery:ListTagsForResource"],
            &["iam:GetRolePolicy", "route53:GetHostedZone"],
            &["iam:ListAttachedRolePolicies"],
        ] {
            let deny = json!({"Version": "2012-10-17",
                "Statement": {"Effect": "Deny", "Action": actions, "Resource": "*"}});
            self.boto3(&format!(
                "boto3.client('iam').put_user_policy(UserName='operator', PolicyName='deny', PolicyDocument='{deny}')"
            ));
            let (well, stderr) = passes();
            assert!(well, "{actions:?}: {stderr}");
            for action in actions {
                let said = format!("a policy forbids the caller {action}");
                assert!(stderr.contains("not looked at") && stderr.contains(&said), "{action}: {stderr}");
                self.proved.borrow_mut().insert(("mesh-check".to_owned(), (*action).to_owned()));
            }
        }
        self.boto3(
            "boto3.client('iam').delete_user_policy(UserName='operator', PolicyName='deny')\n\
             c = boto3.client('servicediscovery')\n\
             for n in c.list_namespaces()['Namespaces']:\n    \
                 if n['Type'] == 'DNS_PRIVATE': c.delete_namespace(Id=n['Id'])",
        );
    }

    /// A file of two profiles. Each is a role that may do what the operator may, and that one cluster alone knows.
    fn profiles(&self) -> String {
        self.boto3(
            "import json\n\
             iam = boto3.client('iam')\n\
             operator = iam.get_user(UserName='operator')['User']['Arn']\n\
             trust = {'Effect': 'Allow', 'Principal': {'AWS': operator}, 'Action': 'sts:AssumeRole'}\n\
             document = json.dumps({'Version': '2012-10-17', 'Statement': [trust]})\n\
             may = {'Effect': 'Allow', 'Resource': '*', 'Action': 'sts:AssumeRole'}\n\
             may = json.dumps({'Version': '2012-10-17', 'Statement': [may]})\n\
             iam.put_user_policy(UserName='operator', PolicyName='assume', PolicyDocument=may)\n\
             policy = iam.list_attached_user_policies(UserName='operator')['AttachedPolicies'][0]['PolicyArn']\n\
             for name in ('c1-admin', 'c2-admin'):\n\
             \u{20}   iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)\n\
             \u{20}   iam.attach_role_policy(RoleName=name, PolicyArn=policy)",
        );
        let profile = |(name, cluster): (&str, &str)| {
            let role = format!("arn:aws:iam::123456789012:role/{cluster}-admin");
            format!("[profile {name}]\nrole_arn = {role}\ncredential_source = Environment\n")
        };
        let file = self.cloud.state.join("profiles");
        std::fs::write(&file, [("one", "c1"), ("two", "c2")].map(profile).concat()).unwrap();
        file.display().to_string()
    }

    fn oidc_assoc(&self) {
        let from_nothing = "oidc-assoc -n --cluster c1";
        self.lacks("eks:DescribeCluster", from_nothing, "");
        self.lacks("iam:GetOpenIDConnectProvider", from_nothing, "");
        self.lacks("iam:CreateOpenIDConnectProvider", from_nothing, "");
        self.lacks("iam:TagOpenIDConnectProvider", from_nothing, "");
        let made = self.done(from_nothing, "");
        let document: Value = serde_json::from_str(&made).unwrap();
        self.boto3(&format!(
            "boto3.client('iam').remove_client_id_from_open_id_connect_provider(\
             OpenIDConnectProviderArn={}, ClientID='sts.amazonaws.com')",
            document["oidc"]["arn"]
        ));
        self.lacks("iam:AddClientIDToOpenIDConnectProvider", "oidc-assoc", &made);
        self.lacks("iam:ListRoles", "oidc-assoc --delete", &made);
        self.lacks("iam:DeleteOpenIDConnectProvider", "oidc-assoc --delete", &made);
        self.done("oidc-assoc --delete", &made);
    }

    fn irsa_role(&self) {
        let inline = self.cloud.state.join("extra.json");
        std::fs::write(&inline, allowing(["eks:DescribeCluster".to_owned()].iter()).to_string()).unwrap();
        let other = self.cloud.state.join("other.json");
        std::fs::copy(&inline, &other).unwrap();
        let one = self.done("oidc-assoc -n --cluster c1", "");

        self.lacks("eks:DescribeCluster", "irsa-role -n --cluster c1", "");
        self.lacks("iam:GetPolicy", "irsa-role --policy AWSCloudMapFullAccess", &one);
        self.lacks("iam:ListPolicies", "irsa-role --policy AmazonEBSCSIDriverPolicy", &one);
        self.lacks("iam:GetRole", "irsa-role", &one);
        self.lacks("iam:CreateRole", "irsa-role", &one);
        self.lacks("iam:TagRole", "irsa-role", &one);
        self.lacks("iam:AttachRolePolicy", "irsa-role --policy AWSCloudMapFullAccess", &one);
        let with_document = format!("irsa-role --policy AWSCloudMapFullAccess --policy-document {}", inline.display());
        self.lacks("iam:PutRolePolicy", &with_document, &one);
        let role = self.done(&with_document, &one);
        self.lacks("iam:ListAttachedRolePolicies", "irsa-role", &role);
        self.lacks("iam:ListRolePolicies", "irsa-role", &role);
        self.lacks("iam:GetRolePolicy", "irsa-role", &role);
        self.lacks("iam:UpdateAssumeRolePolicy", "irsa-role --service-account web/front", &role);
        let boundary = "--permissions-boundary arn:aws:iam::aws:policy/PowerUserAccess";
        self.lacks("iam:PutRolePermissionsBoundary", &format!("irsa-role {boundary}"), &role);
        self.lacks("iam:DeleteRolePolicy", &format!("irsa-role --policy-document {}", other.display()), &role);
        self.lacks("iam:DetachRolePolicy", "irsa-role --policy ReadOnlyAccess", &role);
        self.lacks("iam:UntagRole", "irsa-role --policy ReadOnlyAccess", &role);
        self.lacks("iam:ListInstanceProfilesForRole", "irsa-role --delete", &role);
        self.lacks("iam:DeleteRole", "irsa-role --delete", &role);
        self.done("irsa-role --delete", &role);
    }

    /// What it shares with irsa-role, too: which of them lacks it makes no difference to what is told.
    fn pod_identity(&self) {
        let inline = self.cloud.state.join("extra.json");
        let from_nothing = "pod-identity -n --cluster c1";
        self.lacks("eks:DescribeCluster", from_nothing, "");
        let one = self.done("oidc-assoc -n --cluster c1", "");
        self.lacks("iam:GetPolicy", "pod-identity --policy AWSCloudMapFullAccess", &one);
        self.lacks("iam:ListPolicies", "pod-identity --policy AmazonEBSCSIDriverPolicy", &one);
        for action in [
            "iam:GetRole",
            "eks:ListPodIdentityAssociations",
            "eks:DescribeAddon",
            "iam:CreateRole",
            "iam:TagRole",
            "iam:PutRolePolicy",
            "iam:PassRole",
            "eks:CreatePodIdentityAssociation",
            "eks:TagResource",
        ] {
            self.lacks(action, "pod-identity", &one);
        }
        self.lacks("iam:AttachRolePolicy", "pod-identity --policy AWSCloudMapFullAccess", &one);
        let wish = format!("pod-identity --policy AWSCloudMapFullAccess --policy-document {}", inline.display());
        let role = self.done(&wish, &one);
        for action in [
            "iam:ListAttachedRolePolicies",
            "iam:ListRolePolicies",
            "iam:GetRolePolicy",
            "eks:DescribePodIdentityAssociation",
        ] {
            self.lacks(action, "pod-identity", &role);
        }
        let boundary = "--permissions-boundary arn:aws:iam::aws:policy/PowerUserAccess";
        self.lacks("iam:PutRolePermissionsBoundary", &format!("pod-identity {boundary}"), &role);
        let other = self.cloud.state.join("other.json");
        self.lacks("iam:DeleteRolePolicy", &format!("pod-identity --policy-document {}", other.display()), &role);
        self.lacks("iam:DetachRolePolicy", "pod-identity --policy ReadOnlyAccess", &role);
        self.lacks("iam:UntagRole", "pod-identity --policy ReadOnlyAccess", &role);

        // Others gave the service account another role.
        self.boto3(
            "eks, iam = boto3.client('eks'), boto3.client('iam')\n\
             role = iam.get_role(RoleName='c1-appmesh-controller')['Role']\n\
             document = __import__('json').dumps(role['AssumeRolePolicyDocument'])\n\
             other = iam.create_role(RoleName='other', AssumeRolePolicyDocument=document)['Role']['Arn']\n\
             a = eks.list_pod_identity_associations(clusterName='c1')['associations'][0]['associationId']\n\
             eks.update_pod_identity_association(clusterName='c1', associationId=a, roleArn=other)\n\
             iam.delete_role(RoleName='other')",
        );
        self.lacks("eks:UpdatePodIdentityAssociation", "pod-identity", &role);
        self.done("pod-identity", &role);
        self.lacks(
            "iam:UpdateAssumeRolePolicy",
            "pod-identity --role c1-appmesh-controller",
            &self.done("irsa-role", &role),
        );
        let role = self.done("pod-identity", &role);

        // The other tool goes on with it, and takes away what only this one needs.
        for action in [
            "eks:ListPodIdentityAssociations",
            "eks:DescribePodIdentityAssociation",
            "eks:DeletePodIdentityAssociation",
        ] {
            self.lacks(action, "irsa-role", &role);
        }
        let role = self.done("pod-identity", &role);
        self.lacks("eks:DeletePodIdentityAssociation", "pod-identity --delete", &role);
        self.lacks("iam:ListInstanceProfilesForRole", "pod-identity --delete", &role);
        self.lacks("iam:DeleteRole", "pod-identity --delete", &role);
        self.done("pod-identity --delete", &role);
        self.done("oidc-assoc --delete", &one);
    }

    fn cloudmap_ns(&self) {
        self.lacks("eks:DescribeCluster", "cloudmap-ns -n --cluster c2", "");
        let two = self.done("oidc-assoc -n --cluster c2", "");
        self.lacks("servicediscovery:ListNamespaces", "cloudmap-ns", &two);
        self.lacks("servicediscovery:CreatePrivateDnsNamespace", "cloudmap-ns", &two);
        self.lacks("servicediscovery:TagResource", "cloudmap-ns", &two);
        self.lacks("servicediscovery:CreateHttpNamespace", "cloudmap-ns --type http", &two);
        self.lack_of_links("cloudmap-ns --type http", &two);
        // What Cloud Map does as the caller, it tells of later.
        self.lacks("ec2:DescribeRegions", "cloudmap-ns", &two);
        self.lacks("ec2:DescribeVpcs", "cloudmap-ns", &two);
        self.lacks("route53:ListHostedZonesByName", "cloudmap-ns", &two);
        self.lacks("route53:CreateHostedZone", "cloudmap-ns", &two);
        self.lacks("route53:GetHostedZone", "cloudmap-ns", &two);
        self.lacks("servicediscovery:GetOperation", "cloudmap-ns", &two);
        self.lacks("servicediscovery:ListOperations", "cloudmap-ns --no-wait --name another.local", &two);
        let made = self.done("cloudmap-ns", &two);
        self.lacks("servicediscovery:ListTagsForResource", "cloudmap-ns", &made);
        let document: Value = serde_json::from_str(&made).unwrap();
        self.boto3(&format!(
            "c = boto3.client('servicediscovery')\n\
             t = [{{'Key': 'managed-by', 'Value': 'appmesh-controller'}}]\n\
             r = {{'DnsRecords': [{{'Type': 'A', 'TTL': 1}}]}}\n\
             s = c.create_service(Name='left', NamespaceId={}, DnsConfig=r, Tags=t)['Service']['Id']\n\
             a = {{'appmesh.k8s.aws/cluster': 'gone', 'AWS_INSTANCE_IPV4': '10.0.0.1'}}\n\
             o = c.register_instance(ServiceId=s, InstanceId='1', Attributes=a)['OperationId']\n\
             while c.get_operation(OperationId=o)['Operation']['Status'] != 'SUCCESS': pass",
            document["namespace"]["id"]
        ));
        self.lacks("servicediscovery:ListInstances", "cloudmap-ns --forget-cluster gone", &made);
        self.lacks("servicediscovery:DeregisterInstance", "cloudmap-ns --forget-cluster gone", &made);
        self.lacks("route53:ChangeResourceRecordSets", "cloudmap-ns --forget-cluster gone", &made);
        self.done("cloudmap-ns --forget-cluster gone", &made);
        self.lacks("servicediscovery:DeleteService", "cloudmap-ns --delete", &made);
        self.lacks("servicediscovery:ListServices", "cloudmap-ns --delete", &made);
        self.lacks("servicediscovery:DeleteNamespace", "cloudmap-ns --delete", &made);
        self.done("cloudmap-ns --delete", &made);
    }

    fn sg_open(&self) {
        let from_nothing = "sg-open -n --cluster c2 --from-cluster c1";
        let node = self.cloud.state.join("node").display().to_string();
        self.lacks("eks:DescribeCluster", from_nothing, "");
        self.lacks("ec2:DescribeInstances", from_nothing, "");
        self.lacks("ec2:DescribeNetworkInterfaces", from_nothing, "");
        self.lacks("ec2:DescribeSecurityGroupRules", from_nothing, "");
        // Which of a node's groups is the cluster's, only tags can tell where either may be.
        self.boto3(&format!(
            "ec2 = boto3.client('ec2')\n\
             tag = {{'Key': 'eks:cluster-name', 'Value': 'c2'}}\n\
             of = {{'Filters': [{{'Name': 'tag:' + tag['Key'], 'Values': [tag['Value']]}}]}}\n\
             like = ec2.describe_instances(**of)['Reservations'][0]['Instances'][0]\n\
             new = lambda n: ec2.create_security_group(GroupName=n, Description=n, VpcId=like['VpcId'])['GroupId']\n\
             node = {{name: like[name] for name in ('ImageId', 'InstanceType', 'SubnetId')}}\n\
             node['SecurityGroupIds'] = [new('a'), new('b')]\n\
             node['TagSpecifications'] = [{{'ResourceType': 'instance', 'Tags': [tag]}}]\n\
             node = ec2.run_instances(**node, MinCount=1, MaxCount=1)['Instances'][0]\n\
             open('{node}', 'w').write(node['InstanceId'])"
        ));
        self.lacks("ec2:DescribeSecurityGroups", from_nothing, "");
        self.boto3(&format!("boto3.client('ec2').terminate_instances(InstanceIds=[open('{node}').read()])"));
        self.lacks("ec2:AuthorizeSecurityGroupIngress", from_nothing, "");
        self.lacks("ec2:CreateTags", from_nothing, "");
        let made = self.done(from_nothing, "");
        self.lack_of_links("sg-open", &made);
        self.lacks("ec2:RevokeSecurityGroupIngress", "sg-open --delete", &made);
        self.done("sg-open --delete", &made);
    }

    /// Clusters in two VPCs: what joins these is looked for.
    fn lack_of_links(&self, command: &str, document: &str) {
        let mut apart: Value = serde_json::from_str(&self.done("oidc-assoc -n --cluster c1", "")).unwrap();
        apart["cluster"]["vpc"] = "vpc-00000000".into();
        let file = self.cloud.state.join("apart.json");
        std::fs::write(&file, apart.to_string()).unwrap();
        let command = format!("{command} --from {}", file.display());
        self.lacks("ec2:DescribeVpcPeeringConnections", &command, document);
        self.lacks("ec2:DescribeTransitGatewayVpcAttachments", &command, document);
    }

    fn ecr_push(&self) {
        let binary = program("colorapp");
        let push = format!("ecr-push app -n --cluster c2 --repository k8multi/app --binary {}", binary.display());
        for action in [
            "eks:DescribeCluster",
            "eks:ListNodegroups",
            "eks:DescribeNodegroup",
            "ecr:DescribeRepositories",
            "ecr:BatchGetImage",
            "ecr:CreateRepository",
            "ecr:TagResource",
            // From here on the repository is there, and what comes next is missing.
            "ecr:GetAuthorizationToken",
            "ecr:ListTagsForResource",
            "ecr:BatchCheckLayerAvailability",
            "ecr:InitiateLayerUpload",
            "ecr:UploadLayerPart",
            "ecr:CompleteLayerUpload",
            "ecr:PutImage",
        ] {
            self.lacks(action, &push, "");
        }
        let made = self.done(&push, "");
        let other = push.replace("--cluster c2", "--cluster c1");
        self.done(&other, "");
        self.lacks("ecr:UntagResource", "ecr-push app --delete", &made);
        self.done("ecr-push app -n --region us-west-2 --cluster c1 --repository k8multi/app --delete", "");
        self.lacks("ecr:DescribeImages", "ecr-push app --delete", &made);
        self.lacks("ecr:BatchDeleteImage", "ecr-push app --delete", &made);
        self.lacks("ecr:DeleteRepository", "ecr-push app --delete", &made);
        self.done("ecr-push app --delete", &made);
    }
}
