//! The gateway's log of AWS API calls, one JSON object a line, followed to notice changes.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

/// How often the file is looked at. A look at a file that did not grow costs one system call.
const PAUSE: Duration = Duration::from_millis(200);

/// What matters of a line.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Call {
    /// `service:Operation`.
    action: Option<String>,
    /// HTTP status.
    code: u16,
}

impl Call {
    /// Whether it may have changed something of `service`: also one whose answer was lost (5xx).
    pub fn changes(&self, service: &str) -> bool {
        let operation = self.action.as_deref().and_then(|action| action.strip_prefix(service)?.strip_prefix(':'));
        let reads = |operation: &str| ["Describe", "Get", "List"].iter().any(|verb| operation.starts_with(verb));
        !(400..500).contains(&self.code) && operation.is_some_and(|operation| !reads(operation))
    }
}

/// Sends a token for every look that found calls of which `wanted` holds.
pub fn follow(log: PathBuf, wanted: impl Fn(&Call) -> bool + Send + 'static) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut looks = tokio::time::interval(PAUSE);
        let mut lines = None;
        let mut half = String::new();
        while !sender.is_closed() {
            looks.tick().await;
            if lines.is_none() {
                lines = File::open(&log).await.ok().map(BufReader::new);
            }
            let Some(reader) = lines.as_mut() else { continue };
            let mut seen = false;
            while let Ok(1..) = reader.read_line(&mut half).await {
                if !half.ends_with('\n') {
                    break;
                }
                seen |= serde_json::from_str(&half).is_ok_and(|call| wanted(&call));
                half.clear();
            }
            if seen {
                // A token that waits already says the same.
                let _full = sender.try_send(());
            }
        }
    });
    receiver
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_the_service_count() {
        for (line, expected) in [
            (r#"{"action": "ec2:AuthorizeSecurityGroupIngress", "code": 200, "host": "x"}"#, true),
            (r#"{"action": "ec2:DescribeInstances", "code": 200}"#, false),
            (r#"{"action": "ec2:AuthorizeSecurityGroupIngress", "code": 403}"#, false),
            (r#"{"action": "ec2:AuthorizeSecurityGroupIngress", "code": 503}"#, true),
            (r#"{"action": "iam:CreateRole", "code": 200}"#, false),
            (r#"{"action": null, "code": 200}"#, false),
        ] {
            let call: Call = serde_json::from_str(line).unwrap();
            assert_eq!(call.changes("ec2"), expected, "{line}");
        }
    }

    #[tokio::test]
    async fn a_line_written_in_two_parts_is_one_call() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("aws-api.log");
        let mut calls = follow(log.clone(), |call| call.changes("ec2"));
        tokio::fs::write(&log, r#"{"action": "ec2:Create"#).await.unwrap();
        assert!(tokio::time::timeout(PAUSE * 3, calls.recv()).await.is_err());
        tokio::fs::write(&log, "{\"action\": \"ec2:CreateVpc\", \"code\": 200}\n").await.unwrap();
        assert_eq!(tokio::time::timeout(PAUSE * 20, calls.recv()).await.unwrap(), Some(()));
    }
}
