//! The back end of Linkspan over RabbitMQ and other AMQP 0-9-1 brokers.
//!
//! However many clients there are, the broker sees a few connections: half of them for publishing, half for everything
//! else, because a broker that is short of memory holds whole connections that publish, settlements included.
//!
//! # A message's way out
//!
//! A lane's [`outlet`] copies a batch once and hands it to the task of a [`publisher`], which is shared by all lanes of a
//! connection until one publishes to an exchange that may be missing. The task translates ([`translate`], the firewall),
//! publishes with confirms and keeps the messages in their order until the broker has confirmed them: what was not
//! confirmed when a connection is lost is sent again. When the broker closes a shared channel the message that it closed
//! it for is found by halves, and refused.
//!
//! # A message's way in
//!
//! Topic filters of all clients share one queue of the broker's ([`watch`]); what it gets is published into an embedded
//! back end, which matches again and minds each client's window. Queues and shared subscriptions are consumed by the
//! lane itself ([`consumers`]), always with acknowledgement and a window. So is the [`inbox`] of a session that is kept: the
//! broker holds what its filters of QoS 1 and 2 match, as long as its client is away, or this process.
//!
//! A work queue whose route asks for more than the broker has, such as waits between attempts, has a [`desk`]: its messages
//! are borrowed from the broker, and worked here. So are those of a priority queue that has a queue at the broker for each of
//! its [`levels`]. So it is with any queue for those behind whose subscription several workers
//! stand, who come and go by the message.
//!
//! # After a loss
//!
//! The [`coordinator`] of each [`upstream`] connects again, declares what had perished ([`declared`]), and says so; each
//! channel's task opens its channel anew and goes on. No recovery of lapin's is used.
//!
//! # Rooms
//!
//! | file | noun |
//! | --- | --- |
//! | [`amqp`], [`options`], [`fleet`], [`mod@probe`] | the back end, what it is told, what its clients share, and a look at a broker |
//! | [`upstream`], [`coordinator`], [`reporter`], [`explain`] | connections to the broker |
//! | [`connection`], [`fate`], [`lane`] | a client's scope, its end, and its ways through |
//! | [`outlet`], [`goal`], [`repeats`], [`delay_queue`], [`origin`], [`gauge`], [`publisher`], [`retained`] | the way out |
//! | [`consumers`], [`desk`], [`group`], [`inbox`], [`watch`], [`queue_name`] | the way in |
//! | [`clerk`], [`queue_arguments`], [`work_queue`], [`levels`], [`declared`] | what clients and routes declare |
//! | [`translate`] | the contract's words and lapin's |
//! | [`mailbox`], [`now`], [`random`], [`mark`] | the way to a task; futures that are not waited for; names that nobody has; how far a channel is |

mod amqp;
mod clerk;
mod connection;
mod consumers;
mod coordinator;
mod declared;
mod delay_queue;
mod desk;
mod explain;
mod fate;
mod fleet;
mod gauge;
mod goal;
mod group;
mod inbox;
mod lane;
mod levels;
mod mailbox;
mod mark;
mod now;
mod options;
mod origin;
mod outlet;
pub mod probe;
mod publisher;
mod queue_arguments;
mod queue_name;
mod random;
mod repeats;
mod reporter;
mod retained;
mod translate;
mod upstream;
mod watch;
mod work_queue;

pub use amqp::{AmqpBackend, CAPABILITIES, OpenError};
pub use levels::are_apart;
pub use options::{AmqpOptions, Node, Tls, UrlError};
pub use probe::{Probe, ProbeError, probe};
