//! Elects the replica that writes: the holder of a Lease. Every replica answers admission and xDS.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How long a lease lasts that its holder does not renew.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long steps down, before others may take the lease.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between attempts to acquire or renew, and the longest that one may take.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// A replica that stands for election.
pub struct Candidate {
    leases: Api<Lease>,
    lease: String,
    identity: String,
    metrics: Metrics,
    /// Version of the Lease and when it was first seen, by this replica's own clock.
    observed: Option<(String, Instant)>,
}

impl Candidate {
    /// `identity` is the name of this replica's pod.
    pub fn new(client: Client, namespace: &str, lease: &str, identity: &str, metrics: Metrics) -> Self {
        let leases = Api::namespaced(client, namespace);
        Self { leases, lease: lease.to_owned(), identity: identity.to_owned(), metrics, observed: None }
    }

    /// Stands for election until `stop`, and says in `leader` whether this replica leads.
    pub async fn run(mut self, leader: watch::Sender<bool>, stop: CancellationToken) {
        tokio::select! {
            () = self.campaign(&leader) => {}
            () = stop.cancelled() => {}
        }
        self.metrics.leader.set(0);
        // So that the next one need not wait until the lease ends.
        if leader.send_replace(false)
            && let Err(error) = timeout(RETRY_PERIOD, self.release()).await.context("timed out").flatten()
        {
            tracing::warn!(lease = self.lease, "cannot hand over the lease, it ends by itself: {error:#}");
        }
    }

    async fn campaign(&mut self, leader: &watch::Sender<bool>) {
        let mut tick = interval(RETRY_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        loop {
            tick.tick().await;
            let leads = match timeout(RETRY_PERIOD, self.try_acquire_or_renew()).await.context("timed out").flatten() {
                Ok(leads) => {
                    renewed = Instant::now();
                    leads
                }
                Err(error) => {
                    tracing::warn!(lease = self.lease, "cannot acquire or renew the lease: {error:#}");
                    *leader.borrow() && renewed.elapsed() < RENEW_DEADLINE
                }
            };
            // Only news: whoever follows this would look at everything again with each renewal.
            if leader.send_if_modified(|led| std::mem::replace(led, leads) != leads) {
                self.metrics.leader.set(leads.into());
                tracing::info!(leads, identity = self.identity, "leadership has changed");
            }
        }
    }

    /// Whether this replica holds the lease now.
    async fn try_acquire_or_renew(&mut self) -> anyhow::Result<bool> {
        let Some(mut lease) = self.leases.get_opt(&self.lease).await.context("reading the lease")? else {
            let metadata = ObjectMeta { name: Some(self.lease.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.held(&LeaseSpec::default())) };
            return is_written(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let unchanged = self.unchanged(&lease);
        if !may_acquire(spec.holder_identity.as_deref(), &self.identity, unchanged) {
            return Ok(false);
        }
        lease.spec = Some(self.held(&spec));
        let is_held = spec.holder_identity.as_deref() == Some(&self.identity);
        let is_written = self.replace(&lease).await?;
        // A renewal that was given up may have come in between: the next look tells whose the lease is.
        anyhow::ensure!(is_written || !is_held, "the lease was changed meanwhile");
        Ok(is_written)
    }

    /// Gives the lease up if this replica holds it.
    async fn release(&self) -> anyhow::Result<()> {
        // Again where a renewal that was under way has come in between.
        while let Some(mut lease) = self.leases.get_opt(&self.lease).await.context("reading the lease")? {
            let spec = lease.spec.take().unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                break;
            }
            lease.spec = Some(released(spec));
            if self.replace(&lease).await? {
                break;
            }
        }
        Ok(())
    }

    /// The resource version in it makes sure that nobody else was quicker.
    async fn replace(&self, lease: &Lease) -> anyhow::Result<bool> {
        is_written(self.leases.replace(&self.lease, &PostParams::default(), lease).await)
    }

    /// How long the Lease has been as it is.
    fn unchanged(&mut self, lease: &Lease) -> Duration {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.observed {
            Some((observed, since)) if *observed == version => since.elapsed(),
            _ => {
                self.observed = Some((version, Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// The lease in this replica's hands, renewed now.
    fn held(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let renewal = before.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LEASE_DURATION.as_secs().try_into().unwrap_or(i32::MAX)),
            acquire_time: before.acquire_time.clone().filter(|_| renewal).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if renewal { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

/// The lease in nobody's hands.
fn released(before: LeaseSpec) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(String::new()),
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..before
    }
}

/// A lease is free for its holder, while it has none, and once its holder has not renewed it in time.
fn may_acquire(holder: Option<&str>, identity: &str, unchanged: Duration) -> bool {
    holder.is_none_or(|holder| holder.is_empty() || holder == identity) || unchanged >= LEASE_DURATION
}

/// Somebody else's write in between is no error, only a lost election.
fn is_written(written: kube::Result<Lease>) -> anyhow::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error).context("writing the lease"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_acquired_when_it_is_free() {
        let second = Duration::from_secs(1);
        for (holder, unchanged, expected) in [
            (None, second, true),
            (Some(""), second, true),
            (Some("this"), second, true),
            (Some("other"), second, false),
            (Some("other"), LEASE_DURATION, true),
        ] {
            assert_eq!(may_acquire(holder, "this", unchanged), expected, "{holder:?} {unchanged:?}");
        }
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        let held =
            LeaseSpec { holder_identity: Some("this".to_owned()), lease_transitions: Some(3), ..LeaseSpec::default() };
        let released = released(held);
        assert!(may_acquire(released.holder_identity.as_deref(), "other", Duration::ZERO));
        assert_eq!(released.lease_transitions, Some(3), "transitions are counted when somebody acquires it");
    }
}
