//! What a real broker cannot be made to do.

use linkspan_contract::conformance::stage::queue_spec;
use linkspan_contract::topology::BindingEnd;
use linkspan_contract::{Binding, Outcome, QueueSpec, Refused, Settle, Source, Subscribe};

use crate::scripted::{Line, Packet, Scripted};
use crate::stage::{Peer, key, open, options, wait_for};

const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 10;

/// The session that publishes, and the one that subscribes, both welcome.
async fn welcomed(broker: &Scripted, properties: &[u8]) -> (Line, Line) {
    let (mut publishing, mut subscribing) = (None, None);
    while publishing.is_none() || subscribing.is_none() {
        let (mut line, connect) = broker.accept().await;
        line.welcome(false, properties).await;
        if connect.identifier().ends_with(".sub") {
            subscribing = Some(line);
        } else {
            publishing = Some(line);
        }
    }
    (publishing.unwrap(), subscribing.unwrap())
}

async fn start(properties: &[u8]) -> (Scripted, std::sync::Arc<linkspan_mqtt::MqttBackend>, Line, Line) {
    let broker = Scripted::new().await;
    let mut wanted = options(&broker.url());
    wanted.publishers = 1;
    let backend = open(wanted);
    let (publishing, subscribing) = welcomed(&broker, properties).await;
    wait_for(&backend, true).await;
    (broker, backend, publishing, subscribing)
}

fn number_of(packet: &Packet) -> (u16, String) {
    let (_, id, rest) = packet.published();
    let properties = usize::from(rest[0]);
    (id, String::from_utf8_lossy(&rest[1 + properties..]).into_owned())
}

async fn acknowledge(line: &mut Line, id: u16) {
    let [high, low] = id.to_be_bytes();
    line.write(&[0x40, 2, high, low]).await;
}

#[tokio::test]
async fn only_what_was_not_acknowledged_is_sent_again_in_its_order() {
    let (broker, backend, mut line, _subscribing) = start(&[]).await;
    let mut peer = Peer::of(&*backend).await;
    let target = peer.to("t");
    peer.publish(target, 0..5);
    let mut ids = Vec::new();
    for number in 0..5 {
        let (id, payload) = number_of(&line.expect(PUBLISH).await);
        assert_eq!(payload, number.to_string());
        ids.push(id);
    }
    for place in [3, 1] {
        acknowledge(&mut line, ids[place]).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    drop(line);
    peer.publish(target, 5..7);
    let (mut line, connect) = broker.accept().await;
    assert!(connect.is_clean(), "a session that publishes leaves nothing behind");
    line.welcome(false, &[]).await;
    for number in ["0", "2", "4", "5", "6"] {
        let (id, payload) = number_of(&line.expect(PUBLISH).await);
        assert_eq!(payload, number);
        acknowledge(&mut line, id).await;
    }
    assert_eq!(peer.confirmed().await, []);
}

#[tokio::test]
async fn the_window_is_what_the_broker_allows_and_reasons_are_told_message_by_message() {
    // Receive maximum 2 (MQTT 5 §3.2.2.3.3).
    let (_broker, backend, mut line, _subscribing) = start(&[0x21, 0, 2]).await;
    let mut peer = Peer::of(&*backend).await;
    let target = peer.to("t");
    peer.publish(target, 0..4);
    let first = number_of(&line.expect(PUBLISH).await);
    let second = number_of(&line.expect(PUBLISH).await);
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), line.read()).await;
    assert!(early.is_err(), "a third one before any acknowledgement: {early:?}");
    // No matching subscribers, and quota exceeded with a reason (§3.4.2.1).
    let [high, low] = first.0.to_be_bytes();
    line.write(&[0x40, 3, high, low, 0x10]).await;
    let [high, low] = second.0.to_be_bytes();
    line.write(&[0x40, 4 + 6, high, low, 0x97, 6, 0x1F, 0, 3, b'b', b'u', b'y']).await;
    for _ in 0..2 {
        let (id, _) = number_of(&line.expect(PUBLISH).await);
        acknowledge(&mut line, id).await;
    }
    let told = peer.confirmed().await;
    let [(0, Outcome::Unroutable), (1, Outcome::Refused(Refused::Full(why)))] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(why.contains("quota exceeded (buy)"), "{why}");
}

#[tokio::test]
async fn filters_are_asked_for_again_of_a_session_that_the_broker_takes_up_and_of_one_that_it_does_not() {
    let (broker, backend, _publishing, mut line) = start(&[]).await;
    let mut peer = Peer::of(&*backend).await;
    let answer = async {
        let subscribe = line.expect(SUBSCRIBE).await;
        let [high, low] = subscribe.id().to_be_bytes();
        line.write(&[0x90, 4, high, low, 0, 1]).await;
        // Retain handling 2 and retain as published (§3.8.3.1), QoS 1.
        assert_eq!(subscribe.body.last(), Some(&0b0010_1001));
    };
    tokio::join!(answer, peer.watch("a/#", 1, Settle::AsPublished));
    drop(line);
    let (mut line, connect) = broker.accept().await;
    assert!(!connect.is_clean());
    line.welcome(true, &[]).await;
    // A broker that crashed may know the session as it was before it granted the filter.
    let again = line.expect(SUBSCRIBE).await;
    assert_eq!(again.body.last(), Some(&0b0010_1001), "no retained message comes again");
    let [high, low] = again.id().to_be_bytes();
    line.write(&[0x90, 4, high, low, 0, 1]).await;
    // QoS 1, topic a/1, packet 7, subscription identifier 1.
    line.write(&[0x32, 2 + 3 + 2 + 3 + 1, 0, 3, b'a', b'/', b'1', 0, 7, 2, 0x0B, 1, b'5']).await;
    assert_eq!(line.expect(PUBACK).await.id(), 7);
    assert_eq!(peer.numbers_until(5).await, [5]);
    drop(line);
    let (mut line, _) = broker.accept().await;
    line.welcome(false, &[]).await;
    line.expect(SUBSCRIBE).await;
}

#[tokio::test]
async fn an_acknowledgement_of_nothing_ends_the_connection_and_no_receipt_goes_astray() {
    let (broker, backend, mut line, _subscribing) = start(&[]).await;
    let mut peer = Peer::of(&*backend).await;
    let target = peer.to("t");
    peer.publish(target, 0..2);
    line.expect(PUBLISH).await;
    line.expect(PUBLISH).await;
    acknowledge(&mut line, 999).await;
    let (mut line, _) = broker.accept().await;
    line.welcome(false, &[]).await;
    for number in ["0", "1"] {
        let (id, payload) = number_of(&line.expect(PUBLISH).await);
        assert_eq!(payload, number);
        acknowledge(&mut line, id).await;
    }
    assert_eq!(peer.confirmed().await, []);
}

#[tokio::test]
async fn a_work_message_is_acknowledged_when_the_queue_has_it_and_not_before() {
    let broker = Scripted::new().await;
    let mut wanted = options(&broker.url());
    wanted.publishers = 1;
    let backend = open(wanted);
    let _shared = welcomed(&broker, &[]).await;
    wait_for(&backend, true).await;
    let mut hub = Peer::of(&*backend).await;
    let script = async {
        let (mut line, connect) = broker.accept().await;
        assert_eq!(connect.identifier(), "linkspan.jobs");
        assert!(!connect.is_clean(), "what waits in the session is not thrown away");
        line.welcome(false, &[]).await;
        let subscribe = line.expect(SUBSCRIBE).await;
        let filter = String::from_utf8_lossy(&subscribe.body).into_owned();
        assert!(filter.contains("$share/jobs/tasks/#"), "{filter}");
        let [high, low] = subscribe.id().to_be_bytes();
        line.write(&[0x90, 4, high, low, 0, 1]).await;
        line
    };
    // The queue does not exist yet.
    let (mut line, fed) = tokio::join!(script, hub.lane.feed("jobs", &["tasks/#"], &[]));
    fed.expect("a queue is fed");
    line.write(&[0x32, 2 + 7 + 2 + 1 + 1, 0, 7, b't', b'a', b's', b'k', b's', b'/', b'1', 0, 9, 0, b'3'])
        .await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), line.read()).await;
    assert!(early.is_err(), "there is no queue that has it: {early:?}");
    hub.queue("jobs").await;
    assert_eq!(line.expect(PUBACK).await.id(), 9);
    hub.consume("jobs", 1).await;
    assert_eq!(hub.numbers_until(3).await, [3]);
}

#[tokio::test]
async fn a_queue_that_goes_with_its_client_leaves_no_subscription_behind() {
    let (_broker, backend, _publishing, mut line) = start(&[]).await;
    let mut peer = Peer::of(&*backend).await;
    let spec = QueueSpec { exclusive: true, ..queue_spec("own", &[]) };
    peer.lane.declare_queue(&spec).await.expect("a queue is declared");
    let answer = async {
        let subscribe = line.expect(SUBSCRIBE).await;
        let [high, low] = subscribe.id().to_be_bytes();
        line.write(&[0x90, 4, high, low, 0, 1]).await;
        assert!(String::from_utf8_lossy(&subscribe.body).contains("a/#"), "{subscribe:?}");
    };
    let to = BindingEnd::Queue("own");
    let binding = Binding { source: "amq.topic", to, key: b"a.#.z", arguments: &[] };
    let (_, bound) = tokio::join!(answer, peer.lane.bind(&binding));
    bound.expect("a queue is bound");
    drop(peer);
    let unsubscribe = line.expect(UNSUBSCRIBE).await;
    assert!(String::from_utf8_lossy(&unsubscribe.body).ends_with("a/#"), "{unsubscribe:?}");
}

#[tokio::test]
async fn a_filter_that_the_broker_refuses_is_refused_here_and_a_binding_undone() {
    let (_broker, backend, _publishing, mut line) = start(&[]).await;
    let mut peer = Peer::of(&*backend).await;
    peer.queue("q").await;
    let answers = async {
        for _ in 0..2 {
            let subscribe = line.expect(SUBSCRIBE).await;
            let [high, low] = subscribe.id().to_be_bytes();
            // Not authorized (MQTT 5 §3.9.3).
            line.write(&[0x90, 4, high, low, 0, 0x87]).await;
        }
    };
    let asking = async {
        let how = Subscribe::new(Settle::OnDelivery);
        let refused = peer.lane.subscribe(&Source::Filter("secret/#"), key(1), &how, None).await;
        let Err(Refused::AccessRefused(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("not authorized"), "{why}");
        let to = BindingEnd::Queue("q");
        let binding = Binding { source: "amq.topic", to, key: b"secret.*", arguments: &[] };
        assert!(matches!(peer.lane.bind(&binding).await, Err(Refused::AccessRefused(_))));
    };
    tokio::join!(answers, asking);
}
