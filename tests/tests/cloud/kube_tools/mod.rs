//! The tools that ask Kubernetes, against the local cloud: what drifts is repaired and nothing else touched, what others
//! made stays theirs, what was made goes away again, and what never works is told with the cluster's own reason.
//!
//! One cloud serves the whole file, so this is one test; each subject has a namespace of its own and runs beside the
//! others. It needs Linux and root.

mod appmesh_install;
mod clusters;
mod manifest_apply;
mod never;
mod served;
mod waits;

use clusters::Clusters;
use std::thread;

#[test]
fn drift_conflicts_and_deletion() {
    let clusters = Clusters::up("test-kube-tools");
    thread::scope(|scope| {
        scope.spawn(|| {
            let mesh = appmesh_install::installed(&clusters);
            appmesh_install::certificate(&clusters);
            never::refused_by_the_webhook(&clusters);
            served::by_the_controller(&clusters);
            appmesh_install::there_before(&clusters, &mesh);
            appmesh_install::drift(&clusters, &mesh);
            appmesh_install::without_controller(&clusters, &mesh);
            appmesh_install::deleted(&clusters, &mesh);
            appmesh_install::of_somebody_else(&clusters, &mesh);
        });
        scope.spawn(|| manifest_apply::inputs(&clusters));
        scope.spawn(|| manifest_apply::conflicts(&clusters));
        scope.spawn(|| manifest_apply::drift(&clusters));
        scope.spawn(|| manifest_apply::again(&clusters));
        scope.spawn(|| manifest_apply::deletion(&clusters));
        scope.spawn(|| manifest_apply::fixed_fields(&clusters));
        scope.spawn(|| never::works(&clusters));
        scope.spawn(|| waits::end_with_the_rollout(&clusters));
        scope.spawn(|| waits::leave_replicas_to_a_scaler(&clusters));
    });
}
