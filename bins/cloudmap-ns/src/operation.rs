//! Waits for what Cloud Map does in its own time.

use crate::aws::CloudMap;
use crate::plan::{self, Begun};
use anyhow::{Context, Result};
use aws_sdk_servicediscovery::types::{Operation, OperationStatus, OperationTargetType};
use common::{Found, Session};

/// Waits for an operation's end.
pub async fn finish(session: &Session, cloud_map: &CloudMap, what: &str, operation: &str) -> Result<()> {
    watch(session, cloud_map, what, operation, |operation| {
        (operation.status == Some(OperationStatus::Success)).then_some(())
    })
    .await
}

/// Waits until an operation says the id of the namespace that it makes.
pub async fn begin(session: &Session, cloud_map: &CloudMap, what: &str, operation: String) -> Result<Begun> {
    let id = watch(session, cloud_map, what, &operation, |operation| {
        operation.targets.as_ref()?.get(&OperationTargetType::Namespace).cloned()
    });
    Ok(Begun { id: id.await?, operation })
}

/// Looks at an operation until it says what it is asked, or has failed.
async fn watch<T>(
    session: &Session,
    cloud_map: &CloudMap,
    what: &str,
    operation: &str,
    asked: impl Fn(&Operation) -> Option<T>,
) -> Result<T> {
    let look = async || {
        let unknown = || format!("Cloud Map does not know operation {operation} any more");
        let operation = cloud_map.operation(operation).await?.with_context(unknown)?;
        if operation.status == Some(OperationStatus::Fail) {
            let code = operation.error_code.as_deref().unwrap_or("no code");
            return Err(plan::failure(what, code, operation.error_message.as_deref().unwrap_or("no reason")).into());
        }
        Ok(match asked(&operation) {
            Some(answer) => Found::Ready(answer),
            None => {
                let status = operation.status.map_or("unknown".to_owned(), |status| status.to_string());
                Found::NotYet(format!("the operation is {status}"))
            }
        })
    };
    session.wait(what, look).await
}
