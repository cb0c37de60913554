//! `irsa-role`: see [`IrsaRole`].

use pod_role::{Args, Identity, PodRole, Provider};
use std::process::ExitCode;

/// Makes the IAM role that a Kubernetes service account may assume.
///
/// The role trusts tokens of these service accounts only (* and ? stand for any),
/// made for STS, and of this cluster only. Annotate the service account with
/// eks.amazonaws.com/role-arn, and its pods get the role's permissions. Trust and
/// policies that have drifted are repaired; policies that others attached are
/// left and named. A role that others made is a conflict, and so is an inline
/// policy of theirs that differs from one asked for by the same name. A role
/// that pod-identity made becomes one of this tool, without its associations.
///
///   Reads   cluster
///   Owns    role {arn, name, path, permissionsBoundary, policies,
///           policyDocuments, serviceAccounts, tags}
///   Calls   eks:DescribeCluster iam:GetRole iam:ListAttachedRolePolicies
///           iam:ListRolePolicies iam:GetRolePolicy iam:GetPolicy
///           iam:ListPolicies iam:CreateRole iam:TagRole iam:UntagRole
///           iam:UpdateAssumeRolePolicy iam:AttachRolePolicy iam:DetachRolePolicy
///           iam:PutRolePolicy iam:DeleteRolePolicy
///           iam:PutRolePermissionsBoundary iam:ListInstanceProfilesForRole
///           iam:DeleteRole; after pod-identity: eks:ListPodIdentityAssociations
///           eks:DescribePodIdentityAssociation eks:DeletePodIdentityAssociation
///   Exits   0 done, 1 failed, 2 usage, 3 input, 4 conflict, 5 retry
///
/// Examples:
///   irsa-role -n --cluster prod \
///     --service-account kube-system/ebs-csi-controller-sa \
///     --policy AmazonEBSCSIDriverPolicy
///   oidc-assoc -n --cluster prod |
///     irsa-role --service-account 'jobs/*' --role jobs \
///     --policy-document s3.json
#[derive(Debug, clap::Parser)]
#[command(name = "irsa-role", version, verbatim_doc_comment)]
struct IrsaRole {
    #[command(flatten)]
    args: Args,
}

impl Provider for IrsaRole {
    const IDENTITY: Identity = Identity::Issuer;

    fn args(&self) -> &Args {
        &self.args
    }
}

fn main() -> ExitCode {
    common::main::<PodRole<IrsaRole>>()
}
