//! Mosquitto as tests get it.

use linkspan_integration_tests::mqtt5::{Mqtt5, payload};
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Mosquitto, soon, within};
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, PubAckReason};

use crate::LULL;

/// What the broker retains for a topic, if anything.
async fn retained(mosquitto: &Mosquitto, topic: &str) -> Option<String> {
    let mut client = Mqtt5::connect(mosquitto.address(), &unique("client")).await;
    client.subscribe(topic).await;
    client.next_within(LULL).await.map(|publish| payload(&publish))
}

#[tokio::test]
async fn the_shared_one_serves_mqtt_clients() {
    let mosquitto = Mosquitto::shared().await;
    let topic = unique("shared");
    let mut client = Mqtt5::connect(mosquitto.address(), &unique("client")).await;
    client.subscribe(&topic).await;
    assert_eq!(client.publish(&topic, "hello").await, PubAckReason::Success);
    assert_eq!(payload(&client.next().await), "hello");
}

#[tokio::test]
async fn what_it_retains_outlives_a_stop_and_a_second_later_a_kill_on_the_same_port() {
    let mosquitto = Mosquitto::own().await;
    let address = mosquitto.address();
    let mut client = Mqtt5::connect(address, "client").await;
    client.retain("kept", "before the stop").await;
    mosquitto.stop().await;
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens at {address}");
    mosquitto.start().await;
    assert_eq!(retained(&mosquitto, "kept").await.as_deref(), Some("before the stop"));

    let mut client = Mqtt5::connect(address, "client").await;
    client.retain("kept", "before the kill").await;
    // its database is written every second, on disk and not in a process's memory from then on
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    mosquitto.kill().await;
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens at {address}");
    mosquitto.start().await;
    assert_eq!(retained(&mosquitto, "kept").await.as_deref(), Some("before the kill"));
}

#[tokio::test]
async fn paused_it_acknowledges_nothing_until_it_is_resumed() {
    let mosquitto = Mosquitto::own().await;
    let mut client = Mqtt5::connect(mosquitto.address(), "client").await;
    mosquitto.pause().await;
    let mut publishing = Box::pin(client.publish("topic", "patience"));
    assert!(within(LULL, &mut publishing).await.is_none(), "it is frozen");
    mosquitto.resume().await;
    assert_eq!(soon("a PUBACK", publishing).await, PubAckReason::NoMatchingSubscribers);
}

#[tokio::test]
async fn an_own_one_is_set_up_as_a_test_wants() {
    let acl = "topic readwrite open/#\n";
    let mosquitto = Mosquitto::own_with("acl_file acl\nmax_packet_size 2000", &[("acl", acl)]).await;
    let mut client = Mqtt5::connect(mosquitto.address(), "client").await;
    assert_eq!(client.welcome.code, ConnectReturnCode::Success);
    let properties = client.welcome.properties.clone().unwrap();
    assert_eq!(properties.max_packet_size, Some(2000));
    assert_eq!(client.publish("open/a", "x").await, PubAckReason::NoMatchingSubscribers);
    assert_eq!(client.publish("closed/a", "x").await, PubAckReason::NotAuthorized);
}
