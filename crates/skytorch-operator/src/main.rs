//! `skytorch-operator`: keeps for each Compute resource a server running, reachable and safe. docs/operator.md says
//! what it does; [`reconcile`] does it.
#![forbid(unsafe_code)]
#![warn(clippy::pedantic)]

mod account;
mod applied;
mod apply;
mod args;
mod backoff;
mod certificate;
mod context;
mod controller;
mod crd;
mod crdgen;
mod diagnosis;
mod duration;
mod error;
mod events;
mod health;
mod idle;
mod leader;
mod ledger;
mod metrics;
mod names;
mod network;
mod override_merge;
mod queue;
mod reconcile;
mod refusal;
mod remains;
mod retirement;
mod run;
mod secret;
mod service;
mod status;
mod stop;
mod telling;
mod verdict;
mod volume;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Run(flags) => run::run(flags),
        Command::Crdgen => crdgen::yaml().map(|yaml| print!("{yaml}")).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skytorch-operator: {error}");
            ExitCode::FAILURE
        }
    }
}
