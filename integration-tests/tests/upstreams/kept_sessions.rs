//! MQTT sessions that are kept, and retained messages, where RabbitMQ is the home: what waits for a client that is away
//! waits there, whoever is killed.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::mqtt5::{Mqtt5, payload, topic};
use linkspan_integration_tests::process::Folder;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Process, RabbitMq, soon};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Filter;

use crate::LULL;
use crate::back_ends::{home_is, rabbit_at};

/// Linkspan in front of a RabbitMQ that is its home, in a folder of its own.
pub struct Place {
    folder: Folder,
    configuration: String,
}

impl Place {
    pub fn before(rabbitmq: &RabbitMq) -> Self {
        let folder = Folder::new();
        let backends = format!("{}{}", rabbit_at(rabbitmq.url()), home_is("rabbit"));
        let doors = "[doors.mqtt]\nlisten = \"127.0.0.1:0\"\n[doors.amqp]\nlisten = \"127.0.0.1:0\"\n\
                     [doors.http]\nlisten = \"127.0.0.1:0\"\n";
        let configuration = folder.write("linkspan.toml", &format!("{backends}{doors}"));
        Self { folder, configuration }
    }

    pub fn start(&self) -> Process {
        Process::start(self.folder.path(), &["--config", &self.configuration])
    }

    /// The queue of a client's session, of this Linkspan alone.
    pub fn queue_of(&self, client: &str) -> String {
        let file = self.folder.path().join("linkspan-data/ledger.name");
        let name = std::fs::read_to_string(file).expect("its name stands beside its ledger");
        format!("linkspan.session.{name}.rabbit.{client}")
    }
}

/// A client whose session is kept for an hour; it comes again until its back end is there.
async fn kept(process: &mut Process, name: &str) -> Mqtt5 {
    let door = process.door("mqtt");
    let come = async {
        loop {
            let mut options = Mqtt5::options(door, name);
            options.set_clean_start(false).set_session_expiry_interval(Some(3600));
            match Mqtt5::connect_with(options).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    soon("the client is let in", come).await
}

/// A publisher, as soon as the back end is there.
pub async fn publisher(process: &mut Process) -> Mqtt5 {
    let door = process.door("mqtt");
    let come = async {
        loop {
            match Mqtt5::connect_with(Mqtt5::options(door, &unique("publisher"))).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    soon("the publisher is let in", come).await
}

async fn publish_at(rabbitmq: &RabbitMq, key: &str, payload: &str) {
    let client = Amqp::confirming(rabbitmq.address()).await;
    let persistent = BasicProperties::default().with_delivery_mode(2);
    client.publish_as("amq.topic", key, payload, persistent).await;
}

/// Whether the broker has that queue.
async fn has_queue(rabbitmq: &RabbitMq, name: &str) -> bool {
    let client = Amqp::connect(rabbitmq.address()).await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    client.channel.queue_declare(name.into(), options, FieldTable::default()).await.is_ok()
}

async fn is_gone(rabbitmq: &RabbitMq, name: &str) {
    let gone = async {
        while has_queue(rabbitmq, name).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon(&format!("{name} is gone"), gone).await;
}

fn numbers(of: std::ops::Range<u32>) -> Vec<String> {
    of.map(|n| n.to_string()).collect()
}

async fn texts(client: &mut Mqtt5, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    for _ in 0..count {
        got.push(client.next_text().await);
    }
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_for_a_client_that_is_away_outlives_linkspan_and_the_broker() {
    let rabbitmq = RabbitMq::own().await;
    let place = Place::before(&rabbitmq);
    let (device, key) = (unique("device"), "plant/1/heat");
    let mut process = place.start();
    let mut client = kept(&mut process, &device).await;
    assert!(!client.welcome.session_present);
    client.subscribe("plant/+/heat").await;
    client.subscribe_as(Filter::new("news", QoS::AtMostOnce)).await;
    let mut others = publisher(&mut process).await;
    others.publish(key, "0").await;
    assert_eq!(client.next_text().await, "0");
    client.leave().await;
    for n in 1..4 {
        others.publish(key, &n.to_string()).await;
    }
    process.kill();
    // Who is at the broker goes on without Linkspan.
    for n in 4..7 {
        publish_at(&rabbitmq, "plant.1.heat", &n.to_string()).await;
    }
    rabbitmq.kill().await;
    rabbitmq.start().await;
    let mut process = place.start();
    let mut others = publisher(&mut process).await;
    for n in 7..10 {
        others.publish(key, &n.to_string()).await;
    }
    let mut client = kept(&mut process, &device).await;
    assert!(client.welcome.session_present, "[MQTT-3.2.2-3]");
    assert_eq!(texts(&mut client, 9).await, numbers(1..10));
    others.publish(key, "10").await;
    assert_eq!(client.next_text().await, "10");
    others.tell("news", "flash").await;
    assert_eq!(client.next_text().await, "flash", "QoS 0 comes as it always did");
    assert!(client.next_within(LULL).await.is_none(), "nothing comes twice");
    client.leave().await;
    let waiting = Amqp::connect(rabbitmq.address()).await;
    assert_eq!(
        waiting.counts(&place.queue_of(&device)).await,
        (0, 0),
        "all was settled, and nobody consumes"
    );
    process.signal("TERM");
    process.exit();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_leaves_nothing_at_the_broker() {
    let rabbitmq = RabbitMq::shared().await;
    let place = Place::before(rabbitmq);
    let mut process = place.start();
    let topic = unique("t");

    let device = unique("unsubscribes");
    let mut client = kept(&mut process, &device).await;
    client.subscribe(&topic).await;
    client.subscribe("#").await;
    client.unsubscribe(&topic).await;
    assert!(has_queue(rabbitmq, &place.queue_of(&device)).await);
    client.unsubscribe("#").await;
    is_gone(rabbitmq, &place.queue_of(&device)).await;
    client.leave().await;

    let device = unique("starts-clean");
    let mut client = kept(&mut process, &device).await;
    client.subscribe(&topic).await;
    client.leave().await;
    let mut others = publisher(&mut process).await;
    others.publish(&topic, "before").await;
    assert!(has_queue(rabbitmq, &place.queue_of(&device)).await);
    let clean = Mqtt5::connect(process.door("mqtt"), &device).await;
    assert!(!clean.welcome.session_present, "[MQTT-3.1.2-4]");
    is_gone(rabbitmq, &place.queue_of(&device)).await;
    clean.leave().await;

    let device = unique("expires");
    let mut options = Mqtt5::options(process.door("mqtt"), &device);
    options.set_clean_start(false).set_session_expiry_interval(Some(1));
    let mut client = Mqtt5::connect_with(options).await.unwrap();
    client.subscribe(&topic).await;
    client.leave().await;
    assert!(has_queue(rabbitmq, &place.queue_of(&device)).await);
    is_gone(rabbitmq, &place.queue_of(&device)).await;

    // Its time runs out while Linkspan does not run.
    let mut options = Mqtt5::options(process.door("mqtt"), &device);
    options.set_clean_start(false).set_session_expiry_interval(Some(2));
    let mut client = Mqtt5::connect_with(options).await.unwrap();
    client.subscribe(&topic).await;
    client.leave().await;
    soon("it is written down", tokio::time::sleep(Duration::from_millis(500))).await;
    process.kill();
    assert!(has_queue(rabbitmq, &place.queue_of(&device)).await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut process = place.start();
    publisher(&mut process).await.leave().await;
    let client = kept(&mut process, &device).await;
    assert!(!client.welcome.session_present);
    is_gone(rabbitmq, &place.queue_of(&device)).await;
    process.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_subscription_of_a_session_gets_its_copy_as_it_asked_for_it_also_behind_a_kill() {
    let rabbitmq = RabbitMq::shared().await;
    let place = Place::before(rabbitmq);
    let (device, root) = (unique("device"), unique("root"));
    let mut process = place.start();
    let mut client = kept(&mut process, &device).await;
    client.subscribe_identified(&format!("{root}/#"), 7).await;
    client.subscribe_identified(&format!("{root}/+"), 8).await;
    let mut no_local = Filter::new(format!("{root}/own/own"), QoS::AtLeastOnce);
    no_local.nolocal = true;
    client.subscribe_as(no_local).await;
    client.publish(&format!("{root}/own/own"), "mine").await;
    let mine = client.next().await;
    assert_eq!(mine.properties.as_ref().unwrap().subscription_identifiers, [7], "one of the two is no-local");
    client.leave().await;
    let mut others = publisher(&mut process).await;
    for n in 0..20 {
        others.publish(&format!("{root}/a"), &n.to_string()).await;
    }
    process.kill();
    let mut process = place.start();
    let mut client = kept(&mut process, &device).await;
    assert!(client.welcome.session_present);
    let mut got = Vec::new();
    for _ in 0..40 {
        let publish = client.next().await;
        assert_eq!(topic(&publish), format!("{root}/a"));
        let identifiers = publish.properties.as_ref().unwrap().subscription_identifiers.clone();
        got.push((payload(&publish), identifiers));
    }
    for identifier in [7, 8] {
        let of: Vec<String> =
            got.iter().filter(|(_, them)| *them == [identifier]).map(|(text, _)| text.clone()).collect();
        assert_eq!(of, numbers(0..20), "in its order for each subscription");
    }
    assert!(client.next_within(LULL).await.is_none(), "and no more than once for each");
    process.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_over_goes_on_with_the_same_session_mqtt_3_1_4_3() {
    let rabbitmq = RabbitMq::shared().await;
    let place = Place::before(rabbitmq);
    let (device, topic) = (unique("device"), unique("t"));
    let mut process = place.start();
    let mut others = publisher(&mut process).await;
    let mut client = kept(&mut process, &device).await;
    client.subscribe_as(Filter::new(topic.clone(), QoS::ExactlyOnce)).await;
    for round in 0..10 {
        others.publish(&topic, &round.to_string()).await;
        assert_eq!(client.next_text().await, round.to_string());
        assert!(client.next_within(Duration::from_millis(50)).await.is_none());
        let next = kept(&mut process, &device).await;
        assert!(next.welcome.session_present, "round {round}");
        client = next;
    }
    process.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_with_a_member_that_is_kept_gathers_while_linkspan_does_not_run() {
    let rabbitmq = RabbitMq::shared().await;
    let place = Place::before(rabbitmq);
    let (device, topic) = (unique("device"), unique("t"));
    let mut process = place.start();
    let mut client = kept(&mut process, &device).await;
    client.subscribe(&format!("$share/g/{topic}")).await;
    client.leave().await;
    let mut others = publisher(&mut process).await;
    others.publish(&topic, "0").await;
    process.signal("TERM");
    process.exit();
    publish_at(rabbitmq, &topic, "1").await;
    let mut process = place.start();
    let mut client = kept(&mut process, &device).await;
    assert!(client.welcome.session_present);
    assert_eq!(texts(&mut client, 2).await, ["0", "1"]);
    // What it has acknowledged is on its way to the broker.
    assert!(client.next_within(LULL).await.is_none());
    client.leave().await;
    process.kill();
    publish_at(rabbitmq, &topic, "2").await;
    let mut process = place.start();
    let mut client = kept(&mut process, &device).await;
    assert_eq!(client.next_text().await, "2");
    client.leave().await;
    let clean = Mqtt5::connect(process.door("mqtt"), &device).await;
    is_gone(rabbitmq, &format!("linkspan.share.g.{topic}")).await;
    clean.leave().await;
    process.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_addresses_retain_outlives_linkspan_and_the_broker_mqtt_3_3_1_5() {
    let rabbitmq = RabbitMq::own().await;
    let place = Place::before(&rabbitmq);
    let mut process = place.start();
    let mut device = publisher(&mut process).await;
    for n in 0..10 {
        device.retain(&format!("state/{}", n % 3), &n.to_string()).await;
    }
    device.retain("state/1", "").await;
    process.kill();
    rabbitmq.kill().await;
    rabbitmq.start().await;
    let mut process = place.start();
    let mut device = publisher(&mut process).await;
    device.subscribe("state/#").await;
    let mut got = Vec::new();
    for _ in 0..2 {
        let publish = device.next().await;
        assert!(publish.retain);
        got.push((topic(&publish), payload(&publish)));
    }
    assert_eq!(got, [("state/0".into(), "9".into()), ("state/2".into(), "8".into())]);
    assert!(device.next_within(LULL).await.is_none(), "what was cleared stays cleared [MQTT-3.3.1-6]");
    process.kill();
}
