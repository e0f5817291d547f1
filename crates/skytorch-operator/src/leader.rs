//! Leader election by a Lease: of several operators one works, the others stand by. Whoever leads renews in time or
//! ends; a lease that nobody has renewed for its duration, as seen from here (clocks differ), is anybody's.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::names::MANAGER;

/// How long a lease holds without being renewed.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(5);
/// Without a renewal for this long the leader ends, well before another may begin.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How often somebody who stands by looks.
const LOOK: Duration = Duration::from_secs(2);

/// One candidate.
pub(crate) struct Leader {
    api: Api<Lease>,
    identity: String,
}

/// The lease as it was seen last, and since when it has not changed.
struct Seen {
    version: Option<String>,
    since: Instant,
}

impl Leader {
    /// A candidate of this identity, for the Lease in this namespace.
    pub(crate) fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), identity }
    }

    /// Stands by until it leads.
    pub(crate) async fn lead(&self) {
        let mut seen = Seen { version: None, since: Instant::now() };
        loop {
            match self.attempt(&mut seen).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "cannot ask for the lead"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Leads, and returns when that is over.
    pub(crate) async fn keep(&self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < GIVE_UP {
            tokio::time::sleep(if renewed.elapsed() < RENEWAL { RENEWAL } else { Duration::from_secs(1) }).await;
            match tokio::time::timeout(GIVE_UP.saturating_sub(renewed.elapsed()), self.renew()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    tracing::error!("another operator leads");
                    return;
                }
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew the lead"),
                Err(_) => {}
            }
        }
        tracing::error!("the lead could not be renewed within {} s", GIVE_UP.as_secs());
    }

    /// Gives the lead up, so that another takes it at once.
    pub(crate) async fn release(&self) {
        let given_up = async {
            let Some(mut lease) = self.api.get_opt(MANAGER).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(self.identity.as_str()) {
                spec.holder_identity = Some(String::new());
                self.api.replace(MANAGER, &params(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(Duration::from_secs(2), given_up).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot give up the lead"),
            Err(_) => tracing::warn!("cannot give up the lead: no answer"),
        }
    }

    /// Takes the lease if it is nobody's.
    async fn attempt(&self, seen: &mut Seen) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(MANAGER).await? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(MANAGER.to_owned());
            self.claim(&mut lease);
            return taken(self.api.create(&params(), &lease).await);
        };
        if lease.metadata.resource_version != seen.version {
            *seen = Seen { version: lease.metadata.resource_version.clone(), since: Instant::now() };
        }
        if is_held(lease.spec.as_ref(), &self.identity, seen.since.elapsed()) {
            return Ok(false);
        }
        self.claim(&mut lease);
        taken(self.api.replace(MANAGER, &params(), &lease).await)
    }

    /// Renews it, unless it is another's.
    async fn renew(&self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(MANAGER).await? else { return Ok(false) };
        if lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) != Some(self.identity.as_str()) {
            return Ok(false);
        }
        self.claim(&mut lease);
        taken(self.api.replace(MANAGER, &params(), &lease).await)
    }

    fn claim(&self, lease: &mut Lease) {
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count + 1));
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(now);
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

/// Whether the write won. One that lost is no error: somebody else leads.
fn taken(written: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether another leads, having changed the lease within its duration.
fn is_held(spec: Option<&LeaseSpec>, identity: &str, unchanged: Duration) -> bool {
    let Some(spec) = spec else { return false };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    !holder.is_empty() && holder != identity && unchanged < duration.map_or(DURATION, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_until_it_has_not_changed_for_its_duration() {
        let spec = |holder: &str| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        };
        let s = Duration::from_secs;
        assert!(is_held(Some(&spec("a")), "b", s(14)));
        assert!(!is_held(Some(&spec("a")), "b", s(15)));
        assert!(!is_held(Some(&spec("a")), "a", s(0)), "its own");
        assert!(!is_held(Some(&spec("")), "b", s(0)), "given up");
        assert!(!is_held(None, "b", s(0)));
    }
}
