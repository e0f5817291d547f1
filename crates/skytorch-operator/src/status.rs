//! The status that follows from a verdict and from the status before: conditions whose transition time moves with
//! their status only, and a loss that keeps its cause until the Compute is ready again.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::crd::{Compute, ComputeStatus, StatusPort};
use crate::diagnosis::{container_id, loss, runs_since};
use crate::idle::is_same_use;
use crate::names::pod_name;
use crate::verdict::Verdict;
use crate::workload::PORTS;

/// Whether the Compute's pod is stopped because it is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Suspension {
    /// It is to run.
    #[default]
    No,
    /// Its pod is on its way out; for idleness or since the user said so.
    Stopping { idle: bool },
    /// Its pod is gone.
    Done { idle: bool },
}

/// What is known beside the verdict. `None`: what was known before still holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Host and port of the session.
    pub(crate) address: Option<String>,
    /// The container that is ready.
    pub(crate) container_id: Option<String>,
    /// The server's devices.
    pub(crate) devices: Option<Vec<String>>,
    /// How many clients are connected.
    pub(crate) sessions: Option<i32>,
    /// When the last one was.
    pub(crate) last_used: Option<Timestamp>,
    /// See [`Suspension`].
    pub(crate) suspension: Suspension,
}

/// A condition of the status.
pub(crate) fn condition<'a>(status: Option<&'a ComputeStatus>, kind: &str) -> Option<&'a Condition> {
    status?.conditions.iter().find(|condition| condition.type_ == kind)
}

/// Turns "it starts" into "it was lost", or into "it does not answer", where it was ready before and nobody wished for
/// a change. The cause of a loss stays until it is ready again or stands still. A pod can be back before anybody has
/// looked; that it has another container then is told as the loss that it was, and looked at again at once.
pub(crate) fn remember(compute: &Compute, verdict: Verdict, pod: Option<&Pod>) -> Verdict {
    let Some(before) = condition(compute.status.as_ref(), "Ready") else { return verdict };
    let known = ["Ready", "PodLost", "Unready"].contains(&before.reason.as_str());
    if !known || before.observed_generation != compute.metadata.generation {
        return verdict;
    }
    if verdict.ready
        && before.reason != "PodLost"
        && let (Some(pod), Some(seen)) =
            (pod, compute.status.as_ref().and_then(|status| status.container_id.as_deref()))
        && container_id(pod).is_some_and(|id| id != seen)
    {
        return Verdict::progressing("PodLost", loss(pod)).look_again(Duration::ZERO);
    }
    if verdict.reason != "Starting" {
        return verdict;
    }
    let name = pod_name(&compute.name_any());
    if before.reason == "PodLost" {
        return Verdict { reason: "PodLost".into(), message: before.message.clone(), ..verdict };
    }
    match pod {
        Some(pod) if runs_since(pod, before.last_transition_time.0) => {
            Verdict::progressing("Unready", format!("pod {name} runs and does not answer its health check"))
        }
        Some(pod) => Verdict { reason: "PodLost".into(), message: loss(pod), ..verdict },
        None => Verdict { reason: "PodLost".into(), message: format!("pod {name} is gone"), ..verdict },
    }
}

/// The next status.
pub(crate) fn next(compute: &Compute, verdict: &Verdict, facts: Facts, now: Timestamp) -> ComputeStatus {
    let before = compute.status.clone().unwrap_or_default();
    let name = compute.name_any();
    let (suspended, reason, message) = match facts.suspension {
        Suspension::No => (false, "NotSuspended", "the compute is to run"),
        Suspension::Stopping { idle } => (false, suspension_reason(idle), "the pod is stopping"),
        Suspension::Done { idle } => {
            (true, suspension_reason(idle), "the pod is stopped; volumes and address are kept")
        }
    };
    let conditions = [
        ("Ready", verdict.ready, verdict.reason.as_ref(), verdict.message.as_str()),
        ("Progressing", verdict.progressing, verdict.reason.as_ref(), verdict.message.as_str()),
        ("Suspended", suspended, reason, message),
    ];
    let conditions = conditions.map(|(kind, status, reason, message)| {
        let status = if status { "True" } else { "False" };
        let since = condition(compute.status.as_ref(), kind)
            .filter(|before| before.status == status)
            .map_or_else(|| seconds(now), |before| before.last_transition_time.clone());
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: since,
            observed_generation: compute.metadata.generation,
        }
    });
    let connected = |sessions: Option<i32>| sessions.is_some_and(|sessions| sessions > 0);
    let last_used = match (facts.last_used, before.last_used) {
        // While somebody is connected, what a server tells is a new time at each look.
        (Some(_), Some(known)) if connected(facts.sessions) && connected(before.sessions) => Some(known),
        (Some(told), Some(known)) if is_same_use(told, known.0) => Some(known),
        (Some(told), _) => Some(seconds(told)),
        (None, known) => known,
    };
    ComputeStatus {
        observed_generation: compute.metadata.generation,
        conditions: conditions.into(),
        address: facts.address.or(before.address),
        ports: PORTS.map(|(name, port)| StatusPort { name: name.to_owned(), port }).into(),
        pod_name: Some(pod_name(&name)),
        secret_name: Some(name),
        container_id: facts.container_id.or(before.container_id),
        devices: facts.devices.unwrap_or(before.devices),
        sessions: facts.sessions.or(before.sessions).or(Some(0)),
        last_used,
    }
}

/// The reason of a Compute that is suspended.
pub(crate) fn suspension_reason(idle: bool) -> &'static str {
    if idle { "Idle" } else { "Suspended" }
}

/// Times in a status have seconds.
fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::crd::ComputeSpec;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn compute(status: Option<ComputeStatus>) -> Compute {
        let mut compute = Compute::new("demo", ComputeSpec::default());
        compute.metadata.generation = Some(3);
        compute.status = status;
        compute
    }

    fn told(compute: &Compute, verdict: &Verdict, second: i64) -> ComputeStatus {
        next(compute, verdict, Facts::default(), at(second))
    }

    #[test]
    fn a_transition_time_moves_with_the_status_only() {
        let first = told(&compute(None), &Verdict::starting("a"), 0);
        let second = told(&compute(Some(first.clone())), &Verdict::stuck("ErrImagePull", "b"), 5);
        let of = |status: &ComputeStatus, kind: &str| {
            condition(Some(status), kind)
                .map(|condition| condition.last_transition_time.0.as_second() - 1_800_000_000)
        };
        assert_eq!((of(&second, "Ready"), of(&second, "Progressing")), (Some(0), Some(5)));
        let third = told(&compute(Some(second)), &Verdict::ready("c"), 9);
        assert_eq!((of(&third, "Ready"), of(&third, "Suspended")), (Some(9), Some(0)));
    }

    #[test]
    fn the_same_verdict_is_the_same_status() {
        let first = told(&compute(None), &Verdict::ready("a"), 0);
        assert_eq!(told(&compute(Some(first.clone())), &Verdict::ready("a"), 60), first);
    }

    #[test]
    fn the_time_of_use_stands_still_while_somebody_is_connected() {
        let facts = |sessions: i32, second: i64| Facts {
            sessions: Some(sessions),
            last_used: Some(at(second)),
            ..Facts::default()
        };
        let ready = Verdict::ready("a");
        let first = next(&compute(None), &ready, facts(1, 10), at(10));
        let second = next(&compute(Some(first.clone())), &ready, facts(1, 40), at(40));
        assert_eq!(first, second);
        let third = next(&compute(Some(second)), &ready, facts(0, 45), at(50));
        assert_eq!(third.last_used, Some(Time(at(45))));
    }

    #[test]
    fn the_same_use_is_the_same_status_whatever_its_fraction() {
        let facts = |ms: i64| Facts {
            sessions: Some(0),
            last_used: Timestamp::from_millisecond(1_800_000_000_000 + ms).ok(),
            ..Facts::default()
        };
        let ready = Verdict::ready("a");
        let first = next(&compute(None), &ready, facts(10_999), at(20));
        assert_eq!(first.last_used, Some(Time(at(10))));
        let compute = compute(Some(first.clone()));
        assert_eq!(next(&compute, &ready, facts(11_001), at(30)), first);
        assert_eq!(next(&compute, &ready, facts(15_001), at(30)).last_used, Some(Time(at(15))));
    }

    #[test]
    fn what_is_not_known_stays_as_it_was() {
        let facts = Facts { sessions: Some(1), last_used: Some(at(10)), ..Facts::default() };
        let first = next(&compute(None), &Verdict::ready("a"), facts, at(10));
        assert_eq!(told(&compute(Some(first.clone())), &Verdict::ready("a"), 60), first);
        let stopped = Facts { sessions: Some(0), ..Facts::default() };
        let stopped = next(&compute(Some(first.clone())), &Verdict::starting("a"), stopped, at(70));
        assert_eq!((stopped.sessions, stopped.last_used), (Some(0), first.last_used));
    }

    #[test]
    fn a_pod_that_was_ready_is_lost_and_keeps_its_cause() {
        let ready = compute(Some(told(&compute(None), &Verdict::ready("a"), 0)));
        let killed: Pod =
            serde_json::from_value(json!({"metadata": {"name": "demo-0"}, "status": {"containerStatuses": [{
                "name": "server", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
                "state": {"terminated": {"exitCode": 137, "reason": "Error"}},
            }]}}))
            .expect("a pod");
        let lost = remember(&ready, Verdict::starting("s"), Some(&killed));
        assert_eq!((lost.reason.as_ref(), lost.progressing), ("PodLost", true));
        assert_eq!(lost.message, "container server of pod demo-0 ended with exit code 137");
        let after = compute(Some(told(&ready, &lost, 5)));
        assert_eq!(remember(&after, Verdict::starting("another"), None), lost);
        assert_eq!(remember(&after, Verdict::stuck("ErrImagePull", "x"), None).reason, "ErrImagePull");
    }

    #[test]
    fn a_pod_that_is_back_before_anybody_looked_was_lost_all_the_same() {
        let pod = |container: &str, ended: &serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "demo-0"}, "status": {"containerStatuses": [{
                "name": "server", "image": "i", "imageID": "", "containerID": container, "ready": true,
                "restartCount": 1, "lastState": ended,
            }]}}))
            .expect("a pod")
        };
        let killed = json!({"terminated": {"exitCode": 137, "reason": "Error"}});
        let (ready, facts) = (Verdict::ready("a"), Facts { container_id: Some("c://1".into()), ..Facts::default() });
        let before = compute(Some(next(&compute(None), &ready, facts, at(0))));
        assert_eq!(remember(&before, ready.clone(), Some(&pod("c://1", &json!({})))), ready);
        let lost = remember(&before, ready.clone(), Some(&pod("c://2", &killed)));
        assert_eq!((lost.reason.as_ref(), lost.look_again), ("PodLost", Some(Duration::ZERO)));
        assert_eq!(lost.message, "container server of pod demo-0 ended with exit code 137");
        assert_eq!(remember(&before, ready.clone(), Some(&pod("c://3", &json!({})))).reason, "PodLost");
        let after = compute(Some(told(&before, &lost, 0)));
        assert_eq!(remember(&after, ready.clone(), Some(&pod("c://2", &killed))), ready);
    }

    #[test]
    fn a_pod_that_runs_on_is_unready_and_not_lost() {
        let ready = compute(Some(told(&compute(None), &Verdict::ready("a"), 0)));
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "demo-0"}, "status": {"containerStatuses": [{
                "name": "server", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"running": {"startedAt": at(-5).to_string()}},
            }]}}))
            .expect("a pod");
        assert_eq!(remember(&ready, Verdict::starting("s"), Some(&pod)).reason, "Unready");
    }

    #[test]
    fn a_changed_spec_starts_anew() {
        let mut ready = compute(Some(told(&compute(None), &Verdict::ready("a"), 0)));
        ready.metadata.generation = Some(4);
        assert_eq!(remember(&ready, Verdict::starting("s"), None).reason, "Starting");
    }
}
