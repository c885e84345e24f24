//! Random moments, which a failed run names so that it can be had again.

use std::time::Duration;

/// A generator (xorshift).
pub struct Random(u64);

impl Random {
    /// By the clock, or by `LINKSPAN_TEST_SEED`.
    pub fn seeded() -> Self {
        let given = std::env::var("LINKSPAN_TEST_SEED").ok().map(|seed| seed.parse().expect("a number"));
        let now = || std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_micros() as u64;
        let seed = given.unwrap_or_else(now);
        eprintln!("LINKSPAN_TEST_SEED={seed}");
        Self(seed | 1)
    }

    /// So many milliseconds.
    pub fn between(&mut self, least: u64, most: u64) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(least + self.0 % (most - least))
    }
}
