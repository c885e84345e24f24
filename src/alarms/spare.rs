//! What of the resident memory is free, as it was found, and for how long that is taken for true.

use std::time::Duration;

use tokio::time::Instant;

/// What was found holds for so many times as long as finding it took: it runs through all that is free, and locks it
/// meanwhile.
const REST: u32 = 20;

/// Bytes that the allocator keeps for what comes next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spare {
    bytes: u64,
    /// Resident bytes when it was found.
    resident: u64,
    until: Instant,
}

impl Spare {
    /// What was found `now`, in that time, while so much was resident.
    pub(super) fn new(bytes: u64, resident: u64, took: Duration, now: Instant) -> Self {
        let rest = took.saturating_mul(REST);
        Self { bytes, resident, until: now.checked_add(rest).unwrap_or(now) }
    }

    /// Whether that still holds. When `more` is resident than then, what was free is used up.
    pub(super) fn holds(&self, resident: u64, more: u64, now: Instant) -> bool {
        now < self.until && resident <= self.resident.saturating_add(more)
    }

    /// Bytes of `resident` that are used.
    pub(super) fn used(&self, resident: u64) -> u64 {
        resident.saturating_sub(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_to_find_is_not_looked_for_again_soon_unless_memory_grows() {
        let now = Instant::now();
        let after = |millis| now + Duration::from_millis(millis);
        let spare = Spare::new(300, 1000, Duration::from_millis(100), now);
        assert_eq!((spare.used(1000), spare.used(100)), (700, 0));
        assert!(spare.holds(1000, 50, after(1999)) && !spare.holds(1000, 50, after(2000)));
        assert!(spare.holds(1050, 50, after(250)) && !spare.holds(1051, 50, after(250)));
        let quick = Spare::new(300, 1000, Duration::from_micros(100), now);
        assert!(!quick.holds(1000, 50, after(250)), "what is quick to find is found at each look");
    }
}
