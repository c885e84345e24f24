//! More messages than fit into the memory that the server may have.

use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::process::{Folder, Process};

/// Publishes so many durable messages of 16 bytes in batches, and tells the memory that the server has then.
async fn fill(process: &Process, amqp: &Amqp, count: usize) -> u64 {
    const BATCH: usize = 1000;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    amqp.channel.queue_declare("many".into(), durable, FieldTable::default()).await.unwrap();
    let (options, persistent) =
        (BasicPublishOptions::default(), BasicProperties::default().with_delivery_mode(2));
    let mut before = Vec::new();
    for first in (0..count).step_by(BATCH) {
        let mut confirms = Vec::new();
        for number in first..first + BATCH {
            let payload = format!("{number:016}");
            let publish = amqp.channel.basic_publish(
                "".into(),
                "many".into(),
                options,
                payload.as_bytes(),
                persistent.clone(),
            );
            confirms.push(publish.await.expect("published"));
        }
        for confirm in join_all(std::mem::replace(&mut before, confirms)).await {
            assert!(matches!(confirm, Ok(Confirmation::Ack(None))), "{confirm:?}");
        }
    }
    for confirm in join_all(before).await {
        assert!(matches!(confirm, Ok(Confirmation::Ack(None))), "{confirm:?}");
    }
    process.memory()
}

async fn check(count: usize, limit: u64) {
    let folder = Folder::new();
    let mut process = Process::start(folder.path(), &[]);
    let amqp = Amqp::confirming(process.door("amqp")).await;
    let full = fill(&process, &amqp, count).await;
    process.kill();
    let mut process = Process::start(folder.path(), &[]);
    let amqp = Amqp::connect(process.door("amqp")).await;
    let again = process.memory();
    eprintln!("{count} messages: {} MiB when published, {} MiB after kill -9", full >> 20, again >> 20);
    assert_eq!(amqp.counts("many").await.0 as usize, count, "all are there after kill -9");
    assert_eq!(amqp.get("many").await, Some(format!("{:016}", 0)));
    assert!(full.max(again) <= limit, "{} MiB are allowed", limit >> 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_queue_does_not_fill_the_memory() {
    check(200_000, 120 << 20).await;
}

/// `cargo test --release -p linkspan-integration-tests --test faults -- --ignored ten_million`, with a release build of
/// `linkspan` beside it: it takes minutes and some 2 GB of the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ten million messages take minutes: for a release build, by name"]
async fn ten_million_messages_need_no_more_than_200_mib() {
    check(10_000_000, 200 << 20).await;
}
