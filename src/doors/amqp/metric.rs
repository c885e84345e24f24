//! What this door counts.

use metrics::{Counter, Gauge, counter, gauge};

/// The door's handles, made once.
pub(super) struct Metrics {
    /// Open connections.
    pub(super) connections: Gauge,
    /// Open channels.
    pub(super) channels: Gauge,
    /// Messages published by clients.
    pub(super) published: Counter,
    /// Messages given to clients.
    pub(super) delivered: Counter,
    /// Mandatory messages that came back.
    pub(super) returned: Counter,
    /// Bytes read.
    pub(super) read: Counter,
}

impl Metrics {
    /// Handles of the recorder that is installed.
    pub(super) fn new() -> Self {
        Self {
            connections: gauge!("linkspan_connections", "door" => "amqp"),
            channels: gauge!("linkspan_amqp_channels"),
            published: counter!("linkspan_messages_in_total", "door" => "amqp"),
            delivered: counter!("linkspan_messages_out_total", "door" => "amqp"),
            returned: counter!("linkspan_amqp_messages_returned_total"),
            read: counter!("linkspan_bytes_in_total", "door" => "amqp"),
        }
    }

    /// A channel or connection was closed with `code`.
    pub(super) fn failed(code: u16) {
        counter!("linkspan_amqp_errors_total", "code" => code.to_string()).increment(1);
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}
