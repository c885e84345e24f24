//! What the threads of a run tell each other.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

pub const SETUP: u32 = 0;
pub const RUN: u32 = 1;
pub const DRAIN: u32 = 2;
pub const QUIT: u32 = 3;

/// What a thread tells the others while it runs.
#[repr(align(128))]
#[derive(Default)]
pub struct Counters {
    pub published: AtomicU64,
    pub expected: AtomicU64,
    pub delivered: AtomicU64,
    pub confirmed: AtomicU64,
    pub pubs_busy: AtomicU64,
    pub last_rx: AtomicU64,
    pub last_tx: AtomicU64,
}

#[derive(Default)]
pub struct Shared {
    pub run: u16,
    pub phase: AtomicU32,
    pub t0: AtomicU64,
    pub warm_end: AtomicU64,
    pub t_end: AtomicU64,
    /// One for each thread.
    pub counters: Vec<Counters>,
    /// Expected deliveries of one message, by stream.
    pub fan: Vec<u32>,
    /// Most deliveries outstanding (0: no limit).
    pub max_lag: u64,
    pub written_off: AtomicU64,
    pub poll_us: u64,
    pub spin: bool,
    /// Bytes of a payload.
    pub payload: usize,
    pub errors: Mutex<Vec<String>>,
}

impl Shared {
    pub fn sum(&self, f: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters.iter().map(|c| f(c).load(Relaxed)).sum()
    }

    pub fn max(&self, f: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters.iter().map(|c| f(c).load(Relaxed)).max().unwrap_or(0)
    }

    /// Keeps what went wrong, up to 20 of them.
    pub fn error(&self, s: String) {
        let mut e = self.errors.lock().unwrap();
        if e.len() < 20 {
            e.push(s);
        }
    }

    pub fn failed(&self) -> bool {
        !self.errors.lock().unwrap().is_empty()
    }
}
