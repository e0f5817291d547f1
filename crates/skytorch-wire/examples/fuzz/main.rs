//! The mutation fuzzer of the decoders, on stable Rust: golden bytes, damaged at random, through the checks of
//! `skytorch_wire::fuzz`. It has no coverage feedback: it lives on the vectors, which hold every form of every value.
//!
//! `make fuzz SECONDS=60`, or `make fuzz MESSAGES=10000000`. Each case follows from the seed and its number alone, so a
//! failure is repeated with what it prints: `make fuzz SEED=... CASE=...`. A failure becomes a vector in `tests/vectors`.

#[path = "../../tests/counting_alloc_unsafe/mod.rs"]
mod counting_alloc_unsafe;
mod mutate;
mod seeds;
#[path = "../../tests/vector_files/mod.rs"]
#[allow(dead_code, reason = "the test of the vectors uses the rest")]
mod vector_files;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use skytorch_wire::fuzz::{TARGETS, most_bytes};

use counting_alloc_unsafe::peak_bytes_during;
use mutate::Random;

/// Stop after one of them.
struct Limits {
    until: Option<Instant>,
    messages: u64,
}

#[derive(Default)]
struct Counts {
    messages: AtomicU64,
    accepted: AtomicU64,
    failures: AtomicU64,
}

/// A number from the environment, which is where `make` puts it.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// The bytes of one case.
fn case(seeds: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
    mutate::damaged(seeds, &mut Random::new(seed, number))
}

/// Run one case; what went wrong.
fn check(target: usize, bytes: &[u8]) -> Result<bool, String> {
    let mut outcome = Ok(false);
    let peak = peak_bytes_during(|| {
        outcome = catch_unwind(AssertUnwindSafe(|| (TARGETS[target].check)(bytes)));
    });
    match outcome {
        Ok(accepted) if peak <= most_bytes(bytes.len()) => Ok(accepted),
        Ok(_) => Err(format!("{peak} bytes allocated for {} bytes", bytes.len())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or(panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default())
        }
    }
}

fn report(seed: u64, number: u64, bytes: &[u8], what: &str) {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = TARGETS[number as usize % TARGETS.len()].name;
    println!("\nFAILED {name}: {what}\n  again: make fuzz SEED={seed} CASE={number}\n  bytes {}", hex.join(" "));
}

fn main() -> ExitCode {
    let start = Instant::now();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
    let seed = number("SEED").unwrap_or(clock);
    let seeds: Vec<Vec<Vec<u8>>> = TARGETS.iter().map(|target| seeds::of(target.name)).collect();
    // The default hook would print every case that is tried again below.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(number) = number("CASE") {
        let target = number as usize % TARGETS.len();
        let bytes = case(&seeds[target], seed, number);
        match check(target, &bytes) {
            Ok(accepted) => println!("case {number} passes; accepted: {accepted}"),
            Err(what) => {
                report(seed, number, &bytes, &what);
                return ExitCode::FAILURE;
            }
        }
        return ExitCode::SUCCESS;
    }
    let messages = number("MESSAGES");
    let seconds = number("SECONDS").or(messages.is_none().then_some(60));
    let limits = Limits {
        until: seconds.map(|seconds| start + Duration::from_secs(seconds)),
        messages: messages.unwrap_or(u64::MAX),
    };
    let counts: Vec<Counts> = TARGETS.iter().map(|_| Counts::default()).collect();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| worker(seed, &seeds, &limits, &counts, &next, &stop));
        }
    });
    summary(seed, &counts, start.elapsed())
}

/// Takes numbers of cases, a thousand at a time, until a limit is met.
fn worker(
    seed: u64,
    seeds: &[Vec<Vec<u8>>],
    limits: &Limits,
    counts: &[Counts],
    next: &AtomicU64,
    stop: &AtomicBool,
) {
    const BLOCK: u64 = 1000;
    while !stop.load(Ordering::Relaxed) && limits.until.is_none_or(|until| Instant::now() < until) {
        let first = next.fetch_add(BLOCK, Ordering::Relaxed);
        for number in first..(first + BLOCK).min(limits.messages) {
            let target = number as usize % TARGETS.len();
            let bytes = case(&seeds[target], seed, number);
            let count = &counts[target];
            count.messages.fetch_add(1, Ordering::Relaxed);
            match check(target, &bytes) {
                Ok(accepted) => drop(count.accepted.fetch_add(accepted.into(), Ordering::Relaxed)),
                Err(what) => {
                    report(seed, number, &bytes, &what);
                    // Ten are enough to look at.
                    if count.failures.fetch_add(1, Ordering::Relaxed) == 9 {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
        if first.saturating_add(BLOCK) >= limits.messages {
            return;
        }
    }
}

fn summary(seed: u64, counts: &[Counts], took: Duration) -> ExitCode {
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!("{:<14} {:>12} {:>12} {:>8}", "decoder", "messages", "accepted", "failed");
    for (target, count) in TARGETS.iter().zip(counts) {
        let (messages, accepted, failures) = (get(&count.messages), get(&count.accepted), get(&count.failures));
        println!("{:<14} {messages:>12} {accepted:>12} {failures:>8}", target.name);
    }
    let messages: u64 = counts.iter().map(|count| get(&count.messages)).sum();
    let failures: u64 = counts.iter().map(|count| get(&count.failures)).sum();
    let rate = messages as f64 / took.as_secs_f64();
    println!(
        "fuzz: {messages} messages in {:.1} s ({rate:.0}/s), {failures} failures, SEED={seed}",
        took.as_secs_f64()
    );
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
