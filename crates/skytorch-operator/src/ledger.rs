//! What the cluster holds of one kind: a store that a watch fills, and above it what we wrote ourselves until the
//! watch has caught up with it. A reconcile therefore sees its own writes, and asks the API server nothing.
//!
//! Two versions of one object are told apart by resourceVersion, which Kubernetes promises to grow.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::runtime::reflector::{Lookup, ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;

/// For how long an own write is believed without the watch having shown it: it may have missed it between two lists.
const BELIEVED: Duration = Duration::from_secs(10);

type Key = (String, String);

/// See the module.
pub(crate) struct Ledger<K>
where
    K: Lookup<DynamicType = ()> + Clone + 'static,
{
    store: Store<K>,
    written: Mutex<HashMap<Key, (Instant, Arc<K>)>>,
}

impl<K> Ledger<K>
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + 'static,
{
    /// Above a store that a reflector fills.
    pub(crate) fn new(store: Store<K>) -> Self {
        Self { store, written: Mutex::default() }
    }

    /// The store below.
    pub(crate) fn store(&self) -> &Store<K> {
        &self.store
    }

    /// The newest version that is known.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let watched = self.store.get(&ObjectRef::new(name).within(namespace));
        let written = self.written.lock().get(&(namespace.to_owned(), name.to_owned())).cloned();
        match (watched, written) {
            (watched, Some((at, written))) if at.elapsed() < BELIEVED => {
                if watched.as_ref().is_some_and(|watched| version(&**watched) >= version(&*written)) {
                    watched
                } else {
                    Some(written)
                }
            }
            (watched, _) => watched,
        }
    }

    /// All that are known and wanted.
    pub(crate) fn all(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let mut found = self.store.state_filter(|object| wanted(object));
        let names: HashSet<Key> = found.iter().map(|object| key(&**object)).collect();
        let written = self.written.lock();
        let unseen = written
            .iter()
            .filter(|(key, (at, object))| at.elapsed() < BELIEVED && !names.contains(key) && wanted(object));
        found.extend(unseen.map(|(_, (_, object))| object.clone()));
        found
    }

    /// Keeps what a write returned.
    pub(crate) fn wrote(&self, object: K) -> Arc<K> {
        let object = Arc::new(object);
        self.written.lock().insert(key(&*object), (Instant::now(), object.clone()));
        object
    }

    /// Lets go of what the watch has shown, and of what it has shown to be gone.
    pub(crate) fn saw(&self, event: &Event<K>) {
        match event {
            Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => {
                let mut written = self.written.lock();
                let key = key(object);
                if written.get(&key).is_some_and(|(_, own)| version(&**own) <= version(object)) {
                    written.remove(&key);
                }
            }
            Event::Init => {}
            Event::InitDone => self.written.lock().retain(|_, (at, _)| at.elapsed() < BELIEVED),
        }
    }
}

fn key<K: ResourceExt>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The resourceVersion as a number.
pub(crate) fn version<K: ResourceExt>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::runtime::reflector::store;

    use super::*;

    fn service(version: &str) -> Service {
        let mut service = Service::default();
        service.metadata.name = Some("x".to_owned());
        service.metadata.namespace = Some("n".to_owned());
        service.metadata.resource_version = Some(version.to_owned());
        service
    }

    #[test]
    fn the_newer_of_watch_and_write_is_known() {
        let (reader, mut writer) = store::<Service>();
        let ledger = Ledger::new(reader);
        let mut watch = |event: Event<Service>| {
            writer.apply_watcher_event(&event);
            ledger.saw(&event);
        };
        let known = || ledger.get("n", "x").map(|service| version(&*service));
        assert_eq!(known(), None);
        ledger.wrote(service("9"));
        assert_eq!(known(), Some(9));
        watch(Event::Apply(service("8")));
        assert_eq!(known(), Some(9));
        watch(Event::Apply(service("10")));
        assert_eq!(known(), Some(10));
        ledger.wrote(service("11"));
        watch(Event::Delete(service("12")));
        assert_eq!(known(), None);
    }
}
