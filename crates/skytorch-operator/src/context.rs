//! What every reconcile has at hand: the client, what the cluster holds, and what the operator remembers. Nothing of it
//! must survive the process; what must is in the cluster.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};

use crate::apply::{Owned, Shelf};
use crate::backoff::Backoff;
use crate::crd::Compute;
use crate::idle::Idle;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::refusal::Refusals;

/// What the flags say.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long a pod may be unschedulable before that is final.
    pub(crate) scheduling_timeout: Duration,
    /// How long a server certificate lasts.
    pub(crate) certificate_lifetime: Duration,
    /// Where the operator itself runs.
    pub(crate) operator_namespace: String,
}

/// See the module.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    pub(crate) recorder: Recorder,
    pub(crate) backoff: Backoff,
    pub(crate) idle: Idle,
    pub(crate) computes: Ledger<Compute>,
    pub(crate) sets: Arc<Ledger<StatefulSet>>,
    pub(crate) services: Arc<Ledger<Service>>,
    pub(crate) secrets: Arc<Ledger<Secret>>,
    pub(crate) claims: Arc<Ledger<PersistentVolumeClaim>>,
    pub(crate) accounts: Arc<Ledger<ServiceAccount>>,
    pub(crate) policies: Arc<Ledger<NetworkPolicy>>,
    pub(crate) pods: Store<Pod>,
    pub(crate) refusals: Refusals,
}

impl Context {
    /// The objects of one kind that `owner` has.
    pub(crate) fn shelf<'a, K: Owned>(&'a self, ledger: &'a Ledger<K>, owner: &'a Compute) -> Shelf<'a, K> {
        Shelf::new(&self.client, &self.metrics, ledger, owner)
    }

    /// A pod by name.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods.get(&ObjectRef::new(name).within(namespace))
    }

    /// Whether a Compute that was known no longer is.
    pub(crate) fn is_gone(&self, compute: &Compute) -> bool {
        let known = self.computes.store().get(&ObjectRef::from_obj(compute));
        compute.metadata.deletion_timestamp.is_none() && known.is_none_or(|known| known.uid() != compute.uid())
    }

    /// A Compute is gone: nothing of it is kept.
    pub(crate) fn forget(&self, uid: &str) {
        self.idle.forget(uid);
        self.backoff.forget(uid);
    }
}
