//! What this door counts.

use metrics::{Counter, Gauge, counter, gauge};

/// The label of all that counts for this door.
const DOOR: &str = "amqp";

/// The door's handles, made once.
pub(super) struct Metrics {
    /// Open connections.
    pub(super) connections: Gauge,
    /// Open channels.
    pub(super) channels: Gauge,
    /// Connections ever accepted.
    pub(super) connected: Counter,
    /// Messages published by clients.
    pub(super) received: Counter,
    /// Bytes read.
    pub(super) received_bytes: Counter,
    /// Messages given to clients.
    pub(super) sent: Counter,
    /// Bytes of messages given to clients, as they go out.
    pub(super) sent_bytes: Counter,
    /// Mandatory messages that came back.
    pub(super) returned: Counter,
}

impl Metrics {
    /// Handles of the recorder that is installed.
    pub(super) fn new() -> Self {
        Self {
            connections: gauge!("linkspan_connections", "door" => DOOR),
            connected: counter!("linkspan_connections_total", "door" => DOOR),
            channels: gauge!("linkspan_amqp_channels"),
            received: counter!("linkspan_messages_in_total", "door" => DOOR),
            received_bytes: counter!("linkspan_bytes_in_total", "door" => DOOR),
            sent: counter!("linkspan_messages_out_total", "door" => DOOR),
            sent_bytes: counter!("linkspan_bytes_out_total", "door" => DOOR),
            returned: counter!("linkspan_amqp_messages_returned_total"),
        }
    }

    /// A channel or connection was closed with `code`.
    pub(super) fn failed(code: u16) {
        counter!("linkspan_protocol_errors_total", "door" => DOOR, "code" => code.to_string()).increment(1);
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}
