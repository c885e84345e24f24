//! What a shared subscription took, and a session that is kept is a member, survives with the session.

use std::time::Duration;

use linkspan_integration_tests::mqtt_wire::{MqttWire, V5, connect, packet, text};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::{Folder, Process};
use linkspan_integration_tests::wire::Wire;
use rumqttc::v5::mqttbytes::v5::PubAckReason;

/// How long nothing has to come where nothing may come.
const QUIET: Duration = Duration::from_millis(500);

const SHARED: &str = "$share/g/t";

/// A client of MQTT 5 whose session is kept for an hour, and whether there was one.
async fn kept(server: &mut Process, name: &str) -> (MqttWire, bool) {
    let list = [0x11, 0, 0, 0x0e, 0x10];
    let rest = [&[5][..], &list, &text(name)].concat();
    let mut client = MqttWire { wire: Wire::to(server.door("mqtt")).await };
    client.send(&connect(V5, 0, 0, &rest)).await;
    let (first, body) = client.next().await;
    assert_eq!((first, body[1]), (0x20, 0), "CONNACK, and success: {body:?}");
    (client, body[0] == 1)
}

async fn subscribe(client: &mut MqttWire, qos: u8) {
    let body = [&[0, 1, 0][..], &text(SHARED), &[qos]].concat();
    client.send(&packet(0x82, &body)).await;
    assert_eq!(client.next().await, (0x90, vec![0, 1, 0, qos]), "[MQTT-3.8.4-1]");
}

/// The text of the next PUBLISH, and its packet identifier.
async fn given(client: &mut MqttWire) -> (String, [u8; 2]) {
    let (first, body) = client.next().await;
    assert_eq!(first & 0xf0, 0x30, "a PUBLISH: {body:?}");
    // Topic `t`, identifier, no properties.
    (String::from_utf8_lossy(&body[6..]).into_owned(), [body[3], body[4]])
}

/// The texts of the next PUBLISHes, which are acknowledged.
async fn taken(client: &mut MqttWire, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        let (text, [high, low]) = given(client).await;
        client.send(&[0x40, 2, high, low]).await;
        texts.push(text);
    }
    texts
}

/// Publishes numbers, each acknowledged with success.
async fn published(server: &mut Process, numbers: std::ops::Range<u32>) {
    let mut publisher = Mqtt5::connect(server.door("mqtt"), "publisher").await;
    for number in numbers {
        assert_eq!(publisher.publish("t", &number.to_string()).await, PubAckReason::Success, "{number}");
    }
    publisher.leave().await;
}

fn texts(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

/// Nothing but the answer to a ping comes.
async fn nothing_comes(client: &mut MqttWire) {
    tokio::time::sleep(QUIET).await;
    client.ping().await;
}

fn again(server: Process, folder: &Folder) -> Process {
    server.kill();
    Process::start(folder.path(), &[])
}

#[tokio::test]
async fn what_waits_for_members_that_are_away_is_there_after_a_kill_in_its_order() {
    let folder = Folder::new();
    let mut server = Process::start(folder.path(), &[]);
    let (mut member, _) = kept(&mut server, "member").await;
    subscribe(&mut member, 1).await;
    drop(member);
    published(&mut server, 0..50).await;
    let mut server = again(server, &folder);
    // It takes messages before its members are back.
    published(&mut server, 50..60).await;
    let (mut member, present) = kept(&mut server, "member").await;
    assert!(present, "[MQTT-3.2.2-3]");
    assert_eq!(taken(&mut member, 60).await, texts(0..60));
    member.ping().await;
    // What is written behind the acknowledgements makes them safe.
    published(&mut server, 60..61).await;
    assert_eq!(taken(&mut member, 1).await, ["60"]);
    member.ping().await;
    drop(member);
    published(&mut server, 61..62).await;
    let mut server = again(server, &folder);
    let (mut member, _) = kept(&mut server, "member").await;
    assert_eq!(taken(&mut member, 1).await, ["61"], "what was acknowledged does not come back");
    nothing_comes(&mut member).await;
}

#[tokio::test]
async fn what_was_on_its_way_to_a_member_comes_to_another_after_a_kill() {
    let folder = Folder::new();
    let mut server = Process::start(folder.path(), &[]);
    let (mut one, _) = kept(&mut server, "one").await;
    let (mut other, _) = kept(&mut server, "other").await;
    subscribe(&mut one, 1).await;
    published(&mut server, 0..10).await;
    for number in 0..10 {
        assert_eq!(given(&mut one).await.0, number.to_string());
    }
    subscribe(&mut other, 1).await;
    let mut server = again(server, &folder);
    let (mut other, _) = kept(&mut server, "other").await;
    assert_eq!(taken(&mut other, 10).await, texts(0..10));
    let (mut one, present) = kept(&mut server, "one").await;
    assert!(present);
    nothing_comes(&mut one).await;
}

#[tokio::test]
async fn what_a_member_has_taken_at_qos_2_is_never_given_to_another() {
    let folder = Folder::new();
    let mut server = Process::start(folder.path(), &[]);
    let (mut one, _) = kept(&mut server, "one").await;
    subscribe(&mut one, 2).await;
    let mut publisher = Mqtt5::connect(server.door("mqtt"), "publisher").await;
    publisher.publish_once("t", "1").await;
    let (text, [high, low]) = given(&mut one).await;
    assert_eq!(text, "1");
    one.send(&[0x50, 2, high, low]).await;
    assert_eq!(one.next().await, (0x62, vec![high, low]), "PUBREL [MQTT-4.3.3-4]");
    let (mut other, _) = kept(&mut server, "other").await;
    subscribe(&mut other, 2).await;
    // What is safe behind the PUBREC makes that safe, too.
    drop(one);
    published(&mut server, 2..3).await;
    let mut server = again(server, &folder);
    let (mut other, _) = kept(&mut server, "other").await;
    assert_eq!(given(&mut other).await.0, "2");
    nothing_comes(&mut other).await;
}

#[tokio::test]
async fn a_group_of_clean_members_is_kept_from_its_first_kept_member_on_with_what_is_in_it() {
    let folder = Folder::new();
    let mut server = Process::start(folder.path(), &[]);
    let mut clean = MqttWire::connect_narrow(server.door("mqtt"), "clean", 1).await;
    assert_eq!(clean.subscribe(V5, SHARED).await, 1);
    published(&mut server, 0..5).await;
    assert_eq!(given(&mut clean).await.0, "0", "one is on its way, and four wait");
    let (mut member, _) = kept(&mut server, "member").await;
    subscribe(&mut member, 1).await;
    drop(member);
    let mut server = again(server, &folder);
    let (mut member, _) = kept(&mut server, "member").await;
    assert_eq!(taken(&mut member, 5).await, texts(0..5));
}

#[tokio::test]
async fn a_group_goes_with_its_last_kept_member() {
    let folder = Folder::new();
    let mut server = Process::start(folder.path(), &[]);
    let unsubscribed = async |client: &mut MqttWire| {
        client.send(&packet(0xa2, &[&[0, 2, 0][..], &text(SHARED)].concat())).await;
        assert_eq!(client.next().await, (0xb0, vec![0, 2, 0, 0]), "[MQTT-3.10.4-4]");
    };
    let is_there = async |server: &mut Process| {
        let mut publisher = Mqtt5::connect(server.door("mqtt"), "publisher").await;
        publisher.publish("t", "0").await == PubAckReason::Success
    };
    let (mut one, _) = kept(&mut server, "one").await;
    let (mut other, _) = kept(&mut server, "other").await;
    subscribe(&mut one, 1).await;
    subscribe(&mut other, 1).await;
    unsubscribed(&mut one).await;
    drop(other);
    assert!(is_there(&mut server).await, "one is a member still");
    let mut server = again(server, &folder);
    assert!(is_there(&mut server).await, "and is after a kill");
    // A clean start ends its session [MQTT-3.1.2-4].
    let _clean = MqttWire::connect(server.door("mqtt"), V5, "other").await;
    assert!(!is_there(&mut server).await, "nobody is");
    let mut server = again(server, &folder);
    assert!(!is_there(&mut server).await, "and nobody is after a kill");
    let (mut one, _) = kept(&mut server, "one").await;
    subscribe(&mut one, 1).await;
    assert!(is_there(&mut server).await);
    assert_eq!(taken(&mut one, 1).await, ["0"]);
    unsubscribed(&mut one).await;
    assert!(!is_there(&mut server).await, "it has gone");
    let mut server = again(server, &folder);
    assert!(!is_there(&mut server).await, "for good");
}
