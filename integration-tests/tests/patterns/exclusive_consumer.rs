//! One consumer at a time: who has the queue, who is refused, who takes over.

mod fenced;

use std::net::SocketAddr;
use std::time::Duration;

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use linkspan_integration_tests::amqp::{refusal, text};
use linkspan_integration_tests::cable::Cable;
use linkspan_integration_tests::mqtt_wire::MqttWire;
use linkspan_integration_tests::mqtt5::{self, Mqtt5};
use linkspan_integration_tests::process::Folder;
use linkspan_integration_tests::publisher::connect_amqp;
use linkspan_integration_tests::upstreams::{Mosquitto, RabbitMq, unique};
use linkspan_integration_tests::{Dialect, Publisher, Server, soon, within};
use rumqttc::v5::mqttbytes::v5::{Publish, SubscribeReasonCode};

/// How long a message that must not come is waited for.
const LULL: Duration = Duration::from_millis(300);

fn route(others: &str) -> String {
    route_of("auction/bids", "bids", others)
}

fn route_of(address: &str, queue: &str, others: &str) -> String {
    format!(
        "[[route]]\nmatch = \"{address}\"\npattern = \"exclusive-consumer\"\nqueue = \"{queue}\"\nothers = \"{others}\"\n"
    )
}

/// An AMQP consumer of the queue `bids`, which acknowledges what the test says.
struct Holder {
    _connection: Connection,
    _channel: Channel,
    consumer: lapin::Consumer,
}

impl Holder {
    async fn consume(door: SocketAddr, priority: i32) -> Result<Self, lapin::Error> {
        Self::consume_from("bids", door, priority).await
    }

    async fn consume_from(queue: &str, door: SocketAddr, priority: i32) -> Result<Self, lapin::Error> {
        let connection = connect_amqp(door).await;
        let channel = connection.create_channel().await?;
        channel.basic_qos(5, BasicQosOptions::default()).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-priority".into(), AMQPValue::LongInt(priority));
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(queue.into(), "".into(), options, arguments).await?;
        Ok(Self { _connection: connection, _channel: channel, consumer })
    }

    async fn next(&mut self) -> Delivery {
        let next = soon("a bid is delivered", self.consumer.next()).await;
        next.expect("the consumer lives").expect("a delivery")
    }

    async fn next_within(&mut self, limit: Duration) -> Option<Delivery> {
        within(limit, self.consumer.next()).await.flatten()?.ok()
    }
}

/// The number under which a consumer has the queue.
fn fence(delivery: &Delivery) -> i64 {
    let headers = delivery.properties.headers().as_ref().expect("headers");
    match headers.inner().get("linkspan-fence") {
        Some(AMQPValue::LongLongInt(fence)) => *fence,
        other => panic!("no fence: {other:?}"),
    }
}

fn fence_of(publish: &Publish) -> i64 {
    let properties = publish.properties.as_ref().expect("properties");
    let fence = properties.user_properties.iter().find(|(name, _)| name == "linkspan-fence");
    fence.expect("a fence").1.parse().expect("a number")
}

async fn bid(server: &Server, numbers: std::ops::Range<u32>) {
    let mut publisher = Publisher::connect(Dialect::Mqtt5, server.mqtt(), "bidder").await;
    publisher.publish("auction/bids", numbers.map(|n| n.to_string().into_bytes())).await;
}

#[tokio::test]
async fn a_second_consumer_is_refused_in_the_words_of_its_protocol() {
    let server = Server::start(&route("reject")).await;
    let holder = Holder::consume(server.amqp(), 0).await.expect("the first is let in");
    let error = Holder::consume(server.amqp(), 9).await.err().expect("the second is not");
    assert_eq!(refusal(&error).0, 403, "AMQP: {error}");
    assert!(refusal(&error).1.contains("exclusive use"), "AMQP: {error}");
    let channel = holder._connection.create_channel().await.unwrap();
    let get = channel.basic_get("bids".into(), BasicGetOptions::default()).await;
    assert_eq!(refusal(&get.expect_err("nobody takes a bid on the side")).0, 403);
    let mut second = Mqtt5::connect(server.mqtt(), "second").await;
    for filter in ["auction/bids", "$queue/bids"] {
        assert_eq!(second.subscribe(filter).await, SubscribeReasonCode::QuotaExceeded, "MQTT 5: {filter}");
    }
    let mut third = MqttWire::connect(server.mqtt(), 4, "third").await;
    assert_eq!(third.subscribe(4, "auction/bids").await, 0x80, "MQTT 3.1.1 [MQTT-3.9.3-2]");
    let mut watcher = Mqtt5::connect(server.mqtt(), "watcher").await;
    let granted = watcher.subscribe("#").await;
    assert!(matches!(granted, SubscribeReasonCode::Success(_)), "who only watches is welcome: {granted:?}");
    drop(holder);
    soon("the queue is free", async {
        while second.subscribe("$queue/bids").await == SubscribeReasonCode::QuotaExceeded {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_holder_has_a_greater_fence_than_the_one_before_also_after_a_restart() {
    let folder = Folder::new();
    let mut fences = Vec::new();
    for _ in 0..2 {
        let server = Server::start_in(&folder, &route("reject")).await;
        bid(&server, 0..2).await;
        let mut holder = Holder::consume(server.amqp(), 0).await.unwrap();
        let delivery = holder.next().await;
        fences.push(fence(&delivery));
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        let other = holder.next().await;
        assert_eq!(fence(&other), *fences.last().unwrap(), "one holder has one fence");
        other.ack(BasicAckOptions::default()).await.unwrap();
        drop(holder);
        bid(&server, 2..3).await;
        let mut device = Mqtt5::connect(server.mqtt(), "device").await;
        soon("the queue is free", async {
            while device.subscribe("auction/bids").await == SubscribeReasonCode::QuotaExceeded {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        fences.push(fence_of(&device.next().await));
        device.leave().await;
        server.stop().await;
    }
    assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
}

#[tokio::test]
async fn the_one_of_the_highest_priority_takes_over_then_the_one_that_came_first() {
    let server = Server::start(&route("standby")).await;
    let mut holder = Holder::consume(server.amqp(), 0).await.unwrap();
    let mut low = Holder::consume(server.amqp(), 0).await.expect("others stand by");
    let mut high = Holder::consume(server.amqp(), 7).await.unwrap();
    let mut late = Holder::consume(server.amqp(), 7).await.unwrap();
    bid(&server, 0..1).await;
    assert_eq!(text(&holder.next().await.data), "0");
    for standing_by in [&mut low, &mut high, &mut late] {
        assert!(standing_by.next_within(LULL).await.is_none(), "who stands by is given nothing");
    }
    drop(holder);
    let taken_over = within(Duration::from_secs(1), high.next()).await.expect("within a second");
    assert_eq!((text(&taken_over.data).as_str(), taken_over.redelivered), ("0", true));
    taken_over.ack(BasicAckOptions::default()).await.unwrap();
    drop(high);
    bid(&server, 1..2).await;
    assert_eq!(text(&late.next().await.data), "1", "by priority");
    drop(late);
    assert_eq!(text(&low.next().await.data), "1", "then by arrival");
}

#[tokio::test]
async fn a_holder_that_is_silent_for_too_long_loses_the_queue_and_what_it_settles_then_does_not_count() {
    let server = Server::start(&format!("{}holder-timeout = \"1s\"\n", route("standby"))).await;
    let mut holder = Holder::consume(server.amqp(), 0).await.unwrap();
    let mut successor = Mqtt5::connect(server.mqtt(), "successor").await;
    assert!(matches!(successor.subscribe("$queue/bids").await, SubscribeReasonCode::Success(_)));
    bid(&server, 0..3).await;
    let frozen = holder.next().await;
    let taken_over = successor.next().await;
    assert_eq!(mqtt5::payload(&taken_over), "0");
    assert!(fence_of(&taken_over) > fence(&frozen));
    frozen.ack(BasicAckOptions::default()).await.expect("too late, and no error: it may stand by");
    for expected in ["1", "2"] {
        assert_eq!(successor.next_text().await, expected);
    }
    let channel = holder._connection.create_channel().await;
    channel.expect("the connection of the one that woke up lives");
}

#[tokio::test]
async fn a_kept_session_without_its_client_holds_no_queue() {
    let server = Server::start(&route("standby")).await;
    let mut options = Mqtt5::options(server.mqtt(), "keeper");
    options.set_clean_start(false).set_session_expiry_interval(Some(600));
    let mut keeper = Mqtt5::connect_with(options.clone()).await.unwrap();
    assert!(matches!(keeper.subscribe("$queue/bids").await, SubscribeReasonCode::Success(_)));
    drop(keeper);
    let mut successor = Holder::consume(server.amqp(), 0).await.unwrap();
    bid(&server, 0..1).await;
    let delivery = successor.next().await;
    let old = fence(&delivery);
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    let mut keeper = Mqtt5::connect_with(options).await.unwrap();
    bid(&server, 1..2).await;
    successor.next().await.ack(BasicAckOptions::default()).await.unwrap();
    drop(successor);
    bid(&server, 2..3).await;
    let taken_over = keeper.next().await;
    assert_eq!(mqtt5::payload(&taken_over), "2", "it stands by since it is back");
    assert!(fence_of(&taken_over) > old);
}

/// Which number a consumer was given, and whether its word on it can have counted.
async fn rounds(server: &Server, rounds: u32) {
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let cable = Cable::to(server.amqp()).await;
        consumers.push((Holder::consume(cable.address(), 0).await.unwrap(), cable));
    }
    let (mut next, mut published, mut last) = (0, 0, 0);
    for round in 0..rounds {
        bid(server, published..published + 10).await;
        published += 10;
        let (mut holder, cable) = consumers.remove(0);
        for _ in 0..5 {
            let delivery = holder.next().await;
            assert_eq!(text(&delivery.data), next.to_string(), "round {round}: lost, or out of order");
            let fence = fence(&delivery);
            assert!(fence >= last, "round {round}: an older fence");
            last = fence;
            delivery.ack(BasicAckOptions::default()).await.unwrap();
            next += 1;
        }
        // What the acknowledgements came to is certain only when something was asked and answered behind them.
        holder._channel.basic_qos(5, BasicQosOptions::default()).await.expect("an answer");
        match round % 3 {
            0 => cable.reset(),
            1 => cable.cut().await,
            // The client is there and does nothing any more, as one that was stopped.
            _ => cable.stall(),
        }
        let spare = Cable::to(server.amqp()).await;
        consumers.push((Holder::consume(spare.address(), 0).await.unwrap(), spare));
        let (standing_by, _) = &mut consumers[0];
        let delivery = standing_by.next().await;
        assert_eq!(
            text(&delivery.data),
            next.to_string(),
            "round {round}: the successor goes on behind what was settled"
        );
        let taken = fence(&delivery);
        assert!(taken > last, "round {round}: the successor has a greater fence");
        cable.heal().await;
        // Whatever the old one has in hand and says now is not counted.
        while let Some(old) = holder.next_within(Duration::from_millis(1)).await {
            assert!(fence(&old) < taken, "round {round}: two have the queue");
            let _ = old.ack(BasicAckOptions::default()).await;
        }
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        next += 1;
        last = taken;
        for _ in 0..4 {
            let delivery = standing_by.next().await;
            assert_eq!(text(&delivery.data), next.to_string(), "round {round}: lost, or out of order");
            delivery.ack(BasicAckOptions::default()).await.unwrap();
            next += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_holders_are_killed_frozen_and_cut_off_and_nothing_is_lost_or_out_of_order() {
    let server = Server::start(&format!("{}holder-timeout = \"500ms\"\n", route("standby"))).await;
    rounds(&server, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_come_and_go_on_rabbitmq() {
    let address = RabbitMq::shared().await.address();
    on_a_broker(&format!("kind = \"amqp\"\nurl = \"amqp://guest:guest@{address}/%2f\"")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_come_and_go_on_mosquitto() {
    let address = Mosquitto::shared().await.address();
    on_a_broker(&format!("kind = \"mqtt\"\nurl = \"mqtt://{address}\"")).await;
}

/// Three holders after each other, the queue on a broker that others use, too.
async fn on_a_broker(backend: &str) {
    let (address, queue) = (unique("bids"), unique("bids"));
    let route = route_of(&address, &queue, "standby");
    let server = Server::start(&format!(
        "[backends.far]\n{backend}\n[backends.local]\nkind = \"embedded\"\n[vhosts.\"/\"]\nbackend = \"local\"\n\
         {route}backend = \"far\"\n"
    ))
    .await;
    let consume = async || Holder::consume_from(&queue, server.amqp(), 0).await.expect("let in");
    let (mut holder, mut successor) = (consume().await, consume().await);
    let mut publisher = Publisher::connect(Dialect::Amqp, server.amqp(), "bidder").await;
    publisher.publish(&address, (0..10_u32).map(|n| n.to_string().into_bytes())).await;
    let (mut next, mut last) = (0, 0);
    for _ in 0..3 {
        for _ in 0..3 {
            let delivery = holder.next().await;
            assert_eq!(text(&delivery.data), next.to_string(), "lost, or out of order");
            assert!(fence(&delivery) >= last, "an older fence");
            last = fence(&delivery);
            delivery.ack(BasicAckOptions::default()).await.unwrap();
            next += 1;
        }
        holder._channel.basic_qos(5, BasicQosOptions::default()).await.expect("an answer");
        holder = std::mem::replace(&mut successor, consume().await);
    }
    let delivery = holder.next().await;
    assert_eq!(text(&delivery.data), "9");
    assert!(fence(&delivery) > last, "each has a greater fence than the one before");
    server.stop().await;
}
