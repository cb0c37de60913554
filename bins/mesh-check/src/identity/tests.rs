#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::*;
use crate::testing::{ROLE as ARN, each_finds_its_own, of, scene};
use pod_role::Agent;
use serde_json::json;

fn identity(scene: &mut Scene) -> &mut Identity {
    scene.sides[0].identity.as_mut().unwrap()
}

fn role(scene: &mut Scene) -> &mut Role {
    identity(scene).role.as_mut().unwrap().as_mut().unwrap()
}

/// By EKS Pod Identity in place of IRSA.
fn by_pods(scene: &mut Scene) {
    scene.sides[0].around.account = of(json!({}));
    let trust = json!({"Statement": {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"},
        "Action": ["sts:AssumeRole", "sts:TagSession"]}});
    role(scene).trust = trust;
    let found = identity(scene);
    (found.association, found.agent) = (Some(Some(ARN.into())), Some(Agent::There));
    for pod in scene.sides[0].pods.iter_mut().flatten() {
        pod.spec.as_mut().unwrap().containers[0].env =
            of(json!([{"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": "http://x"}]));
    }
}

#[test]
fn every_check_finds_what_it_is_for() {
    each_finds_its_own(
        CHECKS,
        judge,
        &[
            (ACCOUNT, |it| it.sides[0].around.account = Some(None), "appmesh-system/appmesh-controller of cluster a"),
            (ROLE_NAMED, |it| it.sides[0].around.account = of(json!({})), "it has neither the annotation"),
            (PROVIDER, |it| identity(it).audiences = Some(None), "identity provider of cluster a"),
            (AUDIENCE, |it| identity(it).audiences = Some(Some(vec!["x".into()])), "sts.amazonaws.com is none"),
            (ROLE, |it| identity(it).role = Some(None), "role arn:aws:iam::1:role/mesh: it does not exist"),
            (
                TRUST,
                |it| role(it).trust = json!({}),
                "system:serviceaccount:appmesh-system:appmesh-controller by arn:aws:iam",
            ),
            (
                TRUST,
                |it| {
                    by_pods(it);
                    role(it).trust = json!({});
                },
                "by pods.eks.amazonaws.com",
            ),
            (POLICIES, |it| role(it).inline.clear(), "it has no policies"),
            (
                POLICY,
                |it| role(it).inline = [("controller".to_owned(), json!({}))].into(),
                "is not policies/controller.json",
            ),
            (
                AGENT,
                |it| {
                    by_pods(it);
                    identity(it).agent = Some(Agent::Absent);
                },
                "has no add-on eks-pod-identity-agent",
            ),
            (
                PODS,
                |it| it.sides[0].pods.as_mut().unwrap()[1].spec.as_mut().unwrap().containers[0].env = None,
                "controller-1 of cluster a: it was made without the role",
            ),
        ],
    );
}

#[test]
fn pod_identity_needs_no_provider() {
    let mut scene = scene();
    by_pods(&mut scene);
    identity(&mut scene).audiences = Some(None);
    assert_eq!(judge(&scene), Vec::new());
}

#[test]
fn patterns_are_those_of_iam() {
    for (pattern, text, expected) in [
        ("a", "a", true),
        ("a*", "abc", true),
        ("*c", "abc", true),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*", "", true),
        ("sts:*", "sts:AssumeRole", true),
        ("a*b", "ab", true),
        ("a", "b", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}
