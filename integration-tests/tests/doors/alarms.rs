//! `memory.limit` and `disk.free-limit`: while an alarm is raised nobody publishes and consumers drain on.

use std::net::SocketAddr;
use std::time::Duration;

use futures_lite::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Event};
use linkspan_integration_tests::amqp::{Amqp, text};
use linkspan_integration_tests::amqp_wire::{AmqpWire, content_header, frame, method, short};
use linkspan_integration_tests::http::{self, Events};
use linkspan_integration_tests::mqtt_wire::{MqttWire, V3, publish};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::{Folder, Process};
use linkspan_integration_tests::{soon, within};
use rumqttc::{AsyncClient, MqttOptions, Packet, QoS};
use serde_json::Value;

use crate::LULL;

const ROUTE: &str =
    "[[route]]\nmatch = \"images/resize\"\npattern = \"competing-consumers\"\nqueue = \"image-resize\"\n";

/// Less than any process has.
const LOW_MEMORY: &str = "[memory]\nlimit = \"1 MiB\"\n";

/// More than any volume has.
pub const LOW_DISK: &str = "[disk]\nfree-limit = \"1000000 GiB\"\n";

/// A server whose alarms are raised and lowered by other limits and SIGHUP.
pub struct Machine {
    pub folder: Folder,
    file: String,
    process: Process,
}

impl Machine {
    pub fn start(limits: &str) -> Self {
        let folder = Folder::new();
        let file = folder.write("linkspan.toml", &format!("{limits}{ROUTE}"));
        let process = Process::start(folder.path(), &["--config", &file]);
        Self { folder, file, process }
    }

    pub fn door(&mut self, name: &str) -> SocketAddr {
        self.process.door(name)
    }

    /// Raises the alarm, and returns when the log says so.
    pub async fn raise(&mut self, limits: &str, words: &[&str]) {
        self.reload(limits);
        self.process.line_with(words);
        self.until_alarms(1).await;
    }

    /// Lowers all alarms.
    async fn lower(&mut self) {
        self.lower_to("").await;
    }

    /// Lowers all alarms by other limits.
    pub async fn lower_to(&mut self, limits: &str) {
        self.reload(limits);
        self.until_alarms(0).await;
    }

    fn reload(&self, limits: &str) {
        self.folder.write(&self.file, &format!("{limits}{ROUTE}"));
        self.process.signal("HUP");
    }

    async fn until_alarms(&mut self, count: usize) {
        soon("the alarms are as they should be", async { while self.alarms().await.len() != count {} }).await;
    }

    /// What `/readyz` says of alarms, and that it says yes all the same.
    async fn alarms(&mut self) -> Vec<Value> {
        let answer = http::get(self.door("http"), "/readyz", &[]).await;
        let state: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, &state["ready"]), (200, &Value::Bool(true)), "{answer:?}");
        state["alarms"].as_array().unwrap().clone()
    }

    /// The value of a figure.
    async fn figure(&mut self, name: &str) -> f64 {
        let answer = http::get(self.door("http"), "/metrics", &[]).await;
        let line = answer.body.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in:\n{}", answer.body)).trim().parse().unwrap()
    }
}

async fn next_blocking(events: &mut (impl futures_lite::Stream<Item = Event> + Unpin)) -> Event {
    soon("connection.blocked or unblocked", async {
        loop {
            let event = events.next().await.expect("the connection lives");
            if matches!(event, Event::ConnectionBlocked(_) | Event::ConnectionUnblocked) {
                return event;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_amqp_publisher_is_told_and_held_while_consumers_of_all_protocols_drain() {
    let mut machine = Machine::start("");
    let amqp = machine.door("amqp");
    let publisher = Amqp::confirming(amqp).await;
    for n in 0..30 {
        publisher.publish("", "image-resize", &n.to_string()).await;
    }
    machine.raise(LOW_MEMORY, &["WARN", "low on memory", "memory.limit", "consumers drain on"]).await;
    let mut events = publisher.connection.events_listener();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let publishing =
        publisher.channel.basic_publish("".into(), "image-resize".into(), options, b"held", properties);
    let confirm = publishing.await.expect("published");
    match next_blocking(&mut events).await {
        Event::ConnectionBlocked(reason) => {
            assert!(
                reason.starts_with("low on memory: ") && reason.contains("above memory.limit"),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(machine.figure("linkspan_alarm{kind=\"memory\"}").await, 1.0);
    assert_eq!(machine.figure("linkspan_alarm{kind=\"disk\"}").await, 0.0);
    assert_eq!(machine.figure("linkspan_connections_held{door=\"amqp\"}").await, 1.0);
    assert_eq!(machine.figure("linkspan_memory_limit_bytes").await, (1 << 20) as f64);
    assert!(machine.figure("linkspan_memory_used_bytes").await > (1 << 20) as f64);

    // What was there is worked: by AMQP, one at a time, and by MQTT.
    let worker = Amqp::connect(amqp).await;
    worker.channel.basic_qos(1, Default::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut deliveries = worker
        .channel
        .basic_consume("image-resize".into(), "w".into(), options, FieldTable::default())
        .await
        .unwrap();
    for n in 0..15 {
        let delivery = soon("a delivery", deliveries.next()).await.unwrap().unwrap();
        assert_eq!(text(&delivery.data), n.to_string());
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    worker.connection.close(200, "".into()).await.unwrap();
    let mut mqtt = Mqtt5::connect(machine.door("mqtt"), "worker").await;
    mqtt.subscribe("$queue/image-resize").await;
    let mut got = Vec::new();
    while got.len() < 15 {
        got.push(mqtt.next_text().await);
    }
    assert!(mqtt.next_within(LULL).await.is_none(), "what is published now waits");

    machine.lower().await;
    assert!(matches!(next_blocking(&mut events).await, Event::ConnectionUnblocked));
    assert!(soon("a confirm", confirm).await.unwrap().is_ack());
    assert_eq!(mqtt.next_text().await, "held");
    assert_eq!(machine.figure("linkspan_connections_held{door=\"amqp\"}").await, 0.0);
    machine.process.line_with(&["INFO", "memory suffices again", "publishers go on"]);
}

#[tokio::test]
async fn heartbeats_outlive_an_alarm() {
    let mut machine = Machine::start("");
    let mut publisher = AmqpWire::beating(machine.door("amqp"), 1).await;
    machine.raise(LOW_MEMORY, &["low on memory"]).await;
    let key = [&[0, 0][..], &short(""), &short("image-resize"), &[0]].concat();
    let message = [method(1, 60, 40, &key), content_header(1, 1), frame(3, 1, b"x")].concat();
    publisher.send(&message).await;
    // Neither side says anything else for more than three intervals, and we send none.
    assert!(within(Duration::from_millis(3500), publisher.next()).await.is_none(), "nothing but heartbeats");
    machine.lower().await;
    let get = [&[0, 0][..], &short("image-resize"), &[1]].concat();
    publisher.send(&method(1, 60, 70, &get)).await;
    publisher.expect(60, 71).await;
}

#[tokio::test]
async fn an_mqtt_publisher_has_its_pubacks_after_the_alarm_and_its_keep_alive_holds() {
    let mut machine = Machine::start("");
    let mqtt = machine.door("mqtt");
    machine.raise(LOW_MEMORY, &["low on memory"]).await;
    // By hand, silent, with more than is read meanwhile: an interval of a second, four of silence.
    let mut silent = MqttWire::connect_as(mqtt, V3, "silent", 1).await;
    let large = vec![b'x'; 12_000];
    for id in 1..=3 {
        silent.send(&publish(2, "images/resize", &[&[0, id][..], &large].concat())).await;
    }
    // A client of others: it gives its connection up when a ping is not answered within an interval.
    let mut options = MqttOptions::new("pinging", mqtt.ip().to_string(), mqtt.port());
    options.set_keep_alive(Duration::from_secs(1));
    let (pinging, mut events) = AsyncClient::new(options, 10);
    let mut acknowledged = tokio::spawn(async move {
        let mut pings = 0;
        loop {
            match events.poll().await.expect("the connection lives") {
                rumqttc::Event::Incoming(Packet::PingResp) => pings += 1,
                rumqttc::Event::Incoming(Packet::PubAck(_)) => return pings,
                _ => {}
            }
        }
    });
    pinging.publish("images/resize", QoS::AtLeastOnce, false, "held").await.unwrap();
    assert!(within(Duration::from_millis(4500), &mut acknowledged).await.is_none(), "no PUBACK yet");
    assert!(within(LULL, silent.next()).await.is_none(), "no PUBACK yet");
    assert_eq!(machine.figure("linkspan_connections_held{door=\"mqtt\"}").await, 2.0);
    machine.lower().await;
    for id in 1..=3 {
        assert_eq!(silent.next().await, (0x40, vec![0, id]), "PUBACK");
    }
    let pings = soon("a PUBACK", acknowledged).await.unwrap();
    assert!(pings >= 3, "{pings} pings were answered meanwhile");
    let amqp = Amqp::connect(machine.door("amqp")).await;
    let got = amqp.drain("image-resize").await;
    assert_eq!(got.iter().filter(|text| text.len() == large.len()).count(), 3);
    assert_eq!(got.iter().filter(|text| *text == "held").count(), 1, "once, however long it waited");
    assert_eq!(got.len(), 4);
}

#[tokio::test]
async fn an_http_publisher_is_told_to_come_back_and_watchers_go_on() {
    let mut machine = Machine::start("");
    let door = machine.door("http");
    let mut events = Events::watch(door, "images/%23").await;
    machine
        .raise(LOW_DISK, &["WARN", "low on disk", "`local`", "disk.free-limit", "consumers drain on"])
        .await;
    let alarms = machine.alarms().await;
    assert_eq!((&alarms[0]["kind"], &alarms[0]["backend"]), (&Value::from("disk"), &Value::from("local")));
    let answer = http::post(door, "/v1/messages/images/new", &[], b"1".to_vec()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["title"], "publishers are held");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("below disk.free-limit") && detail.contains("nothing was published"), "{detail}");
    assert_eq!(http::get(door, "/healthz", &[]).await.status, 200);
    assert_eq!(machine.figure("linkspan_alarm{kind=\"disk\"}").await, 1.0);
    assert_eq!(machine.figure("linkspan_messages_refused_total{reason=\"alarm\"}").await, 1.0);
    let free = machine.figure("linkspan_disk_free_bytes{backend=\"local\"}").await;
    assert!(free > 0.0 && free < machine.figure("linkspan_disk_free_limit_bytes{backend=\"local\"}").await);
    machine.lower().await;
    let answer = http::post(door, "/v1/messages/images/new", &[], b"2".to_vec()).await;
    assert_eq!(answer.status, 204);
    assert_eq!(events.next().await.1["payload"], "2", "the first that was published");
}

#[tokio::test]
async fn an_alarm_is_in_force_before_the_first_client_and_by_all_its_reasons() {
    let mut machine = Machine::start(&format!("{LOW_MEMORY}{LOW_DISK}"));
    let door = machine.door("http");
    let answer = http::post(door, "/v1/messages/a", &[], b"1".to_vec()).await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("low on memory") && answer.body.contains("low on disk"), "{answer:?}");
    machine.reload(LOW_DISK);
    machine.until_alarms(1).await;
    assert_eq!(http::post(door, "/v1/messages/a", &[], b"1".to_vec()).await.status, 503);
    machine.lower().await;
    assert_eq!(http::post(door, "/v1/messages/a", &[], b"1".to_vec()).await.status, 204);
}

#[tokio::test]
async fn memory_that_consumers_have_drained_lowers_the_alarm_by_itself() {
    // What a process that has just started has, and room for two thousand of these messages.
    let body = vec![b'x'; 64 << 10];
    let mut machine = Machine::start("[memory]\nlimit = \"192 MiB\"\n");
    let door = machine.door("mqtt");
    // What is ready is paged out; what a worker has is not.
    let worker = Amqp::connect(machine.door("amqp")).await;
    let options = BasicConsumeOptions::default();
    let consumed =
        worker.channel.basic_consume("image-resize".into(), "".into(), options, FieldTable::default());
    let mut held = consumed.await.expect("a consumer");
    let holding = async { while held.next().await.is_some() {} };
    let mut publisher = MqttWire::connect(door, V3, "publisher").await;
    let flood = async {
        let mut sent = 0u64;
        loop {
            publisher.send(&publish(0, "images/resize", &body)).await;
            sent += 1;
            if sent.is_multiple_of(64) {
                publisher.ping().await;
            }
        }
    };
    // The server stops reading, the socket fills up, and so the flood stands still.
    let raised = async {
        loop {
            if machine.alarms().await.len() == 1 {
                return;
            }
        }
    };
    tokio::select! {
        () = flood => {}
        () = holding => {}
        () = soon("the alarm is raised", raised) => {}
    }
    worker.channel.close(200, "enough".into()).await.expect("a channel closes");
    let amqp = Amqp::connect(machine.door("amqp")).await;
    soon("the queue is drained and the alarm is over", async {
        loop {
            let drained = amqp.drain("image-resize").await.len();
            if drained == 0 && machine.alarms().await.is_empty() {
                return;
            }
        }
    })
    .await;
    machine.process.line_with(&["memory suffices again"]);
}
