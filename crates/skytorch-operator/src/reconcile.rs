//! One Compute, once: put its objects right, look at its pod, say in the status what is there (telling.rs), and act if
//! it is idle (retirement.rs).
//!
//! Everything is read from what watches have brought; where all is right, the API server is not asked at all. Called
//! for every change that may matter, so each call starts from what is, never from what the call was about.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use crate::context::Context;
use crate::crd::Compute;
use crate::diagnosis::{container_id, diagnose, refused};
use crate::error::Error;
use crate::idle::{Reading, Target};
use crate::names::{METRICS_PORT, SPEC_ANNOTATION, controller, pod_name};
use crate::status::{Facts, Suspension, condition, remember, suspension_reason};
use crate::verdict::Verdict;
use crate::workload::{spec_digest, stateful_set, to_json};
use crate::{account, duration, network, remains, secret, service, volume};

/// A reconcile that takes longer is given up and tried again.
const LIMIT: Duration = Duration::from_secs(30);
/// A name that was taken is asked for again this often.
const CONFLICT: Duration = Duration::from_secs(5);
/// Even if nothing happens, each Compute is looked at this often. It costs no request.
const RESYNC: Duration = Duration::from_secs(900);

/// Brings one Compute nearer to what it is to be.
pub(crate) async fn reconcile(compute: Arc<Compute>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let namespace = compute.namespace().unwrap_or_default();
    let compute = context.computes.get(&namespace, &compute.name_any()).unwrap_or(compute);
    let reconcile = Reconcile { context: &context, compute: &compute, namespace };
    let result = match tokio::time::timeout(LIMIT, reconcile.run()).await {
        Ok(result) => result,
        Err(_) => Err(Error::Late(LIMIT)),
    };
    context.metrics.reconciled(&result, started.elapsed());
    let uid = reconcile.uid();
    if context.is_gone(&compute) {
        // It was deleted in the middle, and what was made after that would be left.
        context.forget(&uid);
        remains::clear(context.clone(), uid).await;
        return Ok(Action::await_change());
    }
    if result.is_ok() {
        context.backoff.forget(&uid);
    }
    result
}

/// How long to wait after a failure.
#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
pub(crate) fn after_failure(compute: Arc<Compute>, error: &Error, context: Arc<Context>) -> Action {
    let mut delay = context.backoff.failed(&compute.uid().unwrap_or_default());
    if matches!(error, Error::Conflict { .. }) {
        // Nobody tells when somebody else's object goes.
        delay = delay.min(CONFLICT);
    }
    tracing::warn!(compute = %ObjectRef::from_obj(&*compute), %error, retry_in = ?delay, "a reconcile failed");
    Action::requeue(delay)
}

/// One Compute, as it was when this began.
pub(crate) struct Reconcile<'a> {
    pub(crate) context: &'a Context,
    pub(crate) compute: &'a Compute,
    pub(crate) namespace: String,
}

/// The owned objects that tell something.
struct Objects {
    service: Arc<Service>,
    set: Arc<StatefulSet>,
    renewal: SystemTime,
}

impl Reconcile<'_> {
    async fn run(&self) -> Result<Action, Error> {
        if self.compute.metadata.deletion_timestamp.is_some() {
            self.context.forget(&self.uid());
            return Ok(Action::await_change());
        }
        match self.objects().await {
            Ok(objects) => self.judge(&objects).await,
            Err(error) => {
                if let Some(verdict) = error.verdict(self.compute.spec.template.is_some()) {
                    self.context.idle.forget(&self.uid());
                    self.tell(self.compute, &verdict, None, Facts::default()).await?;
                }
                Err(error)
            }
        }
    }

    /// Puts everything that is owned right. The workload comes last: its pod needs the rest, but for the Service. Services
    /// an API server makes one at a time, each with an address; of many at once they take longest.
    async fn objects(&self) -> Result<Objects, Error> {
        let (context, compute) = (self.context, self.compute);
        let name = compute.name_any();
        let policy = to_json(&network::policy(compute, &context.settings.operator_namespace));
        let (accounts, services) =
            (context.shelf(&context.accounts, compute), context.shelf(&context.services, compute));
        let (policies, claims) = (context.shelf(&context.policies, compute), context.shelf(&context.claims, compute));
        let every_claim =
            compute.spec.volumes.iter().map(|wished| claims.ensure(to_json(&volume::claim(compute, wished))));
        let (service, _, _, _, renewal) = tokio::try_join!(
            services.stored(&name),
            accounts.ensure(to_json(&account::account(compute))),
            policies.ensure(policy),
            futures_util::future::try_join_all(every_claim),
            self.secrets(),
        )?;
        let set = stateful_set(compute)?;
        let sets = context.shelf(&context.sets, compute);
        let (service, set) =
            tokio::try_join!(services.put(service, to_json(&service::service(compute))), sets.ensure(set))?;
        Ok(Objects { service, set, renewal })
    }

    /// Both Secrets; returns when the certificate is to be renewed.
    async fn secrets(&self) -> Result<SystemTime, Error> {
        let (context, compute) = (self.context, self.compute);
        let secrets = context.shelf(&context.secrets, compute);
        let (now, lifetime) = (SystemTime::now(), context.settings.certificate_lifetime);
        let stored = secrets.stored(&crate::names::authority_name(&compute.name_any())).await?;
        let (authority, wished) = secret::authority(compute, stored.as_deref(), now, lifetime)?;
        secrets.put(stored, to_json(&wished)).await?;
        let stored = secrets.stored(&compute.name_any()).await?;
        let (wished, renewal) = secret::server(compute, stored.as_deref(), &authority, now, lifetime)?;
        secrets.put(stored, to_json(&wished)).await?;
        Ok(renewal)
    }

    /// Looks at the pod, and says and does what follows.
    async fn judge(&self, objects: &Objects) -> Result<Action, Error> {
        let now = Timestamp::now();
        let pod = self.pod(&objects.set);
        let verdict = if self.compute.spec.suspend {
            self.suspending(pod.as_deref())
        } else {
            self.running(pod.as_deref(), &objects.set, now).await?
        };
        let verdict = remember(self.compute, verdict, pod.as_deref());
        let target = if verdict.ready { pod.as_deref().and_then(|pod| self.target(pod, now)) } else { None };
        let reading = self.follow(target.as_ref());
        let facts = Facts {
            address: service::address(&objects.service),
            container_id: pod.as_deref().filter(|_| verdict.ready).and_then(container_id).map(str::to_owned),
            devices: reading.as_ref().map(|reading| reading.devices.clone()),
            sessions: reading.as_ref().map(|reading| reading.sessions).or((!verdict.ready).then_some(0)),
            last_used: reading.as_ref().map(|reading| reading.last_used),
            suspension: self.suspension(pod.as_deref()),
        };
        self.tell(self.compute, &verdict, pod.as_deref(), facts.clone()).await?;
        if let (Some(target), Some(reading)) = (target, reading)
            && reading.is_idle(&target, now)
        {
            self.retire(&target, pod.as_deref(), facts).await?;
        }
        let renewal = objects.renewal.duration_since(SystemTime::now()).unwrap_or_default();
        let wait = RESYNC.min(renewal).min(verdict.look_again.unwrap_or(RESYNC));
        Ok(Action::requeue(wait.max(Duration::from_millis(50))))
    }

    /// The StatefulSet's own pod.
    fn pod(&self, set: &StatefulSet) -> Option<Arc<Pod>> {
        let pod = self.context.pod(&self.namespace, &pod_name(&self.compute.name_any()))?;
        let owner = controller(&pod.metadata)?;
        (Some(&owner.uid) == set.metadata.uid.as_ref()).then_some(pod)
    }

    fn suspending(&self, pod: Option<&Pod>) -> Verdict {
        let reason = suspension_reason(self.was_idle());
        match pod {
            Some(pod) => Verdict::progressing(reason, format!("pod {} is stopping", pod.name_any())),
            None if reason == "Idle" => {
                Verdict::stuck(reason, "suspended, since nobody was connected: set spec.suspend to false to resume")
            }
            None => Verdict::stuck(reason, "suspended: set spec.suspend to false to resume"),
        }
    }

    async fn running(&self, pod: Option<&Pod>, set: &StatefulSet, now: Timestamp) -> Result<Verdict, Error> {
        // Before the workload's controller has seen the change it would make the old pod once more.
        let seen = set.status.as_ref().and_then(|status| status.observed_generation) >= set.metadata.generation;
        let Some(pod) = pod else {
            let refusal = set.metadata.uid.as_deref().and_then(|uid| self.context.refusals.of(uid));
            return Ok(match refusal {
                Some(message) if seen => refused(&message),
                _ => Verdict::starting(format!("pod {} is being started", pod_name(&self.compute.name_any()))),
            });
        };
        let digest = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(SPEC_ANNOTATION));
        if digest == Some(&spec_digest(self.compute)) {
            let before = condition(self.compute.status.as_ref(), "Ready")
                .filter(|before| before.observed_generation == self.compute.metadata.generation);
            let crashing =
                before.is_some_and(|before| ["CrashLoopBackOff", "OOMKilled"].contains(&before.reason.as_str()));
            return Ok(diagnose(pod, crashing, now, self.context.settings.scheduling_timeout));
        }
        if seen && pod.metadata.deletion_timestamp.is_none() {
            self.delete_pod(pod).await?;
        }
        Ok(Verdict::starting(format!("pod {} is replaced, since the spec has changed", pod.name_any())))
    }

    /// This very pod: one that has taken its name meanwhile is left alone.
    async fn delete_pod(&self, pod: &Pod) -> Result<(), Error> {
        let name = pod.name_any();
        let pods = Api::<Pod>::namespaced(self.context.client.clone(), &self.namespace);
        let same = Preconditions { uid: pod.uid(), resource_version: None };
        self.context.metrics.writes.with_label_values(&["Pod"]).inc();
        tracing::info!(name, "deleting the pod, since the spec has changed");
        match pods.delete(&name, &DeleteParams::background().preconditions(same)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(error) => Err(Error::api(format!("delete Pod {name}"))(error)),
        }
    }

    fn was_idle(&self) -> bool {
        condition(self.compute.status.as_ref(), "Suspended").is_some_and(|before| before.reason == "Idle")
    }

    fn suspension(&self, pod: Option<&Pod>) -> Suspension {
        let idle = self.was_idle();
        match (self.compute.spec.suspend, pod) {
            (false, _) => Suspension::No,
            (true, Some(_)) => Suspension::Stopping { idle },
            (true, None) => Suspension::Done { idle },
        }
    }

    /// Where and for what the pod is asked who is connected.
    fn target(&self, pod: &Pod, now: Timestamp) -> Option<Target> {
        let ip = pod.status.as_ref()?.pod_ip.as_ref()?.parse::<IpAddr>().ok()?;
        let since =
            condition(self.compute.status.as_ref(), "Ready").filter(|before| before.status == "True").map_or_else(
                || Timestamp::from_second(now.as_second()).ok(),
                |before| Some(before.last_transition_time.0),
            )?;
        Some(Target {
            address: (ip, u16::try_from(METRICS_PORT).ok()?).into(),
            pod_uid: pod.uid()?,
            // The schema lets no other in.
            timeout: duration::parse(&self.compute.spec.idle_timeout).ok()?,
            since,
        })
    }

    fn follow(&self, target: Option<&Target>) -> Option<Reading> {
        if let Some(target) = target {
            return self.context.idle.follow(&self.uid(), &ObjectRef::from_obj(self.compute), target);
        }
        self.context.idle.forget(&self.uid());
        None
    }

    /// The Computes of the namespace.
    pub(crate) fn api(&self) -> Api<Compute> {
        Api::namespaced(self.context.client.clone(), &self.namespace)
    }

    /// The Compute's.
    pub(crate) fn uid(&self) -> String {
        self.compute.uid().unwrap_or_default()
    }
}
