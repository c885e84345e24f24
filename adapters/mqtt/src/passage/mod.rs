//! Clients that are passed through: each has a session of its own at the broker, with its own client identifier.
//!
//! So what is retained, the will, the session and what waits for it, and shared subscriptions are the broker's own. What the
//! client publishes to addresses goes up by its session; what the broker delivers comes down under one key, with the
//! broker's QoS, RETAIN and subscription identifiers, and is acknowledged up there when the client has acknowledged it.
//! Queues are the engine's here as for everybody.
//!
//! | file | noun |
//! | --- | --- |
//! | [`passage`] | one client's way: what its lane and its task share |
//! | [`questions`] | filters: what is subscribed to, and what the broker has not answered yet |
//! | [`inbox`] | what the broker delivered, and what of it the client has acknowledged |
//! | [`connection`] | the client's scope: from coming to going |
//! | [`coordinator`] | the task: connects again, passes on what comes, ends it |
//! | [`farewell`] | what is owed to the broker when a client has left |

pub(crate) mod connection;
pub(crate) mod coordinator;
pub(crate) mod farewell;
pub(crate) mod inbox;
#[allow(clippy::module_inception, reason = "the noun that the room is named for")]
pub(crate) mod passage;
pub(crate) mod questions;
