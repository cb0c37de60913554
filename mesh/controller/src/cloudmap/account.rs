//! Finds the account that the mesh is of: every ARN that the mesh gives out carries it.

use anyhow::{Context as _, ensure};
use aws_config::SdkConfig;

use crate::model::Account;

/// The account of a role, or else of the credentials at hand, in the region of this configuration.
///
/// # Errors
/// There is no region, AWS does not answer, or the ARN names no account.
pub async fn find(config: &SdkConfig, role: Option<&str>) -> anyhow::Result<Account> {
    let region = config.region().context("no AWS region: set --aws-region")?.to_string();
    let arn = match role {
        Some(role) => role.to_owned(),
        None => {
            let caller = aws_sdk_sts::Client::new(config).get_caller_identity().send().await;
            let caller = caller.context("sts:GetCallerIdentity")?;
            caller.arn.context("sts:GetCallerIdentity answers without an ARN")?
        }
    };
    account_of(&arn, region).with_context(|| format!("{arn:?} names no partition and account"))
}

fn account_of(arn: &str, region: String) -> Option<Account> {
    let mut parts = arn.split(':');
    let (Some("arn"), Some(partition)) = (parts.next(), parts.next()) else { return None };
    let account = parts.nth(2)?;
    let account = id(account).ok().filter(|_| !partition.is_empty())?;
    Some(Account { partition: partition.to_owned(), region, account })
}

/// Parses the number of an account.
///
/// # Errors
/// It is not one of 12 digits.
pub fn id(text: &str) -> anyhow::Result<String> {
    ensure!(text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()), "not the 12 digits of an account");
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_names_partition_and_account() {
        for (arn, expected) in [
            ("arn:aws:iam::123456789012:role/mesh", Some(("aws", "123456789012"))),
            ("arn:aws-cn:sts::123456789012:assumed-role/mesh/session", Some(("aws-cn", "123456789012"))),
            ("arn:aws:iam::aws:policy/AWSCloudMapFullAccess", None),
            ("mesh", None),
        ] {
            let account = account_of(arn, "us-west-2".to_owned());
            let found = account.as_ref().map(|account| (account.partition.as_str(), account.account.as_str()));
            assert_eq!(found, expected, "{arn}");
        }
    }
}
