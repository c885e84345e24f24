//! AMQP: exchanges and what they are bound to.

use lapin::BasicProperties;
use lapin::ExchangeKind;
use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, ExchangeUnbindOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use linkspan_integration_tests::Server;
use linkspan_integration_tests::amqp::{Amqp, refusal};

#[tokio::test]
async fn a_direct_exchange_gives_each_queue_what_has_exactly_its_key() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    amqp.exchange("logs", ExchangeKind::Direct).await;
    let (errors, all) = (amqp.bound("logs", "error").await, amqp.bound("logs", "error").await);
    amqp.bind(&all, "logs", "info").await;
    for (key, payload) in [("error", "1"), ("info", "2"), ("error.disk", "3"), ("debug", "4")] {
        amqp.publish("logs", key, payload).await;
    }
    assert_eq!(amqp.drain(&errors).await, ["1"]);
    assert_eq!(amqp.drain(&all).await, ["1", "2"]);
}

#[tokio::test]
async fn a_fanout_exchange_gives_all_of_it_to_every_queue_once() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    amqp.exchange("news", ExchangeKind::Fanout).await;
    let (one, other) = (amqp.bound("news", "a").await, amqp.bound("news", "b").await);
    amqp.bind(&one, "news", "bound twice").await;
    amqp.publish("news", "any", "1").await;
    assert_eq!(amqp.drain(&one).await, ["1"]);
    assert_eq!(amqp.drain(&other).await, ["1"]);
}

#[tokio::test]
async fn a_topic_exchange_matches_words() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    amqp.exchange("plant", ExchangeKind::Topic).await;
    let keys = ["pump.1.on", "pump.1", "pump", "valve.1.on", "on"];
    for (binding, expected) in [
        ("pump.*.on", &["pump.1.on"][..]),
        ("pump.#", &["pump.1.on", "pump.1", "pump"]),
        ("#.on", &["pump.1.on", "valve.1.on", "on"]),
        ("#", &keys),
        ("*", &["pump", "on"]),
        ("*.*", &["pump.1"]),
        ("pump.#.1.#", &["pump.1.on", "pump.1"]),
    ] {
        let queue = amqp.bound("plant", binding).await;
        for key in keys {
            amqp.publish("plant", key, key).await;
        }
        assert_eq!(amqp.drain(&queue).await, expected, "{binding}");
    }
}

#[tokio::test]
async fn a_headers_exchange_matches_all_or_any() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    amqp.exchange("reports", ExchangeKind::Headers).await;
    let text = |text: &str| AMQPValue::LongString(text.into());
    let table = |pairs: &[(&str, &str)]| {
        let mut table = FieldTable::default();
        for (name, value) in pairs {
            table.insert((*name).into(), text(value));
        }
        table
    };
    let (all, any) = (amqp.own_queue().await, amqp.own_queue().await);
    let wanted = [("format", "pdf"), ("kind", "report")];
    amqp.bind_by(&all, "reports", "", table(&[("x-match", "all"), wanted[0], wanted[1]])).await;
    amqp.bind_by(&any, "reports", "", table(&[("x-match", "any"), wanted[0], wanted[1]])).await;
    for (payload, headers) in [("both", &wanted[..]), ("one", &wanted[..1]), ("none", &[("format", "zip")])] {
        let properties = BasicProperties::default().with_headers(table(headers));
        amqp.publish_as("reports", "", payload, properties).await;
    }
    assert_eq!(amqp.drain(&all).await, ["both"]);
    assert_eq!(amqp.drain(&any).await, ["both", "one"]);
}

#[tokio::test]
async fn the_default_exchange_and_the_amq_ones_are_there() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    let queue = amqp.own_queue().await;
    for exchange in ["amq.direct", "amq.fanout", "amq.topic"] {
        amqp.bind(&queue, exchange, "key").await;
        amqp.publish(exchange, "key", exchange).await;
    }
    amqp.publish("", &queue, "default").await;
    assert_eq!(amqp.drain(&queue).await, ["amq.direct", "amq.fanout", "amq.topic", "default"]);
}

#[tokio::test]
async fn exchanges_are_bound_to_each_other_and_unbound() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    amqp.exchange("all", ExchangeKind::Topic).await;
    amqp.exchange("europe", ExchangeKind::Fanout).await;
    let queue = amqp.bound("europe", "").await;
    let (options, none) = (ExchangeBindOptions::default(), FieldTable::default());
    amqp.channel
        .exchange_bind("europe".into(), "all".into(), "eu.#".into(), options, none.clone())
        .await
        .unwrap();
    amqp.publish("all", "eu.de", "1").await;
    amqp.publish("all", "us.ny", "2").await;
    let options = ExchangeUnbindOptions::default();
    amqp.channel.exchange_unbind("europe".into(), "all".into(), "eu.#".into(), options, none).await.unwrap();
    amqp.publish("all", "eu.fr", "3").await;
    assert_eq!(amqp.drain(&queue).await, ["1"]);
}

#[tokio::test]
async fn a_deleted_exchange_is_gone_and_so_are_its_bindings() {
    let server = Server::start("").await;
    let mut amqp = Amqp::confirming(server.amqp()).await;
    amqp.exchange("short-lived", ExchangeKind::Fanout).await;
    let queue = amqp.bound("short-lived", "").await;
    let in_use = ExchangeDeleteOptions { if_unused: true, ..ExchangeDeleteOptions::default() };
    let error = amqp.channel.exchange_delete("short-lived".into(), in_use).await.unwrap_err();
    let text = "PRECONDITION_FAILED - exchange 'short-lived' in vhost '/' in use";
    assert_eq!(refusal(&error), (406, text.to_owned()));
    amqp.reopen().await;
    amqp.channel.exchange_delete("short-lived".into(), ExchangeDeleteOptions::default()).await.unwrap();
    amqp.exchange("short-lived", ExchangeKind::Fanout).await;
    amqp.publish("short-lived", "", "1").await;
    assert_eq!(amqp.drain(&queue).await, [""; 0], "the bindings went with the exchange");
}

#[tokio::test]
async fn an_exchange_is_declared_again_only_as_it_is() {
    let server = Server::start("").await;
    let mut amqp = Amqp::connect(server.amqp()).await;
    amqp.exchange("once", ExchangeKind::Direct).await;
    amqp.exchange("once", ExchangeKind::Direct).await;
    let none = FieldTable::default;
    let options = ExchangeDeclareOptions::default();
    let declare = amqp.channel.exchange_declare("once".into(), ExchangeKind::Fanout, options, none());
    let text = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'once' in vhost '/': received 'fanout' \
                but current is 'direct'";
    assert_eq!(refusal(&declare.await.unwrap_err()), (406, text.to_owned()));
    amqp.reopen().await;
    let passive = ExchangeDeclareOptions { passive: true, ..options };
    let declare = amqp.channel.exchange_declare("never".into(), ExchangeKind::Direct, passive, none());
    let text = "NOT_FOUND - no exchange 'never' in vhost '/'";
    assert_eq!(refusal(&declare.await.unwrap_err()), (404, text.to_owned()));
    amqp.reopen().await;
    let declare = amqp.channel.exchange_declare("amq.mine".into(), ExchangeKind::Direct, options, none());
    let text = "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'";
    assert_eq!(refusal(&declare.await.unwrap_err()), (403, text.to_owned()));
}
