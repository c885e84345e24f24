//! Counters of this door, incremented per batch.

use metrics::{Counter, Gauge, counter, gauge};

use super::translate::delivery::Undeliverable;

const DOOR: &str = "mqtt";

/// Handles, so that nothing is looked up by name while messages pass.
pub(super) struct Counters {
    /// Clients that are connected.
    pub connections: Gauge,
    /// Clients that were.
    pub connected: Counter,
    /// Messages and bytes from clients.
    pub received: Counter,
    pub received_bytes: Counter,
    /// Sessions whose clients are away.
    pub sessions_kept: Gauge,
    /// Sessions that clients have come back to.
    pub sessions_resumed: Counter,
    /// Sessions that went from one connection to the next while the first was there.
    pub sessions_taken_over: Counter,
    /// Sessions whose time was over before their clients came back.
    pub sessions_expired: Counter,
    /// Sessions that ended while their clients were away because a subscription of theirs did.
    pub sessions_lost: Counter,
    /// Clients that were refused because as many sessions are kept as may be.
    pub sessions_refused: Counter,
    sent: Counter,
    sent_bytes: Counter,
    slow: Counter,
    too_large: Counter,
    expired: Counter,
    not_a_topic: Counter,
    malformed: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        let dropped = |reason: &'static str| counter!("linkspan_messages_dropped_total", "door" => DOOR, "reason" => reason);
        Self {
            connections: gauge!("linkspan_connections", "door" => DOOR),
            connected: counter!("linkspan_connections_total", "door" => DOOR),
            received: counter!("linkspan_messages_in_total", "door" => DOOR),
            received_bytes: counter!("linkspan_bytes_in_total", "door" => DOOR),
            sessions_kept: gauge!("linkspan_sessions_kept"),
            sessions_resumed: counter!("linkspan_sessions_resumed_total"),
            sessions_taken_over: counter!("linkspan_sessions_taken_over_total"),
            sessions_expired: counter!("linkspan_sessions_ended_total", "reason" => "expired"),
            sessions_lost: counter!("linkspan_sessions_ended_total", "reason" => "subscription-ended"),
            sessions_refused: counter!("linkspan_sessions_refused_total"),
            sent: counter!("linkspan_messages_out_total", "door" => DOOR),
            sent_bytes: counter!("linkspan_bytes_out_total", "door" => DOOR),
            slow: dropped("slow-client"),
            too_large: dropped("larger-than-client-takes"),
            expired: dropped("expired"),
            not_a_topic: dropped("address-not-mqtt"),
            malformed: dropped("malformed-properties"),
        }
    }
}

impl Counters {
    /// Counts what one call of a sink came to.
    #[inline]
    pub(super) fn count(&self, tally: &Tally) {
        self.sent.increment(tally.sent);
        self.sent_bytes.increment(tally.bytes);
        if tally.slow > 0 {
            self.slow.increment(tally.slow);
        }
        for why in &tally.dropped {
            match why {
                Undeliverable::TooLarge => &self.too_large,
                Undeliverable::Expired => &self.expired,
                Undeliverable::NotATopic => &self.not_a_topic,
                Undeliverable::Malformed => &self.malformed,
            }
            .increment(1);
        }
    }

    /// Counts a violation of the standard, by the reason code that answers it.
    pub(super) fn protocol_error(code: u8) {
        counter!("linkspan_protocol_errors_total", "door" => DOOR, "code" => format!("{code:#04x}"))
            .increment(1);
    }

    /// Counts a client that was not let in.
    pub(super) fn refused(code: u8) {
        counter!("linkspan_clients_refused_total", "door" => DOOR, "code" => format!("{code:#04x}"))
            .increment(1);
    }
}

/// What one call of a sink came to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Messages sent.
    pub sent: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Messages of QoS 0 that were not sent to a client that takes nothing.
    pub slow: u64,
    dropped: Vec<Undeliverable>,
}

impl Tally {
    /// A message was not sent.
    pub(super) fn dropped(&mut self, why: Undeliverable) {
        self.dropped.push(why);
    }
}
