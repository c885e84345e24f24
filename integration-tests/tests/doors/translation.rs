//! What MQTT and AMQP have different words for, seen from both sides.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use linkspan_integration_tests::Server;
use linkspan_integration_tests::amqp::{Amqp, text};
use linkspan_integration_tests::mqtt5::{Mqtt5, payload, topic};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::LULL;

#[tokio::test]
async fn topics_and_routing_keys_are_the_same_addresses() {
    let server = Server::start("").await;
    let mut mqtt = Mqtt5::connect(server.mqtt(), "client").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    for (named, key) in [
        ("a/b/c", "a.b.c"),
        ("spBv1.0/site/DDATA", "spBv1/0.site.DDATA"),
        ("/a", ".a"),
        ("a//b", "a..b"),
        ("a/", "a."),
        ("größe/ü", "größe.ü"),
    ] {
        let queue = amqp.bound("amq.topic", key).await;
        mqtt.publish(named, "from MQTT").await;
        let got = amqp.channel.basic_get(queue.as_str().into(), Default::default()).await.unwrap();
        assert_eq!(got.expect("it is bound").delivery.routing_key.as_str(), key, "{named}");
        mqtt.subscribe(named).await;
        amqp.publish("amq.topic", key, "from AMQP").await;
        assert_eq!(topic(&mqtt.next().await), named, "{key}");
        mqtt.unsubscribe(named).await;
    }
}

#[tokio::test]
async fn a_key_that_is_no_topic_reaches_amqp_alone() {
    let server = Server::start("").await;
    let mut mqtt = Mqtt5::connect(server.mqtt(), "client").await;
    mqtt.subscribe("#").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    let queue = amqp.bound("amq.topic", "#").await;
    for key in ["a.+.b", "a.#", "", "a.b"] {
        amqp.publish("amq.topic", key, key).await;
    }
    assert_eq!(amqp.drain(&queue).await, ["a.+.b", "a.#", "", "a.b"]);
    assert_eq!(mqtt.next_text().await, "a.b");
    assert!(mqtt.next_within(LULL).await.is_none());
}

#[tokio::test]
async fn an_asterisk_in_a_filter_is_a_letter_to_mqtt() {
    let server = Server::start("").await;
    let mut mqtt = Mqtt5::connect(server.mqtt(), "client").await;
    mqtt.subscribe("a/*/b").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    amqp.publish("amq.topic", "a.x.b", "any word").await;
    amqp.publish("amq.topic", "a.*.b", "an asterisk").await;
    assert_eq!(mqtt.next_text().await, "an asterisk");
}

#[tokio::test]
async fn a_topic_that_is_too_long_for_a_routing_key_arrives_whole_in_a_header() {
    let server = Server::start("").await;
    let amqp = Amqp::connect(server.amqp()).await;
    let queue = amqp.bound("amq.topic", "long.#").await;
    let long = format!("long/{}", "x".repeat(300));
    Mqtt5::connect(server.mqtt(), "client").await.publish(&long, "1").await;
    let got = amqp.channel.basic_get(queue.as_str().into(), Default::default()).await.unwrap().unwrap();
    assert!(got.delivery.routing_key.as_str().len() <= 255);
    let headers = got.delivery.properties.headers().clone().unwrap();
    let Some(AMQPValue::LongString(whole)) = headers.inner().get("x-address") else { panic!("{headers:?}") };
    assert_eq!(whole.to_string(), long.replace('/', "."));
}

#[tokio::test]
async fn properties_have_their_counterparts() {
    let server = Server::start("").await;
    let mut mqtt = Mqtt5::connect(server.mqtt(), "client").await;
    mqtt.subscribe("to/mqtt").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    let queue = amqp.bound("amq.topic", "to.amqp").await;

    let sent = PublishProperties {
        message_expiry_interval: Some(60),
        response_topic: Some("answers/1".into()),
        correlation_data: Some(b"c-1".to_vec().into()),
        content_type: Some("text/plain".into()),
        user_properties: [
            ("type", "my own"),
            ("amqp-type", "order"),
            ("amqp-message-id", "m-1"),
            ("amqp-priority", "7"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into(),
        ..PublishProperties::default()
    };
    mqtt.publish_as("to/amqp", "1", false, sent).await;
    let got = amqp.channel.basic_get(queue.as_str().into(), Default::default()).await.unwrap().unwrap();
    let got = &got.delivery.properties;
    let short = |text: &Option<lapin::types::ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
    assert_eq!(short(got.content_type()).as_deref(), Some("text/plain"));
    assert_eq!(short(got.correlation_id()).as_deref(), Some("c-1"));
    assert_eq!(short(got.reply_to()).as_deref(), Some("answers/1"));
    assert_eq!(short(got.kind()).as_deref(), Some("order"));
    assert_eq!(short(got.message_id()).as_deref(), Some("m-1"));
    assert_eq!((*got.priority(), *got.delivery_mode()), (Some(7), Some(2)));
    assert!(
        short(got.expiration()).is_some_and(|millis| (59_000..=60_000).contains(&millis.parse().unwrap()))
    );
    let headers = got.headers().clone().unwrap();
    assert_eq!(headers.inner().get("type"), Some(&AMQPValue::LongString("my own".into())));
    assert_eq!(headers.inner().len(), 1, "{headers:?}");

    let mut headers = FieldTable::default();
    headers.insert("count".into(), AMQPValue::LongInt(3));
    let sent = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_correlation_id("c-2".into())
        .with_app_id("shop".into())
        .with_expiration("59001".into())
        .with_headers(headers);
    amqp.publish_as("amq.topic", "to.mqtt", "2", sent).await;
    let got = mqtt.next().await;
    assert_eq!((payload(&got).as_str(), got.qos), ("2", QoS::AtMostOnce), "delivery mode 1, QoS 0");
    let got = got.properties.unwrap();
    assert_eq!(got.content_type.as_deref(), Some("text/plain"));
    assert_eq!(got.correlation_data.as_deref(), Some(&b"c-2"[..]));
    assert_eq!(got.message_expiry_interval, Some(60), "rounded up to seconds");
    for property in [("amqp-app-id", "shop"), ("count", "3")] {
        let property = (property.0.to_owned(), property.1.to_owned());
        assert!(got.user_properties.contains(&property), "{property:?} in {got:?}");
    }
}

#[tokio::test]
async fn an_amqp_publisher_may_retain() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    let mut headers = FieldTable::default();
    headers.insert("x-retain".into(), AMQPValue::Boolean(true));
    amqp.publish_as("amq.topic", "plant.pump", "on", BasicProperties::default().with_headers(headers)).await;
    let mut mqtt = Mqtt5::connect(server.mqtt(), "late").await;
    mqtt.subscribe("plant/#").await;
    let got = mqtt.next().await;
    assert_eq!((payload(&got).as_str(), got.retain), ("on", true));
    let got = got.properties.map(|properties| properties.user_properties).unwrap_or_default();
    assert!(got.is_empty(), "the header has done its work: {got:?}");
}

#[tokio::test]
async fn a_queue_of_amqp_is_worked_by_mqtt_and_a_message_without_a_topic_is_dead_lettered() {
    let server = Server::start("").await;
    let amqp = Amqp::confirming(server.amqp()).await;
    let dead = amqp.bound("amq.fanout", "").await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("amq.fanout".into()));
    amqp.channel.queue_declare("jobs".into(), Default::default(), arguments).await.unwrap();
    amqp.bind("jobs", "amq.topic", "#").await;
    amqp.publish("amq.topic", "a.#", "no topic").await;
    amqp.publish("amq.topic", "a.b", "job").await;
    let mut mqtt = Mqtt5::connect(server.mqtt(), "worker").await;
    mqtt.subscribe("$queue/jobs").await;
    let got = mqtt.next().await;
    assert_eq!((topic(&got).as_str(), payload(&got).as_str()), ("a/b", "job"));
    let letter = amqp.channel.basic_get(dead.as_str().into(), Default::default()).await.unwrap().unwrap();
    assert_eq!(text(&letter.delivery.data), "no topic");
    let headers = letter.delivery.properties.headers().clone().unwrap();
    let reason = headers.inner().get("x-first-death-reason");
    assert_eq!(reason, Some(&AMQPValue::LongString("address-not-mqtt".into())), "{headers:?}");
}
