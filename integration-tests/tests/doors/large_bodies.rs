//! Large bodies: written to the log and read from it in parts, whatever door they come by and go by.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use futures_lite::StreamExt;
use lapin::BasicProperties;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::FieldTable;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::clients::mosquitto;
use linkspan_integration_tests::mqtt_wire::{MqttWire, V3, V5, connect, packet, publish, text};
use linkspan_integration_tests::process::{Folder, Process, run};
use linkspan_integration_tests::wire::Wire;
use linkspan_integration_tests::{http, soon};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::sleep;

use crate::LULL;

pub const LIMITS: &str = "[doors.mqtt]\nmax-packet-size = \"250 MiB\"\n\
                      [doors.amqp]\nmax-body-size = \"250 MiB\"\n\
                      [doors.http]\nmax-body-size = \"250 MiB\"\n";

/// Bytes of a body: more than the server may take.
const LARGE: usize = 128 << 20;

/// What the server may have in memory at any time, all in all.
pub const MEMORY: u64 = 112 << 20;

/// Bytes that cannot be guessed from where they stand.
pub fn body(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

struct Machine {
    folder: Folder,
    process: Process,
}

impl Machine {
    fn start() -> Self {
        Self::start_in(Folder::new())
    }

    fn start_in(folder: Folder) -> Self {
        let file = folder.write("linkspan.toml", LIMITS);
        let process = Process::start(folder.path(), &["--config", &file]);
        Self { folder, process }
    }

    /// Kills it, and begins another life.
    fn again(self) -> Self {
        self.process.kill();
        Self::start_in(self.folder)
    }

    fn door(&mut self, name: &str) -> SocketAddr {
        self.process.door(name)
    }

    /// A client with confirms, and a durable queue bound to the address `big`.
    async fn amqp(&mut self, queues: &[&str]) -> Amqp {
        let amqp = Amqp::confirming(self.door("amqp")).await;
        for queue in queues {
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            amqp.channel
                .queue_declare((*queue).into(), durable, FieldTable::default())
                .await
                .expect("declare-ok");
            amqp.bind(queue, "amq.topic", "big").await;
        }
        amqp
    }

    /// How many bodies lie in the log.
    fn bodies(&self) -> u64 {
        let said = run(self.folder.path(), &["store", "inspect", "--json", "linkspan-data"]);
        let said: Value = serde_json::from_slice(&said.stdout).expect("JSON");
        said["bodies"]["count"].as_u64().unwrap_or_else(|| panic!("no bodies in {said}"))
    }

    async fn until_no_bodies(&self) {
        soon("the log has let the bodies go", async {
            while self.bodies() > 0 {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    fn assert_small(&self) {
        let peak = self.process.peak();
        assert!(peak < MEMORY, "the server has had {} MiB in memory", peak >> 20);
    }
}

/// A client of Mosquitto's at the MQTT door.
fn client(name: &str, door: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = mosquitto(name).expect("Mosquitto's clients");
    command.args(["-h", "127.0.0.1", "-p", &door.port().to_string(), "-V", "5"]).args(arguments);
    command.stdout(Stdio::piped());
    command
}

/// Takes the next message of a queue, which is settled on delivery.
async fn get(amqp: &Amqp, queue: &str) -> Option<Vec<u8>> {
    let options = BasicGetOptions { no_ack: true };
    let got = soon("get-ok or get-empty", amqp.channel.basic_get(queue.into(), options)).await;
    got.expect("get-ok or get-empty").map(|message| message.delivery.data.to_vec())
}

async fn publish_by_amqp(amqp: &Amqp, exchange: &str, key: &str, body: &[u8]) {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let sent = amqp.channel.basic_publish(exchange.into(), key.into(), options, body, properties).await;
    let confirmed = soon("a confirm", sent.expect("published")).await.expect("a confirm");
    assert!(confirmed.is_ack(), "{confirmed:?}");
}

/// Compares without printing.
pub fn assert_same(got: &[u8], sent: &[u8]) {
    assert_eq!(got.len(), sent.len(), "bytes of the body");
    let wrong = got.iter().zip(sent).position(|(got, sent)| got != sent);
    assert_eq!(wrong, None, "the first byte that is not as it was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_larger_than_the_memory_goes_from_every_door_to_every_other() {
    let mut machine = Machine::start();
    let sent = body(1, LARGE);
    std::fs::write(machine.folder.path().join("body"), &sent).expect("a file for the test");
    let amqp = machine.amqp(&["jobs"]).await;
    let file = machine.folder.path().join("body");
    let file = file.to_str().expect("a path");
    let (mqtt, web) = (machine.door("mqtt"), machine.door("http"));
    for from in ["mqtt", "amqp", "http"] {
        let watcher = client("mosquitto_sub", mqtt, &["-t", "big", "-q", "1", "-C", "1", "-N"])
            .spawn()
            .expect("it starts");
        sleep(LULL).await;
        match from {
            "mqtt" => {
                let sent = client("mosquitto_pub", mqtt, &["-t", "big", "-q", "1", "-f", file]).status();
                assert!(soon("a PUBACK", sent).await.expect("it runs").success());
            }
            "amqp" => publish_by_amqp(&amqp, "amq.topic", "big", &sent).await,
            _ => {
                let answer = http::post(web, "/v1/messages/big", &[], sent.clone()).await;
                assert_eq!(answer.status, 204, "{answer:?}");
            }
        }
        let watched = soon("mosquitto_sub has it", watcher.wait_with_output()).await.expect("it ends");
        assert_same(&watched.stdout, &sent);
        assert_same(&get(&amqp, "jobs").await.expect("it is in the queue"), &sent);
        assert_eq!(amqp.counts("jobs").await.0, 0, "from {from} it came once");
    }
    machine.until_no_bodies().await;
    machine.assert_small();
}

#[tokio::test(flavor = "multi_thread")]
async fn four_queues_share_a_body_that_outlives_a_kill_and_goes_with_the_last_of_them() {
    let queues = ["one", "two", "three", "four"];
    let mut machine = Machine::start();
    let sent = body(2, LARGE);
    let amqp = machine.amqp(&queues).await;
    publish_by_amqp(&amqp, "amq.topic", "big", &sent).await;
    assert_eq!(machine.bodies(), 1, "it lies there once");
    machine.assert_small();
    let mut machine = machine.again();
    assert_eq!(machine.bodies(), 1);
    let door = machine.door("amqp");
    // Nobody waits for the others: all are on their way at once.
    let takers: Vec<_> = queues[..3].iter().map(|queue| tokio::spawn(take(door, queue))).collect();
    for taker in takers {
        assert_same(&taker.await.expect("it has it"), &sent);
    }
    assert_eq!(machine.bodies(), 1, "the fourth queue has it still");
    machine.assert_small();
    let mut machine = machine.again();
    let amqp = machine.amqp(&[]).await;
    for queue in &queues[..3] {
        assert_eq!(amqp.counts(queue).await.0, 0, "what was settled stays so");
    }
    amqp.channel.queue_purge("four".into(), QueuePurgeOptions::default()).await.expect("purge-ok");
    machine.until_no_bodies().await;
    machine.assert_small();
}

/// The one message of a queue, accepted.
async fn take(door: SocketAddr, queue: &'static str) -> Vec<u8> {
    let amqp = Amqp::connect(door).await;
    let options = BasicConsumeOptions::default();
    let mut consumer = amqp
        .channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await
        .expect("consume-ok");
    let delivery = soon("a delivery", consumer.next()).await.expect("a delivery").expect("a delivery");
    delivery.ack(BasicAckOptions::default()).await.expect("it is sent");
    // Answered behind it.
    amqp.counts(queue).await;
    delivery.data.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_message_does_not_overtake_a_large_one_of_the_same_lane() {
    let mut machine = Machine::start();
    let amqp = machine.amqp(&["jobs"]).await;
    let sent = body(3, 8 << 20);
    let options = BasicPublishOptions::default();
    let plain = BasicProperties::default;
    for payload in [&b"before"[..], &sent, b"behind"] {
        let publish = amqp.channel.basic_publish("amq.topic".into(), "big".into(), options, payload, plain());
        drop(publish.await.expect("published"));
    }
    soon("all three", async {
        while amqp.counts("jobs").await.0 < 3 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut wire = MqttWire::connect(machine.door("mqtt"), V3, "publisher").await;
    let large = publish(2, "big", &[&[0, 7][..], &sent].concat());
    let small = publish(2, "big", &[&[0, 8][..], b"behind"].concat());
    wire.send(&[publish(2, "big", b"\x00\x06before"), large, small].concat()).await;
    for id in 6..9 {
        assert_eq!(wire.next().await, (0x40, vec![0, id]), "PUBACKs in their order");
    }
    soon("all six", async {
        while amqp.counts("jobs").await.0 < 6 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut got = Vec::new();
    while let Some(payload) = get(&amqp, "jobs").await {
        got.push(payload.len());
    }
    assert_eq!(got, [&b"before"[..], &sent, b"behind", b"before", &sent, b"behind"].map(<[u8]>::len));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_in_the_middle_of_sending_leaves_nothing() {
    let mut machine = Machine::start();
    let amqp = machine.amqp(&["jobs"]).await;
    let sent = body(4, 16 << 20);
    let mut wire = MqttWire::connect(machine.door("mqtt"), V3, "publisher").await;
    let whole = publish(2, "big", &[&[0, 7][..], &sent].concat());
    wire.send(&whole[..whole.len() / 2]).await;
    sleep(LULL).await;
    drop(wire);
    let mut lost = Wire::to(machine.door("http")).await;
    let head =
        format!("POST /v1/messages/big HTTP/1.1\r\nHost: linkspan\r\nContent-Length: {}\r\n\r\n", sent.len());
    lost.send(&[head.as_bytes(), &sent[..sent.len() / 2]].concat()).await;
    sleep(LULL).await;
    drop(lost);
    sleep(LULL).await;
    assert_eq!(amqp.counts("jobs").await.0, 0);
    // Nor does the process that ends meanwhile.
    let mut wire = MqttWire::connect(machine.door("mqtt"), V3, "publisher").await;
    wire.send(&whole[..whole.len() / 2]).await;
    sleep(LULL).await;
    let mut machine = machine.again();
    assert_eq!(machine.bodies(), 0);
    let amqp = machine.amqp(&[]).await;
    publish_by_amqp(&amqp, "amq.topic", "big", &sent).await;
    assert_same(&get(&amqp, "jobs").await.expect("it goes on"), &sent);
    machine.until_no_bodies().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_in_the_middle_of_receiving_gets_it_again() {
    let mut machine = Machine::start();
    let sent = body(5, 64 << 20);
    let list = [0x11, 0, 0, 0x0e, 0x10];
    let again = [&[5][..], &list, &text("device")].concat();
    let mut device = MqttWire { wire: Wire::to(machine.door("mqtt")).await };
    device.send(&connect(V5, 0, 0, &again)).await;
    assert_eq!(device.next().await.0, 0x20);
    device.send(&packet(0x82, &[&[0, 1, 0][..], &text("big"), &[1]].concat())).await;
    assert_eq!(device.next().await, (0x90, vec![0, 1, 0, 1]));
    let amqp = machine.amqp(&[]).await;
    publish_by_amqp(&amqp, "amq.topic", "big", &sent).await;
    let begun = device.wire.read(1 << 20).await;
    assert_eq!(begun[0], 0x32, "a PUBLISH of QoS 1");
    drop(device);
    // And another one who takes nothing, and holds nobody.
    let mut stuck = MqttWire { wire: Wire::to(machine.door("mqtt")).await };
    stuck.send(&connect(V5, 0, 0, &again)).await;
    sleep(LULL).await;
    let mut device = MqttWire { wire: Wire::to(machine.door("mqtt")).await };
    device.send(&connect(V5, 0, 0, &again)).await;
    assert_eq!(device.next().await.1[0], 1, "session present");
    let (first, packet) = device.next().await;
    assert_eq!(first, 0x3a, "the same, as a duplicate");
    let head = 2 + "big".len() + 2 + 1;
    assert_same(&packet[head..], &sent);
    device.send(&[0x40, 2, packet[5], packet[6]]).await;
    device.ping().await;
    drop(stuck);
    machine.until_no_bodies().await;
    machine.assert_small();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_one_is_there_after_a_kill_until_another_takes_its_place() {
    let mut machine = Machine::start();
    let sent = body(6, 8 << 20);
    std::fs::write(machine.folder.path().join("body"), &sent).expect("a file for the test");
    let path = machine.folder.path().join("body");
    let retain = ["-t", "big", "-q", "1", "-r", "-f", path.to_str().expect("a path")];
    for _ in 0..2 {
        let published = client("mosquitto_pub", machine.door("mqtt"), &retain).status();
        assert!(soon("a PUBACK", published).await.expect("it runs").success());
    }
    let mut machine = machine.again();
    assert_eq!(machine.bodies(), 1, "the first one went when the second came");
    let mut watcher =
        client("mosquitto_sub", machine.door("mqtt"), &["-t", "big", "-q", "1", "-C", "1", "-N"]);
    let watched = soon("mosquitto_sub has it", watcher.output()).await.expect("it ends");
    assert_same(&watched.stdout, &sent);
    let small = client("mosquitto_pub", machine.door("mqtt"), &["-t", "big", "-q", "1", "-r", "-m", "small"])
        .status();
    assert!(soon("a PUBACK", small).await.expect("it runs").success());
    machine.until_no_bodies().await;
}
