//! While an alarm is raised: what a client publishes waits, what it is given and acknowledges goes on.

use std::time::Duration;

use linkspan_contract::Outcome;

use super::client::{House, binary, connect_with, publish, until};
use crate::alarms::Shortage;
use crate::doors::mqtt::Limits;

const MEMORY: Shortage = Shortage::Memory { used: 3 << 30, limit: 2 << 30 };

/// A door with an alarm that is raised, where every message has somebody to go to.
fn alarmed() -> House {
    let house = House::new();
    house.broker.answer(Some(Outcome::Accepted));
    house.alarms.raise(&MEMORY);
    house
}

#[tokio::test]
async fn what_is_published_waits_in_its_order_and_is_acknowledged_when_the_alarm_is_over() {
    let house = alarmed();
    let mut client = house.v311("a").await;
    client.send(&publish(0x30, "t", None, b"0")).await;
    client.send(&publish(0x32, "t", Some(7), b"1")).await;
    client.send(&publish(0x34, "t", Some(8), b"2")).await;
    client.ping().await;
    client.ping().await;
    assert!(house.broker.published().is_empty());
    house.alarms.lower(&MEMORY.subject());
    client.expect(&[0x40, 2, 0, 7, 0x50, 2, 0, 8]).await;
    assert_eq!(house.broker.payloads(), ["0", "1", "2"]);
    client.send(&[0x62, 2, 0, 8]).await;
    client.expect(&[0x70, 2, 0, 8]).await;
}

#[tokio::test]
async fn what_came_with_the_connect_or_a_subscribe_waits_too() {
    let house = alarmed();
    let mut client = house.client().await;
    let connect = connect_with(4, 2, 0, &[], &[b"a"]);
    let subscribe = super::client::subscribe("t", 1);
    client.send(&[connect, subscribe, publish(0x32, "t", Some(7), b"1")].concat()).await;
    client.expect(&[0x20, 2, 0, 0]).await;
    client.expect(&[0x90, 3, 0, 1, 1]).await;
    client.ping().await;
    assert!(house.broker.published().is_empty());
    house.alarms.lower(&MEMORY.subject());
    let (one, other) = (client.packet().await, client.packet().await);
    assert!([&one, &other].iter().any(|packet| packet[..] == [0x40, 2, 0, 7]), "{one:02x?} {other:02x?}");
}

#[tokio::test]
async fn who_is_held_as_a_publisher_goes_on_consuming() {
    let house = House::new();
    let mut publisher = house.v311("publisher").await;
    let mut worker = house.v5("worker").await;
    worker.subscribe5("jobs", 1, &[]).await;
    for id in 1..=3 {
        publisher.send(&publish(0x32, "jobs", Some(id), b"job")).await;
        publisher.expect(&[0x40, 2, 0, u8::try_from(id).unwrap()]).await;
        worker.packet().await;
    }
    house.alarms.raise(&MEMORY);
    // A result for each job, before it is acknowledged.
    for id in 1..=3u8 {
        let mut result = binary(b"results");
        result.extend([0, 100 + id, 0, b'r']);
        worker.send(&super::client::packet(0x32, &result)).await;
        worker.send(&[0x40, 2, 0, id]).await;
        worker.ping().await;
    }
    until("all jobs are settled", || house.broker.settled().iter().map(|run| run.count).sum::<u32>() == 3)
        .await;
    assert_eq!(house.broker.payloads(), ["job"; 3], "no result is published");
    house.alarms.lower(&MEMORY.subject());
    until("the results are there", || house.broker.published().len() == 6).await;
}

#[tokio::test]
async fn who_only_subscribes_never_notices() {
    let house = House::new();
    let mut publisher = house.v311("publisher").await;
    house.alarms.raise(&MEMORY);
    let mut subscriber = house.v311("subscriber").await;
    subscriber.subscribe("t", 1).await;
    house.alarms.lower(&MEMORY.subject());
    publisher.send(&publish(0x32, "t", Some(1), b"x")).await;
    publisher.expect(&[0x40, 2, 0, 1]).await;
    house.alarms.raise(&MEMORY);
    let got = subscriber.packet().await;
    assert_eq!(got[0], 0x32, "{got:02x?}");
    subscriber.send(&[0x40, 2, got[5], got[6]]).await;
    subscriber.ping().await;
    assert_eq!(house.broker.settled().len(), 1);
    subscriber.send(&[0xA2, 5, 0, 2, 0, 1, b't']).await;
    subscriber.expect(&[0xB0, 2, 0, 2]).await;
}

#[tokio::test]
async fn more_than_a_little_is_not_read_and_silence_ends_nobody_then_mqtt_3_1_2_24() {
    let house = alarmed();
    let mut client = house.client().await;
    client.send(&connect_with(4, 2, 1, &[], &[b"a"])).await;
    client.expect(&[0x20, 2, 0, 0]).await;
    let payload = vec![b'x'; 10_000];
    for id in 1..=4 {
        client.send(&publish(0x32, "t", Some(id), &payload)).await;
    }
    let mut other = house.v311("other").await;
    other.ping().await;
    tokio::time::pause();
    // Keep-alive is a second: half as much again of silence would end a connection that is read.
    tokio::time::sleep(Duration::from_secs(20)).await;
    tokio::time::resume();
    other.ping().await;
    assert!(house.broker.published().is_empty());
    house.alarms.lower(&MEMORY.subject());
    client.expect(&[0x40, 2, 0, 1, 0x40, 2, 0, 2, 0x40, 2, 0, 3, 0x40, 2, 0, 4]).await;
}

#[tokio::test]
async fn silence_of_a_client_that_is_held_and_read_ends_it_mqtt_3_1_2_24() {
    let house = alarmed();
    let mut client = house.client().await;
    client.send(&connect_with(5, 2, 1, &[], &[b"a"])).await;
    assert_eq!(client.packet().await[0], 0x20);
    client.send(&[0x32, 7, 0, 1, b't', 0, 9, 0, b'x']).await;
    client.ping().await;
    tokio::time::pause();
    client.disconnected(0x8D).await;
}

#[tokio::test]
async fn a_held_client_that_takes_nothing_is_not_ended_for_pings_that_are_not_read_mqtt_3_1_2_24() {
    let house = House::new();
    let mut publisher = house.v311("publisher").await;
    let mut client = house.client().await;
    client.send(&connect_with(4, 2, 1, &[], &[b"a"])).await;
    client.expect(&[0x20, 2, 0, 0]).await;
    client.subscribe("t", 0).await;
    let payload = vec![b'x'; 60_000];
    // More than sockets take.
    for _ in 0..300 {
        publisher.send(&publish(0x30, "t", None, &payload)).await;
    }
    publisher.ping().await;
    house.alarms.raise(&MEMORY);
    client.send(&publish(0x32, "u", Some(9), b"held")).await;
    for _ in 0..10 {
        publisher.ping().await;
    }
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(20)).await;
    tokio::time::resume();
    house.alarms.lower(&MEMORY.subject());
    until("it is published", || house.broker.payloads().last().is_some_and(|last| last == "held")).await;
}

#[tokio::test]
async fn a_large_message_that_has_its_memory_is_completed_and_the_next_takes_none() {
    let limits = Limits { large_packets: 1 << 20, ..Limits::default() };
    let house = House::with(limits);
    house.broker.answer(Some(Outcome::Accepted));
    let mut client = house.v311("a").await;
    let large = publish(0x32, "t", Some(1), &vec![b'x'; 300_000]);
    client.send(&large[..200_000]).await;
    let mut other = house.v311("other").await;
    other.ping().await;
    house.alarms.raise(&MEMORY);
    client.send(&large[200_000..]).await;
    client.expect(&[0x40, 2, 0, 1]).await;
    client.send(&publish(0x32, "t", Some(2), &vec![b'y'; 300_000])).await;
    other.ping().await;
    assert_eq!(house.broker.published().len(), 1);
    house.alarms.lower(&MEMORY.subject());
    client.expect(&[0x40, 2, 0, 2]).await;
}

#[tokio::test]
async fn a_held_client_can_be_taken_over_and_what_it_leaves_is_published_once_the_alarm_is_over() {
    let house = alarmed();
    let mut first = house.v5("a").await;
    first.send(&[0x32, 7, 0, 1, b't', 0, 9, 0, b'1']).await;
    first.ping().await;
    let mut second = house.v5("a").await;
    first.disconnected(0x8E).await;
    second.ping().await;
    assert!(house.broker.published().is_empty(), "it was not acknowledged, and its client knows");
    // One that publishes and hangs up.
    let mut short = house.v311("short").await;
    short.send(&[&publish(0x30, "t", None, b"2")[..], &[0xE0, 0]].concat()).await;
    drop(short);
    second.ping().await;
    house.alarms.lower(&MEMORY.subject());
    until("it is published", || house.broker.payloads() == ["2"]).await;
}
