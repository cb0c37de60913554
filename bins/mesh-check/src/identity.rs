//! Checks (group 02) how the controllers' pods get their role. Pure.

use crate::finding::{Finding, checks};
use crate::scene::{Identity, Role, Scene, Side};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::Value;

checks! {
    ACCOUNT Error "XM0201" "the controller's service account exists";
    ROLE_NAMED Error "XM0202" "the service account has a role, by annotation or by association";
    PROVIDER Error "XM0203" "the identity provider of the cluster's issuer exists, if the role is had by it";
    AUDIENCE Error "XM0204" "that provider accepts tokens made for STS";
    ROLE Error "XM0205" "the role exists";
    TRUST Error "XM0206" "the role trusts the service account";
    POLICIES Error "XM0207" "the role has policies";
    POLICY Warning "XM0208" "the role's policy for the controller is this release's";
    AGENT Error "XM0209" "the agent of EKS Pod Identity works, if the role is had by it";
    PODS Error "XM0210" "the controller's pods were made with that role";
}

/// The annotation that names a role.
pub const ANNOTATION: &str = "eks.amazonaws.com/role-arn";

/// Whom tokens for AWS are made for.
const STS: &str = "sts.amazonaws.com";

/// The inline policy that irsa-role and pod-identity give the controller's role.
const CONTROLLER_POLICY: &str = include_str!("../../../policies/controller.json");

/// Everything that is wrong.
pub fn judge(scene: &Scene) -> Vec<Finding> {
    scene.sides.iter().flat_map(of_side).collect()
}

fn of_side(side: &Side) -> Vec<Finding> {
    let (Some((namespace, name)), Some(account)) = (side.account(), &side.around.account) else { return Vec::new() };
    let object = format!("service account {namespace}/{name} of {}", side.label());
    let Some(account) = account else {
        return vec![ACCOUNT.found(object, "it does not exist", "make all -B, or run appmesh-install again")];
    };
    let annotated = account.annotations().get(ANNOTATION);
    let (Some(identity), Some(facts)) = (&side.identity, &side.facts) else { return Vec::new() };
    let associated = identity.association.as_ref().and_then(Option::as_ref);
    // An association counts more: the webhook of EKS sets its variables in place of the annotation's.
    let Some(arn) = associated.or(annotated) else {
        // Whether there is an association could not be seen.
        if identity.association.is_none() {
            return Vec::new();
        }
        let found = format!("it has neither the annotation {ANNOTATION} nor an association");
        return vec![ROLE_NAMED.found(object, found, "make all -B gives it its role: irsa-role, or pod-identity")];
    };
    let mut found = Vec::new();
    if associated.is_some() {
        let agent = identity.agent.as_ref().and_then(|agent| agent.problem(&side.name));
        found.extend(agent.map(|(wrong, fix)| AGENT.found(side.label(), wrong, fix)));
    } else {
        found.extend(provider(side, identity));
    }
    let provider = facts.oidc_provider().unwrap_or_default();
    let subject = format!("system:serviceaccount:{namespace}:{name}");
    // Without a provider the trust in it is worth nothing, which is said already.
    found.extend(role(arn, &object, identity, associated.is_some(), &provider, &subject));
    let pods = side.controller_pods();
    let made_without = |pod: &&Pod| match associated {
        Some(_) => variable(pod, "AWS_CONTAINER_CREDENTIALS_FULL_URI").is_none(),
        None => variable(pod, "AWS_ROLE_ARN") != Some(arn),
    };
    for pod in pods.into_iter().filter(made_without) {
        let namespace = pod.namespace().unwrap_or_default();
        let fix = format!("kubectl -n {namespace} rollout restart deployment");
        found.push(PODS.found(side.object(pod), format!("it was made without the role {arn}"), fix));
    }
    found
}

fn provider(side: &Side, identity: &Identity) -> Option<Finding> {
    let object = format!("identity provider of {}", side.label());
    let fix = "make all -B makes it: oidc-assoc; or IDENTITY=pod-identity, which needs none";
    match identity.audiences.as_ref()? {
        None => Some(PROVIDER.found(object, "IAM has none for the cluster's issuer", fix)),
        Some(audiences) if !audiences.iter().any(|audience| audience == STS) => {
            Some(AUDIENCE.found(object, format!("{STS} is none of its audiences"), fix))
        }
        Some(_) => None,
    }
}

fn role(arn: &str, of: &str, identity: &Identity, by_pods: bool, provider: &str, subject: &str) -> Vec<Finding> {
    let object = format!("role {arn}");
    let role = match &identity.role {
        None => return Vec::new(),
        Some(None) => {
            return vec![ROLE.found(object, format!("it does not exist, and {of} has it"), "make all -B makes it")];
        }
        Some(Some(role)) => role,
    };
    let mut found = Vec::new();
    let trusted = if by_pods { trusts_pods(&role.trust) } else { trusts(&role.trust, provider, subject) };
    if !trusted {
        let by = if by_pods { "pods.eks.amazonaws.com" } else { provider };
        found.push(TRUST.found(&object, format!("its trust policy does not admit {subject} by {by}"), "make all -B"));
    }
    if role.attached.is_empty() && role.inline.is_empty() {
        found.push(POLICIES.found(&object, "it has no policies", "make all -B gives it policies/controller.json"));
    }
    if outdated(role) {
        let said = "its inline policy controller is not policies/controller.json of this release";
        found.push(POLICY.found(&object, said, "make all -B, or leave it if you have changed it"));
    }
    found
}

fn outdated(role: &Role) -> bool {
    let ours: Option<Value> = serde_json::from_str(CONTROLLER_POLICY).ok();
    role.inline.get("controller").is_some_and(|found| ours.is_some_and(|ours| !pod_role::same_policy(found, &ours)))
}

/// Whether a trust policy lets a service account in by an identity provider.
fn trusts(policy: &Value, provider: &str, subject: &str) -> bool {
    let issuer = provider.split_once(":oidc-provider/").map_or(provider, |(_, issuer)| issuer);
    statements(policy).any(|statement| {
        let conditions = &statement["Condition"];
        let fits = |key: &str, wanted: &str| {
            let of = |operator: &str| conditions[operator].get(key);
            let equal = of("StringEquals").is_none_or(|values| texts(values).any(|value| value == wanted));
            let like = of("StringLike").is_none_or(|values| texts(values).any(|value| matches(value, wanted)));
            equal && like
        };
        texts(&statement["Principal"]["Federated"]).any(|principal| principal == provider)
            && texts(&statement["Action"]).any(|action| matches(action, "sts:AssumeRoleWithWebIdentity"))
            && fits(&format!("{issuer}:sub"), subject)
            && fits(&format!("{issuer}:aud"), STS)
    })
}

/// Whether a trust policy lets EKS in on behalf of pods. Conditions on the tags of its sessions are not looked at.
fn trusts_pods(policy: &Value) -> bool {
    statements(policy).any(|statement| {
        texts(&statement["Principal"]["Service"]).any(|service| service == "pods.eks.amazonaws.com")
            && texts(&statement["Action"]).any(|action| matches(action, "sts:AssumeRole"))
    })
}

fn statements(policy: &Value) -> impl Iterator<Item = &Value> {
    let of = &policy["Statement"];
    let list = of.as_array().map_or(std::slice::from_ref(of), Vec::as_slice);
    list.iter().filter(|statement| statement["Effect"] == "Allow")
}

/// One text, or a list of them.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().filter_map(Value::as_str)
}

/// Whether a text fits a pattern of IAM, in which `*` stands for any characters and `?` for one.
fn matches(pattern: &str, text: &str) -> bool {
    let (mut rest, mut pattern_rest) = (text.chars(), pattern.chars());
    match (pattern_rest.next(), rest.next()) {
        (None, None) => true,
        (Some('*'), next) => {
            matches(pattern_rest.as_str(), text) || (next.is_some() && matches(pattern, rest.as_str()))
        }
        (Some('?'), Some(_)) => matches(pattern_rest.as_str(), rest.as_str()),
        (Some(one), Some(other)) => one == other && matches(pattern_rest.as_str(), rest.as_str()),
        _ => false,
    }
}

/// The value of a variable of a pod's first container.
fn variable<'a>(pod: &'a Pod, name: &str) -> Option<&'a String> {
    let container = pod.spec.as_ref()?.containers.first()?;
    container.env.iter().flatten().find(|variable| variable.name == name)?.value.as_ref()
}

#[cfg(test)]
mod tests;
