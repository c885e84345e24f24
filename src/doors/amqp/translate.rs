//! AMQP's vocabulary and the contract's, the one in terms of the other. No other file of this door knows both.
//!
//! | file | what |
//! | --- | --- |
//! | [`arguments`] | tables and their values |
//! | [`asked`] | what a published message's properties ask for |
//! | [`properties`] | the properties of messages |
//! | [`refusal`] | what a back end refuses, as codes and texts |
//!
//! Here: destinations and declarations.

pub(super) mod arguments;
pub(super) mod asked;
pub(super) mod properties;
pub(super) mod refusal;

use linkspan_contract::topology::{Argument, BindingEnd};
use linkspan_contract::{Binding, Destination, ExchangeKind, ExchangeSpec, QueueSpec, Syntax};

use crate::protocol::amqp::{Address, ShortString, exchange, queue};

/// The exchange that stands for the vhost's address space.
pub(super) const TOPIC_EXCHANGE: &str = "amq.topic";

/// Gives `with` what a message's exchange and routing key mean; `more` are the keys of `CC` and `BCC`.
pub(super) fn destination<R>(
    address: Address<'_>,
    more: &[&[u8]],
    with: impl FnOnce(&Destination<'_>) -> R,
) -> R {
    let (exchange, key) = (address.exchange(), address.routing_key());
    if exchange.as_bytes() == TOPIC_EXCHANGE.as_bytes() {
        return with(&Destination::Address { path: key.as_bytes(), syntax: Syntax::Key, more, queues: &[] });
    }
    // Names are UTF-8; other bytes name nothing that exists.
    if exchange.is_empty() {
        with(&Destination::Queue { name: &String::from_utf8_lossy(key.as_bytes()), more })
    } else {
        let name = String::from_utf8_lossy(exchange.as_bytes());
        with(&Destination::Exchange { name: &name, key: key.as_bytes(), more })
    }
}

/// The key of a destination that is an address of the server's own, `$…`, if there is one.
pub(super) fn reserved<'a>(to: &Destination<'a>) -> Option<&'a [u8]> {
    let Destination::Address { path, more, .. } = *to else { return None };
    std::iter::once(path).chain(more.iter().copied()).find(|key| key.first() == Some(&b'$'))
}

/// What `exchange.declare` asks for; `name` is the exchange's, cleaned.
pub(super) fn exchange_spec<'a>(
    declare: &exchange::Declare<'a>,
    name: &'a str,
    arguments: &'a [Argument<'a>],
) -> ExchangeSpec<'a> {
    ExchangeSpec {
        name,
        kind: ExchangeKind::named(declare.kind.as_str()),
        passive: declare.passive,
        durable: declare.durable,
        auto_delete: declare.auto_delete,
        internal: declare.internal,
        arguments,
    }
}

/// What `queue.declare` asks for; `name` is the queue's, cleaned.
pub(super) fn queue_spec<'a>(
    declare: &queue::Declare<'a>,
    name: &'a str,
    arguments: &'a [Argument<'a>],
) -> QueueSpec<'a> {
    QueueSpec {
        name,
        passive: declare.passive,
        // RabbitMQ: what dies with its connection is not durable.
        durable: declare.durable && !declare.exclusive,
        exclusive: declare.exclusive,
        auto_delete: declare.auto_delete,
        arguments,
        terms: None,
    }
}

/// A binding from the exchange `source`.
pub(super) fn binding<'a>(
    source: &'a str,
    to: BindingEnd<'a>,
    key: &'a str,
    arguments: &'a [Argument<'a>],
) -> Binding<'a> {
    Binding { source, to, key: key.as_bytes(), arguments }
}

/// A name without line ends, which RabbitMQ strips from names that it declares.
pub(super) fn cleaned(name: ShortString<'_>) -> String {
    name.as_str().chars().filter(|c| !matches!(c, '\r' | '\n')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::amqp::ShortBytes;

    fn meant(exchange: &str, key: &[u8]) -> String {
        let mut bytes = Vec::new();
        let exchange = ShortBytes::try_from(exchange).unwrap();
        let address = Address::encode(exchange, ShortBytes::new(key).unwrap(), &mut bytes);
        destination(address, &[b"more"], |to| format!("{to:?}"))
    }

    #[test]
    fn the_topic_exchange_is_the_address_space_and_the_default_exchange_the_queues() {
        assert!(
            meant("amq.topic", b"a.b").starts_with("Address { path: [97, 46, 98], syntax: Key, more: [[109")
        );
        assert!(meant("", b"jobs").starts_with("Queue { name: \"jobs\", more: [["));
        assert!(
            meant("amq.direct", b"k").starts_with("Exchange { name: \"amq.direct\", key: [107], more: [[")
        );
        assert!(meant("", b"\xff").contains('\u{fffd}'), "a key that is not UTF-8 names no queue");
    }

    #[test]
    fn an_exclusive_queue_is_not_durable_and_names_lose_line_ends() {
        let name = ShortString::new("a\r\nb").unwrap();
        assert_eq!(cleaned(name), "ab");
        let declare = queue::Declare {
            queue: name,
            passive: false,
            durable: true,
            exclusive: true,
            auto_delete: false,
            no_wait: false,
            arguments: Default::default(),
        };
        assert!(!queue_spec(&declare, "ab", &[]).durable);
    }
}
