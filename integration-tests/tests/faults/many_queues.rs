//! More deep queues than the memory has room for.

use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::process::{Folder, Process};

const QUEUES: usize = 100;

/// Messages of each queue, and their size: together 200 MiB.
const MESSAGES: usize = 256;
const SIZE: usize = 8 << 10;

/// What queues may have, and what else of the memory may be used before publishers are held.
const LIMITS: &str = "[memory]\nlimit = \"200 MiB\"\nqueues = \"16 MiB\"\n";

fn name(queue: usize) -> String {
    format!("deep-{queue}")
}

fn payload(queue: usize, number: usize) -> String {
    format!("{queue} {number} {:SIZE$}", "")
}

/// Every other queue's messages are transient: these are written only because they are too many.
fn properties(queue: usize) -> BasicProperties {
    BasicProperties::default().with_delivery_mode(if queue.is_multiple_of(2) { 2 } else { 1 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_deep_queues_are_paged_out_before_publishers_are_held_and_give_all_out_in_order() {
    let folder = Folder::new();
    let config = folder.write("linkspan.toml", LIMITS);
    let mut process = Process::start(folder.path(), &["--config", &config]);
    let amqp = Amqp::confirming(process.door("amqp")).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    for queue in 0..QUEUES {
        let declared = amqp.channel.queue_declare(name(queue).into(), durable, FieldTable::default());
        declared.await.expect("declare-ok");
    }
    let mut most = 0;
    for number in 0..MESSAGES {
        let mut confirms = Vec::new();
        for queue in 0..QUEUES {
            let (name, payload) = (name(queue), payload(queue, number));
            let options = BasicPublishOptions::default();
            let (exchange, payload) = ("".into(), payload.as_bytes());
            let published =
                amqp.channel.basic_publish(exchange, name.into(), options, payload, properties(queue));
            confirms.push(published.await.expect("published"));
        }
        for confirm in join_all(confirms).await {
            assert!(matches!(confirm, Ok(Confirmation::Ack(None))), "{confirm:?}");
        }
        most = most.max(process.memory());
    }
    eprintln!("200 MiB in {QUEUES} queues: {} MiB resident at most", most >> 20);
    assert!(most < 130 << 20, "{} MiB resident", most >> 20);
    let log = process.listen(Duration::from_millis(100)).join("\n");
    assert!(!log.contains("low on memory"), "publishers were held: {log}");
    for queue in 0..QUEUES {
        for number in 0..MESSAGES {
            let options = BasicGetOptions { no_ack: true };
            let got = amqp.channel.basic_get(name(queue).into(), options).await.expect("get-ok");
            let got = got.map(|message| String::from_utf8_lossy(&message.data).trim_end().to_owned());
            assert_eq!(got, Some(format!("{queue} {number}")), "in order, and none is missing");
        }
    }
}
