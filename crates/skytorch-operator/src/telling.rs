//! What a reconcile says: the status, where it is another than before, and an event for a transition of it.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::crd::{Compute, ComputeStatus};
use crate::error::Error;
use crate::events;
use crate::names::MANAGER;
use crate::reconcile::Reconcile;
use crate::status::{Facts, Suspension, condition, next};
use crate::verdict::Verdict;

impl Reconcile<'_> {
    /// Writes the status if it is another than before, and reports a transition.
    pub(crate) async fn tell(
        &self,
        compute: &Compute,
        verdict: &Verdict,
        pod: Option<&Pod>,
        facts: Facts,
    ) -> Result<(), Error> {
        let suspension = facts.suspension;
        let status = next(compute, verdict, facts, Timestamp::now());
        if compute.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let turned = {
            let before = condition(compute.status.as_ref(), "Ready");
            before.is_none_or(|before| before.reason != verdict.reason || (before.status == "True") != verdict.ready)
        };
        if !self.write_status(compute, &status).await? {
            return Ok(());
        }
        if turned {
            tracing::info!(reason = %verdict.reason, ready = verdict.ready, why = verdict.message, "a transition");
            let expected = suspension != Suspension::No;
            events::tell(&self.context.recorder, &self.context.metrics, compute, pod, verdict, expected).await;
        }
        Ok(())
    }

    /// Returns whether the Compute is still there.
    async fn write_status(&self, compute: &Compute, status: &ComputeStatus) -> Result<bool, Error> {
        let name = compute.name_any();
        let patch = json!({
            "apiVersion": Compute::api_version(&()),
            "kind": Compute::kind(&()),
            // The UID: a Compute that took the name meanwhile is another one.
            "metadata": {"name": name, "uid": compute.uid()},
            "status": status,
        });
        self.context.metrics.writes.with_label_values(&["Compute/status"]).inc();
        let params = PatchParams::apply(MANAGER).force();
        let written = self.api().patch_status(&name, &params, &Patch::Apply(&patch)).await;
        match written.map_err(Error::api(format!("write the status of Compute {name}"))) {
            Ok(written) => {
                self.context.computes.wrote(written);
                Ok(true)
            }
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
