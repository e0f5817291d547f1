//! Wires the watches to the queue and the queue to the reconcile. Each kind is watched once, ours by label, whatever
//! the number of Computes; a change of an object queues the Compute that owns it.

use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::runtime::WatchStreamExt;
use kube::runtime::controller::{Config as Concurrency, Error as ControllerError, applier};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::utils::ResetTimerBackoff;
use kube::runtime::watcher::{self, Event as Watched, ExponentialBackoff, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use crate::apply::Owned;
use crate::backoff::Backoff;
use crate::context::{Context, Settings};
use crate::crd::Compute;
use crate::health::Readiness;
use crate::idle::Idle;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::names::{MANAGED_SELECTOR, MANAGER, controller};
use crate::queue::{self, Queue};
use crate::reconcile::{after_failure, reconcile};
use crate::refusal::{FIELDS, Refusals};
use crate::remains;
use crate::stop::Stop;

/// So many Computes are worked on at once. Each holds a few connections; who waits does so for milliseconds.
const CONCURRENCY: u16 = 32;
/// An interrupted watch begins again after so long, then twice as long each time, and up to as much again by chance.
const FIRST_WAIT: Duration = Duration::from_millis(400);
/// Less than kube's 30 s: what is not seen is not done, and nine watches of one operator are no burden.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// What is being reconciled when the operator is to stop has this long to end. A request that nobody answers must not
/// keep the lead until the kubelet kills (30 s); what is cut short, the next operator sees and finishes.
const GRACE: Duration = Duration::from_secs(5);

/// Runs until `stop`, and ends when what was begun has ended, or after [`GRACE`].
pub(crate) async fn run(
    client: Client,
    namespace: Option<String>,
    settings: Settings,
    metrics: Metrics,
    readiness: Readiness,
    stop: &Stop,
) -> Result<(), prometheus::Error> {
    let (queue, queued) = Queue::new();
    let (computes, writer) = store::<Compute>();
    metrics.count(computes.clone())?;
    let mut watches =
        Watches { client, namespace, queue, metrics, computes: computes.clone(), tasks: JoinSet::new() };
    let context = watches.context(settings);
    watches.computes(writer, &context);
    watches.refusals(&context);
    tokio::select! {
        () = seen(&context, &readiness) => {}
        () = stop.wait() => return Ok(()),
    }
    tracing::info!(computes = computes.len(), "all is seen: reconciling");
    readiness.ready();
    tokio::spawn(remains::sweep(context.clone()));
    work(context, queued, stop).await;
    Ok(())
}

/// The watches, one task for each kind, until this is dropped.
struct Watches {
    client: Client,
    namespace: Option<String>,
    queue: Queue,
    metrics: Metrics,
    computes: Store<Compute>,
    tasks: JoinSet<()>,
}

impl Watches {
    fn context(&mut self, settings: Settings) -> Arc<Context> {
        let (pods, writer) = store::<Pod>();
        // What a pod's managed fields say, nobody asks; they are half of it.
        let slim = self.watched(ours()).modify(|pod: &mut Pod| pod.managed_fields_mut().clear());
        self.follow(slim.reflect(writer), |_| {});
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: std::env::var("HOSTNAME").ok() };
        Arc::new(Context {
            settings,
            recorder: Recorder::new(self.client.clone(), reporter),
            backoff: Backoff::default(),
            idle: Idle::new(self.queue.clone(), self.metrics.polls.clone()),
            computes: Ledger::new(self.computes.clone()),
            sets: self.owned(),
            services: self.owned(),
            secrets: self.owned(),
            claims: self.owned(),
            accounts: self.owned(),
            policies: self.owned(),
            pods,
            refusals: Refusals::default(),
            client: self.client.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// A kind whose objects the operator makes.
    fn owned<K: Owned>(&mut self) -> Arc<Ledger<K>> {
        let (reader, writer) = store();
        let ledger = Arc::new(Ledger::new(reader));
        let known = ledger.clone();
        self.follow(self.watched::<K>(ours()).reflect(writer), move |event| known.saw(event));
        ledger
    }

    /// The Computes themselves.
    fn computes(&mut self, writer: Writer<Compute>, context: &Arc<Context>) {
        let (queue, context) = (self.queue.clone(), context.clone());
        let stream = self.watched::<Compute>(watcher::Config::default()).reflect(writer);
        self.spawn(stream, move |event| {
            context.computes.saw(event);
            match event {
                Watched::Apply(compute) | Watched::InitApply(compute) => queue.push(ObjectRef::from_obj(compute)),
                Watched::Delete(compute) => {
                    let uid = compute.uid().unwrap_or_default();
                    context.forget(&uid);
                    if remains::are_ours(compute) {
                        tokio::spawn(remains::clear(context.clone(), uid));
                    }
                }
                Watched::Init => {}
                Watched::InitDone => {
                    let known: HashSet<_> = context.computes.store().state().iter().filter_map(|c| c.uid()).collect();
                    context.idle.retain(|uid| known.contains(uid));
                }
            }
        });
    }

    /// What the workload's controller says about pods that it could not make.
    fn refusals(&mut self, context: &Arc<Context>) {
        let (queue, context) = (self.queue.clone(), context.clone());
        let stream = self.watched::<Event>(watcher::Config::default().fields(FIELDS));
        self.spawn(stream, move |event| {
            if let (true, Some(told)) = (context.refusals.saw(event), object(event)) {
                let about = &told.involved_object;
                queue.push_name(
                    about.namespace.as_deref().unwrap_or_default(),
                    about.name.as_deref().unwrap_or_default(),
                );
            }
        });
    }

    fn watched<K: Owned>(&self, config: watcher::Config) -> impl Stream<Item = watcher::Result<Watched<K>>> + use<K> {
        let api = match &self.namespace {
            Some(namespace) => Api::<K>::namespaced(self.client.clone(), namespace),
            None => Api::<K>::all(self.client.clone()),
        };
        watcher(api, config).backoff(watch_backoff())
    }

    /// Queues the Compute of each object that changes. After an interruption each Compute, since a deletion may have
    /// been missed.
    fn follow<K: Owned>(
        &mut self,
        stream: impl Stream<Item = watcher::Result<Watched<K>>> + Send + 'static,
        note: impl Fn(&Watched<K>) + Send + 'static,
    ) {
        let (queue, computes) = (self.queue.clone(), self.computes.clone());
        self.spawn(stream, move |event| {
            note(event);
            if let Some(object) = object(event) {
                // A Compute's, or for a pod a StatefulSet's, which has the same name. Labels can be changed by anybody.
                if let Some(owner) = controller(object.meta()) {
                    queue.push_name(&object.namespace().unwrap_or_default(), &owner.name);
                }
            } else if matches!(event, Watched::InitDone) {
                for compute in computes.state() {
                    queue.push(ObjectRef::from_obj(&*compute));
                }
            }
        });
    }

    fn spawn<K: Owned>(
        &mut self,
        stream: impl Stream<Item = watcher::Result<Watched<K>>> + Send + 'static,
        note: impl Fn(&Watched<K>) + Send + 'static,
    ) {
        let metrics = self.metrics.clone();
        self.tasks.spawn(async move {
            let mut stream = pin!(stream);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(event) => note(&event),
                    Err(error) => {
                        let kind = K::kind(&());
                        metrics.watch_errors.with_label_values(&[&kind]).inc();
                        tracing::warn!(%kind, %error, "a watch was interrupted");
                    }
                }
            }
        });
    }
}

/// How long a watch that was interrupted waits before it begins again. The waits grow until none was needed for a while:
/// a watch that is refused begins well each time.
fn watch_backoff() -> ResetTimerBackoff<ExponentialBackoff> {
    let waits = ExponentialBuilder::default().with_min_delay(FIRST_WAIT).with_max_delay(LONGEST_WAIT);
    let waits = waits.with_factor(2.0).with_jitter().without_max_times();
    ResetTimerBackoff::new(waits.into(), 10 * LONGEST_WAIT)
}

/// What the operator has made.
fn ours() -> watcher::Config {
    watcher::Config::default().labels(MANAGED_SELECTOR)
}

/// The object that an event is about.
fn object<K>(event: &Watched<K>) -> Option<&K> {
    match event {
        Watched::Apply(object) | Watched::InitApply(object) | Watched::Delete(object) => Some(object),
        Watched::Init | Watched::InitDone => None,
    }
}

/// Takes names from the queue until it is to stop; then lets what runs end, for a while.
async fn work(context: Arc<Context>, queued: UnboundedReceiver<ObjectRef<Compute>>, stop: &Stop) {
    let computes = context.computes.store().clone();
    let names = queue::stream(queued).take_until(Box::pin(stop.wait())).map(Ok::<_, Infallible>);
    let reconciler = |compute, context| Box::pin(reconcile(compute, context));
    let concurrency = Concurrency::default().concurrency(CONCURRENCY);
    let worked = applier(reconciler, after_failure, context, computes, names, concurrency).for_each(|result| {
        match result {
            // It was deleted while it waited; a failure is told by `after_failure`.
            Ok(_) | Err(ControllerError::ObjectNotFound(_) | ControllerError::ReconcilerFailed(..)) => {}
            Err(error) => tracing::error!(%error, "the queue broke"),
        }
        std::future::ready(())
    });
    let out_of_time = async {
        stop.wait().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = worked => {}
        () = out_of_time => tracing::warn!("a reconcile did not end within {} s and is cut short", GRACE.as_secs()),
    }
}

/// Waits until every kind was listed once, and says which one was not.
async fn seen(context: &Context, readiness: &Readiness) {
    async fn listed<K: Resource<DynamicType = ()> + Clone + 'static>(store: &Store<K>, readiness: &Readiness) {
        readiness.wait_for(&format!("the list of {}", K::plural(&())));
        // It ends with its watch, which never ends.
        let _ = store.wait_until_ready().await;
    }
    listed(context.computes.store(), readiness).await;
    listed(context.sets.store(), readiness).await;
    listed(context.services.store(), readiness).await;
    listed(context.secrets.store(), readiness).await;
    listed(context.claims.store(), readiness).await;
    listed(context.accounts.store(), readiness).await;
    listed(context.policies.store(), readiness).await;
    listed(&context.pods, readiness).await;
}
