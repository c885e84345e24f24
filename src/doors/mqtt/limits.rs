//! What one client may ask for, and all of them together.

use std::num::NonZeroU16;
use std::time::Duration;

use crate::doors::outbound::Marks;

/// Bounds of the MQTT door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the largest packet taken from a client, its fixed header included [MQTT-3.2.2-15].
    pub packet: u32,
    /// Bytes of packets above [`LARGE`] that may be under way at once, all connections together; more wait.
    pub large_packets: u64,
    /// Messages of QoS 1 and 2 that a client may have unacknowledged (MQTT 5 §3.2.2.3.3).
    pub receive_maximum: NonZeroU16,
    /// Deliveries that a client may leave unacknowledged, unless it takes fewer itself.
    pub window: NonZeroU16,
    /// Topic aliases that a client may use (MQTT 5 §3.2.2.3.8).
    pub topic_aliases: u16,
    /// Longest keep-alive in seconds that an MQTT 5 client may choose (§3.2.2.3.14); 0: any, and none at all.
    pub keep_alive: u16,
    /// From the accepted connection to the complete CONNECT.
    pub connect_timeout: Duration,
    /// For what is unsent, and the farewell behind it, when a connection ends.
    pub farewell: Duration,
    /// Subscriptions of one connection.
    pub subscriptions: usize,
    /// Sessions that may outlive their connections, those that are connected among them.
    pub sessions: usize,
    /// The longest time in seconds that a session is kept without its client; `u32::MAX`: whatever the client asks for.
    pub session_expiry: u32,
    /// Levels of a topic filter.
    pub filter_levels: usize,
    /// When a client counts as congested, and as slow.
    pub marks: Marks,
}

impl Limits {
    /// Seconds for which a session is kept whose client asks for `seconds`.
    pub(super) fn kept_for(&self, seconds: u32) -> u32 {
        seconds.min(self.session_expiry)
    }
}

/// A packet of more bytes than this gets a buffer of its own instead of passing through the thread's.
pub(super) const LARGE: usize = 64 * 1024;

/// Bytes of the largest CONNECT: whoever sends it has not yet said who it is.
pub(super) const CONNECT: u32 = 512 * 1024;

impl Default for Limits {
    fn default() -> Self {
        let thousand = NonZeroU16::MIN.saturating_add(1023);
        Self {
            packet: 16 << 20,
            large_packets: 1 << 30,
            receive_maximum: thousand,
            window: thousand,
            topic_aliases: 32,
            keep_alive: 0,
            connect_timeout: Duration::from_secs(10),
            farewell: Duration::from_secs(2),
            subscriptions: 100_000,
            sessions: 100_000,
            session_expiry: 7 * 24 * 3600,
            filter_levels: 128,
            marks: Marks::default(),
        }
    }
}
