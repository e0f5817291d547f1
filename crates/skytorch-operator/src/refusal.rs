//! Which StatefulSets could not make their pod, and why. Kubernetes tells that in events only: a StatefulSet's status
//! is silent about it. The last event of a StatefulSet counts, a success among them, in the order of their versions.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use kube::runtime::watcher;
use parking_lot::Mutex;

use crate::ledger::version;

/// The events that are watched.
pub(crate) const FIELDS: &str = "involvedObject.kind=StatefulSet";

/// See the module.
#[derive(Default)]
pub(crate) struct Refusals {
    last: Mutex<HashMap<String, Told>>,
}

struct Told {
    event: String,
    version: u64,
    refused: Option<String>,
}

impl Refusals {
    /// Why the StatefulSet of this UID has no pod.
    pub(crate) fn of(&self, uid: &str) -> Option<String> {
        self.last.lock().get(uid)?.refused.clone()
    }

    /// Takes note of an event; returns whether it is about a StatefulSet's pod.
    pub(crate) fn saw(&self, event: &watcher::Event<Event>) -> bool {
        match event {
            watcher::Event::Apply(event) | watcher::Event::InitApply(event) => self.note(event),
            watcher::Event::Delete(event) => {
                // It has grown old. What it told has been told again, or is no longer so.
                let uid = event.involved_object.uid.clone().unwrap_or_default();
                let mut last = self.last.lock();
                if last.get(&uid).is_some_and(|told| told.event == event.name_any()) {
                    last.remove(&uid);
                }
                false
            }
            watcher::Event::Init | watcher::Event::InitDone => false,
        }
    }

    fn note(&self, event: &Event) -> bool {
        let refused = match event.reason.as_deref() {
            Some("FailedCreate") => Some(event.message.clone().unwrap_or_default()),
            Some("SuccessfulCreate" | "SuccessfulDelete") => None,
            _ => return false,
        };
        let uid = event.involved_object.uid.clone().unwrap_or_default();
        let told = Told { event: event.name_any(), version: version(event), refused };
        let mut last = self.last.lock();
        if last.get(&uid).is_some_and(|known| known.version >= told.version) {
            return false;
        }
        last.insert(uid, told);
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(name: &str, version: u64, reason: &str) -> Event {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "resourceVersion": version.to_string()},
            "involvedObject": {"kind": "StatefulSet", "name": "demo", "uid": "u"},
            "reason": reason, "message": format!("{reason} {version}"),
        }))
        .expect("an event")
    }

    #[test]
    fn the_last_event_counts_whatever_the_order_of_a_list() {
        let refusals = Refusals::default();
        assert!(refusals.saw(&watcher::Event::InitApply(event("b", 7, "SuccessfulCreate"))));
        assert!(!refusals.saw(&watcher::Event::InitApply(event("a", 5, "FailedCreate"))));
        assert_eq!(refusals.of("u"), None);
        assert!(refusals.saw(&watcher::Event::Apply(event("a", 9, "FailedCreate"))));
        assert_eq!(refusals.of("u").as_deref(), Some("FailedCreate 9"));
        assert!(refusals.saw(&watcher::Event::Apply(event("b", 11, "SuccessfulCreate"))));
        assert_eq!(refusals.of("u"), None);
    }

    #[test]
    fn an_event_that_grew_old_tells_nothing() {
        let refusals = Refusals::default();
        refusals.saw(&watcher::Event::Apply(event("a", 9, "FailedCreate")));
        refusals.saw(&watcher::Event::Delete(event("a", 12, "FailedCreate")));
        assert_eq!(refusals.of("u"), None);
    }
}
