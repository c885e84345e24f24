//! Brokers behind TLS that ask for a certificate.

use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::http::get;
use linkspan_integration_tests::mqtt5::{Mqtt5, payload};
use linkspan_integration_tests::process::Folder;
use linkspan_integration_tests::upstreams::Broker;
use linkspan_integration_tests::{Certificates, Mosquitto, Process, RabbitMq, soon};

use crate::away::{Case, all_hold};

/// The key `ca`, and what Linkspan shows.
fn keys(certificates: &Certificates, ca: &str, shows: bool) -> String {
    let line = |key: &str, name: &str| format!("{key} = \"{}\"\n", certificates.path(name).display());
    let own =
        if shows { line("certificate", "client.pem") + &line("key", "client.key") } else { String::new() };
    line("ca", ca) + &own
}

/// The scheme and account of a broker's URL.
fn schemes(broker: &Broker) -> (&'static str, &'static str) {
    if broker.url().starts_with("amqp") {
        ("amqp://guest:guest@", "amqps://guest:guest@")
    } else {
        ("mqtt://", "mqtts://")
    }
}

#[tokio::test]
async fn messages_pass_a_broker_that_is_reached_by_tls_and_shown_a_certificate() {
    let certificates = Certificates::new();
    let (rabbitmq, mosquitto) =
        tokio::join!(RabbitMq::own_over_tls(&certificates), Mosquitto::own_over_tls(&certificates));
    for broker in [&*rabbitmq, &*mosquitto] {
        let (_, secure) = schemes(broker);
        let url = format!("{secure}localhost:{}", broker.secure().port());
        let case = Case::new("", url, "").with(keys(&certificates, "ca.pem", true));
        let folder = Folder::new();
        let file = folder.write("linkspan.toml", &case.configuration());
        let mut process = Process::start(folder.path(), &["--config", &file]);
        let http = process.door("http");
        soon("the back end is there", async {
            while get(http, "/readyz", &[]).await.status != 200 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        let amqp = Amqp::confirming(process.door("amqp")).await;
        let queue = amqp.bound("amq.topic", "sensors.#").await;
        let mut mqtt = Mqtt5::connect(process.door("mqtt"), "device").await;
        mqtt.subscribe("orders/#").await;
        mqtt.publish("sensors/cellar", "12").await;
        let got = soon("it passes the broker", async {
            loop {
                match amqp.get(&queue).await {
                    Some(got) => break got,
                    None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                }
            }
        });
        assert_eq!(got.await, "12", "{}", broker.url());
        amqp.publish("amq.topic", "orders.placed", "4711").await;
        assert_eq!(payload(&mqtt.next().await), "4711", "{}", broker.url());
        let figures = get(http, "/metrics", &[]).await.body;
        assert!(figures.contains("linkspan_backend_up{backend=\"plant\"} 1"), "{figures}");
        // it comes back as it came
        broker.stop().await;
        broker.start().await;
        soon("it is reached again", async {
            while get(http, "/readyz", &[]).await.status != 200 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        mqtt.publish("orders/shipped", "4712").await;
        assert_eq!(payload(&mqtt.next().await), "4712", "{}", broker.url());
    }
}

#[tokio::test]
async fn certificates_that_do_not_fit_are_told_of_once_and_tried_again_with_patience() {
    let certificates = Certificates::new();
    let (rabbitmq, mosquitto) =
        tokio::join!(RabbitMq::own_over_tls(&certificates), Mosquitto::own_over_tls(&certificates));
    let mut cases = Vec::new();
    for broker in [&*rabbitmq, &*mosquitto] {
        let (plain, secure) = schemes(broker);
        let at = |scheme: &str, host: &str, port: u16| format!("{scheme}{host}:{port}");
        let right = at(secure, "localhost", broker.secure().port());
        let by_number = at(secure, "127.0.0.1", broker.secure().port());
        let is_amqp = plain.starts_with("amqp");
        let all = keys(&certificates, "ca.pem", true);
        let to_secure = if is_amqp { "TLS only" } else { "it does not speak MQTT" };
        let is = |what, url, why, keys: &str| Case::new(what, url, why).with(keys.to_owned());
        let wrong_ca = keys(&certificates, "other.pem", true);
        let bare = keys(&certificates, "ca.pem", false);
        cases.extend([
            is("an authority that did not sign", right.clone(), "name that authority in `ca`", &wrong_ca),
            is("another host's name", by_number, "write that name in `url`", &all),
            is("no certificate shown", right, "it wants a certificate: give `certificate` and `key`", &bare),
            is("no TLS to a TLS port", at(plain, "localhost", broker.secure().port()), to_secure, ""),
            is("TLS to a plain port", at(secure, "localhost", broker.address().port()), "TLS", &all),
        ]);
    }
    all_hold(&cases);
}
