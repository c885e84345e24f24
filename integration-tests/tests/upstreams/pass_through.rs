//! MQTT clients of a vhost whose home is Mosquitto: what they are to it as if Linkspan were not there.

mod sessions;
mod wills;

use std::net::SocketAddr;
use std::time::Duration;

use linkspan_integration_tests::mqtt5::{Mqtt5, payload, topic};
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Cable, Mosquitto, Server, clients, soon, within};
use rumqttc::v5::ConnectionError;
use rumqttc::v5::StateError;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, DisconnectReasonCode, Filter, LastWill, LastWillProperties, PubAckReason,
    PublishProperties, RetainForwardRule, SubscribeReasonCode, UnsubAckReason,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::LULL;

/// Linkspan with the broker at `address` as its home.
async fn server_to(address: SocketAddr) -> Server {
    Server::start(&table(address, "")).await
}

fn table(address: SocketAddr, more: &str) -> String {
    format!(
        "[backends.mosquitto]\nkind = \"mqtt\"\nurl = \"mqtt://{address}\"\n[vhosts.\"/\"]\nbackend = \"mosquitto\"\n{more}"
    )
}

/// A client that keeps its session for an hour, and finds it again.
pub async fn keeper(door: SocketAddr, name: &str) -> Mqtt5 {
    let mut options = Mqtt5::options(door, name);
    options.set_clean_start(false).set_session_expiry_interval(Some(3600));
    soon("a session", async {
        loop {
            match Mqtt5::connect_with(options.clone()).await {
                Ok(client) => return client,
                // The broker is reached in a moment.
                Err(ConnectionError::ConnectionRefused(ConnectReturnCode::ServerUnavailable)) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await
}

/// A client with a clean start.
pub async fn visitor(door: SocketAddr, name: &str) -> Mqtt5 {
    soon("a client", async {
        loop {
            match Mqtt5::connect_with(Mqtt5::options(door, name)).await {
                Ok(client) => return client,
                Err(ConnectionError::ConnectionRefused(ConnectReturnCode::ServerUnavailable)) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_the_broker_retains_reaches_a_subscriber_here_with_its_flag_and_the_reverse() {
    let mosquitto = Mosquitto::shared().await;
    let server = server_to(mosquitto.address()).await;
    let (there, here) = (unique("there"), unique("here"));
    let mut direct = Mqtt5::connect(mosquitto.address(), &unique("direct")).await;
    direct.retain(&there, "kept by the broker").await;
    let mut client = visitor(server.mqtt(), &unique("client")).await;
    client.subscribe(&there).await;
    let message = client.next().await;
    assert_eq!((payload(&message), message.retain), ("kept by the broker".into(), true));
    assert!(client.next_within(LULL).await.is_none(), "it came once");

    assert_eq!(client.retain(&here, "set here").await, PubAckReason::NoMatchingSubscribers);
    direct.subscribe(&here).await;
    let message = direct.next().await;
    assert_eq!((payload(&message), message.retain), ("set here".into(), true));
    let properties = message.properties.unwrap_or_default();
    assert!(properties.user_properties.is_empty(), "nothing is added to it: {properties:?}");
    for topic in [there, here] {
        client.retain(&topic, "").await;
    }
    server.stop().await;
}

/// Properties of a will that say nothing.
const WILL: LastWillProperties = LastWillProperties {
    delay_interval: None,
    payload_format_indicator: None,
    message_expiry_interval: None,
    content_type: None,
    response_topic: None,
    correlation_data: None,
    user_properties: Vec::new(),
};

#[tokio::test]
async fn members_here_and_at_the_broker_share_a_subscription() {
    let mosquitto = Mosquitto::shared().await;
    let server = server_to(mosquitto.address()).await;
    let topic = unique("shared");
    let filter = format!("$share/group/{topic}");
    let mut here = visitor(server.mqtt(), &unique("here")).await;
    let mut there = Mqtt5::connect(mosquitto.address(), &unique("there")).await;
    for member in [&mut here, &mut there] {
        assert_eq!(member.subscribe(&filter).await, SubscribeReasonCode::Success(QoS::AtLeastOnce));
    }
    let mut publisher = visitor(server.mqtt(), &unique("publisher")).await;
    for n in 0..100 {
        assert_eq!(publisher.publish(&topic, &n.to_string()).await, PubAckReason::Success);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    while let Some(message) = here.next_within(LULL).await {
        ours.push(payload(&message).parse::<u32>().unwrap());
    }
    while let Some(message) = there.next_within(LULL).await {
        theirs.push(payload(&message).parse::<u32>().unwrap());
    }
    assert!(ours.is_sorted() && theirs.is_sorted() && !ours.is_empty() && !theirs.is_empty());
    let mut all: Vec<u32> = ours.into_iter().chain(theirs).collect();
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>(), "each message to one of the two");
    server.stop().await;
}

#[tokio::test]
async fn nobody_joins_the_group_at_the_broker_that_feeds_a_queue() {
    let mosquitto = Mosquitto::shared().await;
    let work = unique("work");
    // the queue's name cannot be a group's as it is
    let route = format!(
        "[[route]]\nmatch = \"{work}\"\npattern = \"competing-consumers\"\nqueue = \"{work}/queue\"\n\
         backend = \"mosquitto\"\n"
    );
    let server = Server::start(&table(mosquitto.address(), &route)).await;
    let mut thief = visitor(server.mqtt(), &unique("thief")).await;
    let granted = thief.subscribe(&format!("$share/{work}%2Fqueue/{work}")).await;
    assert_eq!(granted, SubscribeReasonCode::NotAuthorized);
    let mut worker = visitor(server.mqtt(), &unique("worker")).await;
    worker.subscribe(&format!("$queue/{work}/queue")).await;
    for n in 0..20 {
        assert_eq!(worker.publish(&work, &n.to_string()).await, PubAckReason::Success);
    }
    for n in 0..20 {
        assert_eq!(worker.next_text().await, n.to_string());
    }
    server.stop().await;
}

#[tokio::test]
async fn options_of_a_subscription_are_the_brokers_to_see_to() {
    let mosquitto = Mosquitto::shared().await;
    let server = server_to(mosquitto.address()).await;
    let base = unique("options");
    let mut direct = Mqtt5::connect(mosquitto.address(), &unique("direct")).await;
    let kept = format!("{base}/kept");
    direct.retain(&kept, "old").await;
    let mut client = visitor(server.mqtt(), &unique("client")).await;
    let filter = |handling, retain_as_published, no_local| {
        let mut filter = Filter::new(format!("{base}/#"), QoS::AtLeastOnce);
        filter.retain_forward_rule = handling;
        filter.preserve_retain = retain_as_published;
        filter.nolocal = no_local;
        filter
    };
    client.subscribe_as(filter(RetainForwardRule::Never, false, true)).await;
    assert!(client.next_within(LULL).await.is_none(), "retain handling 2");
    client.subscribe_as(filter(RetainForwardRule::OnNewSubscribe, false, true)).await;
    assert!(client.next_within(LULL).await.is_none(), "retain handling 1 of a filter that is there");
    client.subscribe_as(filter(RetainForwardRule::OnEverySubscribe, false, true)).await;
    assert_eq!(client.next_text().await, "old", "retain handling 0");

    client.publish(&format!("{base}/own"), "from myself").await;
    assert!(client.next_within(LULL).await.is_none(), "[MQTT-3.8.3-3] no local");
    direct.retain(&kept, "new").await;
    assert!(!client.next().await.retain, "[MQTT-3.3.1-12] retain as published 0");
    // Mosquitto 2.0.11 changes nothing but the QoS of a subscription that is there.
    client.unsubscribe(&format!("{base}/#")).await;
    client.subscribe_as(filter(RetainForwardRule::Never, true, false)).await;
    direct.retain(&kept, "newer").await;
    assert!(client.next().await.retain, "[MQTT-3.3.1-13] retain as published 1");
    client.publish(&format!("{base}/own"), "from myself").await;
    assert_eq!(client.next_text().await, "from myself");
    direct.retain(&kept, "").await;
    server.stop().await;
}

#[tokio::test]
async fn subscription_identifiers_and_properties_pass_both_ways() {
    let mosquitto = Mosquitto::shared().await;
    let server = server_to(mosquitto.address()).await;
    let base = unique("identified");
    let mut client = visitor(server.mqtt(), &unique("client")).await;
    client.subscribe_identified(&format!("{base}/+"), 7).await;
    client.subscribe_identified(&format!("{base}/other/#"), 300).await;
    let mut direct = Mqtt5::connect(mosquitto.address(), &unique("direct")).await;
    let properties = PublishProperties {
        content_type: Some("text/plain".into()),
        response_topic: Some("answers".into()),
        correlation_data: Some(bytes::Bytes::from_static(b"\x00\x01")),
        message_expiry_interval: Some(60),
        user_properties: vec![("x".into(), "1".into()), ("x".into(), "2".into())],
        ..PublishProperties::default()
    };
    for (name, identifier) in [("a", 7), ("other/b", 300)] {
        direct.publish_as(&format!("{base}/{name}"), "text", false, properties.clone()).await;
        let message = client.next().await;
        assert_eq!(topic(&message), format!("{base}/{name}"));
        let came = message.properties.unwrap();
        assert_eq!(came.subscription_identifiers, [identifier], "[MQTT-3.3.4-3]");
        let left = came.message_expiry_interval.unwrap();
        assert!((50..=60).contains(&left), "{left} s");
        let expected = PublishProperties {
            subscription_identifiers: vec![identifier],
            message_expiry_interval: Some(left),
            ..properties.clone()
        };
        assert_eq!(came, expected);
    }
    direct.subscribe(&format!("{base}/up")).await;
    client.publish_as(&format!("{base}/up"), "text", false, properties.clone()).await;
    let mut came = direct.next().await.properties.unwrap();
    came.message_expiry_interval = properties.message_expiry_interval;
    assert_eq!(came, properties);
    server.stop().await;
}

#[tokio::test]
async fn a_client_has_the_addresses_of_other_back_ends_too() {
    let mosquitto = Mosquitto::shared().await;
    let base = unique("two");
    let more = format!(
        "[backends.local]\nkind = \"embedded\"\n\
         [[route]]\nmatch = \"{base}/near/#\"\npattern = \"publish-subscribe\"\nbackend = \"local\"\n\
         [[route]]\nmatch = \"{base}/work\"\npattern = \"competing-consumers\"\nqueue = \"{base}\"\n"
    );
    let server = Server::start(&table(mosquitto.address(), &more)).await;
    let mut client = visitor(server.mqtt(), &unique("client")).await;
    client.subscribe(&format!("{base}/#")).await;
    let mut direct = Mqtt5::connect(mosquitto.address(), &unique("direct")).await;
    let mut publisher = visitor(server.mqtt(), &unique("publisher")).await;
    assert_eq!(publisher.publish(&format!("{base}/near/a"), "near").await, PubAckReason::Success);
    assert_eq!(client.next_text().await, "near");
    direct.publish(&format!("{base}/far/a"), "far").await;
    assert_eq!(client.next_text().await, "far");
    // The work route on the broker is Linkspan's queue.
    let mut worker = visitor(server.mqtt(), &unique("worker")).await;
    worker.subscribe(&format!("$queue/{base}")).await;
    assert_eq!(direct.publish(&format!("{base}/work"), "work").await, PubAckReason::Success);
    assert_eq!(worker.next_text().await, "work");
    assert_eq!(client.next_text().await, "work", "who has a wider filter watches");
    server.stop().await;
}

#[tokio::test]
async fn what_the_broker_refuses_is_refused_with_its_reason() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim().replace(['.', '/', '+', '#'], "-");
    let configuration = format!("acl_file acl\nclientid_prefixes {host}\n");
    // Linkspan's own sessions and its clients have the same rights: the same user.
    let acl = "topic readwrite open/#\ntopic readwrite linkspan/#\n";
    let mosquitto = Mosquitto::own_with(&configuration, &[("acl", acl)]).await;
    let server = server_to(mosquitto.address()).await;
    let mut client = visitor(server.mqtt(), &format!("{host}-device")).await;
    assert_eq!(client.publish("closed/a", "x").await, PubAckReason::NotAuthorized);
    assert_eq!(client.publish("open/a", "x").await, PubAckReason::NoMatchingSubscribers);
    let refused = Mqtt5::connect_with(Mqtt5::options(server.mqtt(), "stranger")).await;
    let why = refused.err().expect("not let in").to_string();
    assert!(why.contains("NotAuthorized"), "{why}");
    let refused = Mqtt5::connect_with(Mqtt5::options(server.mqtt(), "linkspan.jobs")).await;
    let why = refused.err().expect("not let in").to_string();
    assert!(why.contains("ClientIdentifierNotValid"), "{why}");
    server.stop().await;
}

#[tokio::test]
async fn a_filter_that_only_the_broker_knows_can_be_given_up_and_what_is_no_subscription_is_said() {
    let mosquitto = Mosquitto::shared().await;
    let server = server_to(mosquitto.address()).await;
    let (name, topic) = (unique("client"), unique("topic"));
    let mut client = keeper(server.mqtt(), &name).await;
    client.subscribe(&topic).await;
    client.leave().await;
    let mut client = keeper(server.mqtt(), &name).await;
    assert_eq!(client.unsubscribe(&topic).await, UnsubAckReason::Success);
    assert_eq!(client.unsubscribe(&topic).await, UnsubAckReason::NoSubscriptionExisted, "the broker's word");
    assert_eq!(client.publish(&topic, "x").await, PubAckReason::NoMatchingSubscribers);
    server.stop().await;
}

#[tokio::test]
async fn qos_2_ends_at_the_door() {
    let mosquitto = Mosquitto::shared().await;
    let server = server_to(mosquitto.address()).await;
    let topic = unique("twice");
    let mut direct = Mqtt5::connect(mosquitto.address(), &unique("direct")).await;
    direct.subscribe_as(Filter::new(&topic, QoS::ExactlyOnce)).await;
    let mut client = visitor(server.mqtt(), &unique("client")).await;
    let granted = client.subscribe_as(Filter::new(&topic, QoS::ExactlyOnce)).await;
    assert_eq!(granted, SubscribeReasonCode::Success(QoS::AtLeastOnce));
    client.publish_once(&topic, "once").await;
    for receiver in [&mut direct, &mut client] {
        let message = receiver.next().await;
        assert_eq!((payload(&message), message.qos), ("once".into(), QoS::AtLeastOnce));
        assert!(receiver.next_within(LULL).await.is_none());
    }
    server.stop().await;
}
