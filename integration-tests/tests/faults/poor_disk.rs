//! A disk that fails while large bodies are on their way.

use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::mqtt_wire::{MqttWire, V5, publish};
use linkspan_integration_tests::process::{Folder, Process, run};
use linkspan_integration_tests::soon;
use serde_json::Value;
use tokio::time::sleep;

/// Bytes of a body: several parts in the log.
const LARGE: usize = 3 << 20;

const QUEUE: &str = "large";

/// A body that says which it is, and where each of its bytes belongs.
fn body(number: u8) -> Vec<u8> {
    (0..LARGE).map(|at| number.wrapping_add((at % 251) as u8)).collect()
}

fn durable() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

async fn publish_large(amqp: &Amqp, number: u8, properties: BasicProperties) -> Confirmation {
    let (channel, options) = (&amqp.channel, BasicPublishOptions::default());
    let publish = channel.basic_publish("".into(), QUEUE.into(), options, &body(number), properties).await;
    soon("a confirm", publish.expect("published")).await.expect("a confirm")
}

/// Takes and accepts the next message, which is to be whole: its number.
async fn take(amqp: &Amqp) -> Option<u8> {
    let get = amqp.channel.basic_get(QUEUE.into(), BasicGetOptions::default());
    let message = soon("an answer", get).await.expect("the channel lives")?;
    let data = &message.delivery.data;
    let number = *data.first().expect("a byte");
    assert!(*data == body(number), "{number} came with {} bytes, and not as it was published", data.len());
    message.delivery.acker.ack(BasicAckOptions::default()).await.expect("the channel lives");
    Some(number)
}

/// How many bodies lie in the log.
fn bodies(folder: &Folder) -> u64 {
    let said = run(folder.path(), &["store", "inspect", "--json", "linkspan-data"]);
    let said: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    said["bodies"]["count"].as_u64().unwrap_or_else(|| panic!("no bodies in {said}"))
}

#[tokio::test]
async fn large_bodies_are_refused_while_the_disk_fails_and_what_was_acknowledged_is_there_whole() {
    let folder = Folder::new();
    let mut process = Process::start_on_a_poor_disk(folder.path(), &[]);
    let amqp = Amqp::confirming(process.door("amqp")).await;
    let durable_queue = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = amqp.channel.queue_declare(QUEUE.into(), durable_queue, FieldTable::default());
    declared.await.expect("declare-ok");
    amqp.bind(QUEUE, "amq.topic", "large").await;
    for number in [0, 1] {
        assert_eq!(publish_large(&amqp, number, durable()).await, Confirmation::Ack(None));
    }

    // The disk fails in the middle of one.
    let mut mqtt = MqttWire::connect(process.door("mqtt"), V5, "publisher").await;
    let packet = publish(2, "large", &[&[0, 9, 0][..], &body(2)].concat());
    let (first, rest) = packet.split_at(packet.len() / 2);
    mqtt.send(first).await;
    sleep(Duration::from_millis(200)).await;
    process.disk_fails(true);
    mqtt.send(rest).await;
    let (kind, said) = mqtt.next().await;
    assert_eq!((kind, &said[..3]), (0x40, &[0, 9, 0x97][..]), "PUBACK: quota exceeded");
    process.line_with(&["messages cannot be written down"]);

    // From its beginning.
    let refused = publish_large(&amqp, 3, durable()).await;
    assert!(matches!(refused, Confirmation::Nack(_)), "{refused:?}");
    mqtt.send(&publish(2, "large", &[&[0, 10, 0][..], &body(4)].concat())).await;
    let (kind, said) = mqtt.next().await;
    assert_eq!((kind, &said[..3]), (0x40, &[0, 10, 0x97][..]), "PUBACK: quota exceeded");
    // Who needs it written is refused, and nobody else; and what is there is read.
    assert_eq!(publish_large(&amqp, 5, BasicProperties::default()).await, Confirmation::Ack(None));
    assert_eq!(take(&amqp).await, Some(0));

    process.disk_fails(false);
    soon("large bodies are taken again", async {
        while publish_large(&amqp, 6, durable()).await != Confirmation::Ack(None) {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    process.kill();

    let mut process = Process::start(folder.path(), &[]);
    let amqp = Amqp::connect(process.door("amqp")).await;
    assert_eq!(bodies(&folder), 2, "nothing is left of what was refused");
    let mut left = Vec::new();
    while let Some(number) = take(&amqp).await {
        left.push(number);
    }
    assert_eq!(left, [1, 6], "each once and in order");
    soon("the log has let the bodies go", async {
        while bodies(&folder) > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    process.kill();
}
