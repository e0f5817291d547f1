//! Reads a pod, and says whether it serves, is on its way, or stands still, with Kubernetes' own reason. Pure: what it
//! says follows from what it is given.
//!
//! Two states swing to and fro while nothing gets better: a pull between ErrImagePull and ImagePullBackOff, a crash
//! between running, terminated and CrashLoopBackOff. Each is told as one steady reason.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::names::CONTAINER;
use crate::verdict::Verdict;

/// As much of a log line as is told.
const LINE_LIMIT: usize = 400;

/// What a container waits for when nothing is wrong.
const HEALTHY_WAITS: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// How the pod does. `crashing`: the last verdict was a crash, which holds until the pod is ready.
pub(crate) fn diagnose(pod: &Pod, crashing: bool, now: Timestamp, scheduling_timeout: Duration) -> Verdict {
    let name = pod.name_any();
    if pod.metadata.deletion_timestamp.is_some() {
        return Verdict::starting(format!("pod {name} is stopping; another one follows"));
    }
    if condition(pod, "Ready").is_some_and(|ready| ready.status == "True") {
        return Verdict::ready(format!("pod {name} is ready"));
    }
    if let Some(unscheduled) = condition(pod, "PodScheduled").filter(|scheduled| scheduled.status == "False") {
        return scheduling(&name, unscheduled, now, scheduling_timeout);
    }
    if let Some(verdict) = containers(pod).find_map(|container| trouble(&name, container, crashing)) {
        return verdict;
    }
    if pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Failed")) {
        return Verdict::starting(format!("{}; another one follows", loss(pod)));
    }
    if server(pod).and_then(|container| container.state.as_ref()).is_some_and(|state| state.running.is_some()) {
        return Verdict::starting(format!("pod {name} runs and is not ready yet"));
    }
    Verdict::starting(format!("pod {name} is being started"))
}

/// Why the StatefulSet's controller could not make the pod.
pub(crate) fn refused(message: &str) -> Verdict {
    let cause = message.split_once("error: ").map_or(message, |(_, cause)| cause);
    let reason = if cause.contains("exceeded quota") || cause.contains("failed quota") {
        "QuotaExceeded"
    } else if cause.contains("already exists") {
        "Conflict"
    } else {
        "FailedCreate"
    };
    Verdict::stuck(reason, format!("the pod was refused: {cause}"))
}

/// Why a pod that served no longer does.
pub(crate) fn loss(pod: &Pod) -> String {
    let name = pod.name_any();
    if let Some(disruption) = condition(pod, "DisruptionTarget").filter(|disruption| disruption.status == "True") {
        let (reason, message) = (disruption.reason.as_deref(), disruption.message.as_deref());
        return format!("pod {name} was lost: {}: {}", reason.unwrap_or("disrupted"), message.unwrap_or_default());
    }
    let status = pod.status.as_ref();
    if let Some(reason) = status.and_then(|status| status.reason.as_deref()) {
        let message = status.and_then(|status| status.message.as_deref()).unwrap_or_default();
        return format!("pod {name} was lost: {reason}: {message}");
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return format!("pod {name} was deleted");
    }
    match server(pod).and_then(terminated) {
        Some(end) => ended(&name, CONTAINER, end),
        None => format!("pod {name} was lost and made anew"),
    }
}

/// The server's container of a pod: each start makes another one.
pub(crate) fn container_id(pod: &Pod) -> Option<&str> {
    server(pod)?.container_id.as_deref()
}

/// Whether the container that now runs did so before `then`. Times have seconds, so of a container that was started
/// and one that ended in that very second, the end counts.
pub(crate) fn runs_since(pod: &Pod, then: Timestamp) -> bool {
    let server = server(pod);
    let started = server.and_then(|container| container.state.as_ref()?.running.as_ref()?.started_at.as_ref());
    let ended = server.and_then(terminated).and_then(|end| end.finished_at.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && started.is_some_and(|started| started.0 <= then)
        && ended.is_none_or(|ended| ended.0 < then)
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    init.iter().chain(status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default())
}

fn server(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.iter().flatten().find(|container| container.name == CONTAINER)
}

fn scheduling(name: &str, unscheduled: &PodCondition, now: Timestamp, timeout: Duration) -> Verdict {
    let message = unscheduled.message.as_deref().unwrap_or("the scheduler says no more");
    if unscheduled.reason.as_deref() != Some("Unschedulable") {
        return Verdict::starting(format!("pod {name} is not scheduled yet: {message}"));
    }
    let told = format!("pod {name} cannot be scheduled: {message}");
    let waited = unscheduled
        .last_transition_time
        .as_ref()
        .map_or(Duration::ZERO, |since| Duration::try_from(now.duration_since(since.0)).unwrap_or(Duration::ZERO));
    match timeout.checked_sub(waited) {
        Some(left) if !left.is_zero() => Verdict::progressing("FailedScheduling", told).look_again(left),
        _ => Verdict::stuck("FailedScheduling", told),
    }
}

/// What keeps a container from running, if something does.
fn trouble(pod: &str, container: &ContainerStatus, crashing: bool) -> Option<Verdict> {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    let message = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
    match reason {
        "CrashLoopBackOff" => Some(crash(pod, container)),
        "ErrImagePull" | "ImagePullBackOff" => {
            let cause = message.split_once("ErrImagePull: ").map_or(message, |(_, cause)| cause);
            let image = &container.image;
            Some(Verdict::stuck("ErrImagePull", format!("image {image} of pod {pod} cannot be pulled: {cause}")))
        }
        "" if crashing && terminated(container).is_some() => Some(crash(pod, container)),
        reason if reason.is_empty() || HEALTHY_WAITS.contains(&reason) => None,
        reason => {
            let name = &container.name;
            Some(Verdict::stuck(reason.to_owned(), format!("container {name} of pod {pod} cannot start: {message}")))
        }
    }
}

fn crash(pod: &str, container: &ContainerStatus) -> Verdict {
    match terminated(container) {
        Some(end) if end.reason.as_deref() == Some("OOMKilled") => {
            Verdict::stuck("OOMKilled", ended(pod, &container.name, end))
        }
        Some(end) => Verdict::stuck("CrashLoopBackOff", ended(pod, &container.name, end)),
        None => Verdict::stuck("CrashLoopBackOff", format!("container {} of pod {pod} keeps ending", container.name)),
    }
}

/// The container's last end.
fn terminated(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let now = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    now.or_else(|| container.last_state.as_ref().and_then(|state| state.terminated.as_ref()))
}

fn ended(pod: &str, container: &str, end: &ContainerStateTerminated) -> String {
    let code = end.exit_code;
    if end.reason.as_deref() == Some("OOMKilled") {
        return format!(
            "container {container} of pod {pod} was killed for more memory than its limit (exit code {code})"
        );
    }
    match last_line(end.message.as_deref().unwrap_or_default()) {
        "" => format!("container {container} of pod {pod} ended with exit code {code}"),
        line => format!("container {container} of pod {pod} ended with exit code {code}: {line}"),
    }
}

fn last_line(log: &str) -> &str {
    let line = log.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.char_indices().nth(LINE_LIMIT).map_or(line, |(end, _)| &line[..end])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn now() -> Timestamp {
        "2026-01-01T00:01:00Z".parse().expect("a time")
    }

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "demo-0"}, "status": status})).expect("a pod")
    }

    fn container(state: &Value, last: &Value) -> Pod {
        pod(&json!({"containerStatuses": [
            {"name": "server", "image": "i:1", "state": state, "lastState": last, "ready": false, "restartCount": 1},
        ]}))
    }

    fn told(pod: &Pod, crashing: bool) -> (bool, bool, String, String) {
        let verdict = diagnose(pod, crashing, now(), TIMEOUT);
        (verdict.ready, verdict.progressing, verdict.reason.into_owned(), verdict.message)
    }

    #[test]
    fn a_pod_that_is_ready_is_ready() {
        let pod = pod(&json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        assert_eq!(told(&pod, true), (true, false, "Ready".into(), "pod demo-0 is ready".into()));
    }

    #[test]
    fn scheduling_fails_after_its_time() {
        let at = |since: &str| {
            pod(&json!({"conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.", "lastTransitionTime": since,
            }]}))
        };
        let early = diagnose(&at("2026-01-01T00:00:40Z"), false, now(), TIMEOUT);
        assert_eq!((early.progressing, early.look_again), (true, Some(Duration::from_secs(10))));
        let late = diagnose(&at("2026-01-01T00:00:20Z"), false, now(), TIMEOUT);
        assert_eq!((late.progressing, late.look_again), (false, None));
        assert_eq!(late.reason, "FailedScheduling");
        assert!(late.message.ends_with("2 Insufficient nvidia.com/gpu."), "{}", late.message);
    }

    #[test]
    fn a_pull_that_fails_is_told_in_one_way() {
        let first =
            container(&json!({"waiting": {"reason": "ErrImagePull", "message": "i:1: not found"}}), &json!({}));
        let then = container(
            &json!({"waiting": {
                "reason": "ImagePullBackOff",
                "message": "Back-off pulling image \"i:1\": ErrImagePull: i:1: not found",
            }}),
            &json!({}),
        );
        assert_eq!(told(&first, false), told(&then, false));
        assert_eq!(told(&first, false).2, "ErrImagePull");
    }

    #[test]
    fn a_crash_tells_exit_code_and_last_line_until_it_is_ready() {
        let end = json!({"terminated": {"exitCode": 3, "reason": "Error", "message": "a\nno such file\n\n"}});
        let waits = container(&json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}), &end);
        let runs = container(&json!({"running": {}}), &end);
        let message = "container server of pod demo-0 ended with exit code 3: no such file";
        assert_eq!(told(&waits, false), (false, false, "CrashLoopBackOff".into(), message.into()));
        assert_eq!(told(&runs, true), told(&waits, false));
        assert_eq!(told(&runs, false).2, "Starting");
    }

    #[test]
    fn out_of_memory_is_told() {
        let end = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let pod = container(&json!({"waiting": {"reason": "CrashLoopBackOff"}}), &end);
        let (_, progressing, reason, message) = told(&pod, false);
        assert_eq!((progressing, reason.as_str()), (false, "OOMKilled"));
        assert!(message.contains("exit code 137"), "{message}");
    }

    #[test]
    fn other_waits_are_told_as_they_are() {
        let pod = |reason: &str| container(&json!({"waiting": {"reason": reason, "message": "m"}}), &json!({}));
        for reason in ["CreateContainerConfigError", "InvalidImageName", "RunContainerError"] {
            assert_eq!(told(&pod(reason), false).2, reason);
        }
        assert_eq!(told(&pod("ContainerCreating"), false).2, "Starting");
    }

    #[test]
    fn a_pod_that_was_refused_tells_why() {
        let message =
            "create Pod demo-0 in StatefulSet demo failed error: pods \"demo-0\" is forbidden: exceeded quota: q";
        let verdict = refused(message);
        assert_eq!((verdict.reason.as_ref(), verdict.progressing), ("QuotaExceeded", false));
        assert_eq!(verdict.message, "the pod was refused: pods \"demo-0\" is forbidden: exceeded quota: q");
        assert_eq!(refused("violates PodSecurity").reason, "FailedCreate");
    }

    #[test]
    fn a_loss_names_its_cause() {
        let evicted = pod(&json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}));
        assert_eq!(loss(&evicted), "pod demo-0 was lost: Evicted: low on memory");
        let killed = container(&json!({"terminated": {"exitCode": 137, "reason": "Error"}}), &json!({}));
        assert_eq!(loss(&killed), "container server of pod demo-0 ended with exit code 137");
    }

    #[test]
    fn a_container_runs_since_it_was_started() {
        let pod = container(&json!({"running": {"startedAt": "2026-01-01T00:00:30Z"}}), &json!({}));
        assert!(runs_since(&pod, now()));
        assert!(!runs_since(&pod, "2026-01-01T00:00:29Z".parse().expect("a time")));
        let end = json!({"terminated": {"exitCode": 137, "finishedAt": "2026-01-01T00:00:30Z"}});
        let again = container(&json!({"running": {"startedAt": "2026-01-01T00:00:30Z"}}), &end);
        assert!(!runs_since(&again, "2026-01-01T00:00:30Z".parse().expect("a time")));
    }
}
