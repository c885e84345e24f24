//! A disk that is full: a small one of the test's own, in memory (tmpfs).

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, BasicRejectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::{Folder, Process, command};
use linkspan_integration_tests::{http, soon};
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use tokio::time::sleep;

/// Room for one file of the log and the one that it sets aside, and with the ballast not for a third one: these are 64 MiB.
const SIZE: &str = "232m";

/// What lies on the disk beside.
const BALLAST: usize = 48 << 20;

/// Where a server keeps what it has, in its folder.
const DATA: &str = "linkspan-data";

/// Bytes of a message.
const LARGE: usize = 16 << 10;

/// Names its folder to the test that runs with the small disk.
const WHERE: &str = "LINKSPAN_TEST_SMALL_DISK";

/// How the shell says that there can be no small disk.
const NO_MOUNT: i32 = 77;

/// Runs a test of this file in a process that has a disk of `size` where its server keeps what it has. The disk is that
/// process's alone, and goes with it, however it ends.
fn run_on_a_small_disk(test: &str, size: &str) {
    let folder = Folder::new();
    fs::create_dir(folder.path().join(DATA)).expect("a place for the disk");
    let script = format!(
        "mount -t tmpfs -o size={size} linkspan-test \"$1/{DATA}\" || exit {NO_MOUNT}\n\
         exec \"$2\" --exact full_disk::{test} --ignored --nocapture"
    );
    let mut refusals = String::new();
    // As root; then as somebody who may be root in a namespace of his own.
    for how in [&["--mount"][..], &["--map-root-user", "--mount"]] {
        let mut command = Command::new("unshare");
        command.args(how).args(["sh", "-c", &script, "sh"]).arg(folder.path());
        command.arg(std::env::current_exe().expect("the test's own path")).env(WHERE, folder.path());
        let output = command.output().expect("this test needs `unshare` of util-linux");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("running 1 test") {
            assert!(said.contains("1 passed") && output.status.success(), "{said}\n{complained}");
            return;
        }
        refusals.push_str(&complained);
    }
    panic!(
        "this test fills a small disk for real: it has to be allowed to mount a tmpfs in a namespace of its own, as root \
         is (in Docker: `--privileged`, or `--cap-add SYS_ADMIN --security-opt apparmor=unconfined`). What was said: \
         {refusals}"
    );
}

/// The small disk.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// The one that this process was given.
    fn given() -> Self {
        let folder = std::env::var_os(WHERE).expect("it is run by another test, on a small disk");
        Self { folder: folder.into() }
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join(DATA).join("ballast")
    }

    fn fill(&self) {
        let mut file = File::create(self.ballast()).expect("a file on the disk");
        file.write_all(&vec![1; BALLAST]).expect("the disk has room for the ballast");
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("the ballast lies there");
    }
}

fn start(folder: &Path) -> Process {
    let mut linkspan = command(folder);
    // The disk itself is to say no, not the alarm before.
    linkspan.env("LINKSPAN_DISK__FREE_LIMIT", "0");
    Process::spawn(linkspan)
}

fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

/// What a publisher was told.
#[derive(Default)]
struct Told {
    next: usize,
    acknowledged: Vec<usize>,
    refused: Vec<usize>,
}

impl Told {
    /// Publishes a batch of large messages.
    async fn publish(&mut self, amqp: &Amqp) {
        soon("every publish is answered", self.try_to_publish(amqp)).await.expect("the connection lives");
    }

    async fn try_to_publish(&mut self, amqp: &Amqp) -> lapin::Result<()> {
        let mut confirms = Vec::new();
        let first = self.next;
        self.next += 20;
        for number in first..self.next {
            let mut payload = format!("{number} ").into_bytes();
            payload.resize(LARGE, b'.');
            let options = BasicPublishOptions::default();
            let publish =
                amqp.channel.basic_publish("".into(), "full".into(), options, &payload, persistent());
            confirms.push(publish.await?);
        }
        for (number, told) in (first..).zip(join_all(confirms).await) {
            match told? {
                Confirmation::Ack(None) => self.acknowledged.push(number),
                Confirmation::Nack(_) => self.refused.push(number),
                other => panic!("{number}: {other:?}"),
            }
        }
        Ok(())
    }

    /// Takes and accepts up to `count` messages: their numbers.
    async fn take(amqp: &Amqp, count: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let came = soon("an answer", Self::try_to_take(amqp, &mut taken)).await;
            if !came.expect("the connection lives") {
                break;
            }
        }
        taken
    }

    /// Takes and accepts a message, if there is one. It is among `taken` before it is accepted: whoever is cut off in the
    /// middle does not know whether the server has heard it.
    async fn try_to_take(amqp: &Amqp, taken: &mut Vec<usize>) -> lapin::Result<bool> {
        let got = amqp.channel.basic_get("full".into(), BasicGetOptions::default()).await?;
        let Some(message) = got else { return Ok(false) };
        let text = String::from_utf8_lossy(&message.delivery.data);
        let number = text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
        assert_eq!(message.delivery.data.len(), LARGE, "all of it");
        taken.push(number);
        message.delivery.acker.ack(BasicAckOptions::default()).await?;
        Ok(true)
    }
}

async fn declare(amqp: &Amqp) {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    for queue in ["full", "plant", "graves", "rejecting"] {
        let mut arguments = FieldTable::default();
        if queue == "rejecting" {
            let text = |text: &str| AMQPValue::LongString(text.into());
            arguments.insert("x-dead-letter-exchange".into(), text(""));
            arguments.insert("x-dead-letter-routing-key".into(), text("graves"));
        }
        amqp.channel.queue_declare(queue.into(), durable, arguments).await.expect("declare-ok");
    }
    amqp.bind("plant", "amq.topic", "plant").await;
}

/// Publishers at each door hear that the disk is full.
async fn check_refusals(amqp: &Amqp, mqtt: &mut Mqtt5, http_door: std::net::SocketAddr) {
    let said = mqtt.publish("plant", "while it is full").await;
    assert_eq!(said, PubAckReason::QuotaExceeded, "PUBACK");
    let answer = http::post(http_door, "/v1/messages/plant", &[], b"while it is full".to_vec()).await;
    assert_eq!(answer.status, 503, "HTTP: {}", answer.body);
    assert!(answer.body.contains("written down"), "it says why: {}", answer.body);
    let channel = amqp.connection.create_channel().await.expect("a channel");
    channel.tx_select().await.expect("tx.select-ok");
    let options = BasicPublishOptions::default();
    channel
        .basic_publish("".into(), "full".into(), options, b"while it is full", persistent())
        .await
        .expect("published");
    soon("tx.commit is answered", channel.tx_commit()).await.expect_err("a commit that cannot be written");
}

#[test]
fn a_full_disk_loses_nothing_and_is_told_and_service_resumes_with_space() {
    run_on_a_small_disk("filled_and_served_again", SIZE);
}

#[tokio::test]
#[ignore = "a_full_disk_loses_nothing_and_is_told_and_service_resumes_with_space runs it"]
async fn filled_and_served_again() {
    let disk = Disk::given();
    disk.fill();
    let mut process = start(&disk.folder);
    let (door, http_door) = (process.door("amqp"), process.door("http"));
    let mut mqtt = Mqtt5::connect(process.door("mqtt"), "full-disk").await;
    let amqp = Amqp::confirming(door).await;
    declare(&amqp).await;
    let buried = amqp.publish_as("", "rejecting", "rejected while it is full", persistent()).await;
    assert!(matches!(buried, Confirmation::Ack(None)), "{buried:?}");

    let mut told = Told::default();
    while told.refused.is_empty() {
        told.publish(&amqp).await;
        assert!(told.next * LARGE < 400 << 20, "more than the disk has was acknowledged");
    }
    let many = told.acknowledged.len() * LARGE;
    assert!(many > 32 << 20, "only {} MiB were taken: the disk was hardly used", many >> 20);
    process.line_with(&["messages cannot be written down"]);
    check_refusals(&amqp, &mut mqtt, http_door).await;

    // Consumers go on, also those who reject.
    let mut taken = Told::take(&amqp, 300).await;
    assert_eq!(taken, told.acknowledged[..300], "in order");
    let get = amqp.channel.basic_get("rejecting".into(), BasicGetOptions::default());
    let message = soon("an answer", get).await.expect("get-ok").expect("a message");
    message.delivery.acker.reject(BasicRejectOptions { requeue: false }).await.expect("the channel lives");
    check_refusals(&amqp, &mut mqtt, http_door).await;

    // With space, everybody is served again.
    disk.make_room();
    soon("publishes are taken again", async {
        while told.acknowledged.last() != Some(&(told.next - 1)) {
            sleep(Duration::from_millis(100)).await;
            told.publish(&amqp).await;
        }
    })
    .await;
    let said = mqtt.publish("plant", "with space").await;
    assert_eq!(said, PubAckReason::Success, "PUBACK");
    let answer = http::post(http_door, "/v1/messages/plant", &[], b"posted with space".to_vec()).await;
    assert_eq!(answer.status, 204, "HTTP: {}", answer.body);
    // What was settled lies before these confirms in the log.
    process.kill();
    let mut process = start(&disk.folder);
    let amqp = Amqp::connect(process.door("amqp")).await;
    let rest = Told::take(&amqp, usize::MAX).await;
    let back: Vec<_> = rest.iter().filter(|number| taken.contains(number)).collect();
    assert!(back.is_empty(), "settled and safe, and back again: {back:?}");
    assert!(rest.is_sorted_by(|a, b| a < b), "in order, each once");
    taken.extend(rest);
    let missing: Vec<_> = told.acknowledged.iter().filter(|number| !taken.contains(number)).collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    assert_eq!(amqp.drain("plant").await, ["with space", "posted with space"]);
    assert_eq!(amqp.drain("rejecting").await, Vec::<String>::new());
    assert_eq!(amqp.drain("graves").await, ["rejected while it is full"]);
}

#[test]
fn a_server_that_is_killed_on_a_full_disk_starts_there_and_serves_what_it_has() {
    run_on_a_small_disk("filled_and_killed", SIZE);
}

#[tokio::test]
#[ignore = "a_server_that_is_killed_on_a_full_disk_starts_there_and_serves_what_it_has runs it"]
async fn filled_and_killed() {
    let disk = Disk::given();
    disk.fill();
    let mut process = start(&disk.folder);
    let amqp = Amqp::confirming(process.door("amqp")).await;
    declare(&amqp).await;
    let mut told = Told::default();
    while told.refused.is_empty() {
        told.publish(&amqp).await;
    }
    process.kill();
    let mut process = start(&disk.folder);
    let amqp = Amqp::confirming(process.door("amqp")).await;
    let mut taken = Told::take(&amqp, 200).await;
    disk.make_room();
    soon("publishes are taken again", async {
        while told.acknowledged.last() != Some(&(told.next - 1)) {
            sleep(Duration::from_millis(100)).await;
            told.publish(&amqp).await;
        }
    })
    .await;
    taken.extend(Told::take(&amqp, usize::MAX).await);
    assert!(taken.is_sorted_by(|a, b| a < b), "in order, each once");
    let missing: Vec<_> = told.acknowledged.iter().filter(|number| !taken.contains(number)).collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
}

/// A disk that is full most of the time, how often its server is killed, and what is free of it at the first start.
const TINY: &str = "24m";
const KILLS: u32 = 12;
const FREE: usize = 14 << 20;

#[test]
fn a_server_that_is_killed_again_and_again_on_a_disk_that_is_nearly_full_loses_nothing() {
    run_on_a_small_disk("filled_and_killed_again_and_again", TINY);
}

#[tokio::test]
#[ignore = "a_server_that_is_killed_again_and_again_on_a_disk_that_is_nearly_full_loses_nothing runs it"]
async fn filled_and_killed_again_and_again() {
    let disk = Disk::given();
    fs::write(disk.ballast(), vec![1; (24 << 20) - FREE]).expect("the disk has room for the ballast");
    let configuration = format!(
        "[backends.local]\nkind = \"embedded\"\nsegment-size = \"1 MiB\"\n\
         path = \"{DATA}\"\n[disk]\nfree-limit = \"0\"\n"
    );
    fs::write(disk.folder.join("linkspan.toml"), configuration).expect("a file for the test");
    let start = || Process::start(&disk.folder, &["--config", "linkspan.toml"]);
    let (mut told, mut taken) = (Told::default(), Vec::new());
    for life in 0..KILLS {
        let mut process = start();
        let door = process.door("amqp");
        let (publisher, consumer) = (Amqp::confirming(door).await, Amqp::connect(door).await);
        declare(&publisher).await;
        let working = async {
            let publishing = async {
                loop {
                    if told.try_to_publish(&publisher).await.is_err() {
                        return;
                    }
                }
            };
            let taking = async {
                loop {
                    // Slower than who publishes.
                    sleep(Duration::from_millis(15)).await;
                    if Told::try_to_take(&consumer, &mut taken).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(publishing, taking)
        };
        // Uneven moments; the seed of all is the machine's own pace.
        let moment = Duration::from_millis(u64::from(300 + life * 7919 % 900));
        assert!(tokio::time::timeout(moment, working).await.is_err(), "the server ended by itself");
        process.kill();
    }
    assert!(!told.refused.is_empty(), "the disk was never full: {} were taken", told.acknowledged.len());
    disk.make_room();
    let mut process = start();
    let amqp = Amqp::connect(process.door("amqp")).await;
    let rest = Told::take(&amqp, usize::MAX).await;
    assert!(rest.is_sorted_by(|a, b| a < b), "in order, each once: {rest:?}");
    let is_missing = |number: &&usize| !taken.contains(number) && !rest.contains(number);
    let missing: Vec<_> = told.acknowledged.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
}
