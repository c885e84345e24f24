//! MQTT: sessions that outlive their connections.

use std::time::Duration;

use linkspan_integration_tests::clients::mosquitto;
use linkspan_integration_tests::mqtt_wire::{MqttWire, V3, V5, connect, packet, publish, text};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::Folder;
use linkspan_integration_tests::wire::Wire;
use linkspan_integration_tests::{Cable, Server, soon};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Filter;

use crate::LULL;

/// A client of 5.0 whose session is kept for an hour, and whether there was one.
async fn kept(server: &Server, name: &str) -> (MqttWire, bool) {
    let list = [0x11, 0, 0, 0x0e, 0x10];
    let rest = [&[5][..], &list, &text(name)].concat();
    let mut client = MqttWire { wire: Wire::to(server.mqtt()).await };
    client.send(&connect(V5, 0, 0, &rest)).await;
    let (first, body) = client.next().await;
    assert_eq!((first, body[1]), (0x20, 0), "CONNACK, and success: {body:?}");
    (client, body[0] == 1)
}

async fn subscribe(client: &mut MqttWire, filter: &str, qos: u8) {
    let body = [&[0, 1, 0][..], &text(filter), &[qos]].concat();
    client.send(&packet(0x82, &body)).await;
    assert_eq!(client.next().await, (0x90, vec![0, 1, 0, qos]), "[MQTT-3.8.4-1]");
}

/// Publishes `n` at that QoS to `t`, and waits until it is taken.
async fn published(client: &mut Mqtt5, qos: u8, n: u8) {
    match qos {
        1 => drop(client.publish("t", &n.to_string()).await),
        _ => client.publish_once("t", &n.to_string()).await,
    }
}

/// The next packet is message `n` of `t`.
async fn given(client: &mut MqttWire, flags: u8, id: u8, n: u8) {
    let expected = publish(flags, "t", &[&[0, id, 0][..], n.to_string().as_bytes()].concat());
    let (first, body) = client.next().await;
    assert_eq!(packet(first, &body), expected);
}

#[tokio::test]
async fn what_comes_while_the_client_is_away_and_what_it_had_comes_in_its_order_mqtt_4_4_0_1() {
    let server = Server::start("").await;
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    let (mut client, present) = kept(&server, "device").await;
    assert!(!present, "[MQTT-3.2.2-2]");
    subscribe(&mut client, "t", 2).await;
    for (id, (qos, flags)) in (1..).zip([(1, 2), (2, 4), (2, 4)]) {
        published(&mut publisher, qos, id).await;
        given(&mut client, flags, id, id).await;
    }
    client.send(&[0x50, 2, 0, 2]).await;
    assert_eq!(client.next().await, (0x62, vec![0, 2]), "[MQTT-4.3.3-4]");
    drop(client);
    for (qos, n) in [(2, 4), (1, 5)] {
        published(&mut publisher, qos, n).await;
    }
    let (mut client, present) = kept(&server, "device").await;
    assert!(present, "[MQTT-3.2.2-3]");
    given(&mut client, 0x0a, 1, 1).await;
    assert_eq!(client.next().await, (0x62, vec![0, 2]), "past PUBREC it is never given again");
    given(&mut client, 0x0c, 3, 3).await;
    given(&mut client, 4, 4, 4).await;
    given(&mut client, 2, 5, 5).await;
    client.send(&[0x70, 2, 0, 2, 0x40, 2, 0, 1, 0x40, 2, 0, 5, 0x50, 2, 0, 3, 0x50, 2, 0, 4]).await;
    assert_eq!(client.next().await, (0x62, vec![0, 3]));
    assert_eq!(client.next().await, (0x62, vec![0, 4]));
    client.send(&[0x70, 2, 0, 3, 0x70, 2, 0, 4]).await;
    client.ping().await;
    drop(client);
    let (mut client, _) = kept(&server, "device").await;
    client.ping().await;
}

#[tokio::test]
async fn a_take_over_goes_on_with_the_same_session_mqtt_3_1_4_3() {
    let server = Server::start("").await;
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    let (mut client, _) = kept(&server, "device").await;
    subscribe(&mut client, "t", 1).await;
    for round in 0..20 {
        published(&mut publisher, 1, round).await;
        let (mut next, present) = kept(&server, "device").await;
        assert!(present, "round {round}");
        let (first, body) = next.next().await;
        assert_eq!((first & 0xf6, body.last()), (0x32, Some(&(b'0' + round % 10))), "{body:?}");
        next.send(&[0x40, 2, body[3], body[4]]).await;
        next.ping().await;
        client = next;
    }
    drop(client);
}

/// A client that is cut again and again, and misses nothing and gets nothing twice.
#[tokio::test]
async fn a_third_partys_client_that_is_cut_time_and_again_gets_each_message_of_qos_2_once() {
    let server = Server::start("").await;
    let cable = Cable::to(server.mqtt()).await;
    let options = || {
        let mut options = Mqtt5::options(cable.address(), "device");
        options.set_clean_start(false).set_session_expiry_interval(Some(3600));
        options
    };
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    let mut client = Mqtt5::connect_with(options()).await.unwrap();
    client.subscribe_as(Filter::new("t", QoS::ExactlyOnce)).await;
    let mut got = Vec::new();
    for round in 0..10_u32 {
        for n in 0..20 {
            publisher.publish_once("t", &(round * 20 + n).to_string()).await;
        }
        for _ in 0..20 {
            got.push(client.next_text().await);
        }
        // What is acknowledged is on its way: cut when it has arrived.
        assert!(client.next_within(LULL).await.is_none(), "nothing comes twice");
        cable.reset();
        drop(client);
        client = Mqtt5::connect_with(options()).await.unwrap();
        assert!(client.welcome.session_present, "round {round}");
    }
    let expected: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_worker_keeps_what_it_has_while_it_is_away_and_others_get_the_rest() {
    let route = "[[route]]\nmatch = \"jobs\"\npattern = \"competing-consumers\"\nqueue = \"jobs\"\n";
    let server = Server::start(route).await;
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    let (mut worker, _) = kept(&server, "worker").await;
    subscribe(&mut worker, "$queue/jobs", 2).await;
    publisher.publish_once("jobs", "1").await;
    let (first, body) = worker.next().await;
    assert_eq!((first, body.last()), (0x34, Some(&b'1')));
    drop(worker);
    let mut other = Mqtt5::connect(server.mqtt(), "other").await;
    other.subscribe("$queue/jobs").await;
    publisher.publish("jobs", "2").await;
    assert_eq!(other.next_text().await, "2");
    assert!(other.next_within(LULL).await.is_none(), "the other's work is its own");
    other.leave().await;
    publisher.publish("jobs", "3").await;
    let (mut worker, present) = kept(&server, "worker").await;
    assert!(present);
    let (first, body) = worker.next().await;
    assert_eq!((first, body.last()), (0x3c, Some(&b'1')), "DUP, and the same identifier");
    let (first, body) = worker.next().await;
    assert_eq!((first, body.last()), (0x32, Some(&b'3')));
    // Its session's end gives back what it had.
    drop(worker);
    let mut clean = MqttWire::connect(server.mqtt(), V3, "worker").await;
    clean.subscribe(V3, "$queue/jobs").await;
    let mut numbers = Vec::new();
    for _ in 0..2 {
        numbers.extend(clean.next().await.1.last().copied());
    }
    numbers.sort();
    assert_eq!(numbers, [b'1', b'3']);
}

#[tokio::test]
async fn a_session_for_which_more_waits_than_its_limit_is_over_and_its_client_told_so() {
    let server = Server::start("[limits]\nsession-high = \"4 KiB\"\nsession-limit = \"16 KiB\"").await;
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    let (mut client, _) = kept(&server, "device").await;
    subscribe(&mut client, "t", 1).await;
    drop(client);
    let large = "x".repeat(1000);
    for _ in 0..30 {
        publisher.publish("t", &large).await;
    }
    let (mut client, present) = kept(&server, "device").await;
    assert!(!present, "it has missed something, and learns that from this");
    client.ping().await;
}

#[tokio::test]
async fn a_sessions_limit_counts_messages_wholly_and_of_a_body_of_its_own_in_the_log_a_64th() {
    // Room for four of either.
    let server = Server::start("[limits]\nsession-high = \"4 KiB\"\nsession-limit = \"72 KiB\"").await;
    let mut publisher = MqttWire::connect(server.mqtt(), V3, "publisher").await;
    for size in [16 << 10, 1 << 20] {
        let payload = vec![b'x'; size];
        for count in [4, 5] {
            let (mut client, _) = kept(&server, "device").await;
            subscribe(&mut client, "t", 1).await;
            client.send(&[0xe0, 0]).await;
            client.wire.rest().await;
            for id in 1..=count {
                publisher.send(&publish(2, "t", &[&[0, id][..], &payload].concat())).await;
                assert_eq!(publisher.next().await, (0x40, vec![0, id]), "PUBACK");
            }
            let (mut client, present) = kept(&server, "device").await;
            assert_eq!(present, count == 4, "{count} messages of {size} bytes wait");
            for _ in 0..if present { count } else { 0 } {
                let (first, body) = client.next().await;
                assert_eq!((first, body.len()), (0x32, 6 + size));
                client.send(&[0x40, 2, body[3], body[4]]).await;
            }
            client.ping().await;
        }
    }
}

#[tokio::test]
async fn qos_0_is_not_kept_for_a_client_that_is_away() {
    let server = Server::start("").await;
    let (mut client, _) = kept(&server, "device").await;
    subscribe(&mut client, "t", 2).await;
    drop(client);
    let mut publisher = MqttWire::connect(server.mqtt(), V3, "publisher").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    publisher.send(&publish(0, "t", b"0")).await;
    publisher.send(&publish(2, "t", &[0, 1, b'1'])).await;
    assert_eq!(publisher.next().await, (0x40, vec![0, 1]));
    let (mut client, _) = kept(&server, "device").await;
    given(&mut client, 2, 1, 1).await;
    client.ping().await;
}

#[tokio::test]
async fn mosquittos_own_client_finds_its_session_and_what_waits_in_it_at_qos_2() {
    let server = Server::start("").await;
    let port = server.mqtt().port().to_string();
    for version in ["mqttv311", "mqttv5"] {
        let name = format!("keeper-{version}");
        let sub = |more: &[&str]| {
            let mut command = mosquitto("mosquitto_sub").unwrap();
            command.args([
                "-p", &port, "-V", version, "-i", &name, "-c", "-q", "2", "-t", "away", "-F", "%q %p",
            ]);
            command.args(more);
            command
        };
        // It subscribes, and leaves; with 5.0 -c asks for a session without end.
        let subscribed = soon("mosquitto_sub", sub(&["-E"]).output()).await.unwrap();
        assert!(subscribed.status.success(), "{version}: {subscribed:?}");
        for (qos, text) in [("2", "once"), ("1", "least")] {
            let mut command = mosquitto("mosquitto_pub").unwrap();
            command.args(["-p", &port, "-q", qos, "-t", "away", "-m", text]);
            assert!(soon("mosquitto_pub", command.status()).await.unwrap().success());
        }
        let got = soon("mosquitto_sub", sub(&["-C", "2"]).output()).await.unwrap();
        // It shows a message of QoS 2 when the PUBREL has come.
        assert_eq!(String::from_utf8_lossy(&got.stdout), "1 least\n2 once\n", "{version}");
    }
}

#[tokio::test]
async fn the_payload_of_a_large_message_is_sent_again_whole() {
    let server = Server::start("").await;
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    let (mut client, _) = kept(&server, "device").await;
    subscribe(&mut client, "t", 2).await;
    let large = "y".repeat(200_000);
    publisher.publish_once("t", &large).await;
    let (first, before) = client.next().await;
    assert_eq!((first, before.len()), (0x34, 200_006));
    drop(client);
    publisher.publish("t", &large).await;
    let (mut client, _) = kept(&server, "device").await;
    let (first, again) = client.next().await;
    assert!(first == 0x3c && again == before, "{first:02x}");
    let (first, behind) = client.next().await;
    assert_eq!((first, behind.len()), (0x32, 200_006));
}

#[tokio::test]
async fn a_session_is_there_after_a_restart_of_the_server_and_its_subscriptions_give() {
    let folder = Folder::new();
    let server = Server::start_in(&folder, "").await;
    let (mut client, _) = kept(&server, "device").await;
    subscribe(&mut client, "t", 2).await;
    server.stop().await;
    let server = Server::start_in(&folder, "").await;
    let mut publisher = Mqtt5::connect(server.mqtt(), "publisher").await;
    published(&mut publisher, 2, 1).await;
    let (mut client, present) = kept(&server, "device").await;
    assert!(present, "[MQTT-3.2.2-3]");
    given(&mut client, 4, 1, 1).await;
    published(&mut publisher, 1, 2).await;
    given(&mut client, 2, 2, 2).await;
    let _clean = MqttWire::connect(server.mqtt(), V3, "device").await;
    server.stop().await;
    let server = Server::start_in(&folder, "").await;
    assert!(!kept(&server, "device").await.1, "it was ended by a clean start");
}
