//! Deletes what a Compute that is gone has left. Kubernetes' garbage collector does the same, by the same owner
//! references; but it learns of a new kind of resource only within half a minute, and then is in no hurry.
//!
//! A deletion that passed through a finalizer (in the foreground, or one that orphans) is left to the collector alone.

use std::sync::Arc;

use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Resource, ResourceExt};

use crate::apply::Owned;
use crate::context::Context;
use crate::crd::Compute;
use crate::ledger::Ledger;
use crate::names::controller;

/// Whether a deleted Compute's objects are ours to delete.
pub(crate) fn are_ours(gone: &Compute) -> bool {
    gone.metadata.deletion_timestamp.is_none()
}

/// Deletes all that the Compute of this UID owned. What cannot be deleted is left to the collector.
pub(crate) async fn clear(context: Arc<Context>, uid: String) {
    tokio::join!(
        clear_kind(&context, &context.sets, &uid),
        clear_kind(&context, &context.services, &uid),
        clear_kind(&context, &context.policies, &uid),
        clear_kind(&context, &context.secrets, &uid),
        clear_kind(&context, &context.accounts, &uid),
        clear_kind(&context, &context.claims, &uid),
    );
}

/// Clears after Computes that were deleted while no operator looked. Asks for each before it believes that it is gone.
pub(crate) async fn sweep(context: Arc<Context>) {
    let mut asked = std::collections::HashSet::new();
    for secret in context.secrets.store().state() {
        let Some(owner) = controller(&secret.metadata).filter(|owner| owner.kind == Compute::kind(&())) else {
            continue;
        };
        let namespace = secret.namespace().unwrap_or_default();
        let known = context.computes.get(&namespace, &owner.name).and_then(|compute| compute.uid());
        if known.as_ref() == Some(&owner.uid) || !asked.insert(owner.uid.clone()) {
            continue;
        }
        match Api::<Compute>::namespaced(context.client.clone(), &namespace).get_opt(&owner.name).await {
            Ok(found) if found.as_ref().and_then(ResourceExt::uid).as_ref() != Some(&owner.uid) => {
                tracing::info!(compute = owner.name, namespace, "clearing after a compute that is gone");
                clear(context.clone(), owner.uid.clone()).await;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, compute = owner.name, "cannot ask whether a compute is gone"),
        }
    }
}

async fn clear_kind<K: Owned>(context: &Context, ledger: &Ledger<K>, uid: &str) {
    let left = ledger.all(|object| controller(object.meta()).is_some_and(|owner| owner.uid == uid));
    for object in left.into_iter().filter(|object| object.meta().deletion_timestamp.is_none()) {
        let api = Api::<K>::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
        let same = Preconditions { uid: object.uid(), resource_version: None };
        let kind = K::kind(&());
        context.metrics.writes.with_label_values(&[&kind]).inc();
        match api.delete(&object.name_any(), &DeleteParams::background().preconditions(same)).await {
            Ok(_) => {}
            // The collector was faster, or something else has the name.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(error) => tracing::warn!(%kind, name = object.name_any(), %error, "cannot delete what was left"),
        }
    }
}
