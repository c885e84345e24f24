//! `[limits]`: how much memory messages may take, and what a slow client costs others.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::key::KeyPath;
use super::report::Report;
use super::{duration, size};

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of messages that all embedded queues hold in memory together; above, publishers wait.
    #[serde(with = "size")]
    pub memory: u64,
    /// Bytes waiting for one connection's socket above which those who publish to it wait.
    #[serde(with = "size")]
    pub outbound_high: u64,
    /// Bytes waiting for that socket below which they go on.
    #[serde(with = "size")]
    pub outbound_low: u64,
    /// A connection above its mark whose socket took nothing for this long holds nobody any more: QoS 0 messages are
    /// dropped for it, others stay in its queue.
    #[serde(with = "duration")]
    pub slow_after: Duration,
    /// Messages that wait in the queue of one MQTT session; a session that exceeds it is disconnected (0x97).
    pub session_queue: NonZeroU32,
    /// Retained messages of one vhost; beyond, only addresses that have one already get a new one.
    pub retained: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 1 << 30,
            outbound_high: 1 << 20,
            outbound_low: 256 << 10,
            slow_after: Duration::from_secs(1),
            session_queue: NonZeroU32::MIN.saturating_add(99_999),
            retained: NonZeroU32::MIN.saturating_add(999_999),
        }
    }
}

impl Limits {
    pub(super) fn check(&self, report: &mut Report<'_>) {
        let at = |key: &str| KeyPath::of(["limits", key]);
        if self.outbound_low >= self.outbound_high {
            let (low, high) = (size::show(self.outbound_low), size::show(self.outbound_high));
            let key =
                if report.is_set(&at("outbound-low")) { at("outbound-low") } else { at("outbound-high") };
            report
                .bad_value(&key, format!("outbound-low ({low}) has to be less than outbound-high ({high})"));
        }
        if self.outbound_high < 16 << 10 {
            report.bad_value(&at("outbound-high"), "too small to carry messages; expected 16 KiB or more");
        }
        if self.memory < 1 << 20 {
            report.bad_value(&at("memory"), "too small to carry messages; expected 1 MiB or more");
        }
        if self.slow_after.is_zero() {
            report.bad_value(
                &at("slow-after"),
                "0s would count every connection as slow; expected \"100ms\" or more",
            );
        }
    }
}
