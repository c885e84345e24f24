//! What people have, unmodified: Mosquitto's programs, paho and pika, mqtt and amqplib. Each publishes on one door what
//! another one consumes on the other.

use std::process::Stdio;

use linkspan_integration_tests::clients::{mosquitto, script};
use linkspan_integration_tests::{Server, soon};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A running client whose standard output is read.
struct Client {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(mut command: Command, arguments: &[&str]) -> Self {
        let spawned = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.expect("the client starts");
        let lines = BufReader::new(child.stdout.take().expect("standard output")).lines();
        Self { child, lines }
    }

    /// A consumer: returns when it has subscribed.
    async fn consuming(name: &str, port: u16, filter: &str) -> Self {
        let port = port.to_string();
        let mut client = Self::start(script(name).unwrap(), &["consume", &port, filter, "1"]);
        assert_eq!(client.line().await, "ready", "{name}");
        client
    }

    async fn line(&mut self) -> String {
        let line = soon("the client says something", self.lines.next_line()).await.expect("UTF-8");
        match line {
            Some(line) => line,
            None => panic!("the client ended: {:?}", self.child.wait().await),
        }
    }

    async fn succeeded(mut self, what: &str) {
        let status = soon("the client ends", self.child.wait()).await.expect("its status");
        assert!(status.success(), "{what}: {status}");
    }
}

/// Publishes by one of our scripts.
async fn publish(name: &str, port: u16, address: &str, payload: &str) {
    let port = port.to_string();
    Client::start(script(name).unwrap(), &["publish", &port, address, payload]).succeeded(name).await;
}

/// One message from `publisher` on one door to `consumer` on the other, with all that it is sent with.
async fn crosses(publisher: &str, consumer: &str) {
    let server = Server::start("").await;
    let side = |name: &str| match name.starts_with("mqtt") {
        true => (server.mqtt().port(), "plant/+/state", "plant/pump/state"),
        false => (server.amqp().port(), "plant.*.state", "plant.pump.state"),
    };
    let (port, filter, address_there) = side(consumer);
    let mut client = Client::consuming(consumer, port, filter).await;
    let (port, _, address) = side(publisher);
    publish(publisher, port, address, "läuft").await;
    let got: Value = serde_json::from_str(&client.line().await).expect("JSON");
    let expected = json!({
        "address": address_there,
        "payload": "läuft",
        "content_type": "text/plain",
        "correlation": "c-1",
        "site": "north",
    });
    assert_eq!(got, expected, "{publisher} to {consumer}");
    client.succeeded(consumer).await;
}

#[tokio::test]
async fn paho_publishes_to_amqplib_and_consumes_from_it() {
    crosses("mqtt_client.py", "amqp_client.js").await;
    crosses("amqp_client.js", "mqtt_client.py").await;
}

#[tokio::test]
async fn pika_publishes_to_mqtt_js_and_consumes_from_it() {
    crosses("amqp_client.py", "mqtt_client.js").await;
    crosses("mqtt_client.js", "amqp_client.py").await;
}

#[tokio::test]
async fn mqtt_js_and_amqplib_reach_each_other_and_paho_reaches_pika() {
    crosses("mqtt_client.js", "amqp_client.js").await;
    crosses("amqp_client.js", "mqtt_client.js").await;
    crosses("mqtt_client.py", "amqp_client.py").await;
    crosses("amqp_client.py", "mqtt_client.py").await;
}

#[tokio::test]
async fn mosquitto_pub_publishes_to_pika_with_properties() {
    let server = Server::start("").await;
    let mut pika = Client::consuming("amqp_client.py", server.amqp().port(), "room.#").await;
    let port = server.mqtt().port().to_string();
    let arguments = [
        ["-p", &port],
        ["-V", "5"],
        ["-q", "1"],
        ["-t", "room/1"],
        ["-m", "21.5"],
        ["-D", "publish"],
        ["content-type", "text/plain"],
        ["-D", "publish"],
        ["correlation-data", "c-1"],
    ]
    .concat();
    let property = ["-D", "publish", "user-property", "site", "north"];
    let command = mosquitto("mosquitto_pub").unwrap();
    Client::start(command, &[&arguments[..], &property].concat()).succeeded("mosquitto_pub").await;
    let got: Value = serde_json::from_str(&pika.line().await).unwrap();
    let expected = json!({
        "address": "room.1", "payload": "21.5", "content_type": "text/plain", "correlation": "c-1", "site": "north",
    });
    assert_eq!(got, expected);
    pika.succeeded("pika").await;
}

#[tokio::test]
async fn mosquitto_sub_receives_what_pika_publishes_in_both_versions() {
    let server = Server::start("").await;
    let port = server.mqtt().port().to_string();
    let retain = ["-p", &port, "-q", "1", "-r", "-t", "room/0", "-m", "19"];
    Client::start(mosquitto("mosquitto_pub").unwrap(), &retain).succeeded("mosquitto_pub").await;
    for version in ["311", "5"] {
        let arguments =
            ["-p", &port, "-V", version, "-q", "1", "-C", "2", "-t", "room/+", "-F", "%t %p %q %r"];
        let mut subscriber = Client::start(mosquitto("mosquitto_sub").unwrap(), &arguments);
        assert_eq!(
            subscriber.line().await,
            "room/0 19 1 1",
            "topic, payload, QoS, retained: it has subscribed"
        );
        publish("amqp_client.py", server.amqp().port(), "room.1", "21.5").await;
        assert_eq!(subscriber.line().await, "room/1 21.5 1 0");
        subscriber.succeeded("mosquitto_sub").await;
    }
}

#[tokio::test]
async fn mosquitto_rr_asks_and_paho_answers() {
    let server = Server::start("").await;
    let port = server.mqtt().port().to_string();
    let mut responder =
        Client::start(script("mqtt_client.py").unwrap(), &["respond", &port, "requests/shout"]);
    assert_eq!(responder.line().await, "ready");
    let arguments = [
        ["-p", &port],
        ["-V", "5"],
        ["-t", "requests/shout"],
        ["-e", "answers/1"],
        ["-m", "hello"],
        ["-W", "20"],
    ]
    .concat();
    let correlation = ["-D", "publish", "correlation-data", "c-1"];
    let command = mosquitto("mosquitto_rr").unwrap();
    let mut requester = Client::start(command, &[&arguments[..], &correlation].concat());
    assert_eq!(requester.line().await, "HELLO");
    requester.succeeded("mosquitto_rr").await;
    responder.succeeded("paho").await;
}

#[tokio::test]
async fn an_order_reaches_every_service_and_one_instance_of_each() {
    let config = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/order-fan-out.toml"),
    );
    let server = Server::start(&config.unwrap()).await;
    publish("amqp_client.py", server.amqp().port(), "orders.placed", "order 1").await;
    let port = server.mqtt().port().to_string();
    for filter in ["$queue/inventory", "$share/payment/orders/placed", "$queue/email", "$queue/analytics"] {
        let command = mosquitto("mosquitto_sub").unwrap();
        let arguments = ["-p", &port, "-V", "5", "-q", "1", "-C", "1", "-W", "20", "-t", filter];
        let mut service = Client::start(command, &arguments);
        assert_eq!(service.line().await, "order 1", "{filter}");
        service.succeeded(filter).await;
        let mut command = mosquitto("mosquitto_sub").unwrap();
        command.stderr(Stdio::null());
        let arguments = ["-p", &port, "-V", "5", "-q", "1", "-C", "1", "-W", "1", "-t", filter];
        let mut instance = Client::start(command, &arguments);
        let status = soon("it gives up", instance.child.wait()).await.unwrap();
        assert_eq!(
            status.code(),
            Some(27),
            "{filter}: a second instance gets nothing of what the first has settled"
        );
    }
}
