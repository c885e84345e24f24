//! What one thread did and got.

use crate::latency::Latency;
use crate::publisher::Confirms;
use crate::tally::Tally;

#[derive(Default)]
pub struct Results {
    pub tally: Tally,
    pub confirms: Confirms,
    /// Open loop: how late each message was sent.
    pub send_lag: Latency,
    pub published: u64,
    pub expected: u64,
    pub disconnects: u64,
}

impl Results {
    /// Forgets the latencies of the warm-up.
    pub fn forget_latencies(&mut self) {
        self.tally.latency.clear();
        self.confirms.latency.clear();
        self.send_lag.clear();
    }

    /// Deliveries and acknowledgements so far.
    pub fn handled(&self) -> u64 {
        self.tally.delivered + self.confirms.confirmed
    }
}
