//! The process: logs, signals, the port for health, the lead, and the controller in the middle. SIGTERM and Ctrl-C let
//! what is being reconciled end and give up the lead; an operator that loses the lead ends with an error.

use std::error::Error;
use std::pin::pin;

use kube::Client;
use tracing_subscriber::EnvFilter;

use crate::args::{LogFormat, Run};
use crate::context::Settings;
use crate::controller;
use crate::health::{self, Readiness};
use crate::leader::Leader;
use crate::metrics::Metrics;
use crate::stop::Stop;

/// Runs the operator until it is told to stop.
pub(crate) fn run(flags: Run) -> Result<(), Box<dyn Error>> {
    log(flags.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(flags));
    // Watches and readings have nothing left to say.
    runtime.shutdown_background();
    result
}

async fn serve(flags: Run) -> Result<(), Box<dyn Error>> {
    let stop = Stop::on_signal()?;
    let client = Client::try_default().await?;
    let operator_namespace = flags.operator_namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let metrics = Metrics::new()?;
    let readiness = Readiness::waiting("the start");
    let address = health::serve(flags.metrics_address, metrics.clone(), readiness.clone()).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, namespace = flags.namespace, "the operator starts");

    let leader = Leader::new(client.clone(), &operator_namespace, identity());
    if flags.leader_elect {
        readiness.ready();
        tokio::select! {
            () = leader.lead() => tracing::info!("this operator leads"),
            () = stop.wait() => return Ok(()),
        }
    }
    metrics.leader.set(1);
    let settings = Settings {
        scheduling_timeout: flags.scheduling_timeout,
        certificate_lifetime: flags.certificate_lifetime,
        operator_namespace,
    };
    let lead = async { if flags.leader_elect { leader.keep().await } else { std::future::pending().await } };
    let work = pin!(controller::run(client, flags.namespace, settings, metrics, readiness, &stop));
    tokio::select! {
        result = work => result?,
        () = lead => return Err("the lead is lost".into()),
    }
    if flags.leader_elect {
        leader.release().await;
    }
    tracing::info!("the operator has stopped");
    Ok(())
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().init(),
    }
}

/// Of two operators on one host, each has its own.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned());
    format!("{host}_{}_{:x}", std::process::id(), k8s_openapi::jiff::Timestamp::now().as_microsecond())
}
