//! Puts an owned object right: server-side apply, and only where it would change something. What is not known is asked
//! for once before it is made, since the name may be taken by somebody else's object, which is never touched.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, ValidationDirective};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::applied::{is_applied, sign};
use crate::crd::Compute;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::names::{MANAGER, controller};

/// What an owned kind is.
pub(crate) trait Owned:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
}

impl<K> Owned for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// One kind of objects of one Compute.
pub(crate) struct Shelf<'a, K: Owned> {
    client: &'a Client,
    metrics: &'a Metrics,
    ledger: &'a Ledger<K>,
    owner: &'a Compute,
}

impl<'a, K: Owned> Shelf<'a, K> {
    /// The objects of `owner` that the ledger knows.
    pub(crate) fn new(client: &'a Client, metrics: &'a Metrics, ledger: &'a Ledger<K>, owner: &'a Compute) -> Self {
        Self { client, metrics, ledger, owner }
    }

    /// What is there under a name, if it is the owner's.
    pub(crate) async fn stored(&self, name: &str) -> Result<Option<Arc<K>>, Error> {
        let mut stored = self.ledger.get(&self.namespace(), name);
        if stored.is_none() {
            stored = self.ask(name).await?.map(Arc::new);
            if stored.is_none() && self.owner.status.is_some() {
                self.check_there().await?;
            }
        }
        if let Some(stored) = &stored {
            check_owner(stored.meta(), self.owner, &K::kind(&()))?;
        }
        Ok(stored)
    }

    /// Applies a wish where what is stored is not as wished.
    pub(crate) async fn put(&self, stored: Option<Arc<K>>, mut desired: Value) -> Result<Arc<K>, Error> {
        sign(&mut desired);
        if let Some(stored) = stored.as_ref().filter(|stored| is_applied(stored.meta(), &desired)) {
            return Ok(stored.clone());
        }
        let name = desired["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        tracing::info!(kind = %K::kind(&()), name, "applying");
        let mut applied = self.apply(&name, &desired).await;
        if stored.is_some() && matches!(&applied, Err(kube::Error::Api(status)) if status.is_invalid()) {
            // Somebody's own item beside ours can make a list invalid, as two ports of one name do. A merge patch
            // replaces the list; what is invalid by itself stays so.
            applied = self.replace(&name, &desired).await;
        }
        Ok(self.ledger.wrote(applied.map_err(Error::api(format!("apply {} {name}", K::kind(&()))))?))
    }

    async fn apply(&self, name: &str, desired: &Value) -> Result<K, kube::Error> {
        let params = PatchParams {
            force: true,
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::apply(MANAGER)
        };
        self.metrics.writes.with_label_values(&[&K::kind(&())]).inc();
        self.api().patch(name, &params, &Patch::Apply(desired)).await
    }

    async fn replace(&self, name: &str, desired: &Value) -> Result<K, kube::Error> {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        self.metrics.writes.with_label_values(&[&K::kind(&())]).inc();
        self.api().patch(name, &params, &Patch::Merge(desired)).await?;
        self.apply(name, desired).await
    }

    /// Both.
    pub(crate) async fn ensure(&self, desired: Value) -> Result<Arc<K>, Error> {
        let stored = self.stored(desired["metadata"]["name"].as_str().unwrap_or_default()).await?;
        self.put(stored, desired).await
    }

    async fn ask(&self, name: &str) -> Result<Option<K>, Error> {
        let kind = K::kind(&());
        self.metrics.reads.with_label_values(&[&kind]).inc();
        self.api().get_opt(name).await.map_err(Error::api(format!("read {kind} {name}")))
    }

    /// What a Compute had and has no more may have gone with it, which its watch tells late after an interruption. To
    /// make it again would start a pod for nobody.
    async fn check_there(&self) -> Result<(), Error> {
        let name = self.owner.name_any();
        self.metrics.reads.with_label_values(&[Compute::kind(&()).as_ref()]).inc();
        let found = Api::<Compute>::namespaced(self.client.clone(), &self.namespace()).get_opt(&name).await;
        let found = found.map_err(Error::api(format!("read Compute {name}")))?;
        if found.as_ref().and_then(ResourceExt::uid) == self.owner.uid() { Ok(()) } else { Err(Error::Gone { name }) }
    }

    fn api(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace())
    }

    fn namespace(&self) -> String {
        self.owner.namespace().unwrap_or_default()
    }
}

/// Whether an object is the Compute's, and there to stay.
fn check_owner(meta: &ObjectMeta, owner: &Compute, kind: &str) -> Result<(), Error> {
    let name = meta.name.clone().unwrap_or_default();
    let kind = kind.to_owned();
    match controller(meta) {
        Some(reference) if owner.metadata.uid.as_ref() == Some(&reference.uid) => {
            if meta.deletion_timestamp.is_some() { Err(Error::Leaving { kind, name }) } else { Ok(()) }
        }
        Some(reference) if reference.kind == Compute::kind(&()) && reference.name == owner.name_any() => {
            Err(Error::Leaving { kind, name })
        }
        Some(reference) => {
            Err(Error::Conflict { kind, name, owner: format!("{} {}", reference.kind, reference.name) })
        }
        None => Err(Error::Conflict { kind, name, owner: "somebody else".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::crd::ComputeSpec;

    fn checked(meta: &Value) -> Result<(), String> {
        let mut owner = Compute::new("demo", ComputeSpec::default());
        owner.metadata.uid = Some("u".to_owned());
        let meta = serde_json::from_value(meta.clone()).expect("metadata");
        check_owner(&meta, &owner, "Secret").map_err(|error| error.to_string())
    }

    fn owned(kind: &str, name: &str, uid: &str) -> Value {
        json!({"name": "demo", "ownerReferences": [
            {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": true},
        ]})
    }

    #[test]
    fn only_what_is_ours_is_touched() {
        assert_eq!(checked(&owned("Compute", "demo", "u")), Ok(()));
        let conflict = |owner: &str| {
            Err(format!(
                "Secret demo is there already and belongs to {owner}: delete it, or choose another name for the compute"
            ))
        };
        assert_eq!(checked(&json!({"name": "demo"})), conflict("somebody else"));
        assert_eq!(checked(&owned("Compute", "other", "v")), conflict("Compute other"));
        assert_eq!(checked(&owned("Deployment", "demo", "v")), conflict("Deployment demo"));
    }

    #[test]
    fn what_goes_is_waited_for() {
        let leaving = Err("Secret demo of that name is still being deleted".to_owned());
        assert_eq!(checked(&owned("Compute", "demo", "of an earlier one")), leaving);
        let mut going = owned("Compute", "demo", "u");
        going["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(checked(&going), leaving);
    }
}
