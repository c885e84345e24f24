//! QoS 2 is exactly once over `kill -9`, in both directions, for sessions that are kept (MQTT 5 §4.3.3, §4.4): at each step of
//! an exchange, and at random moments.
//!
//! `LINKSPAN_KILL_ROUNDS` says how often the server is killed at random, 60 times unless set.

mod device;
mod link;
mod poor_disk;
mod sender;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::mqtt_wire::{Packet, V3, V5, packet, publish};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::{Folder, Process};
use linkspan_integration_tests::soon;
use tokio::time::{sleep, timeout};

use device::Device;
use link::Link;
use sender::Sender;

/// How long nothing has to come where nothing may come.
const QUIET: Duration = Duration::from_millis(300);

/// A server that is killed and started again.
struct House {
    folder: Folder,
    process: Process,
    door: SocketAddr,
}

impl House {
    fn begin() -> Self {
        let folder = Folder::new();
        let process = Process::start(folder.path(), &[]);
        Self::with(folder, process)
    }

    fn with(folder: Folder, mut process: Process) -> Self {
        let door = process.door("mqtt");
        Self { folder, process, door }
    }

    /// Kills it, and begins another life.
    fn again(self) -> Self {
        let Self { folder, process, .. } = self;
        process.kill();
        let process = Process::start(folder.path(), &[]);
        Self::with(folder, process)
    }

    /// A client whose session is there.
    async fn resume(&self, version: u8, name: &str) -> Link {
        let (link, present) = Link::connect(self.door, version, name).await.expect("a connection");
        assert!(present, "[MQTT-3.2.2-3] {name}");
        link
    }

    /// A client whose session begins.
    async fn enter(&self, version: u8, name: &str) -> Link {
        let (link, present) = Link::connect(self.door, version, name).await.expect("a connection");
        assert!(!present, "[MQTT-3.2.2-2] {name}");
        link
    }

    /// Publishes from a session that ends with its connection, and waits until that is safe.
    async fn published(&self, payloads: &[&str]) {
        let mut publisher = Mqtt5::connect(self.door, "publisher").await;
        for payload in payloads {
            publisher.publish_once("t", payload).await;
        }
    }
}

impl Link {
    async fn packet(&mut self) -> Packet {
        soon("a packet", self.next()).await.expect("the connection lives")
    }

    /// The next packet is a PUBLISH of `t` with that first byte.
    async fn given(&mut self, first: u8, id: u16, payload: &str) {
        let (got, body) = self.packet().await;
        assert!(got & 0xf0 == 0x30, "PUBLISH of {payload}, not {got:#x} {body:?}");
        let (topic, number, text) = self.publish_in(&body);
        assert_eq!((got, topic.as_str(), number, text.as_str()), (first, "t", id, payload));
    }

    /// It is given this message of `t`, and nothing else, under whatever identifier, and takes it.
    async fn takes(&mut self, payload: &str) {
        let (first, body) = self.packet().await;
        let (topic, id, text) = self.publish_in(&body);
        assert_eq!((first & 0xf6, topic.as_str(), text.as_str()), (0x34, "t", payload));
        self.say(0x50, id).await;
        self.told(0x62, id).await;
        self.say(0x70, id).await;
        self.quiet().await;
    }

    /// The next packet is this acknowledgement.
    async fn told(&mut self, first: u8, id: u16) {
        let (got, body) = self.packet().await;
        assert_eq!((got, &body[..2]), (first, &id.to_be_bytes()[..]), "{body:?}");
    }

    async fn say(&mut self, first: u8, id: u16) {
        self.acknowledge(first, id).await.expect("the connection lives");
    }

    async fn publish_once(&mut self, dup: u8, id: u16, payload: &str) {
        let properties: &[u8] = if self.version == V5 { &[0] } else { &[] };
        let rest = [&id.to_be_bytes(), properties, payload.as_bytes()].concat();
        self.send(&publish(4 | dup, "t", &rest)).await.expect("the connection lives");
    }

    /// Nothing else is said.
    async fn quiet(&mut self) {
        if let Ok(more) = timeout(QUIET, self.next()).await {
            panic!("nothing more may come: {more:?}");
        }
        self.send(&packet(0xc0, &[])).await.expect("the connection lives");
        assert_eq!(self.packet().await, (0xd0, vec![]), "PINGRESP");
    }
}

#[tokio::test]
async fn a_delivery_goes_on_behind_a_kill_where_it_stood_mqtt_4_4_0_1() {
    for version in [V3, V5] {
        let mut house = House::begin();
        let mut client = house.enter(version, "device").await;
        client.subscribe("t").await.expect("it is subscribed");
        house.published(&["a", "b", "c"]).await;
        for (id, payload) in [(1, "a"), (2, "b"), (3, "c")] {
            client.given(0x34, id, payload).await;
        }
        // Before any PUBREC.
        house = house.again();
        let mut client = house.resume(version, "device").await;
        for (id, payload) in [(1, "a"), (2, "b"), (3, "c")] {
            client.given(0x3c, id, payload).await;
        }
        client.say(0x50, 2).await;
        client.told(0x62, 2).await;
        // Behind a PUBREL: what the client has is not given again, and keeps its place.
        house = house.again();
        let mut client = house.resume(version, "device").await;
        client.given(0x3c, 1, "a").await;
        client.told(0x62, 2).await;
        client.given(0x3c, 3, "c").await;
        // PUBREC is on its way: either it was known, or the client is asked again.
        client.say(0x50, 1).await;
        house = house.again();
        let mut client = house.resume(version, "device").await;
        let (first, body) = client.packet().await;
        let is_known = first == 0x62;
        match is_known {
            true => assert_eq!(body[..2], [0, 1]),
            false => assert_eq!((first, client.publish_in(&body)), (0x3c, ("t".into(), 1, "a".into()))),
        }
        client.told(0x62, 2).await;
        client.given(0x3c, 3, "c").await;
        if !is_known {
            client.say(0x50, 1).await;
            client.told(0x62, 1).await;
        }
        client.say(0x70, 1).await;
        client.say(0x70, 2).await;
        client.say(0x50, 3).await;
        client.told(0x62, 3).await;
        house.published(&["d"]).await;
        client.given(0x34, 4, "d").await;
        client.say(0x70, 3).await;
        client.say(0x50, 4).await;
        client.told(0x62, 4).await;
        client.say(0x70, 4).await;
        house.published(&["e"]).await;
        client.given(0x34, 5, "e").await;
        house = house.again();
        let mut client = house.resume(version, "device").await;
        client.given(0x3c, 5, "e").await;
        client.quiet().await;
        house.process.kill();
    }
}

#[tokio::test]
async fn packet_identifiers_of_qos_1_are_the_same_behind_a_kill_mqtt_4_4_0_1() {
    let mut house = House::begin();
    let mut client = house.enter(V5, "device").await;
    client.subscribe("t").await.expect("it is subscribed");
    let mut publisher = Mqtt5::connect(house.door, "publisher").await;
    for (id, payload) in [(1, "a"), (2, "b"), (3, "c")] {
        publisher.publish("t", payload).await;
        client.given(0x32, id, payload).await;
    }
    client.say(0x40, 2).await;
    client.quiet().await;
    // What comes behind says that the acknowledgement and that all was given is safe.
    publisher.publish("t", "d").await;
    client.given(0x32, 4, "d").await;
    publisher.publish("t", "e").await;
    client.given(0x32, 5, "e").await;
    house = house.again();
    let mut client = house.resume(V5, "device").await;
    for (id, payload) in [(1, "a"), (3, "c"), (4, "d")] {
        client.given(0x3a, id, payload).await;
        client.say(0x40, id).await;
    }
    let (first, body) = client.packet().await;
    assert_eq!(client.publish_in(&body), ("t".into(), 5, "e".into()));
    assert!(first == 0x3a || first == 0x32, "DUP, if it is known that it was given: {first:#x}");
    client.say(0x40, 5).await;
    client.quiet().await;
    house.process.kill();
}

#[tokio::test]
async fn a_message_is_published_once_whenever_the_server_is_killed_mqtt_4_3_3_10() {
    for version in [V3, V5] {
        let mut house = House::begin();
        let mut watcher = house.enter(V5, "watcher").await;
        watcher.subscribe("t").await.expect("it is subscribed");
        let mut client = house.enter(version, "sender").await;
        // Behind PUBREC.
        client.publish_once(0, 7, "a").await;
        client.told(0x50, 7).await;
        watcher.takes("a").await;
        house = house.again();
        let mut watcher = house.resume(V5, "watcher").await;
        let mut client = house.resume(version, "sender").await;
        client.publish_once(8, 7, "a").await;
        client.told(0x50, 7).await;
        watcher.quiet().await;
        // Behind PUBCOMP: the identifier is another message's.
        client.say(0x62, 7).await;
        client.told(0x70, 7).await;
        house = house.again();
        let mut watcher = house.resume(V5, "watcher").await;
        let mut client = house.resume(version, "sender").await;
        client.publish_once(0, 7, "b").await;
        client.told(0x50, 7).await;
        watcher.takes("b").await;
        // Before PUBCOMP is heard.
        client.say(0x62, 7).await;
        house = house.again();
        let mut client = house.resume(version, "sender").await;
        client.say(0x62, 7).await;
        client.told(0x70, 7).await;
        // Before PUBREC is heard: it is there with the note, or neither is.
        client.publish_once(0, 7, "c").await;
        house = house.again();
        let mut watcher = house.resume(V5, "watcher").await;
        let mut client = house.resume(version, "sender").await;
        client.publish_once(8, 7, "c").await;
        client.told(0x50, 7).await;
        watcher.takes("c").await;
        client.say(0x62, 7).await;
        client.told(0x70, 7).await;
        house.process.kill();
    }
}

#[tokio::test]
async fn what_is_on_its_way_is_completed_behind_a_kill_though_nothing_is_subscribed_mqtt_3_10_4_3() {
    for version in [V3, V5] {
        let mut house = House::begin();
        let mut client = house.enter(version, "device").await;
        client.subscribe("t").await.expect("it is subscribed");
        house.published(&["a", "b"]).await;
        client.given(0x34, 1, "a").await;
        client.given(0x34, 2, "b").await;
        client.say(0x50, 1).await;
        client.told(0x62, 1).await;
        let properties: &[u8] = if version == V5 { &[0] } else { &[] };
        let unsubscribe = [&[0, 9], properties, &[0, 1], b"t"].concat();
        client.send(&packet(0xa2, &unsubscribe)).await.expect("the connection lives");
        client.told(0xb0, 9).await;
        house = house.again();
        let mut client = house.resume(version, "device").await;
        client.told(0x62, 1).await;
        client.given(0x3c, 2, "b").await;
        client.say(0x70, 1).await;
        client.say(0x50, 2).await;
        client.told(0x62, 2).await;
        client.say(0x70, 2).await;
        client.quiet().await;
        house.process.kill();
    }
}

#[tokio::test]
async fn a_delivery_comes_again_at_the_qos_that_it_was_sent_at_however_it_is_subscribed_by_then() {
    for (before, after, first) in [(2, 1, 0x34), (1, 2, 0x32)] {
        let mut house = House::begin();
        let mut client = house.enter(V5, "device").await;
        client.subscribe_at("t", before).await.expect("it is subscribed");
        house.published(&["a"]).await;
        client.given(first, 1, "a").await;
        client.subscribe_at("t", after).await.expect("it is subscribed");
        house = house.again();
        let mut client = house.resume(V5, "device").await;
        client.given(first | 8, 1, "a").await;
        house.process.kill();
    }
}

#[tokio::test]
async fn a_message_that_one_queue_has_no_room_for_is_refused_as_a_whole_and_comes_once_when_there_is() {
    let mut house = House::begin();
    let amqp = Amqp::confirming(house.process.door("amqp")).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let (name, none) = ("small", FieldTable::default());
    let declared = amqp.channel.queue_declare(name.into(), QueueDeclareOptions::default(), arguments);
    declared.await.expect("declare-ok");
    let (exchange, bound) = ("amq.topic".into(), QueueBindOptions::default());
    amqp.channel.queue_bind(name.into(), exchange, "t".into(), bound, none).await.expect("bind-ok");
    house.published(&["first"]).await;
    let mut watcher = house.enter(V5, "watcher").await;
    watcher.subscribe("t").await.expect("it is subscribed");
    let mut client = house.enter(V5, "sender").await;
    for _ in 0..2 {
        client.publish_once(0, 7, "a").await;
        let (first, body) = client.packet().await;
        assert_eq!((first, &body[..3]), (0x50, &[0, 7, 0x97][..]), "quota exceeded");
        watcher.quiet().await;
    }
    amqp.channel.queue_purge(name.into(), QueuePurgeOptions::default()).await.expect("purge-ok");
    client.publish_once(0, 7, "a").await;
    client.told(0x50, 7).await;
    watcher.takes("a").await;
    house.process.kill();
}

#[tokio::test]
async fn what_is_noted_of_a_session_goes_with_it() {
    let mut house = House::begin();
    let mut client = house.enter(V5, "sender").await;
    client.publish_once(0, 7, "a").await;
    client.told(0x50, 7).await;
    house = house.again();
    // A clean start ends it.
    drop(Mqtt5::connect(house.door, "sender").await);
    let mut client = house.enter(V5, "sender").await;
    let mut watcher = house.enter(V5, "watcher").await;
    watcher.subscribe("t").await.expect("it is subscribed");
    client.publish_once(0, 7, "b").await;
    client.told(0x50, 7).await;
    watcher.given(0x34, 1, "b").await;
    house.process.kill();
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_of_qos_2_arrives_once_and_in_its_order_whenever_the_server_is_killed() {
    let rounds = number("LINKSPAN_KILL_ROUNDS", 60);
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_micros() as u64;
    let seed = number("LINKSPAN_TEST_SEED", now);
    eprintln!("LINKSPAN_TEST_SEED={seed}");
    let state = Arc::new(AtomicU64::new(seed));
    let dice = move || {
        let z = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut senders = [Sender::new("old", V3), Sender::new("new", V5)];
    let mut devices = [Device::new("first", V3), Device::new("second", V5)];
    let mut house = House::begin();
    for device in &mut devices {
        device.begin(house.door).await.expect("it is subscribed");
    }
    for round in 0..rounds {
        let door = house.door;
        let [old, new] = &mut senders;
        let [first, second] = &mut devices;
        let clients = async {
            tokio::join!(
                old.work(door, true),
                new.work(door, true),
                first.work(door, usize::MAX, &dice),
                second.work(door, usize::MAX, &dice),
            )
        };
        let life = async {
            sleep(Duration::from_millis(30 + dice() % 400)).await;
            house.process.signal("KILL");
        };
        // They end when they are cut off.
        let (ended, ()) = tokio::join!(soon("they are cut off", clients), life);
        assert!(ended.0.is_err() && ended.2.is_err(), "life {round}: {ended:?}");
        house = house.again();
    }
    let door = house.door;
    for sender in &mut senders {
        soon("what was sent is over", sender.work(door, false)).await.expect("the server lives");
    }
    let sent: u64 = senders.iter().map(|sender| sender.next).sum();
    assert!(sent > rounds * 10, "{sent} messages in {rounds} lives are not what this is about");
    for device in &mut devices {
        let most = usize::try_from(sent).expect("a number of messages");
        // Much may wait for who took its time, and the machine may be busy.
        let patience = Duration::from_secs(60 + sent / 50);
        let taken = timeout(patience, device.work(door, most, || 1)).await;
        assert!(taken.is_ok(), "{}: {} of {most} messages", device.name, device.count());
        for sender in &senders {
            let expected: Vec<u64> = (0..sender.next).collect();
            let got = device.got.get(&format!("once/{}", sender.name)).cloned().unwrap_or_default();
            assert!(got == expected, "{} got of {}: {got:?}", device.name, sender.name);
        }
        let more = timeout(QUIET, device.work(door, most + 1, || 1)).await;
        assert!(more.is_err(), "{}: more came: {more:?}", device.name);
    }
    eprintln!("{sent} messages, {rounds} kills");
    house.process.kill();
}
