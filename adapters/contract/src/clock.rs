//! What time it is, handed in.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub type Millis = u64;

/// Tells the time; tests hand in one that they set.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Millis;
}

/// The machine's clock as it was when first asked, and the time that has passed since: it never jumps. What waits for a
/// time is neither held for an hour nor over at once when somebody sets the machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

static BEGINNING: LazyLock<(Instant, Millis)> = LazyLock::new(|| {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (Instant::now(), u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
});

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        let (instant, since_1970) = *BEGINNING;
        since_1970.saturating_add(u64::try_from(instant.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_the_time_and_never_an_earlier_one() {
        let mut last = SystemClock.now();
        for _ in 0..1000 {
            let now = SystemClock.now();
            assert!(now >= last);
            last = now;
        }
        let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        assert!(u128::from(last).abs_diff(machine) < 60_000, "{last} is not near {machine}");
    }
}
