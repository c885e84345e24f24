//! Random numbers that come again with their seed.

use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by who throws it.
#[derive(Debug)]
pub struct Dice(AtomicU64);

impl Dice {
    /// One that falls as `seed` has it.
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A number below `limit` (SplitMix64).
    pub fn below(&self, limit: u64) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
