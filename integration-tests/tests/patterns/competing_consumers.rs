//! Who competes and who watches.

use std::time::Duration;

use lapin::options::{
    BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use linkspan_integration_tests::publisher::connect_amqp;
use linkspan_integration_tests::{Consumer, Dialect, Publisher, Server, Taking, soon};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};

const ROUTES: &str = r#"
[[route]]
match = "images/+"
pattern = "competing-consumers"
queue = "image-resize"

[[route]]
match = "orders/placed"
pattern = "competing-consumers"
queue = ["inventory", "payment"]
"#;

/// How long a message that must not come is waited for.
const LULL: Duration = Duration::from_millis(200);

fn text(payload: &[u8]) -> &str {
    std::str::from_utf8(payload).unwrap()
}

#[tokio::test]
async fn a_watcher_of_everything_steals_no_work() {
    let server = Server::start(ROUTES).await;
    let mut watcher = Consumer::connect(Dialect::Mqtt3, server.mqtt(), "watcher", Taking::Watch("#")).await;
    let mut publisher = Publisher::connect(Dialect::Amqp, server.amqp(), "publisher").await;
    publisher.publish("images/cat", [b"1".to_vec(), b"2".to_vec()]).await;
    let work = Taking::Work { queue: "image-resize", address: "images/+" };
    let mut worker = Consumer::connect(Dialect::Mqtt5, server.mqtt(), "worker", work).await;
    for expected in ["1", "2"] {
        assert_eq!(text(&watcher.next().await.payload), expected, "the watcher gets a copy");
        let received = worker.next().await;
        assert_eq!(text(&received.payload), expected, "the worker gets the task");
        received.settle().await;
    }
    assert!(worker.next_within(LULL).await.is_none(), "each task is given once");
}

#[tokio::test]
async fn each_queue_of_a_route_gets_every_message_and_its_members_share_them() {
    let server = Server::start(ROUTES).await;
    let mut publisher = Publisher::connect(Dialect::Mqtt3, server.mqtt(), "shop").await;
    publisher.publish("orders/placed", (0..20).map(|n: u32| n.to_string().into_bytes())).await;
    for queue in ["inventory", "payment"] {
        let work = Taking::Work { queue, address: "orders/placed" };
        let mut one = Consumer::connect(Dialect::Amqp, server.amqp(), "one", work).await;
        let mut other = Consumer::connect(Dialect::Mqtt5, server.mqtt(), "other", work).await;
        let mut got = Vec::new();
        while got.len() < 20 {
            for member in [&mut one, &mut other] {
                if let Some(received) = member.next_within(Duration::from_millis(50)).await {
                    got.push(text(&received.payload).parse::<u32>().unwrap());
                    received.settle().await;
                }
            }
        }
        got.sort();
        assert_eq!(got, (0..20).collect::<Vec<_>>(), "queue {queue}");
    }
}

#[tokio::test]
async fn a_worker_that_declares_the_routes_queue_in_its_own_way_works() {
    let server = Server::start(ROUTES).await;
    let connection = connect_amqp(server.amqp()).await;
    let channel = connection.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-priority".into(), AMQPValue::LongInt(5));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    for (options, arguments) in
        [(durable, arguments), (QueueDeclareOptions::default(), FieldTable::default())]
    {
        let declared = channel.queue_declare("image-resize".into(), options, arguments).await;
        assert_eq!(declared.expect("declare-ok").name().as_str(), "image-resize");
    }
    let bound = channel.queue_bind(
        "image-resize".into(),
        "amq.topic".into(),
        "images.*".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.expect("a worker binds its queue itself");
    Publisher::connect(Dialect::Mqtt5, server.mqtt(), "publisher")
        .await
        .publish("images/cat", [b"1".to_vec()])
        .await;
    let work = Taking::Work { queue: "image-resize", address: "images/+" };
    let mut worker = Consumer::connect(Dialect::Amqp, server.amqp(), "worker", work).await;
    worker.next().await.settle().await;
    assert!(
        worker.next_within(LULL).await.is_none(),
        "one message, although route and binding both lead there"
    );
}

#[tokio::test]
async fn the_routes_queue_can_be_neither_deleted_nor_taken_exclusively() {
    let server = Server::start(ROUTES).await;
    let connection = connect_amqp(server.amqp()).await;
    let channel = connection.create_channel().await.unwrap();
    let error = channel.queue_delete("image-resize".into(), QueueDeleteOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}");
    assert!(error.to_string().contains("images/+"), "it names the route: {error}");
    let channel = connection.create_channel().await.unwrap();
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let error =
        channel.queue_declare("image-resize".into(), exclusive, FieldTable::default()).await.unwrap_err();
    assert!(error.to_string().contains("RESOURCE_LOCKED"), "{error}");
}

#[tokio::test]
async fn an_exchange_bound_to_the_address_space_reaches_mqtt() {
    let server = Server::start("").await;
    let mut watcher =
        Consumer::connect(Dialect::Mqtt5, server.mqtt(), "watcher", Taking::Watch("plant/+")).await;
    let connection = connect_amqp(server.amqp()).await;
    let channel = connection.create_channel().await.unwrap();
    let declare = channel.exchange_declare(
        "plant".into(),
        lapin::ExchangeKind::Direct,
        ExchangeDeclareOptions::default(),
        FieldTable::default(),
    );
    declare.await.unwrap();
    let bind = channel.exchange_bind(
        "amq.topic".into(),
        "plant".into(),
        "plant.pump".into(),
        lapin::options::ExchangeBindOptions::default(),
        FieldTable::default(),
    );
    bind.await.unwrap();
    let publish = channel.basic_publish(
        "plant".into(),
        "plant.pump".into(),
        lapin::options::BasicPublishOptions::default(),
        b"on",
        lapin::BasicProperties::default(),
    );
    publish.await.unwrap().await.unwrap();
    assert_eq!(text(&watcher.next().await.payload), "on");
}

/// What an MQTT 5 server answers a subscription to `filter`.
async fn suback(server: &Server, filter: &str) -> SubscribeReasonCode {
    let at = server.mqtt();
    let options = MqttOptions::new("asker", at.ip().to_string(), at.port());
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
    soon("a SUBACK", async {
        loop {
            if let Event::Incoming(Packet::SubAck(ack)) = events.poll().await.expect("the connection lives") {
                return ack.return_codes[0];
            }
        }
    })
    .await
}

#[tokio::test]
async fn wider_and_equal_filters_are_granted_and_a_narrower_one_is_not() {
    let server = Server::start(ROUTES).await;
    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    for filter in [
        "#",
        "images/#",
        "images/+",
        "$share/image-resize/images/+",
        "$share/auditors/#",
        "$queue/image-resize",
    ] {
        assert_eq!(suback(&server, filter).await, granted, "{filter}");
    }
    for filter in ["images/cat", "$share/image-resize/images/cat", "$share/x/images/cat"] {
        assert_eq!(suback(&server, filter).await, SubscribeReasonCode::TopicFilterInvalid, "{filter}");
    }
}

#[tokio::test]
async fn an_amqp_consumer_is_told_when_its_queue_is_deleted() {
    use futures_lite::StreamExt;
    let server = Server::start("").await;
    let connection = connect_amqp(server.amqp()).await;
    let channel = connection.create_channel().await.unwrap();
    let declare = channel.queue_declare("mine".into(), QueueDeclareOptions::default(), FieldTable::default());
    declare.await.unwrap();
    let consume = channel.basic_consume(
        "mine".into(),
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut consumer = consume.await.unwrap();
    let other = connection.create_channel().await.unwrap();
    other.queue_delete("mine".into(), QueueDeleteOptions::default()).await.unwrap();
    let end = soon("the consumer is cancelled", consumer.next()).await;
    assert!(end.is_none(), "lapin ends a consumer that the server cancelled: {end:?}");
}
