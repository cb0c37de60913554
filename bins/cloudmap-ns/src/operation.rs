//! Waits for what Cloud Map does in its own time.

use crate::aws::CloudMap;
use crate::plan;
use anyhow::Result;
use aws_sdk_servicediscovery::types::OperationStatus;
use common::{Found, Session};

/// Waits for an operation's end.
pub async fn finish(session: &Session, cloud_map: &CloudMap, what: &str, operation: &str) -> Result<()> {
    let ended = async || {
        let operation = cloud_map.operation(operation).await?;
        match operation.status {
            Some(OperationStatus::Success) => Ok(Found::Ready(())),
            Some(OperationStatus::Fail) => {
                let code = operation.error_code.as_deref().unwrap_or("no code");
                Err(plan::failure(what, code, operation.error_message.as_deref().unwrap_or("no reason")).into())
            }
            status => {
                Ok(Found::NotYet(format!("the operation is {}", status.map_or("unknown".into(), |s| s.to_string()))))
            }
        }
    };
    session.wait(what, ended).await
}
