//! How connections end, and what is left behind.

use linkspan_contract::{Ended, Flags, LaneEvent};

use super::client::{House, connect_with, packet, publish, subscribe5, until};

/// A CONNECT of 3.1.1 with the will `topic` of QoS 1, retained.
fn with_will(name: &str, keep_alive: u16) -> Vec<u8> {
    connect_with(4, 0b0010_1110, keep_alive, &[], &[name.as_bytes(), b"will/topic", b"gone"])
}

/// The same of 5.0, with will properties: a delay of 100 s, which the session does not outlast, and a content type.
fn with_will5(name: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 0b0000_1110, 0, 0, 0];
    body.extend(super::client::binary(name.as_bytes()));
    body.extend([9, 0x18, 0, 0, 0, 100, 0x03, 0, 1, b'c']);
    body.extend(super::client::binary(b"will/topic"));
    body.extend(super::client::binary(b"gone"));
    packet(0x10, &body)
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_its_will_mqtt_3_1_2_8() {
    let house = House::new();
    let mut client = house.client().await;
    client.send(&with_will("a", 0)).await;
    client.expect(&[0x20, 2, 0, 0]).await;
    drop(client);
    until("the will is published", || house.broker.payloads() == ["gone"]).await;
    let will = &house.broker.published()[0];
    assert_eq!(will.topic, "will/topic");
    assert_eq!(will.flags, Flags::DURABLE | Flags::RETAIN, "nobody waits for its receipt");
}

#[tokio::test]
async fn a_client_that_says_goodbye_takes_its_will_with_it_mqtt_3_14_4_3() {
    let house = House::new();
    for (goodbye, wills) in
        [(&[0xE0, 0][..], 0), (&[0xE0, 1, 0x00], 0), (&[0xE0, 1, 0x04], 1), (&[0xE0, 1, 0x80], 2)]
    {
        let mut client = house.client().await;
        client.send(&with_will5("a")).await;
        client.packet().await;
        let before = house.broker.closed().len();
        client.send(goodbye).await;
        client.closed().await;
        until("the scope is closed", || house.broker.closed().len() > before).await;
        assert_eq!(house.broker.published().len(), wills, "{goodbye:02x?}");
    }
    let will = &house.broker.published()[0];
    assert_eq!(will.properties.content_type.as_deref(), Some("c"));
}

#[tokio::test]
async fn a_taken_over_client_leaves_its_will_before_its_successor_begins() {
    let house = House::new();
    let mut first = house.client().await;
    first.send(&with_will5("same")).await;
    first.packet().await;
    let mut second = house.v311("same").await;
    assert_eq!(house.broker.payloads(), ["gone"]);
    first.disconnected(0x8E).await;
    second.ping().await;
}

#[tokio::test]
async fn a_violation_leaves_the_will_too() {
    let house = House::new();
    let mut client = house.client().await;
    client.send(&with_will("a", 0)).await;
    client.expect(&[0x20, 2, 0, 0]).await;
    client.send(&[0xF0, 0]).await;
    client.closed().await;
    until("the will is published", || house.broker.payloads() == ["gone"]).await;
}

#[tokio::test]
async fn a_server_that_goes_down_publishes_wills() {
    let house = House::new();
    let mut client = house.client().await;
    client.send(&with_will5("a")).await;
    client.packet().await;
    house.stopper.stop();
    client.disconnected(0x8B).await;
    drop(client);
    let broker = house.broker.clone();
    house.stopped().await;
    assert_eq!(broker.payloads(), ["gone"]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_disconnected_after_one_and_a_half_keep_alives_mqtt_3_1_2_22() {
    let house = House::new();
    let mut old = house.client().await;
    let started = tokio::time::Instant::now();
    old.send(&with_will("a", 4)).await;
    old.expect(&[0x20, 2, 0, 0]).await;
    old.closed().await;
    let lasted = started.elapsed().as_secs_f32();
    assert!((5.9..7.0).contains(&lasted), "closed after {lasted} s");
    assert_eq!(house.broker.payloads(), ["gone"]);
    let mut five = house.client().await;
    five.send(&connect_with(5, 2, 4, &[], &[b"b"])).await;
    five.packet().await;
    five.disconnected(0x8D).await;
}

#[tokio::test]
async fn a_second_connect_closes_the_connection_mqtt_3_1_0_2() {
    let house = House::new();
    let mut five = house.v5("a").await;
    five.send(&super::client::connect(5, "a")).await;
    five.disconnected(0x82).await;
    let mut old = house.v311("a").await;
    old.send(&super::client::connect(4, "a")).await;
    old.closed().await;
}

#[tokio::test]
async fn malformed_packets_are_answered_and_end_only_their_own_connection() {
    let house = House::new();
    let mut bystander = house.v5("bystander").await;
    for (bytes, reason) in [
        (vec![0x00, 0], 0x81),
        (vec![0x36, 4, 0, 1, b't', 0], 0x81),
        (vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF], 0x81),
        (vec![0x30, 3, 0, 9, b't'], 0x81),
        (vec![0x32, 6, 0, 1, b't', 0, 0, 0], 0x82),
        (vec![0x30, 6, 0, 3, b'a', b'/', b'#', 0], 0x90),
        (vec![0x30, 5, 0, 2, b'a', 0, 0], 0x81),
        (vec![0x80, 0], 0x81),
        (vec![0x82, 3, 0, 1, 0], 0x82),
        (vec![0x20, 3, 0, 0, 0], 0x82),
        (vec![0xD0, 0], 0x82),
        (vec![0xF0, 0], 0x82),
        (vec![0xE0, 7, 0, 5, 0x11, 0, 0, 0, 1], 0x82),
        (subscribe5("t", 0b100_0000, &[]), 0x81),
        (subscribe5("t", 3, &[]), 0x82),
    ] {
        let mut client = house.v5("a").await;
        client.send(&bytes).await;
        let packet = client.packet().await;
        assert_eq!((packet[0], packet[2]), (0xE0, reason), "for {bytes:02x?}: {packet:02x?}");
        client.closed().await;
    }
    bystander.ping().await;
}

#[tokio::test]
async fn what_came_before_a_violation_counts() {
    let house = House::new();
    let mut old = house.v311("a").await;
    let mut bytes = publish(0x32, "t", Some(1), b"good");
    bytes.extend([0x00, 0]);
    old.send(&bytes).await;
    old.expect(&[0x40, 2, 0, 1]).await;
    old.closed().await;
    assert_eq!(house.broker.payloads(), ["good"]);
}

#[tokio::test]
async fn random_bytes_never_hang_or_hurt() {
    let house = House::new();
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..60 {
        let mut client = if round % 2 == 0 { house.v5("a").await } else { house.v311("a").await };
        let bytes: Vec<u8> = (0..500)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed.to_le_bytes()[0]
            })
            .collect();
        client.send(&bytes).await;
        // Whatever it is, its end is the connection's end.
        drop(client);
    }
    house.v5("b").await.ping().await;
    until("all scopes are closed", || house.broker.closed().len() >= 60).await;
}

#[tokio::test]
async fn a_subscription_that_the_back_end_ends_is_told_so() {
    let house = House::new();
    for (why, reason) in [
        (Ended::QueueDeleted, 0x98),
        (Ended::Superseded, 0x97),
        (Ended::RouteChanged, 0x98),
        (Ended::LimitExceeded { bytes: 16 }, 0x97),
    ] {
        let mut five = house.v5("a").await;
        five.subscribe5("$queue/q", 1, &[]).await;
        house.broker.end_subscriptions(why);
        five.disconnected(reason).await;
    }
    let mut five = house.v5("a").await;
    five.subscribe5("$queue/q", 1, &[]).await;
    house.broker.end_subscriptions(Ended::Away);
    five.ping().await;
}

#[tokio::test]
async fn a_lost_lane_ends_the_connection() {
    let house = House::new();
    let mut five = house.v5("a").await;
    house.broker.event(&LaneEvent::Closed { code: 541, text: "broker went away".into() });
    five.disconnected(0x89).await;
}

#[tokio::test]
async fn a_farewell_is_not_lost_behind_what_the_client_still_sends() {
    let house = House::new();
    let mut five = house.v5("a").await;
    let mut bytes = vec![0x00, 0];
    bytes.resize(400_000, 0x30);
    five.send(&bytes).await;
    five.disconnected(0x81).await;
}

#[tokio::test]
async fn a_session_that_another_client_has_at_the_back_end_is_said_to_be_taken_over() {
    let house = House::new();
    let mut client = house.v5("a").await;
    house.broker.event(&LaneEvent::TakenOver);
    client.disconnected(0x8E).await;
}
