//! Sessions that speak the protocol correctly until they do not, against a server that runs: `make fuzz-sessions`.
//!
//! After each hostile session a well-behaved one must work. Whether the server lived, and what its sanitizers found, is
//! for `tests/fuzz/sessions.py`, which starts both. The variables are ADDRESS, TOKEN and OPERATORS (a file), and
//! SECONDS or SESSIONS, SEED and CASE as in `make fuzz`.

#[path = "../fuzz/mutate.rs"]
mod mutate;

mod crowd;
mod good;
mod hostile;
mod operators;
mod others;
mod raw;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use skytorch_wire::client::ConnectOptions;
use skytorch_wire::error::Code;
use skytorch_wire::net::Credential;

use mutate::Random;
use raw::Outgoing;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make fuzz-sessions`"))
}

/// How hostile sessions ended.
#[derive(Default)]
struct Ends {
    closed: u64,
    ended_by_server: u64,
    refused: u64,
    cut: u64,
}

/// One hostile session; an error is a failure of the server.
fn hostile(
    options: &ConnectOptions,
    random: &mut Random,
    operators: &[operators::Operator],
    ends: &mut Ends,
) -> Result<(), String> {
    let script = hostile::script(random, operators);
    let mut body = Outgoing::new(script.chunks.iter().cloned(), script.end);
    if random.below(200) == 0 {
        // A slow sender: a few bytes at a time.
        let whole: Vec<u8> = body.chunks.iter().flat_map(|chunk| chunk.to_vec()).take(400).collect();
        body.chunks = whole.chunks(16).map(|piece| piece.to_vec().into()).collect();
        body.pause = Some(Duration::from_millis(2));
    }
    // What may wait for ever, or never says that it is done, is hung up on.
    let unfinished = script.waits || script.end == raw::End::Stay || random.below(40) == 0;
    let patience = if unfinished { Duration::from_millis(random.below(30) as u64) } else { raw::PATIENCE };
    let answer = raw::call(options, raw::OPEN, None, body, patience).map_err(|e| e.to_string())?;
    match answer.goodbye() {
        Some(error) if error.code == Code::Ok => ends.closed += 1,
        Some(error) if error.code == Code::Internal => return Err(format!("an internal error: {error}")),
        Some(_) => ends.ended_by_server += 1,
        None if answer.refused.is_some() => ends.refused += 1,
        None => ends.cut += 1,
    }
    if unfinished && random.below(3) == 0 {
        // Take it up again, as its client would or as nobody would.
        let body = hostile::resumed(random, script.id, &script.chunks);
        raw::call(options, raw::OPEN, None, body, Duration::from_millis(20)).map_err(|e| e.to_string())?;
    }
    if random.below(12) == 0 {
        // A session that was not closed is still there, for a moment: its own ticket may be good.
        let kept = answer.goodbye().is_none() && answer.refused.is_none();
        return others::lane(options, random, script.id, kept);
    }
    Ok(())
}

fn main() -> ExitCode {
    let start = Instant::now();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
    let seed = number("SEED").unwrap_or(clock);
    let operators = operators::read(Path::new(&variable("OPERATORS")));
    let options = ConnectOptions {
        address: variable("ADDRESS"),
        token: Some(Credential::Given(variable("TOKEN").into_bytes())),
        ..Default::default()
    };
    println!("fuzz-sessions: SEED={seed}, {} operators", operators.len());

    let only = number("CASE");
    let sessions = only.map(|_| 1).or(number("SESSIONS"));
    let seconds = number("SECONDS").or(sessions.is_none().then_some(60));
    let until = seconds.map(|seconds| start + Duration::from_secs(seconds));
    if only.is_none()
        && let Err(what) = others::all(&options).and_then(|()| crowd::half_open(&options))
    {
        println!("FAILED {what}");
        return ExitCode::FAILURE;
    }
    let mut ends = Ends::default();
    let first = only.unwrap_or(0);
    let mut number = first;
    let mut slowest = Duration::ZERO;
    while sessions.is_none_or(|sessions| number - first < sessions)
        && until.is_none_or(|until| Instant::now() < until)
    {
        // The case is on record before it runs: what kills the server is the last one that was said.
        if let Ok(path) = std::env::var("LAST_CASE") {
            let _ = std::fs::write(path, format!("make fuzz-sessions SEED={seed} CASE={number}"));
        }
        let began = Instant::now();
        let mut random = Random::new(seed, number);
        let result = hostile(&options, &mut random, &operators, &mut ends).and_then(|()| good::session(&options));
        slowest = slowest.max(began.elapsed());
        if let Err(what) = result {
            println!("FAILED {what}\n  again: make fuzz-sessions SEED={seed} CASE={number}");
            return ExitCode::FAILURE;
        }
        number += 1;
    }
    let (n, took) = (number - first, start.elapsed().as_secs_f64());
    println!(
        "fuzz-sessions: {n} hostile sessions in {took:.0} s, each followed by a well-behaved one that worked; \
         {} closed, {} ended by the server, {} refused, {} cut off; the slowest pair took {:.1} s",
        ends.closed,
        ends.ended_by_server,
        ends.refused,
        ends.cut,
        slowest.as_secs_f64()
    );
    ExitCode::SUCCESS
}
