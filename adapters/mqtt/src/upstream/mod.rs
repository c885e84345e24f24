//! Linkspan's own sessions at the broker.
//!
//! | file | noun |
//! | --- | --- |
//! | [`connection`] | one MQTT connection: the only I/O |
//! | [`event`] | what happened on it, taken from either version's words |
//! | [`coordinator`] | the task of a session: connects, passes on what comes, tries again |
//! | [`session`] | what a session has to say, and what became of it |
//! | [`link`] | the connection that a session has, and what was asked on it about filters |
//! | [`outbox`] | messages on their way to the broker, in order |
//! | [`cover`], [`subscription`] | which filters are subscribed to, and which copy of a message counts |
//! | [`copies`] | what came by several filters |
//! | [`filter`] | what filters have in common |
//! | [`packet`] | what is said, in neither version's words |
//! | [`failure`], [`back_off`] | why there is no connection, and when to try again |
//! | [`tls`] | certificates |
//! | [`wish`], [`will`] | what a client subscribes to and leaves behind, in either version's words |

pub(crate) mod back_off;
pub(crate) mod connection;
pub(crate) mod coordinator;
pub(crate) mod copies;
pub(crate) mod cover;
pub(crate) mod event;
pub(crate) mod failure;
pub(crate) mod filter;
pub(crate) mod link;
pub(crate) mod outbox;
pub(crate) mod packet;
pub(crate) mod session;
pub(crate) mod subscription;
pub(crate) mod tls;
pub(crate) mod will;
pub(crate) mod wish;
