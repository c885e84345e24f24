//! A client's session at its back end, where that keeps sessions itself.

use crate::batch::Kept;

/// How a client wants its session (MQTT 5 §3.1.2.4, §3.1.2.11).
#[derive(Debug, Clone)]
pub struct SessionTerms {
    /// It is to be one at the broker, under the client's own identifier; else one of the back end's in this process, which
    /// [`Connection::attach`](crate::Connection::attach) takes up again.
    pub at_broker: bool,
    /// What was there of an earlier connection is forgotten.
    pub fresh: bool,
    /// Seconds that it is kept after the connection's end; [`FOREVER`] for as long as the back end likes, 0: not at all.
    pub keep: u32,
    /// Deliveries that the client may have unsettled.
    pub window: u16,
    /// What is published when the client vanishes.
    pub will: Option<Testament>,
}

/// A session that does not expire (MQTT 5 §3.1.2.11.2).
pub const FOREVER: u32 = u32::MAX;

/// What a client leaves behind when it goes without a good-bye.
#[derive(Debug, Clone)]
pub struct Testament {
    /// The message, its address among it.
    pub message: Kept,
    /// Seconds between the client's end and the message.
    pub delay: u32,
}

/// A session that a back end keeps for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionState {
    /// It is one of an earlier connection.
    pub resumed: bool,
    /// Seconds for which it is kept, as granted.
    pub keep: u32,
    /// The back end sees to the client's will; else, if there is one, it is the door's.
    pub will: bool,
}
