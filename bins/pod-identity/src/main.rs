//! `pod-identity`: see [`PodIdentity`].

use pod_role::{Args, Identity, PodRole, Provider};
use std::process::ExitCode;

/// Gives a Kubernetes service account an IAM role by EKS Pod Identity.
///
/// For accounts that may not make an identity provider for each cluster: the role
/// trusts EKS, for pods of these service accounts and of this cluster only, and
/// an association tells EKS which role is whose. No annotation is needed; pods
/// that start once the association is there get the role's permissions, from the
/// agent of the add-on eks-pod-identity-agent. Where that is missing, the command
/// that adds it is told. Otherwise as irsa-role, which owns the same key: each
/// goes on with the other's document and role, and undoes what only the other
/// needs. An association that others made is used, and one with another role is a
/// conflict.
///
///   Reads   cluster
///   Owns    role {arn, associations, name, path, permissionsBoundary, policies,
///           policyDocuments, serviceAccounts, tags}
///   Calls   eks:DescribeCluster eks:DescribeAddon
///           eks:ListPodIdentityAssociations eks:DescribePodIdentityAssociation
///           eks:CreatePodIdentityAssociation eks:UpdatePodIdentityAssociation
///           eks:DeletePodIdentityAssociation eks:TagResource iam:PassRole
///           iam:GetRole iam:ListAttachedRolePolicies iam:ListRolePolicies
///           iam:GetRolePolicy iam:GetPolicy iam:ListPolicies iam:CreateRole
///           iam:TagRole iam:UntagRole iam:UpdateAssumeRolePolicy
///           iam:AttachRolePolicy iam:DetachRolePolicy iam:PutRolePolicy
///           iam:DeleteRolePolicy iam:PutRolePermissionsBoundary
///           iam:ListInstanceProfilesForRole iam:DeleteRole
///   Exits   0 done, 1 failed, 2 usage, 3 input, 4 conflict, 5 retry
///
/// Examples:
///   pod-identity -n --cluster prod \
///     --service-account kube-system/ebs-csi-controller-sa \
///     --policy AmazonEBSCSIDriverPolicy
///   pod-identity < role.json | jq .role.associations
#[derive(Debug, clap::Parser)]
#[command(name = "pod-identity", version, verbatim_doc_comment)]
struct PodIdentity {
    #[command(flatten)]
    args: Args,
}

impl Provider for PodIdentity {
    const IDENTITY: Identity = Identity::Pods;

    fn args(&self) -> &Args {
        &self.args
    }
}

fn main() -> ExitCode {
    common::main::<PodRole<PodIdentity>>()
}
