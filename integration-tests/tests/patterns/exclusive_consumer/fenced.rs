//! Addresses that only the holder of a queue may publish to, under the number that it was given.

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicPublishOptions};
use lapin::{BasicProperties, ErrorKind};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::http::{self, Answer};
use linkspan_integration_tests::mqtt_wire::{self, MqttWire};
use rumqttc::v5::mqttbytes::v5::{PubAckReason, PublishProperties};

use super::*;

const HIGHEST: &str = "auction/highest";

fn routes() -> String {
    let fenced =
        "[[route]]\nmatch = \"auction/highest\"\npattern = \"publish-subscribe\"\nfence = \"bids\"\n";
    format!("{}{fenced}", route("standby"))
}

fn header(fence: i64) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("linkspan-fence".into(), AMQPValue::LongLongInt(fence));
    BasicProperties::default().with_headers(headers)
}

fn property(fence: i64) -> PublishProperties {
    PublishProperties {
        user_properties: vec![("linkspan-fence".into(), fence.to_string())],
        ..PublishProperties::default()
    }
}

async fn post(server: &Server, fence: Option<i64>, body: &str) -> Answer {
    let fence = fence.map(|fence| fence.to_string());
    let headers: Vec<(&str, &str)> = fence.iter().map(|fence| ("Linkspan-Fence", fence.as_str())).collect();
    http::post(server.http(), "/v1/messages/auction/highest", &headers, body.into()).await
}

/// The code and text with which a channel is closed that publishes so; none when the client saw it closed before it asked.
async fn closed(server: &Server, confirms: bool, properties: BasicProperties) -> Option<(u16, String)> {
    let amqp = match confirms {
        true => Amqp::confirming(server.amqp()).await,
        false => Amqp::connect(server.amqp()).await,
    };
    let options = BasicPublishOptions::default();
    let key = "auction.highest";
    let published = amqp.channel.basic_publish("amq.topic".into(), key.into(), options, b"no", properties);
    let error = match published.await {
        Err(error) => error,
        Ok(confirm) => match soon("the channel is closed", confirm).await {
            Err(error) => error,
            Ok(_) => {
                soon("the channel is closed", async {
                    loop {
                        if let Err(error) = amqp.channel.basic_qos(1, BasicQosOptions::default()).await {
                            return error;
                        }
                    }
                })
                .await
            }
        },
    };
    match error.kind() {
        ErrorKind::InvalidChannelState(..) => None,
        _ => Some(refusal(&error)),
    }
}

/// The first bid, in the hand of a bookkeeper.
async fn first_bid(server: &Server) -> (Holder, Delivery) {
    let mut holder = Holder::consume(server.amqp(), 0).await.unwrap();
    bid(server, 0..1).await;
    let delivery = holder.next().await;
    (holder, delivery)
}

#[tokio::test]
async fn the_holder_publishes_by_any_protocol_and_the_one_before_it_by_none() {
    let server = Server::start(&routes()).await;
    let mut watcher = Mqtt5::connect(server.mqtt(), "watcher").await;
    watcher.subscribe(HIGHEST).await;
    let (holder, delivery) = first_bid(&server).await;
    let mut mqtt = Mqtt5::connect(server.mqtt(), "bookkeeper").await;
    let publish = async |amqp: &Amqp, mqtt: &mut Mqtt5, fence: i64, name: &str| {
        amqp.publish_as("amq.topic", "auction.highest", &format!("{name}, amqp"), header(fence)).await;
        let by_mqtt = mqtt.publish_as(HIGHEST, &format!("{name}, mqtt"), false, property(fence)).await;
        assert_eq!(by_mqtt, PubAckReason::Success);
        assert_eq!(post(&server, Some(fence), &format!("{name}, http")).await.status, 204);
    };
    let amqp = Amqp::confirming(server.amqp()).await;
    let old = fence(&delivery);
    publish(&amqp, &mut mqtt, old, "first").await;

    drop(holder);
    let mut successor = Mqtt5::connect(server.mqtt(), "successor").await;
    successor.subscribe("$queue/bids").await;
    let new = fence_of(&successor.next().await);
    assert!(new > old);
    for fence in [Some(old), None, Some(new + 1)] {
        let answer = post(&server, fence, "no").await;
        assert_eq!(answer.status, 409, "{fence:?}: {answer:?}");
        let said = fence.map_or("needs the property linkspan-fence".into(), |_| format!("held under {new}"));
        assert!(answer.body.contains(&said), "{fence:?}: {answer:?}");
        let properties = fence.map(property).unwrap_or_default();
        let said = mqtt.publish_as(HIGHEST, "no", false, properties).await;
        assert_eq!(said, PubAckReason::NotAuthorized, "{fence:?}");
        for confirms in [true, false] {
            let properties = fence.map(header).unwrap_or_default();
            if let Some((code, text)) = closed(&server, confirms, properties).await {
                assert_eq!(code, 403, "{fence:?}, confirms: {confirms}: {text}");
            }
        }
    }
    publish(&amqp, &mut mqtt, new, "second").await;
    for expected in
        ["first, amqp", "first, mqtt", "first, http", "second, amqp", "second, mqtt", "second, http"]
    {
        assert_eq!(watcher.next_text().await, expected, "nothing that was refused was given out");
    }
}

#[tokio::test]
async fn nobody_publishes_while_nobody_has_the_queue() {
    let server = Server::start(&routes()).await;
    let (holder, delivery) = first_bid(&server).await;
    let last = fence(&delivery);
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    assert_eq!(post(&server, Some(last), "with nothing in hand").await.status, 204, "it has the queue");
    drop(holder);
    soon("the queue is free", async {
        loop {
            let answer = post(&server, Some(last), "too late").await;
            if answer.status == 409 {
                assert!(answer.body.contains("nobody has queue 'bids'"), "{answer:?}");
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_is_not_retained_either_and_a_client_of_mqtt_3_1_1_is_closed() {
    let server = Server::start(&routes()).await;
    let (_holder, delivery) = first_bid(&server).await;
    let mut mqtt = Mqtt5::connect(server.mqtt(), "bookkeeper").await;
    let kept = mqtt.publish_as(HIGHEST, "kept", true, property(fence(&delivery))).await;
    assert_eq!(kept, PubAckReason::NoMatchingSubscribers, "nobody subscribes yet");
    let refused = mqtt.publish_as(HIGHEST, "refused", true, property(fence(&delivery) - 1)).await;
    assert_eq!(refused, PubAckReason::NotAuthorized);
    let mut watcher = Mqtt5::connect(server.mqtt(), "watcher").await;
    watcher.subscribe(HIGHEST).await;
    assert_eq!(watcher.next_text().await, "kept");
    assert!(watcher.next_within(LULL).await.is_none());
    let mut older = MqttWire::connect(server.mqtt(), mqtt_wire::V3, "older").await;
    older.send(&mqtt_wire::publish(2, HIGHEST, &[0, 1, b'x'])).await;
    assert!(older.wire.rest().await.is_empty(), "3.1.1 has no word for it");
}

#[tokio::test]
async fn a_transaction_with_an_old_fence_is_none() {
    let server = Server::start(&routes()).await;
    let (_holder, delivery) = first_bid(&server).await;
    let amqp = Amqp::connect(server.amqp()).await;
    amqp.channel.tx_select().await.unwrap();
    let options = BasicPublishOptions::default();
    let properties = header(fence(&delivery) - 1);
    let key = "auction.highest";
    let published = amqp.channel.basic_publish("amq.topic".into(), key.into(), options, b"no", properties);
    published.await.expect("nothing is said before the commit is asked for");
    assert!(amqp.channel.tx_commit().await.is_err());
}

/// `CC` is RabbitMQ's way to name more queues.
#[tokio::test]
async fn a_copy_to_a_queue_that_only_a_holder_publishes_to_needs_the_number_too() {
    let ledger = "[[route]]\nmatch = \"ledger\"\npattern = \"competing-consumers\"\nqueue = \"ledger\"\nfence = \"bids\"\n";
    let server = Server::start(&format!("{}{ledger}", routes())).await;
    let (_holder, delivery) = first_bid(&server).await;
    for (fence, taken) in [(fence(&delivery) - 1, false), (fence(&delivery), true)] {
        let amqp = Amqp::confirming(server.amqp()).await;
        amqp.queue("plain").await;
        let mut headers = FieldTable::default();
        headers.insert("linkspan-fence".into(), AMQPValue::LongLongInt(fence));
        headers
            .insert("CC".into(), AMQPValue::FieldArray(vec![AMQPValue::LongString("ledger".into())].into()));
        let properties = BasicProperties::default().with_headers(headers);
        let options = BasicPublishOptions::default();
        let published = amqp.channel.basic_publish("".into(), "plain".into(), options, b"a bid", properties);
        let answered = match published.await {
            Ok(confirm) => soon("an answer", confirm).await.map(drop),
            Err(error) => Err(error),
        };
        assert_eq!(answered.is_ok(), taken, "under {fence}: {answered:?}");
        let reader = Amqp::connect(server.amqp()).await;
        assert_eq!(reader.get("ledger").await.is_some(), taken, "under {fence}");
    }
}
