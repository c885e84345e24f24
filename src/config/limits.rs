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
    /// Bytes ready in one embedded queue above which publishers wait, while its consumers make progress.
    #[serde(with = "size")]
    pub queue_high: u64,
    /// Bytes ready in one embedded queue beyond which nothing is taken: refused where the publisher waits for an
    /// acknowledgement, else dropped and counted.
    #[serde(with = "size")]
    pub queue_limit: u64,
    /// Bytes waiting for the window of one MQTT session above which publishers wait, while it makes progress.
    #[serde(with = "size")]
    pub session_high: u64,
    /// Bytes waiting for the window of one MQTT session; when more comes its connection is ended (MQTT 5: 0x97), and what
    /// waited is dropped and counted.
    #[serde(with = "size")]
    pub session_limit: u64,
    /// Bytes of a body from which on an embedded back end with a directory keeps it in its log by itself: it is written there
    /// while it comes in, and read from there while it goes out.
    #[serde(with = "size")]
    pub large_body: u64,
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
    /// Retained messages of one vhost; beyond, only addresses that have one already get a new one.
    pub retained: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_high: 8 << 20,
            queue_limit: 1 << 30,
            session_high: 1 << 20,
            session_limit: 16 << 20,
            large_body: 1 << 20,
            outbound_high: 1 << 20,
            outbound_low: 256 << 10,
            slow_after: Duration::from_secs(1),
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
        for (high, limit) in [("queue-high", "queue-limit"), ("session-high", "session-limit")] {
            let (high_value, limit_value) = match high {
                "queue-high" => (self.queue_high, self.queue_limit),
                _ => (self.session_high, self.session_limit),
            };
            if high_value >= limit_value {
                let key = if report.is_set(&at(high)) { at(high) } else { at(limit) };
                let (high_value, limit_value) = (size::show(high_value), size::show(limit_value));
                report.bad_value(
                    &key,
                    format!("{high} ({high_value}) has to be less than {limit} ({limit_value})"),
                );
            }
        }
        if !(64 << 10..=64 << 20).contains(&self.large_body) {
            let text = format!("{} is out of range; expected 64 KiB to 64 MiB", size::show(self.large_body));
            report.bad_value(&at("large-body"), text);
        }
        if self.slow_after.is_zero() {
            report.bad_value(
                &at("slow-after"),
                "0s would count every connection as slow; expected \"100ms\" or more",
            );
        }
    }
}
