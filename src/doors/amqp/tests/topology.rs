//! Exchanges, queues and bindings, in RabbitMQ's codes and texts.

use super::*;
use crate::protocol::amqp::{TableBuf, exchange};

fn exchange_of(name: &'static str, kind: &'static str) -> exchange::Declare<'static> {
    exchange::Declare {
        exchange: short(name),
        kind: short(kind),
        passive: false,
        durable: false,
        auto_delete: false,
        internal: false,
        no_wait: false,
        arguments: Table::EMPTY,
    }
}

fn bind<'a>(queue: &'a str, exchange: &'a str, key: &'a str) -> queue::Bind<'a> {
    queue::Bind {
        queue: short(queue),
        exchange: short(exchange),
        routing_key: short(key),
        no_wait: false,
        arguments: Table::EMPTY,
    }
}

#[tokio::test]
async fn a_queue_is_declared_counted_purged_and_deleted() {
    let mut client = house().channel().await;
    client.send(1, declare("q")).await;
    client.expect(1, queue::DeclareOk { queue: short("q"), message_count: 0, consumer_count: 0 }).await;
    client.publish(1, "", b"q", b"1").await;
    client.publish(1, "", b"q", b"2").await;
    assert_eq!(client.ready("q").await, 2);
    client.send(1, queue::Purge { queue: short("q"), no_wait: false }).await;
    client.expect(1, queue::PurgeOk { message_count: 2 }).await;
    client.publish(1, "", b"q", b"3").await;
    let delete = queue::Delete { queue: short(""), if_unused: false, if_empty: false, no_wait: false };
    client.send(1, delete).await;
    client.expect(1, queue::DeleteOk { message_count: 1 }).await;
    client.send(1, queue::Delete { queue: short("q"), ..delete }).await;
    client.expect(1, queue::DeleteOk { message_count: 0 }).await;
}

#[tokio::test]
async fn no_wait_is_not_answered() {
    let mut client = house().channel().await;
    client.send(1, queue::Declare { no_wait: true, ..declare("q") }).await;
    client.send(1, exchange::Declare { no_wait: true, ..exchange_of("x", "fanout") }).await;
    client.send(1, queue::Bind { no_wait: true, ..bind("q", "x", "") }).await;
    client.send(1, queue::Purge { queue: short("q"), no_wait: true }).await;
    client.quiet(1).await;
    client.publish(1, "x", b"anything", b"1").await;
    assert_eq!(client.ready("q").await, 1);
}

#[tokio::test]
async fn the_server_names_queues_and_remembers_the_last_one() {
    let mut client = house().channel().await;
    client.send(1, declare("")).await;
    let got = client.skip("DeclareOk").await;
    let Method::Queue(queue::Queue::DeclareOk(ok)) = got.method() else { panic!() };
    assert!(ok.queue.starts_with("amq.gen-"), "{}", ok.queue);
    client.send(1, bind("", "amq.direct", "k")).await;
    client.expect(1, queue::BindOk {}).await;
    client.publish(1, "amq.direct", b"k", b"1").await;
    client.send(1, basic::Get { queue: short(""), no_ack: true }).await;
    assert_eq!(client.message().await.body, b"1");
}

#[tokio::test]
async fn what_is_not_there_is_404() {
    let house = house();
    let mut client = house.client().await;
    let no_queue = "NOT_FOUND - no queue 'nope' in vhost '/'";
    let no_exchange = "NOT_FOUND - no exchange 'nope' in vhost '/'";
    let nobody = "NOT_FOUND - no previously declared queue";
    let passive = exchange::Declare { passive: true, ..exchange_of("nope", "direct") };
    let rows: [(Method<'_>, &str); 8] = [
        (queue::Declare { passive: true, ..declare("nope") }.into(), no_queue),
        (queue::Purge { queue: short("nope"), no_wait: false }.into(), no_queue),
        (bind("nope", "amq.direct", "k").into(), no_queue),
        (basic::Get { queue: short("nope"), no_ack: true }.into(), no_queue),
        (consume("nope", "c", true).into(), no_queue),
        (passive.into(), no_exchange),
        (bind("", "amq.direct", "k").into(), nobody),
        (consume("", "c", true).into(), nobody),
    ];
    for (method, text) in rows {
        client.open(1).await;
        client.send(1, method).await;
        assert_eq!(client.channel_error(1, ReplyCode::NotFound).await, text);
    }
    client.open(1).await;
    client.queue("q").await;
    client.send(1, bind("q", "nope", "k")).await;
    assert_eq!(client.channel_error(1, ReplyCode::NotFound).await, no_exchange);
    client.open(1).await;
    client.publish(1, "nope", b"k", b"x").await;
    assert_eq!(client.channel_error(1, ReplyCode::NotFound).await, no_exchange);
}

#[tokio::test]
async fn a_different_declaration_is_406() {
    let mut client = house().channel().await;
    client.queue("q").await;
    client.send(1, queue::Declare { durable: true, ..declare("q") }).await;
    assert_eq!(
        client.channel_error(1, ReplyCode::PreconditionFailed).await,
        "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current \
         is 'false'"
    );
    client.open(1).await;
    client.send(1, exchange_of("amq.topic", "topic")).await;
    assert_eq!(
        client.channel_error(1, ReplyCode::PreconditionFailed).await,
        "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'amq.topic' in vhost '/': received 'false' \
         but current is 'true'"
    );
    client.open(1).await;
    let mut arguments = TableBuf::new();
    arguments.put("x-message-ttl", 5).unwrap();
    client.send(1, queue::Declare { arguments: arguments.as_table(), ..declare("q") }).await;
    let text = client.channel_error(1, ReplyCode::PreconditionFailed).await;
    assert!(
        text.starts_with(
            "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received "
        ),
        "{text}"
    );
}

#[tokio::test]
async fn another_connections_queue_is_405() {
    let house = house();
    let mut owner = house.channel().await;
    owner.send(1, queue::Declare { exclusive: true, ..declare("mine") }).await;
    owner.skip("DeclareOk").await;
    let mut client = house.client().await;
    let rows: [Method<'_>; 4] = [
        declare("mine").into(),
        queue::Declare { passive: true, ..declare("mine") }.into(),
        consume("mine", "c", true).into(),
        queue::Purge { queue: short("mine"), no_wait: false }.into(),
    ];
    for method in rows {
        client.open(1).await;
        client.send(1, method).await;
        assert_eq!(
            client.channel_error(1, ReplyCode::ResourceLocked).await,
            "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '/'. It could be \
             originally declared on another connection or the exclusive property value does not match that of the \
             original declaration."
        );
    }
}

#[tokio::test]
async fn reserved_names_and_the_default_exchange_are_403() {
    let mut client = house().client().await;
    let default = "ACCESS_REFUSED - operation not permitted on the default exchange";
    let delete = exchange::Delete { exchange: short(""), if_unused: false, no_wait: false };
    let tie = |destination, source| exchange::Bind {
        destination: short(destination),
        source: short(source),
        routing_key: short("k"),
        no_wait: false,
        arguments: Table::EMPTY,
    };
    let untie = |destination, source| {
        let exchange::Bind { destination, source, routing_key, no_wait, arguments } =
            tie(destination, source);
        exchange::Unbind { destination, source, routing_key, no_wait, arguments }
    };
    let queue::Bind { queue, exchange, routing_key, arguments, .. } = bind("q", "", "k");
    let rows: [(Method<'_>, &str); 13] = [
        (
            declare("amq.mine").into(),
            "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
        ),
        (
            exchange_of("amq.mine", "direct").into(),
            "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'",
        ),
        (exchange_of("", "direct").into(), default),
        (exchange::Declare { passive: true, ..exchange_of("", "direct") }.into(), default),
        (delete.into(), default),
        (
            exchange::Delete { exchange: short("amq.topic"), ..delete }.into(),
            "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed",
        ),
        (exchange::Delete { exchange: short("\r\n"), ..delete }.into(), default),
        (bind("q", "", "k").into(), default),
        (queue::Unbind { queue, exchange, routing_key, arguments }.into(), default),
        (tie("", "amq.direct").into(), default),
        (tie("amq.direct", "").into(), default),
        (untie("", "amq.direct").into(), default),
        (untie("amq.direct", "").into(), default),
    ];
    client.open(1).await;
    client.queue("q").await;
    client
        .send(1, channel::Close { reply_code: 200, reply_text: short(""), class_id: 0, method_id: 0 })
        .await;
    client.expect(1, channel::CloseOk {}).await;
    for (method, text) in rows {
        client.open(1).await;
        client.send(1, method).await;
        assert_eq!(client.channel_error(1, ReplyCode::AccessRefused).await, text);
    }
    client.open(1).await;
    client.send(1, exchange::Declare { durable: true, ..exchange_of("amq.topic", "topic") }).await;
    client.expect(1, exchange::DeclareOk {}).await;
    client.send(1, exchange::Declare { passive: true, ..exchange_of("amq.topic", "topic") }).await;
    client.expect(1, exchange::DeclareOk {}).await;
    client.send(1, tie("amq.fanout", "amq.direct")).await;
    client.expect(1, exchange::BindOk {}).await;
    client.send(1, untie("amq.fanout", "amq.direct")).await;
    client.expect(1, exchange::UnbindOk {}).await;
    // Nothing is made by asking whether it is there: a reserved name is as good as another.
    client.send(1, exchange::Declare { passive: true, ..exchange_of("amq.mine", "direct") }).await;
    let text = client.channel_error(1, ReplyCode::NotFound).await;
    assert_eq!(text, "NOT_FOUND - no exchange 'amq.mine' in vhost '/'");
    client.open(1).await;
    client.send(1, queue::Declare { passive: true, ..declare("amq.mine") }).await;
    let text = client.channel_error(1, ReplyCode::NotFound).await;
    assert_eq!(text, "NOT_FOUND - no queue 'amq.mine' in vhost '/'");
    client.open(1).await;
    client
        .send(
            1,
            queue::Delete { queue: short("amq.mine"), if_unused: false, if_empty: false, no_wait: false },
        )
        .await;
    client.expect(1, queue::DeleteOk { message_count: 0 }).await;
}

#[tokio::test]
async fn what_is_in_use_or_not_empty_is_406() {
    let mut client = house().channel().await;
    let delete = queue::Delete { queue: short("q"), if_unused: false, if_empty: true, no_wait: false };
    client.queue("q").await;
    client.publish(1, "", b"q", b"1").await;
    client.send(1, delete).await;
    let text = client.channel_error(1, ReplyCode::PreconditionFailed).await;
    assert_eq!(text, "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty");
    client.open(1).await;
    client.open(2).await;
    client.send(2, consume("q", "c", false)).await;
    client.skip("ConsumeOk").await;
    client.message().await;
    client.send(1, queue::Delete { if_unused: true, if_empty: false, ..delete }).await;
    let text = client.channel_error(1, ReplyCode::PreconditionFailed).await;
    assert_eq!(text, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use");
}

#[tokio::test]
async fn exchanges_are_bound_to_exchanges() {
    let mut client = house().channel().await;
    client.send(1, exchange_of("in", "fanout")).await;
    client.expect(1, exchange::DeclareOk {}).await;
    client.send(1, exchange_of("out", "topic")).await;
    client.expect(1, exchange::DeclareOk {}).await;
    client.queue("q").await;
    let between = exchange::Bind {
        destination: short("out"),
        source: short("in"),
        routing_key: short(""),
        no_wait: false,
        arguments: Table::EMPTY,
    };
    client.send(1, between).await;
    client.expect(1, exchange::BindOk {}).await;
    client.send(1, bind("q", "out", "a.*")).await;
    client.expect(1, queue::BindOk {}).await;
    client.publish(1, "in", b"a.b", b"1").await;
    client.publish(1, "in", b"b.a", b"2").await;
    assert_eq!(client.ready("q").await, 1);
    let exchange::Bind { destination, source, routing_key, no_wait, arguments } = between;
    client.send(1, exchange::Unbind { destination, source, routing_key, no_wait, arguments }).await;
    client.expect(1, exchange::UnbindOk {}).await;
    client.publish(1, "in", b"a.b", b"3").await;
    assert_eq!(client.ready("q").await, 1);
    let queue::Bind { queue, exchange, routing_key, arguments, .. } = bind("q", "out", "a.*");
    client.send(1, queue::Unbind { queue, exchange, routing_key, arguments }).await;
    client.expect(1, queue::UnbindOk {}).await;
    client.send(1, exchange::Delete { exchange: short("out"), if_unused: true, no_wait: false }).await;
    client.expect(1, exchange::DeleteOk {}).await;
}
