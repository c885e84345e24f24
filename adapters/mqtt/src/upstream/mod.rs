//! Linkspan's own sessions at the broker.
//!
//! | file | noun |
//! | --- | --- |
//! | [`connection`] | one MQTT connection: the only I/O |
//! | [`coordinator`] | the task of a session: connects, passes on what comes, tries again |
//! | [`session`] | what a session has to say, and what became of it |
//! | [`outbox`] | messages on their way to the broker, in order |
//! | [`cover`] | which filters are subscribed to, and which copy of a message counts |
//! | [`filter`] | what filters have in common |
//! | [`packet`] | what is said, in neither version's words |
//! | [`failure`], [`back_off`] | why there is no connection, and when to try again |
//! | [`tls`] | certificates |

pub(crate) mod back_off;
pub(crate) mod connection;
pub(crate) mod coordinator;
pub(crate) mod cover;
pub(crate) mod failure;
pub(crate) mod filter;
pub(crate) mod outbox;
pub(crate) mod packet;
pub(crate) mod session;
pub(crate) mod tls;
