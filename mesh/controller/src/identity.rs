//! Whose account this is: every ARN the mesh gives out carries it.

use anyhow::Context as _;
use aws_config::SdkConfig;
use mesh_api::{Arn, arn::MeshResource};

/// The account and region whose mesh this controller serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `aws`, `aws-cn`, `aws-us-gov`
    pub partition: String,
    /// Such as `us-west-2`.
    pub region: String,
    /// Twelve digits.
    pub account: String,
}

impl Identity {
    /// The account of the caller: that of the role the service account may assume, or else what STS says of the
    /// credentials at hand.
    pub async fn find(config: &SdkConfig, role: Option<&str>) -> anyhow::Result<Self> {
        let region = config.region().context("no AWS region: set --aws-region")?.to_string();
        let arn = match role {
            Some(role) => role.to_owned(),
            None => {
                let caller = aws_sdk_sts::Client::new(config).get_caller_identity().send().await;
                let caller = caller.context("sts:GetCallerIdentity")?;
                caller.arn.context("sts:GetCallerIdentity names no ARN")?
            }
        };
        Self::of(&arn, region).with_context(|| format!("{arn:?} names no partition and account"))
    }

    fn of(arn: &str, region: String) -> Option<Self> {
        let mut parts = arn.split(':');
        let (Some("arn"), Some(partition)) = (parts.next(), parts.next()) else { return None };
        let account = parts.nth(2)?;
        let whole = !partition.is_empty() && account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        whole.then(|| Self { partition: partition.to_owned(), region, account: account.to_owned() })
    }

    /// The ARN of something in a mesh of this account.
    pub fn arn(&self, mesh: &str, resource: MeshResource) -> Arn {
        Arn {
            partition: self.partition.clone(),
            region: self.region.clone(),
            account: self.account.clone(),
            mesh: mesh.to_owned(),
            resource,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_tells_partition_and_account() {
        for (arn, expected) in [
            ("arn:aws:iam::123456789012:role/mesh", Some(("aws", "123456789012"))),
            ("arn:aws-cn:sts::123456789012:assumed-role/mesh/session", Some(("aws-cn", "123456789012"))),
            ("arn:aws:iam::aws:policy/AWSCloudMapFullAccess", None),
            ("mesh", None),
        ] {
            let identity = Identity::of(arn, "us-west-2".to_owned());
            let found = identity.as_ref().map(|identity| (identity.partition.as_str(), identity.account.as_str()));
            assert_eq!(found, expected, "{arn}");
        }
    }
}
