//! Says what is wrong with what other clusters publish.

use mesh_api::Arn;

use crate::model::{Published, Reason};

/// Why nothing is known of a VirtualService of another cluster, or not all.
pub fn problem(arn: &Arn, published: &Published) -> Option<(Reason, String)> {
    match published {
        Published::Nobody => {
            let message =
                format!("no cluster publishes {arn}: is its ARN right, and its cluster's controller at work?");
            Some((Reason::BackendNotPublished, message))
        }
        Published::Unavailable(why) => {
            Some((Reason::BackendUnavailable, format!("{arn} cannot be looked up in Cloud Map: {why}")))
        }
        Published::NotUnderstood(why, _) => Some((Reason::BackendNotUnderstood, why.clone())),
        Published::Routing(_) => None,
    }
}
