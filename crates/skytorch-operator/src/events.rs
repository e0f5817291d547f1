//! Kubernetes Events about a Compute: one for each transition of its readiness, whose reason is the condition's. They
//! name the pod as the related object, so that what happens to another pod is another event and no repetition.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Resource, ResourceExt};

use crate::crd::Compute;
use crate::metrics::Metrics;
use crate::verdict::Verdict;

/// Longest note of an event.
const NOTE_LIMIT: usize = 1000;

/// Reasons of a progress that nobody wished for.
const ALARMING: [&str; 3] = ["PodLost", "Unready", "FailedScheduling"];

/// Tells a transition. An event that is not taken is lost; the condition tells the same.
pub(crate) async fn tell(
    recorder: &Recorder,
    metrics: &Metrics,
    compute: &Compute,
    pod: Option<&Pod>,
    verdict: &Verdict,
    expected: bool,
) {
    let alarming = !verdict.ready && (!verdict.progressing || ALARMING.contains(&verdict.reason.as_ref()));
    let event = Event {
        type_: if alarming && !expected { EventType::Warning } else { EventType::Normal },
        reason: verdict.reason.to_string(),
        note: Some(shortened(&verdict.message)),
        action: "Reconcile".to_owned(),
        secondary: pod.map(related),
    };
    metrics.writes.with_label_values(&["Event"]).inc();
    if let Err(error) = recorder.publish(&event, &compute.object_ref(&())).await {
        tracing::warn!(%error, reason = event.reason, "cannot report an event");
    }
}

fn related(pod: &Pod) -> ObjectReference {
    ObjectReference { resource_version: None, uid: pod.uid(), ..pod.object_ref(&()) }
}

fn shortened(note: &str) -> String {
    note.char_indices().nth(NOTE_LIMIT).map_or(note, |(end, _)| &note[..end]).to_owned()
}
