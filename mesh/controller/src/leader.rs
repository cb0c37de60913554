//! Which replica writes: the holder of a Lease. Admission and xDS are served by all.

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

/// As long as a holder does not renew, nobody else takes over before.
const TERM: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long steps back, before the term ends for others.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between renewals, and the longest that one may take.
const RENEW: Duration = Duration::from_secs(2);

/// A replica that stands for election.
pub struct Candidate {
    leases: Api<Lease>,
    lease: String,
    me: String,
    /// Version of the Lease and when it was first seen, by this replica's own clock.
    seen: Option<(String, Instant)>,
}

impl Candidate {
    /// `me` is the name of this replica.
    pub fn new(client: Client, namespace: &str, lease: &str, me: &str) -> Self {
        let leases = Api::namespaced(client, namespace);
        Self { leases, lease: lease.to_owned(), me: me.to_owned(), seen: None }
    }

    /// Stands for election until `stop`, telling by `leads` whether this replica leads.
    pub async fn stand(mut self, leads: watch::Sender<bool>, stop: CancellationToken) {
        tokio::select! {
            () = self.campaign(&leads) => {}
            () = stop.cancelled() => {}
        }
        // So that the next one need not wait for the end of the term.
        if leads.send_replace(false)
            && let Err(error) = self.turn(true).await
        {
            tracing::warn!("the lease is left to run out: {error:#}");
        }
    }

    async fn campaign(&mut self, sender: &watch::Sender<bool>) {
        let mut tick = interval(RENEW);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        loop {
            tick.tick().await;
            let leads = match timeout(RENEW, self.turn(false)).await.context("timed out").flatten() {
                Ok(leads) => {
                    renewed = Instant::now();
                    leads
                }
                Err(error) => {
                    tracing::warn!(lease = self.lease, "electing a leader: {error:#}");
                    *sender.borrow() && renewed.elapsed() < PATIENCE
                }
            };
            // Only news: whoever follows this would look again with each renewal.
            if sender.send_if_modified(|led| std::mem::replace(led, leads) != leads) {
                tracing::info!(leads, me = self.me, "leadership has changed");
            }
        }
    }

    /// Takes, renews or gives up (`leave`) the lease if it is to be had; tells whether this replica holds it.
    async fn turn(&mut self, leave: bool) -> anyhow::Result<bool> {
        let Some(mut lease) = self.leases.get_opt(&self.lease).await.context("reading the lease")? else {
            let metadata = ObjectMeta { name: Some(self.lease.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.claim(&LeaseSpec::default(), leave)) };
            return won(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let unchanged = self.unchanged(&lease);
        if !may_claim(spec.holder_identity.as_deref(), &self.me, unchanged) {
            return Ok(false);
        }
        lease.spec = Some(self.claim(&spec, leave));
        // The resource version in it makes sure that nobody else was quicker.
        won(self.leases.replace(&self.lease, &PostParams::default(), &lease).await)
    }

    fn unchanged(&mut self, lease: &Lease) -> Duration {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed(),
            _ => {
                self.seen = Some((version, Instant::now()));
                Duration::ZERO
            }
        }
    }

    fn claim(&self, before: &LeaseSpec, leave: bool) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let mine = before.holder_identity.as_deref() == Some(&self.me);
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(if leave { String::new() } else { self.me.clone() }),
            lease_duration_seconds: Some(if leave { 1 } else { TERM.as_secs().try_into().unwrap_or(i32::MAX) }),
            acquire_time: before.acquire_time.clone().filter(|_| mine).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if mine { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

/// A lease is to be had by its holder, when it has none, and when its holder has been silent for a term.
fn may_claim(holder: Option<&str>, me: &str, unchanged: Duration) -> bool {
    holder.is_none_or(|holder| holder.is_empty() || holder == me) || unchanged >= TERM
}

/// Somebody else's write in between is no error, only a lost election.
fn won(written: kube::Result<Lease>) -> anyhow::Result<bool> {
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
    fn who_may_claim() {
        let second = Duration::from_secs(1);
        for (holder, unchanged, expected) in [
            (None, second, true),
            (Some(""), second, true),
            (Some("me"), second, true),
            (Some("other"), second, false),
            (Some("other"), TERM, true),
        ] {
            assert_eq!(may_claim(holder, "me", unchanged), expected, "{holder:?} {unchanged:?}");
        }
    }
}
