//! Where a message goes.

use std::sync::Arc;

use crate::address::Syntax;

/// What a door names when it publishes; a lane makes a [`TargetId`](crate::TargetId) of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination<'a> {
    /// An address of the vhost's address space.
    Address {
        /// Topic or routing key.
        path: &'a [u8],
        /// How it is spelled.
        syntax: Syntax,
        /// More routing keys (AMQP's `CC` and `BCC`), spelled alike.
        more: &'a [&'a [u8]],
        /// Queues that get it whatever is bound: those of the work route. Doors leave it empty, the hub fills it.
        queues: &'a [Arc<str>],
    },
    /// An exchange that is not the address space.
    Exchange {
        /// Its name; never empty.
        name: &'a str,
        /// Routing key.
        key: &'a [u8],
        /// More routing keys (`CC`, `BCC`).
        more: &'a [&'a [u8]],
    },
    /// A queue by name: AMQP's default exchange.
    Queue {
        /// Its name.
        name: &'a str,
        /// More queues (`CC`, `BCC`).
        more: &'a [&'a [u8]],
    },
}
