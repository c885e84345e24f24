//! AMQP: what queues are asked for beside their names.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, ExchangeKind};
use linkspan_integration_tests::amqp::{Amqp, refusal};
use linkspan_integration_tests::{Server, soon};

fn number(number: i32) -> AMQPValue {
    AMQPValue::LongInt(number)
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

async fn declare(amqp: &Amqp, queue: &str, arguments: &[(&str, AMQPValue)]) -> Result<(), lapin::Error> {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    amqp.channel.queue_declare(queue.into(), Default::default(), table).await.map(|_| ())
}

#[tokio::test]
async fn a_full_queue_drops_its_oldest_or_refuses_the_newest() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    declare(&amqp, "drops", &[("x-max-length", number(2))]).await.unwrap();
    let reject = [("x-max-length", number(2)), ("x-overflow", text("reject-publish"))];
    declare(&amqp, "refuses", &reject).await.unwrap();
    for n in ["1", "2", "3"] {
        assert!(matches!(amqp.publish("", "drops", n).await, Confirmation::Ack(None)));
        let nack = matches!(amqp.publish("", "refuses", n).await, Confirmation::Nack(None));
        assert_eq!(nack, n == "3", "message {n}");
    }
    assert_eq!(amqp.drain("drops").await, ["2", "3"]);
    assert_eq!(amqp.drain("refuses").await, ["1", "2"]);
}

#[tokio::test]
async fn the_more_urgent_comes_first_and_equals_in_order() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    declare(&amqp, "urgent", &[("x-max-priority", number(5))]).await.unwrap();
    for (payload, priority) in [("a", 0), ("b", 5), ("c", 1), ("d", 9), ("e", 1)] {
        let properties = BasicProperties::default().with_priority(priority);
        amqp.publish_as("", "urgent", payload, properties).await;
    }
    assert_eq!(amqp.drain("urgent").await.join(""), "bdcea", "9 counts as 5");
}

#[tokio::test]
async fn what_is_not_worked_in_time_is_dead_lettered_with_its_story() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    amqp.exchange("graves", ExchangeKind::Direct).await;
    let dead = amqp.bound("graves", "late").await;
    let arguments = [
        ("x-message-ttl", number(50)),
        ("x-dead-letter-exchange", text("graves")),
        ("x-dead-letter-routing-key", text("late")),
    ];
    declare(&amqp, "hasty", &arguments).await.unwrap();
    amqp.publish("", "hasty", "1").await;
    let letter = soon("a dead letter", async {
        loop {
            let got = amqp.channel.basic_get(dead.as_str().into(), Default::default()).await.unwrap();
            if let Some(letter) = got {
                return letter;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(letter.delivery.routing_key.as_str(), "late");
    let headers = letter.delivery.properties.headers().clone().unwrap();
    for (header, expected) in [("x-first-death-queue", "hasty"), ("x-first-death-reason", "expired")] {
        assert_eq!(headers.inner().get(header), Some(&text(expected)), "{header}");
    }
    assert!(headers.inner().contains_key("x-death"));
}

#[tokio::test]
async fn arguments_that_cannot_be_honoured_are_refused() {
    let server = Server::start("").await;
    let mut amqp = Amqp::connect(server.amqp()).await;
    for (name, value, expected) in [
        ("x-queue-type", text("quorum"), "unsupported queue type 'quorum'"),
        ("x-message-ttl", number(-1), "value_negative"),
        ("x-overflow", text("explode"), "invalid_overflow"),
    ] {
        let (code, why) = refusal(&declare(&amqp, "odd", &[(name, value)]).await.unwrap_err());
        assert!(code == 406 && why.contains(expected), "{name}: {code} {why}");
        amqp.reopen().await;
    }
}

#[tokio::test]
async fn a_single_active_consumer_is_followed_by_the_next() {
    use futures_lite::StreamExt;
    let server = Server::start("").await;
    let (amqp, one, two) = (
        Amqp::confirming(server.amqp()).await,
        Amqp::connect(server.amqp()).await,
        Amqp::connect(server.amqp()).await,
    );
    declare(&amqp, "single", &[("x-single-active-consumer", AMQPValue::Boolean(true))]).await.unwrap();
    let consume = async |who: &Amqp| {
        let (options, none) = (Default::default(), FieldTable::default());
        who.channel.basic_consume("single".into(), "".into(), options, none).await.expect("consume-ok")
    };
    let (mut first, mut second) = (consume(&one).await, consume(&two).await);
    for n in ["1", "2"] {
        amqp.publish("", "single", n).await;
    }
    for n in ["1", "2"] {
        let delivery = soon("a delivery", first.next()).await.unwrap().unwrap();
        assert_eq!(delivery.data, n.as_bytes(), "all to the one that came first");
    }
    one.connection.close(200, "".into()).await.unwrap();
    for n in ["1", "2"] {
        let delivery = soon("a delivery", second.next()).await.unwrap().unwrap();
        assert_eq!((delivery.data.as_slice(), delivery.redelivered), (n.as_bytes(), true));
    }
}

#[tokio::test]
async fn a_routes_queue_is_published_to_by_its_name_too() {
    let route = "[[route]]\nmatch = \"jobs\"\npattern = \"competing-consumers\"\nqueue = \"work\"\n";
    let server = Server::start(route).await;
    let mut amqp = Amqp::confirming(server.amqp()).await;
    amqp.publish("", "work", "1").await;
    amqp.publish("amq.topic", "jobs", "2").await;
    assert_eq!(amqp.drain("work").await, ["1", "2"]);
    let publish = amqp.channel.basic_publish(
        "amq.topic".into(),
        "$SYS.x".into(),
        Default::default(),
        b"x",
        BasicProperties::default(),
    );
    let (code, text) = refusal(&soon("a refusal", publish.await.unwrap()).await.unwrap_err());
    assert!(code == 403 && text.contains("$SYS"), "{code} {text}");
    amqp.reopen().await;
}
