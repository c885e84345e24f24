//! What this door bounds.

use std::time::Duration;

use crate::doors::outbound::Marks;

/// The bounds of the AMQP door. Each holds before memory is taken for what would break it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmqpLimits {
    /// Channels of a connection.
    pub channel_max: u16,
    /// Bytes of a frame.
    pub frame_max: u32,
    /// Seconds between heartbeats, as proposed to clients; 0 proposes none.
    pub heartbeat: u16,
    /// Bytes of a message's body.
    pub body_max: u64,
    /// Bytes of unfinished bodies of all connections together.
    pub bodies_max: u64,
    /// How long a client may take to open its connection.
    pub handshake: Duration,
    /// How long a client may take to answer when its connection is closed, and to take what it still gets.
    pub farewell: Duration,
    /// When a client counts as congested, and when as slow.
    pub marks: Marks,
}

impl Default for AmqpLimits {
    fn default() -> Self {
        Self {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 60,
            body_max: 16 * 1024 * 1024,
            bodies_max: 1024 * 1024 * 1024,
            handshake: Duration::from_secs(10),
            farewell: Duration::from_secs(3),
            marks: Marks::default(),
        }
    }
}
