//! The end of a Compute that nobody uses: its deletion, or its suspension. It is decided by what the pod says at that
//! very moment, since a client may have come after the reading that led here, and for the Compute as it was judged: if
//! it was changed meanwhile, nothing is done, and the change has it reconciled.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use crate::crd::{Compute, IdleAction};
use crate::error::Error;
use crate::idle::Target;
use crate::names::MANAGER;
use crate::reconcile::Reconcile;
use crate::status::{Facts, Suspension};
use crate::verdict::Verdict;
use crate::{duration, events};

impl Reconcile<'_> {
    /// Deletes or suspends the Compute, if its pod still says that nobody has been connected for long enough.
    pub(crate) async fn retire(&self, target: &Target, pod: Option<&Pod>, facts: Facts) -> Result<(), Error> {
        let context = self.context;
        let Some(compute) = self.as_judged() else { return Ok(()) };
        let Some(reading) = context.idle.ask(&self.uid()).await else { return Ok(()) };
        let now = Timestamp::now();
        if !reading.is_idle(target, now) {
            return Ok(());
        }
        let (what, done) = match compute.spec.idle_action {
            IdleAction::Delete => ("deleted", self.delete(&compute).await?),
            IdleAction::Suspend => ("suspended", self.suspend(&compute).await?),
        };
        let Some(done) = done else { return Ok(()) };
        let idle_for = duration::show(reading.idle_for(target, now));
        tracing::info!(idle_for, what, "idle");
        context.metrics.idle.with_label_values(&[what]).inc();
        let verdict =
            Verdict::progressing("Idle", format!("nobody was connected for {idle_for}: the compute is {what}"));
        if done.spec.suspend {
            context.idle.forget(&self.uid());
            let facts = Facts { suspension: Suspension::Stopping { idle: true }, ..facts };
            return self.tell(&done, &verdict, pod, facts).await;
        }
        events::tell(&context.recorder, &context.metrics, &done, pod, &verdict, true).await;
        Ok(())
    }

    /// The newest version of the Compute that was judged; `None`, if another was made or its spec was changed.
    fn as_judged(&self) -> Option<Arc<Compute>> {
        let newest = self.context.computes.get(&self.namespace, &self.compute.name_any())?;
        let (known, judged) = (&newest.metadata, &self.compute.metadata);
        (known.uid == judged.uid && known.generation == judged.generation).then_some(newest)
    }

    /// What was deleted; `None`, if this version was no longer there.
    async fn delete(&self, compute: &Arc<Compute>) -> Result<Option<Arc<Compute>>, Error> {
        let name = compute.name_any();
        let same = Preconditions { uid: compute.uid(), resource_version: compute.resource_version() };
        self.context.metrics.writes.with_label_values(&["Compute"]).inc();
        match self.api().delete(&name, &DeleteParams::background().preconditions(same)).await {
            Ok(_) => Ok(Some(Arc::clone(compute))),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(None),
            Err(error) => Err(Error::api(format!("delete Compute {name}"))(error)),
        }
    }

    /// What it is then; `None`, if this version was no longer there. A merge patch, since the field is the user's as
    /// much as ours.
    async fn suspend(&self, compute: &Compute) -> Result<Option<Arc<Compute>>, Error> {
        let name = compute.name_any();
        let same = json!({"uid": compute.uid(), "resourceVersion": compute.resource_version()});
        let patch = json!({"metadata": same, "spec": {"suspend": true}});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        self.context.metrics.writes.with_label_values(&["Compute"]).inc();
        match self.api().patch(&name, &params, &Patch::Merge(&patch)).await {
            Ok(suspended) => Ok(Some(self.context.computes.wrote(suspended))),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(None),
            Err(error) => Err(Error::api(format!("suspend Compute {name}"))(error)),
        }
    }
}
