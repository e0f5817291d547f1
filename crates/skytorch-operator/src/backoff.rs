//! How long to wait after failures, for each Compute by itself: from a quarter of a second, twice as long each time,
//! up to two minutes, with a share of chance so that what failed together does not return together.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::rand;
use parking_lot::Mutex;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(120);

/// See the module.
#[derive(Default)]
pub(crate) struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// Counts a failure, and says how long to wait.
    pub(crate) fn failed(&self, uid: &str) -> Duration {
        let mut failures = self.failures.lock();
        let count = failures.entry(uid.to_owned()).or_default();
        *count += 1;
        let mut chance = [0_u8; 1];
        let _ = rand::fill(&mut chance);
        delay(*count, chance[0])
    }

    /// It went well, or it is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.failures.lock().remove(uid);
    }
}

/// Between three quarters and all of the time that this many failures are worth.
fn delay(failures: u32, chance: u8) -> Duration {
    let whole = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST);
    whole * 3 / 4 + whole / 4 * u32::from(chance) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_two_minutes() {
        let all = |failures| delay(failures, 255).as_millis();
        assert_eq!([all(1), all(2), all(3), all(9), all(10), all(99)], [250, 500, 1_000, 64_000, 120_000, 120_000]);
        assert_eq!(delay(1, 0).as_micros(), 187_500);
    }

    #[test]
    fn each_has_its_own_and_success_ends_it() {
        let backoff = Backoff::default();
        for _ in 0..6 {
            backoff.failed("a");
        }
        assert!(backoff.failed("b") <= FIRST);
        assert!(backoff.failed("a") > FIRST * 30);
        backoff.forget("a");
        assert!(backoff.failed("a") <= FIRST);
    }
}
