//! Large bodies whose publishers are still sending when an alarm is raised: each is held, or told, in its protocol's way, and
//! what was finished is whole.

use std::time::Duration;

use lapin::options::BasicGetOptions;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::amqp_wire::{AmqpWire, frame, long, method, short};
use linkspan_integration_tests::mqtt_wire::{MqttWire, V3, publish};
use linkspan_integration_tests::process::run;
use linkspan_integration_tests::wire::Wire;
use linkspan_integration_tests::{http, soon, within};
use serde_json::Value;
use tokio::time::sleep;

use crate::LULL;
use crate::alarms::{LOW_DISK, Machine};
use crate::large_bodies::{LIMITS, assert_same, body};

/// Half of it is more than sockets take without anybody who reads.
const SIZE: usize = 64 << 20;

/// Bytes of a body frame: with its overhead those of the largest frame.
const FRAME: usize = (128 << 10) - 8;

fn low_on_disk() -> String {
    format!("{LIMITS}{LOW_DISK}")
}

impl Machine {
    async fn raise_disk(&mut self) {
        self.raise(&low_on_disk(), &["low on disk"]).await;
    }

    /// The alarm is over.
    async fn go_on(&mut self) {
        self.lower_to(LIMITS).await;
    }

    async fn until_held(&mut self, door: &str) {
        let (web, line) = (self.door("http"), format!("linkspan_connections_held{{door=\"{door}\"}} 1"));
        let is_held = async || http::get(web, "/metrics", &[]).await.body.lines().any(|it| it == line);
        soon("the publisher is held", async { while !is_held().await {} }).await;
    }

    /// What the work queue holds, in its order.
    async fn queued(&mut self) -> Vec<Vec<u8>> {
        let amqp = Amqp::connect(self.door("amqp")).await;
        let mut all = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        loop {
            let got = amqp.channel.basic_get("image-resize".into(), options);
            match soon("get-ok or get-empty", got).await.expect("get-ok or get-empty") {
                Some(message) => all.push(message.delivery.data.to_vec()),
                None => return all,
            }
        }
    }

    async fn until_no_bodies(&self) {
        let count = || {
            let said = run(self.folder.path(), &["store", "inspect", "--json", "linkspan-data"]);
            let said: Value = serde_json::from_slice(&said.stdout).expect("JSON");
            said["bodies"]["count"].as_u64().unwrap_or_else(|| panic!("no bodies in {said}"))
        };
        soon("the log has let the body go", async {
            while count() > 0 {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_mqtt_the_rest_waits_until_the_alarm_is_over() {
    let mut machine = Machine::start(LIMITS);
    let sent = body(11, SIZE);
    let mut client = MqttWire::connect(machine.door("mqtt"), V3, "uploads").await;
    client.send(&publish(2, "images/resize", b"\x00\x01before")).await;
    assert_eq!(client.next().await, (0x40, vec![0, 1]), "PUBACK");
    let packet = publish(2, "images/resize", &[&[0, 2][..], &sent].concat());
    let half = packet.len() / 2;
    client.send(&packet[..half]).await;
    machine.raise_disk().await;
    let mut sending = tokio::spawn(async move {
        client.send(&packet[half..]).await;
        client
    });
    machine.until_held("mqtt").await;
    assert!(within(LULL, &mut sending).await.is_none(), "nobody reads what it sends");
    assert_eq!(machine.queued().await, [b"before"], "what was finished is there, and nothing else");
    machine.go_on().await;
    let mut client = soon("all is read", sending).await.expect("all is sent");
    assert_eq!(client.next().await, (0x40, vec![0, 2]), "PUBACK");
    let queued = machine.queued().await;
    assert_eq!(queued.len(), 1);
    assert_same(&queued[0], &sent);
}

/// A client that wants to be told when it is held, with channel 1 open and confirms.
async fn publisher(machine: &mut Machine) -> AmqpWire {
    let mut client = AmqpWire::greeted(machine.door("amqp")).await;
    let capability = [&short("connection.blocked")[..], b"t\x01"].concat();
    let capabilities = [&short("capabilities")[..], b"F", &long(&capability)].concat();
    let login = [long(&capabilities), short("PLAIN"), long(b"\0guest\0guest"), short("en_US")].concat();
    client.send(&method(0, 10, 11, &login)).await;
    let tune = client.expect(10, 30).await;
    client.send(&method(0, 10, 31, &[&tune[..6], &[0, 0]].concat())).await;
    client.send(&method(0, 10, 40, &[&short("/")[..], &[0, 0]].concat())).await;
    client.expect(10, 41).await;
    client.send(&method(1, 20, 10, &[0])).await;
    client.expect(20, 11).await;
    client.send(&method(1, 85, 10, &[0])).await;
    client.expect(85, 11).await;
    client
}

/// A persistent message to the work queue, as frames.
fn message(body: &[u8]) -> Vec<u8> {
    let key = [&[0, 0][..], &short(""), &short("image-resize"), &[0]].concat();
    let persistent = [0x10, 0, 2];
    let header = [&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes(), &persistent].concat();
    let mut bytes = [method(1, 60, 40, &key), frame(2, 1, &header)].concat();
    body.chunks(FRAME).for_each(|chunk| bytes.extend(frame(3, 1, chunk)));
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn by_amqp_the_publisher_is_told_and_the_rest_waits_until_the_alarm_is_over() {
    let mut machine = Machine::start(LIMITS);
    let sent = body(12, SIZE);
    let mut client = publisher(&mut machine).await;
    client.send(&message(b"before")).await;
    client.expect(60, 80).await;
    let frames = message(&sent);
    let half = frames.len() / 2;
    client.send(&frames[..half]).await;
    machine.raise_disk().await;
    // It is told with the next that it sends.
    let (next, rest) = frames[half..].split_at(2 * FRAME);
    client.send(next).await;
    let reason = client.expect(10, 60).await;
    assert!(String::from_utf8_lossy(&reason).contains("low on disk"), "{reason:?}");
    let rest = rest.to_vec();
    let mut sending = tokio::spawn(async move {
        client.send(&rest).await;
        client
    });
    assert!(within(LULL, &mut sending).await.is_none(), "nobody reads what it sends");
    machine.until_held("amqp").await;
    assert_eq!(machine.queued().await, [b"before"], "what was finished is there, and nothing else");
    machine.go_on().await;
    let mut client = soon("all is read", sending).await.expect("all is sent");
    client.expect(10, 61).await;
    client.expect(60, 80).await;
    let queued = machine.queued().await;
    assert_eq!(queued.len(), 1);
    assert_same(&queued[0], &sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_http_the_publisher_is_told_at_once_and_nothing_of_it_stays() {
    let mut machine = Machine::start(LIMITS);
    let sent = body(13, SIZE);
    let door = machine.door("http");
    let head = format!(
        "POST /v1/messages/images/resize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n"
    );
    let mut client = Wire::to(door).await;
    client.send(head.as_bytes()).await;
    client.send(&sent[..SIZE / 2]).await;
    machine.raise_disk().await;
    client.send(&sent[SIZE / 2..SIZE / 2 + FRAME]).await;
    let answer = String::from_utf8_lossy(&client.rest().await).to_lowercase();
    assert!(answer.starts_with("http/1.1 503") && answer.contains("\r\nretry-after: 5\r\n"), "{answer}");
    assert!(answer.contains("low on disk") && answer.contains("nothing was published"), "{answer}");
    machine.until_no_bodies().await;
    machine.go_on().await;
    let mut client = Wire::to(door).await;
    client.send(head.as_bytes()).await;
    client.send(&sent).await;
    let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let queued = machine.queued().await;
    assert_eq!(queued.len(), 1);
    assert_same(&queued[0], &sent);
}
