//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::duration::parse;

/// Reconciles `SkyTorch` Computes.
#[derive(Parser, Debug)]
#[command(
    name = "skytorch-operator",
    version,
    about = "Reconciles SkyTorch Computes",
    disable_help_subcommand = true
)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Runs the operator until it is told to stop.
    Run(Run),
    /// Prints the definition of the Compute resource.
    Crdgen,
}

/// How to run.
#[derive(clap::Args, Debug)]
pub(crate) struct Run {
    /// Work only while holding the Lease `skytorch-operator`; of several operators one leads.
    #[arg(long)]
    pub(crate) leader_elect: bool,

    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "HOST:PORT")]
    pub(crate) metrics_address: SocketAddr,

    /// Reconcile the Computes of this namespace only.
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,

    /// The namespace that this operator runs in: there is the Lease, and from there pods let themselves be asked.
    /// Without it, the service account's or the kubeconfig's.
    #[arg(long, value_name = "NAME")]
    pub(crate) operator_namespace: Option<String>,

    /// How long a pod may be unschedulable before its Compute is told to wait in vain.
    #[arg(long, default_value = "30s", value_parser = parse, value_name = "DURATION")]
    pub(crate) scheduling_timeout: Duration,

    /// How long a server certificate lasts; it is renewed at two thirds of that.
    #[arg(long, default_value = "90d", value_parser = parse, value_name = "DURATION")]
    pub(crate) certificate_lifetime: Duration,

    /// How log lines look. What is logged, the variable `RUST_LOG` says.
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object for each line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(flags: &[&str]) -> Run {
        let args = Args::try_parse_from(["skytorch-operator", "run"].iter().chain(flags)).expect("flags");
        match args.command {
            Command::Run(run) => run,
            Command::Crdgen => panic!("run"),
        }
    }

    #[test]
    fn the_flags_have_defaults() {
        let run = run(&[]);
        assert_eq!(run.scheduling_timeout, Duration::from_secs(30));
        assert_eq!(run.certificate_lifetime, Duration::from_secs(90 * 86400));
        assert_eq!((run.leader_elect, run.log_format, run.namespace), (false, LogFormat::Text, None));
    }

    #[test]
    fn the_flags_are_read() {
        let run = run(&["--leader-elect", "--scheduling-timeout", "1s", "--log-format=json", "--namespace", "a"]);
        assert_eq!(run.scheduling_timeout, Duration::from_secs(1));
        assert_eq!((run.leader_elect, run.log_format, run.namespace.as_deref()), (true, LogFormat::Json, Some("a")));
    }
}
