//! What Prometheus sees of the operator. docs/operator.md lists it.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::runtime::reflector::Store;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::crd::Compute;
use crate::error::Error;
use crate::status::condition;

/// The counters and gauges.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    seconds: Histogram,
    /// Writes at the API server, by kind.
    pub(crate) writes: IntCounterVec,
    /// Reads of single objects at the API server, by kind.
    pub(crate) reads: IntCounterVec,
    /// Interruptions of watches, by kind.
    pub(crate) watch_errors: IntCounterVec,
    /// Questions to pods, by result.
    pub(crate) polls: IntCounterVec,
    /// Idle Computes that were deleted or suspended.
    pub(crate) idle: IntCounterVec,
    /// 1 while this process leads.
    pub(crate) leader: IntGauge,
}

impl Metrics {
    /// All of them, at zero.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, label: &str| {
            let counter = IntCounterVec::new(Opts::new(format!("skytorch_operator_{name}"), help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let reconciles = counter("reconciles_total", "reconciles, by result", "result")?;
        let writes = counter("writes_total", "writes at the API server, by kind", "kind")?;
        let reads = counter("reads_total", "reads of single objects at the API server, by kind", "kind")?;
        let watch_errors = counter("watch_errors_total", "interruptions of watches, by kind", "kind")?;
        let polls = counter("polls_total", "questions to pods who is connected, by result", "result")?;
        let idle = counter("idle_total", "idle computes that were deleted or suspended, by action", "action")?;
        let seconds = Histogram::with_opts(
            HistogramOpts::new("skytorch_operator_reconcile_seconds", "how long a reconcile takes")
                .buckets(vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let leader = IntGauge::new("skytorch_operator_leader", "1 while this process leads")?;
        registry.register(Box::new(leader.clone()))?;
        Ok(Self { registry, reconciles, seconds, writes, reads, watch_errors, polls, idle, leader })
    }

    /// Also counts the Computes of a store by reason, at each look.
    pub(crate) fn count(&self, computes: Store<Compute>) -> Result<(), prometheus::Error> {
        let opts = Opts::new("skytorch_operator_computes", "computes, by the reason of their readiness");
        let gauge = IntGaugeVec::new(opts, &["reason"])?;
        self.registry.register(Box::new(Computes { computes, gauge }))
    }

    /// A reconcile has ended.
    pub(crate) fn reconciled<T>(&self, result: &Result<T, Error>, took: Duration) {
        let label = result.as_ref().map_or_else(Error::label, |_| "ok");
        self.reconciles.with_label_values(&[label]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|e| prometheus::Error::Msg(e.to_string()))
    }
}

/// The Computes by reason, counted when they are asked for.
struct Computes {
    computes: Store<Compute>,
    gauge: IntGaugeVec,
}

impl Collector for Computes {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut counts = BTreeMap::<String, i64>::new();
        for compute in self.computes.state() {
            let ready = condition(compute.status.as_ref(), "Ready");
            *counts.entry(ready.map_or_else(|| "New".to_owned(), |ready| ready.reason.clone())).or_default() += 1;
        }
        self.gauge.reset();
        for (reason, count) in counts {
            self.gauge.with_label_values(&[reason]).set(count);
        }
        self.gauge.collect()
    }
}
