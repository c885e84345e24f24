//! Clients whose session is to end with their connection, passed through: what a cut link costs them, and what they leave
//! behind at the broker.

use std::net::SocketAddr;
use std::time::Duration;

use linkspan_integration_tests::mqtt5::{Mqtt5, payload};
use linkspan_integration_tests::{Cable, Mosquitto, Server, soon};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, PubAckReason};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet};
use tokio::time::sleep;

use crate::LULL;
use crate::pass_through::{keeper, visitor};

/// The versions that a broker is spoken to in.
const VERSIONS: [&str; 2] = ["5", "3.1.1"];

/// Linkspan with the broker at `address` as its home, spoken to in one version.
async fn server_to(address: SocketAddr, version: &str) -> Server {
    let table = format!(
        "[backends.mosquitto]\nkind = \"mqtt\"\nurl = \"mqtt://{address}\"\nversion = \"{version}\"\n\
         [vhosts.\"/\"]\nbackend = \"mosquitto\"\n"
    );
    Server::start(&table).await
}

/// Publishes numbers at the broker itself, `pause` apart.
async fn publish(direct: &mut Mqtt5, numbers: std::ops::Range<u32>, pause: Duration) {
    for n in numbers {
        assert_eq!(
            direct.publish("flow", &n.to_string()).await,
            PubAckReason::Success,
            "{n}: the broker has a subscriber"
        );
        sleep(pause).await;
    }
}

/// All numbers came, in order; what was not acknowledged when the link was cut may have come twice.
fn judge(mut came: Vec<u32>, count: u32) {
    let all = came.len();
    let mut seen = std::collections::HashSet::new();
    came.retain(|number| seen.insert(*number));
    assert_eq!(came, (0..count).collect::<Vec<_>>(), "all, in order");
    assert!(all <= came.len() + 20, "{all} messages came, of {count}");
}

/// Messages flow, the link is cut for three seconds while they do, and is healed.
async fn cut_for_seconds(direct: &mut Mqtt5, cable: &Cable) {
    publish(direct, 0..100, Duration::from_millis(2)).await;
    cable.cut().await;
    publish(direct, 100..400, Duration::from_millis(10)).await;
    cable.heal().await;
    publish(direct, 400..500, Duration::from_millis(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_client_of_5_0_loses_nothing_while_its_link_is_cut() {
    for version in VERSIONS {
        let mosquitto = Mosquitto::own().await;
        let cable = Cable::to(mosquitto.address()).await;
        let server = server_to(cable.address(), version).await;
        let mut client = visitor(server.mqtt(), "device").await;
        client.subscribe("flow").await;
        let mut direct = Mqtt5::connect(mosquitto.address(), "direct").await;
        cut_for_seconds(&mut direct, &cable).await;
        let mut came = Vec::new();
        while came.last() != Some(&499) {
            came.push(client.next_text().await.parse().unwrap());
        }
        judge(came, 500);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_client_of_3_1_1_loses_nothing_while_its_link_is_cut() {
    for version in VERSIONS {
        let mosquitto = Mosquitto::own().await;
        let cable = Cable::to(mosquitto.address()).await;
        let server = server_to(cable.address(), version).await;
        drop(visitor(server.mqtt(), "warm-up").await);
        let door = server.mqtt();
        let mut options = MqttOptions::new("device", door.ip().to_string(), door.port());
        options.set_clean_session(true);
        let (client, mut events) = AsyncClient::new(options, 100);
        client.subscribe("flow", rumqttc::QoS::AtLeastOnce).await.unwrap();
        soon("a SUBACK", async {
            while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
        })
        .await;
        let mut direct = Mqtt5::connect(mosquitto.address(), "direct").await;
        let consuming = async {
            let mut came: Vec<u32> = Vec::new();
            while came.last() != Some(&499) {
                let event = soon("a message", events.poll()).await.expect("the client's connection stays");
                if let Event::Incoming(Packet::Publish(message)) = event {
                    came.push(String::from_utf8_lossy(&message.payload).parse().unwrap());
                }
            }
            came
        };
        let (came, ()) = tokio::join!(consuming, cut_for_seconds(&mut direct, &cable));
        judge(came, 500);
        server.stop().await;
    }
}

/// The broker has nobody who subscribes to `flow`, and no session of the name `device`.
async fn is_forgotten(mosquitto: &Mosquitto, direct: &mut Mqtt5) {
    soon("the broker to forget the session", async {
        while direct.publish("flow", "x").await != PubAckReason::NoMatchingSubscribers {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut options = Mqtt5::options(mosquitto.address(), "device");
    options.set_clean_start(false);
    let again = Mqtt5::connect_with(options).await.unwrap();
    assert!(!again.welcome.session_present, "[MQTT-3.2.2-2]");
    again.leave().await;
}

#[tokio::test]
async fn the_broker_keeps_no_session_of_a_client_that_wanted_none() {
    for version in VERSIONS {
        let mosquitto = Mosquitto::own().await;
        let server = server_to(mosquitto.address(), version).await;
        let mut direct = Mqtt5::connect(mosquitto.address(), "direct").await;
        let mut polite = visitor(server.mqtt(), "device").await;
        polite.subscribe("flow").await;
        polite.leave().await;
        is_forgotten(&mosquitto, &mut direct).await;
        let mut vanishing = visitor(server.mqtt(), "device").await;
        vanishing.subscribe("flow").await;
        drop(vanishing);
        is_forgotten(&mosquitto, &mut direct).await;
        let mut last = visitor(server.mqtt(), "device").await;
        last.subscribe("flow").await;
        server.stop().await;
        is_forgotten(&mosquitto, &mut direct).await;
    }
}

#[tokio::test]
async fn the_broker_is_told_later_of_a_client_that_left_while_the_link_was_away() {
    for version in VERSIONS {
        let mosquitto = Mosquitto::own().await;
        let cable = Cable::to(mosquitto.address()).await;
        let server = server_to(cable.address(), version).await;
        let mut direct = Mqtt5::connect(mosquitto.address(), "direct").await;
        for polite in [true, false] {
            let mut client = visitor(server.mqtt(), "device").await;
            client.subscribe("flow").await;
            cable.cut().await;
            if polite {
                client.leave().await;
            } else {
                drop(client);
            }
            sleep(LULL).await;
            assert_eq!(direct.publish("flow", "x").await, PubAckReason::Success, "it is kept for the client");
            cable.heal().await;
            is_forgotten(&mosquitto, &mut direct).await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn who_comes_after_one_that_left_unheard_finds_nothing_of_it_and_is_left_in_peace() {
    for version in VERSIONS {
        let mosquitto = Mosquitto::own().await;
        let cable = Cable::to(mosquitto.address()).await;
        let server = server_to(cable.address(), version).await;
        let mut direct = Mqtt5::connect(mosquitto.address(), "direct").await;
        let mut before = visitor(server.mqtt(), "device").await;
        before.subscribe("flow").await;
        cable.cut().await;
        before.leave().await;
        cable.heal().await;
        let mut after = keeper(server.mqtt(), "device").await;
        assert!(!after.welcome.session_present, "[MQTT-3.2.2-2]");
        assert_eq!(direct.publish("flow", "x").await, PubAckReason::NoMatchingSubscribers);
        after.subscribe("flow").await;
        // Longer than what was owed for the other would have taken.
        assert!(after.next_within(Duration::from_secs(2)).await.is_none());
        assert_eq!(direct.publish("flow", "to the second").await, PubAckReason::Success);
        assert_eq!(after.next_text().await, "to the second");
        after.leave().await;
        let again = keeper(server.mqtt(), "device").await;
        assert!(again.welcome.session_present, "it is kept as it wished");
        again.leave().await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_clients_will_comes_once_when_it_vanishes_and_not_when_it_leaves() {
    for version in VERSIONS {
        let mosquitto = Mosquitto::own().await;
        let server = server_to(mosquitto.address(), version).await;
        let mut direct = Mqtt5::connect(mosquitto.address(), "direct").await;
        direct.subscribe("wills").await;
        drop(visitor(server.mqtt(), "warm-up").await);
        // a session that is over with its connection, and one that the broker is asked to keep for longer than it wants
        for keep in [None, Some(60)] {
            let mortal = async |text: &str| {
                let mut options = Mqtt5::options(server.mqtt(), "device");
                options.set_last_will(LastWill::new("wills", text, QoS::AtLeastOnce, false, None));
                options.set_session_expiry_interval(keep);
                Mqtt5::connect_with(options).await.unwrap()
            };
            mortal("never").await.leave().await;
            assert!(direct.next_within(LULL).await.is_none(), "[MQTT-3.14.4-3] over {version}");
            drop(mortal("farewell").await);
            assert_eq!(payload(&direct.next().await), "farewell");
            assert!(direct.next_within(LULL).await.is_none(), "it came once, {keep:?} over {version}");
        }
        server.stop().await;
    }
}
