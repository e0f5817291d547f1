//! The StatefulSet of one pod, and the pod's template. A StatefulSet and no Deployment, since two pods of one Compute
//! must never run at once; `OnDelete`, since the operator itself says when a pod is replaced: when the *user's* spec
//! has changed, which the pod's annotation tells. A newer operator whose template differs leaves running pods alone.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, GRPCAction, KeyToPath,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile,
    SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::applied::digest_of;
use crate::crd::Compute;
use crate::error::Error;
use crate::names::{self, SECRET_PATH, SECRET_VOLUME, SPEC_ANNOTATION, TMP_VOLUME};
use crate::override_merge::merge;

/// The user that the images have, without a name in them.
const USER: i64 = 65532;
/// Readable for the group, which is the pod's.
const SECRET_MODE: i32 = 0o440;

/// The StatefulSet as JSON: what an override brings along goes to the API server as it is, which names a field that
/// it does not know.
pub(crate) fn stateful_set(compute: &Compute) -> Result<Value, Error> {
    let name = compute.name_any();
    let set = StatefulSet {
        metadata: names::owned_meta(compute, name.clone()),
        spec: Some(StatefulSetSpec {
            replicas: Some(i32::from(!compute.spec.suspend)),
            service_name: Some(name.clone()),
            selector: LabelSelector { match_labels: Some(names::selector(&name)), ..LabelSelector::default() },
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            revision_history_limit: Some(1),
            template: template(compute),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    };
    let mut set = to_json(&set);
    if let Some(patch) = &compute.spec.template {
        let template = &mut set["spec"]["template"];
        merge(template, &Value::Object(patch.clone()));
        // Without these the pod is nobody's.
        merge(
            template,
            &json!({"metadata": {
                "labels": names::labels(compute),
                "annotations": {SPEC_ANNOTATION: spec_digest(compute)},
            }}),
        );
        serde_json::from_value::<PodTemplateSpec>(template.clone()).map_err(|e| Error::Override(e.to_string()))?;
    }
    Ok(set)
}

/// The digest of those parts of the spec that a running pod follows only by being replaced.
pub(crate) fn spec_digest(compute: &Compute) -> String {
    let mut spec = to_json(&compute.spec);
    if let Some(spec) = spec.as_object_mut() {
        for field in ["suspend", "idleTimeout", "idleAction"] {
            spec.remove(field);
        }
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        *volume = json!({"name": volume["name"], "path": volume["path"]});
    }
    digest_of(&spec)[..16].to_owned()
}

fn template(compute: &Compute) -> PodTemplateSpec {
    let mut annotations = compute.spec.annotations.clone();
    annotations.insert(SPEC_ANNOTATION.to_owned(), spec_digest(compute));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(names::labels(compute)),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container(compute)],
            volumes: Some(volumes(compute)),
            service_account_name: Some(compute.name_any()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            // So that the server is not PID 1, which would lose a SIGTERM that comes before its handlers are there and
            // wait out the grace period.
            share_process_namespace: Some(true),
            termination_grace_period_seconds: Some(30),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                fs_group_change_policy: Some("OnRootMismatch".to_owned()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            ..PodSpec::default()
        }),
    }
}

fn container(compute: &Compute) -> Container {
    let spec = &compute.spec;
    Container {
        name: names::CONTAINER.to_owned(),
        image: Some(spec.image.clone()),
        image_pull_policy: spec.image_pull_policy.map(|policy| format!("{policy:?}")),
        command: (!spec.command.is_empty()).then(|| spec.command.clone()),
        args: Some(arguments(compute)),
        env: (!spec.env.is_empty()).then(|| spec.env.clone()),
        resources: spec.resources.clone(),
        ports: Some(ports()),
        volume_mounts: Some(mounts(compute)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
            ..SecurityContext::default()
        }),
        // Importing torch takes seconds, loading a driver tens of them.
        startup_probe: Some(Probe { period_seconds: Some(1), failure_threshold: Some(600), ..probe(1) }),
        readiness_probe: Some(Probe { period_seconds: Some(5), failure_threshold: Some(2), ..probe(3) }),
        liveness_probe: Some(Probe { period_seconds: Some(10), failure_threshold: Some(6), ..probe(5) }),
        // A crash tells its last lines in the pod's status, so the operator needs no right to read logs.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

/// The flags of `skytorch serve` that make a server of this pod, then the user's.
fn arguments(compute: &Compute) -> Vec<String> {
    let ours = [
        ("--host", "0.0.0.0".to_owned()),
        ("--port", names::SESSION_PORT.to_string()),
        ("--token-file", format!("{SECRET_PATH}/token")),
        ("--tls-cert", format!("{SECRET_PATH}/tls.crt")),
        ("--tls-key", format!("{SECRET_PATH}/tls.key")),
        ("--health", format!("0.0.0.0:{}", names::HEALTH_PORT)),
        ("--metrics-host", "0.0.0.0".to_owned()),
        ("--metrics-port", names::METRICS_PORT.to_string()),
    ];
    ours.into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .chain(compute.spec.args.iter().cloned())
        .collect()
}

/// The pod's ports, by name.
pub(crate) const PORTS: [(&str, i32); 3] =
    [("session", names::SESSION_PORT), ("health", names::HEALTH_PORT), ("metrics", names::METRICS_PORT)];

fn ports() -> Vec<ContainerPort> {
    let port = |(name, port): (&str, i32)| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    PORTS.map(port).into()
}

fn probe(timeout_s: i32) -> Probe {
    Probe {
        grpc: Some(GRPCAction { port: names::HEALTH_PORT, ..GRPCAction::default() }),
        timeout_seconds: Some(timeout_s),
        ..Probe::default()
    }
}

fn volumes(compute: &Compute) -> Vec<Volume> {
    let name = compute.name_any();
    let keys = ["token", "ca.crt", "tls.crt", "tls.key"];
    let own = [
        Volume {
            name: SECRET_VOLUME.to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(name.clone()),
                default_mode: Some(SECRET_MODE),
                items: Some(
                    keys.map(|key| KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None }).into(),
                ),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume { name: TMP_VOLUME.to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() },
    ];
    let claims = compute.spec.volumes.iter().map(|volume| Volume {
        name: volume.name.clone(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: names::claim_name(&name, &volume.name),
            ..PersistentVolumeClaimVolumeSource::default()
        }),
        ..Volume::default()
    });
    own.into_iter().chain(claims).collect()
}

fn mounts(compute: &Compute) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    };
    let own = [VolumeMount { read_only: Some(true), ..mount(SECRET_VOLUME, SECRET_PATH) }, mount(TMP_VOLUME, "/tmp")];
    own.into_iter().chain(compute.spec.volumes.iter().map(|volume| mount(&volume.name, &volume.path))).collect()
}

/// What Kubernetes' own types are as JSON; they always are.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("an object of Kubernetes is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{ComputeSpec, Volume as ComputeVolume};

    fn compute(spec: ComputeSpec) -> Compute {
        let mut compute = Compute::new("demo", spec);
        compute.metadata.namespace = Some("ns".to_owned());
        compute.metadata.uid = Some("u".to_owned());
        compute
    }

    fn with_override(patch: &Value) -> Compute {
        compute(ComputeSpec { template: patch.as_object().cloned(), ..ComputeSpec::default() })
    }

    #[test]
    fn an_override_changes_the_pod_and_cannot_take_it_away() {
        let patch = json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "other"}, "annotations": null},
            "spec": {"terminationGracePeriodSeconds": 5, "nodeSelector": {"a": "b"}, "containers": [{"name": "server", "tty": true}]},
        });
        let set = stateful_set(&with_override(&patch)).expect("a stateful set");
        let template = &set["spec"]["template"];
        assert_eq!(template["metadata"]["labels"]["app.kubernetes.io/name"], "skytorch");
        assert!(template["metadata"]["annotations"][SPEC_ANNOTATION].is_string());
        assert_eq!(template["spec"]["terminationGracePeriodSeconds"], 5);
        assert_eq!(template["spec"]["nodeSelector"]["a"], "b");
        assert_eq!(template["spec"]["containers"].as_array().map(Vec::len), Some(1));
        assert_eq!(template["spec"]["containers"][0]["tty"], true);
        assert_eq!(template["spec"]["containers"][0]["args"][1], "0.0.0.0");
    }

    #[test]
    fn an_override_that_makes_no_pod_is_named() {
        let error = stateful_set(&with_override(&json!({"spec": {"containers": "none"}}))).expect_err("no pod");
        assert!(error.to_string().starts_with("the override makes no valid pod template: "), "{error}");
    }

    #[test]
    fn an_unknown_field_is_left_to_the_api_server() {
        let set = stateful_set(&with_override(&json!({"spec": {"containerz": 1}}))).expect("a stateful set");
        assert_eq!(set["spec"]["template"]["spec"]["containerz"], 1);
    }

    #[test]
    fn suspension_and_idleness_do_not_replace_the_pod() {
        let spec = ComputeSpec {
            image: "a".to_owned(),
            volumes: vec![ComputeVolume { name: "v".to_owned(), path: "/v".to_owned(), ..ComputeVolume::default() }],
            ..ComputeSpec::default()
        };
        let mut other = ComputeSpec { suspend: true, idle_timeout: "5s".to_owned(), ..spec.clone() };
        other.volumes[0].storage.0 = "2Gi".to_owned();
        assert_eq!(spec_digest(&compute(spec.clone())), spec_digest(&compute(other)));
        let image = ComputeSpec { image: "b".to_owned(), ..spec.clone() };
        assert_ne!(spec_digest(&compute(spec)), spec_digest(&compute(image)));
    }

    #[test]
    fn the_users_flags_come_last() {
        let spec =
            ComputeSpec { args: vec!["--resume-timeout".to_owned(), "5".to_owned()], ..ComputeSpec::default() };
        let arguments = arguments(&compute(spec));
        assert_eq!(arguments[arguments.len() - 2..], ["--resume-timeout", "5"]);
    }
}
