//! The names that everything agrees on: labels, annotations, ports, paths, and how an owned object is called.
//! The client and the manifests in deploy/ spell the same names; docs/operator.md lists them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

use crate::crd::Compute;

/// The field manager of everything that the operator writes, and the name it reports events under.
pub(crate) const MANAGER: &str = "skytorch-operator";
/// Every object that the operator makes carries this label; its watches select by it.
pub(crate) const MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by=skytorch-operator";
/// The label that names the Compute on each of its objects.
pub(crate) const NAME_LABEL: &str = "compute.skytorch.dev/name";
/// On every owned object: the digest of what was last applied.
pub(crate) const APPLIED_ANNOTATION: &str = "compute.skytorch.dev/applied";
/// On the pod: the digest of those parts of the spec that a running pod follows only by being replaced.
pub(crate) const SPEC_ANNOTATION: &str = "compute.skytorch.dev/spec";

/// The session's port: gRPC over TLS.
pub(crate) const SESSION_PORT: i32 = 7777;
/// grpc.health.v1 in plaintext, for the kubelet.
pub(crate) const HEALTH_PORT: i32 = 7778;
/// HTTP: `/metrics` for Prometheus, `/status` for the operator.
pub(crate) const METRICS_PORT: i32 = 7779;

/// Where the Secret is mounted.
pub(crate) const SECRET_PATH: &str = "/etc/skytorch";
/// The pod's volumes that are not the user's.
pub(crate) const SECRET_VOLUME: &str = "skytorch";
/// See [`SECRET_VOLUME`].
pub(crate) const TMP_VOLUME: &str = "tmp";
/// The container that serves.
pub(crate) const CONTAINER: &str = "server";

/// The pod of a Compute: the StatefulSet's first and only one.
pub(crate) fn pod_name(compute: &str) -> String {
    format!("{compute}-0")
}

/// The Secret that keeps the authority's key, and is mounted nowhere.
pub(crate) fn authority_name(compute: &str) -> String {
    format!("{compute}-ca")
}

/// The claim of one of the spec's volumes.
pub(crate) fn claim_name(compute: &str, volume: &str) -> String {
    format!("{compute}-{volume}")
}

/// What selects the pod; never changed, since a StatefulSet's selector cannot be.
pub(crate) fn selector(compute: &str) -> BTreeMap<String, String> {
    [("app.kubernetes.io/name", "skytorch"), (NAME_LABEL, compute)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The user's labels and, above them, ours.
pub(crate) fn labels(compute: &Compute) -> BTreeMap<String, String> {
    let mut labels = compute.spec.labels.clone();
    labels.extend(selector(&compute.name_any()));
    labels.insert("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned());
    labels
}

/// The metadata of an owned object.
pub(crate) fn owned_meta(compute: &Compute, name: String) -> ObjectMeta {
    let annotations = compute.spec.annotations.clone();
    ObjectMeta {
        name: Some(name),
        namespace: compute.namespace(),
        labels: Some(labels(compute)),
        annotations: (!annotations.is_empty()).then_some(annotations),
        owner_references: Some(vec![owner_reference(compute)]),
        ..ObjectMeta::default()
    }
}

/// Ends an owned object with its Compute. Foreground deletion waits for it.
fn owner_reference(compute: &Compute) -> OwnerReference {
    OwnerReference {
        api_version: Compute::api_version(&()).into_owned(),
        kind: Compute::kind(&()).into_owned(),
        name: compute.name_any(),
        uid: compute.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The reference of the controller that owns `meta`, if there is one.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|reference| reference.controller == Some(true))
}
