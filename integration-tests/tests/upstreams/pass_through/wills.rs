//! Wills are the broker's to publish.

use super::*;

#[tokio::test]
async fn the_broker_publishes_the_will_of_a_client_that_vanishes_and_of_no_other() {
    let mosquitto = Mosquitto::shared().await;
    let server = server_to(mosquitto.address()).await;
    let testament = unique("wills");
    let mut direct = Mqtt5::connect(mosquitto.address(), &unique("direct")).await;
    direct.subscribe(&testament).await;
    drop(visitor(server.mqtt(), &unique("warm-up")).await);
    let with_will = |text: &str| {
        let mut options = Mqtt5::options(server.mqtt(), &unique("mortal"));
        options.set_last_will(LastWill::new(&testament, text, QoS::AtLeastOnce, false, None));
        options
    };
    let polite = Mqtt5::connect_with(with_will("never")).await.unwrap();
    polite.leave().await;
    assert!(direct.next_within(LULL).await.is_none(), "[MQTT-3.14.4-3]");
    let vanishing = Mqtt5::connect_with(with_will("farewell")).await.unwrap();
    drop(vanishing);
    let message = direct.next().await;
    assert_eq!((payload(&message), message.qos), ("farewell".into(), QoS::AtLeastOnce));
    assert!(direct.next_within(LULL).await.is_none(), "it came once");
    server.stop().await;
}

#[tokio::test]
async fn a_will_waits_for_its_delay_and_is_dropped_when_the_client_comes_back_before() {
    let mosquitto = Mosquitto::own().await;
    let server = server_to(mosquitto.address()).await;
    let mut direct = Mqtt5::connect(mosquitto.address(), "direct").await;
    direct.subscribe("wills").await;
    drop(visitor(server.mqtt(), "warm-up").await);
    let mortal = async |delay| {
        let properties = LastWillProperties {
            delay_interval: Some(delay),
            content_type: Some("text/plain".into()),
            ..WILL
        };
        let mut options = Mqtt5::options(server.mqtt(), "mortal");
        let will =
            LastWill::new("wills", format!("after {delay} s"), QoS::AtLeastOnce, false, Some(properties));
        options.set_clean_start(false).set_session_expiry_interval(Some(3600)).set_last_will(will);
        Mqtt5::connect_with(options).await.unwrap()
    };
    drop(mortal(600).await);
    assert!(direct.next_within(LULL).await.is_none(), "[MQTT-3.1.3-9]");
    drop(mortal(1).await);
    let message = direct.next().await;
    assert_eq!(payload(&message), "after 1 s");
    assert_eq!(message.properties.unwrap().content_type.as_deref(), Some("text/plain"));
    server.stop().await;
}

#[tokio::test]
async fn a_will_for_another_back_end_is_published_there() {
    let mosquitto = Mosquitto::shared().await;
    let base = unique("wills");
    let more = format!(
        "[backends.local]\nkind = \"embedded\"\n\
         [[route]]\nmatch = \"{base}/#\"\npattern = \"publish-subscribe\"\nbackend = \"local\"\n"
    );
    let server = Server::start(&table(mosquitto.address(), &more)).await;
    let mut watcher = visitor(server.mqtt(), &unique("watcher")).await;
    watcher.subscribe(&format!("{base}/#")).await;
    let mut options = Mqtt5::options(server.mqtt(), &unique("mortal"));
    options.set_last_will(LastWill::new(format!("{base}/gone"), "farewell", QoS::AtLeastOnce, false, None));
    drop(Mqtt5::connect_with(options).await.unwrap());
    assert_eq!(watcher.next_text().await, "farewell");
    assert!(watcher.next_within(LULL).await.is_none(), "it came once");
    server.stop().await;
}
