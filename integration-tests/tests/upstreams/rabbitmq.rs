//! RabbitMQ as tests get it.

use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Cable, Consumer, Dialect, RabbitMq, Taking, soon, within};

use crate::LULL;

/// What of a message outlives the broker.
fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

async fn durable_queue(client: &Amqp, name: &str) {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    client.channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
}

async fn got(client: &Amqp, queue: &str) -> Option<BasicGetMessage> {
    client.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()
}

#[tokio::test]
async fn the_shared_one_serves_amqp_and_mqtt_clients() {
    let rabbitmq = RabbitMq::shared().await;
    let amqp = Amqp::confirming(rabbitmq.address()).await;
    let topic = unique("shared");
    let queue = amqp.bound("amq.topic", &topic).await;
    // its plugin speaks MQTT 5 from RabbitMQ 3.13 on
    let watching = Taking::Watch(&topic);
    let mut mqtt = Consumer::connect(Dialect::Mqtt3, rabbitmq.mqtt(), &unique("client"), watching).await;
    let confirmed = amqp.publish_as("amq.topic", &topic, "hello", persistent()).await;
    assert_eq!(confirmed, Confirmation::Ack(None));
    assert_eq!(amqp.get(&queue).await.as_deref(), Some("hello"));
    assert_eq!(mqtt.next().await.payload, b"hello");
}

#[tokio::test]
async fn what_it_confirmed_outlives_a_stop_and_a_kill_on_the_same_port() {
    let rabbitmq = RabbitMq::own().await;
    let address = rabbitmq.address();
    let client = Amqp::confirming(address).await;
    durable_queue(&client, "kept").await;
    client.publish_as("", "kept", "before the stop", persistent()).await;
    rabbitmq.stop().await;
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens at {address}");
    rabbitmq.start().await;

    let client = Amqp::confirming(address).await;
    client.publish_as("", "kept", "before the kill", persistent()).await;
    rabbitmq.kill().await;
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens at {address}");
    rabbitmq.start().await;

    let client = Amqp::connect(address).await;
    assert_eq!(client.drain("kept").await, ["before the stop", "before the kill"]);
    assert!(got(&client, "kept").await.is_none());
}

#[tokio::test]
async fn paused_it_confirms_nothing_until_it_is_resumed() {
    let rabbitmq = RabbitMq::own().await;
    let client = Amqp::confirming(rabbitmq.address()).await;
    client.queue("q").await;
    rabbitmq.pause().await;
    let mut publishing = Box::pin(client.publish("", "q", "patience"));
    assert!(within(LULL, &mut publishing).await.is_none(), "it is frozen");
    rabbitmq.resume().await;
    assert_eq!(soon("a confirm", publishing).await, Confirmation::Ack(None));
}

#[tokio::test]
async fn own_ones_know_nothing_of_each_other_and_are_set_up_as_a_test_wants() {
    let (one, other) = tokio::join!(RabbitMq::own(), RabbitMq::own_with("channel_max = 7", &[]));
    let (on_one, on_other) = tokio::join!(Amqp::connect(one.address()), Amqp::connect(other.address()));
    durable_queue(&on_one, "q").await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = on_other.channel.queue_declare("q".into(), options, FieldTable::default()).await;
    assert!(declared.is_err(), "the queue of one is not the other's");

    let channels = |client: &Amqp| client.connection.configuration().channel_max();
    assert_eq!((channels(&on_one), channels(&on_other)), (2047, 7));

    one.ctl("add_vhost elsewhere").await;
    one.ctl("set_permissions -p elsewhere guest '.*' '.*' '.*'").await;
    let elsewhere = |rabbitmq: &RabbitMq| rabbitmq.url().replace("%2f", "elsewhere");
    for (rabbitmq, exists) in [(&one, true), (&other, false)] {
        let connected = Connection::connect(&elsewhere(rabbitmq), ConnectionProperties::default()).await;
        assert_eq!(connected.is_ok(), exists, "{}", elsewhere(rabbitmq));
    }
}

#[tokio::test]
async fn its_url_leads_through_a_cable() {
    let rabbitmq = RabbitMq::shared().await;
    let cable = Cable::to(rabbitmq.address()).await;
    let url = rabbitmq.url_by(cable.address());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    assert!(connection.status().connected());
    cable.cut().await;
    let gone = async {
        while connection.status().connected() {
            tokio::task::yield_now().await;
        }
    };
    soon("the client notices", gone).await;
    assert!(Connection::connect(&url, ConnectionProperties::default()).await.is_err(), "refused");
    cable.heal().await;
    Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
}
