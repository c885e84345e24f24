//! What a back end says to a lane of its own accord.

use std::sync::Arc;

use crate::batch::Kept;

/// An event of one lane.
#[derive(Debug, Clone)]
pub enum LaneEvent {
    /// A mandatory message came back after [`publish`](crate::Lane::publish) had taken it (a remote back end; the
    /// embedded one answers at once).
    Returned {
        /// The message.
        message: Kept,
        /// AMQP's reply code.
        code: u16,
        /// AMQP's reply text.
        text: Arc<str>,
    },
    /// The lane is over: nothing that was not confirmed is safe.
    Closed {
        /// AMQP's reply code.
        code: u16,
        /// AMQP's reply text.
        text: Arc<str>,
    },
    /// The back end takes nothing more for now, and why.
    Blocked(Arc<str>),
    /// It does again.
    Unblocked,
    /// Another client has the session at the back end now (MQTT 5 0x8E): it is lost to this one.
    TakenOver,
    /// Routes were changed: the lane's task should call [`Lane::refresh`](crate::Lane::refresh).
    Changed,
}

/// The door's ear for [`LaneEvent`]s; called from any thread, never with a lock of the door's held by the caller.
pub trait LaneEvents: Send + Sync {
    /// Something happened.
    fn event(&self, event: LaneEvent);
}
