//! When to try again.

use std::time::Duration;

/// Waits that double, with jitter, from a shortest to a longest.
#[derive(Debug, Clone)]
pub(crate) struct BackOff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl BackOff {
    pub(crate) fn new((shortest, longest): (Duration, Duration)) -> Self {
        Self { shortest, longest, next: shortest }
    }

    /// The wait before the next attempt: between half of what is due and all of it. `random` is any number.
    pub(crate) fn wait(&mut self, random: u64) -> Duration {
        let due = self.next;
        self.next = due.saturating_mul(2).min(self.longest);
        let half = due / 2;
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
        half.saturating_add(Duration::from_micros(random % spread))
    }

    /// A connection lasted: the next wait is a short one again.
    pub(crate) fn reset(&mut self) {
        self.next = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread() {
        let millis = Duration::from_millis;
        let mut back_off = BackOff::new((millis(100), millis(500)));
        let bounds = [(50, 100), (100, 200), (200, 400), (250, 500), (250, 500)];
        for (at, (least, most)) in bounds.into_iter().enumerate() {
            let wait = back_off.wait(0x9e37_79b9 * (at as u64 + 1));
            assert!(millis(least) <= wait && wait <= millis(most), "{wait:?}");
        }
        back_off.reset();
        assert!(back_off.wait(7) <= millis(100));
    }
}
