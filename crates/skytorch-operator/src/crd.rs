//! The Compute resource. `skytorch-operator crdgen` prints it, deploy/crd/ keeps what it prints, and a test compares
//! the two. What a schema can refuse, it refuses (with CEL where words help); a Compute that was let in can be read.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What is wanted: one server in a pod, reachable under one name.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "compute.skytorch.dev",
    version = "v1alpha1",
    kind = "Compute",
    plural = "computes",
    namespaced,
    status = "ComputeStatus",
    derive = "PartialEq",
    doc = "A SkyTorch server in a pod of its own, reachable under one name",
    validation = Rule::new("self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name must be at most 52 lower-case letters, digits and dashes, and start with a letter: \
                  a Service and a pod's labels carry it"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "GPUs", type_ = "string", json_path = ".spec.resources.limits.nvidia\\.com/gpu"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComputeSpec {
    /// The server's image.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,

    /// When the image is pulled; as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// Replaces the image's entrypoint (`skytorch serve`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,

    /// Further flags of the server, after those that the operator gives it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,

    /// Environment variables, with `valueFrom` as in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,

    /// Requests and limits of the server's container; GPUs are limits, such as `nvidia.com/gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Labels of the pod and of every object that is made for the Compute.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,

    /// Annotations of the pod and of every object that is made for the Compute.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,

    /// Stops the pod and keeps everything else, the volumes and the address among it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspend: bool,

    /// Persistent volumes. A claim outlives suspension and its removal from this list; it ends with the Compute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.path == a.path))")
        .message("two volumes have the same path"))]
    pub volumes: Vec<Volume>,

    /// Merged into the pod template (`metadata`, `spec`) as by a strategic merge patch.
    #[serde(rename = "override", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_object")]
    pub template: Option<serde_json::Map<String, serde_json::Value>>,

    /// How long nobody may be connected before `idleAction` is taken, such as `600s` or `1h30m`.
    #[serde(default = "default_idle_timeout")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s')")
        .message("idleTimeout must be a duration of at least 1s, such as 600s or 1h30m"))]
    pub idle_timeout: String,

    /// What becomes of a Compute that is idle for so long.
    #[serde(default)]
    pub idle_action: IdleAction,
}

/// A persistent volume and where the server sees it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && \
    (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
    .message("a volume's storageClassName cannot be changed; add a volume of another name"))]
#[x_kube(validation = Rule::new("self.accessModes == oldSelf.accessModes")
    .message("a volume's accessModes cannot be changed; add a volume of another name"))]
pub(crate) struct Volume {
    /// Its name in the pod; the claim is called `<compute>-<name>`.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && !(self in ['skytorch', 'tmp'])")
        .message("a volume's name is lower-case letters, digits and dashes, and neither skytorch nor tmp"))]
    pub name: String,

    /// How much is asked for, such as `20Gi`. It may grow where the storage class allows it.
    pub storage: Quantity,

    /// Where it is mounted.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && !self.contains(':') && !self.contains('..') && \
        !(self in ['/', '/tmp']) && self != '/etc/skytorch' && !self.startsWith('/etc/skytorch/')")
        .message("a volume's path must be absolute, and neither /, /tmp nor below /etc/skytorch"))]
    pub path: String,

    /// The storage class; the cluster's default where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,

    /// How it may be mounted.
    #[serde(default = "default_access_modes")]
    #[schemars(length(min = 1, max = 4), inner(length(max = 32)))]
    pub access_modes: Vec<String>,
}

/// As in a pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImagePullPolicy {
    /// At each start.
    Always,
    /// Where the node lacks it.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// What becomes of an idle Compute.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum IdleAction {
    /// It is deleted, with all that it owns.
    #[default]
    Delete,
    /// It is suspended.
    Suspend,
}

/// What is there.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComputeStatus {
    /// The generation that this status tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`, `Progressing` and `Suspended`, each with the real reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Host and port of the session, inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,

    /// The pod's ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<StatusPort>,

    /// The Secret with the token and the certificate authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,

    /// The pod that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,

    /// The container that was ready last: another one has none of its tensors.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "containerID")]
    pub container_id: Option<String>,

    /// The devices that the server has, such as `cuda:0`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,

    /// How many clients are connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<i32>,

    /// When the last connection ended; while there is one, when it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Time>,
}

/// A port of the pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StatusPort {
    /// `session`, `health` or `metrics`.
    pub name: String,
    /// Its number.
    pub port: i32,
}

fn default_idle_timeout() -> String {
    "600s".to_owned()
}

fn default_access_modes() -> Vec<String> {
    vec!["ReadWriteOnce".to_owned()]
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

fn free_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}
