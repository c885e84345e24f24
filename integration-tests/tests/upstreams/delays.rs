//! Messages that are held back at RabbitMQ, and what may happen to them on the way.

use std::time::Duration;

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Consumer};
use linkspan_integration_tests::amqp::{Amqp, text};
use linkspan_integration_tests::http;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{RabbitMq, Server, soon};

use crate::back_ends::{home_is, rabbit_at, work};

fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

/// A server at RabbitMQ, with a work queue under these terms.
async fn server(jobs: &str, terms: &str) -> Server {
    let url = RabbitMq::shared().await.url();
    let jobs = work(jobs, jobs, "rabbit");
    Server::start(&format!("{}{}{jobs}{terms}\n", rabbit_at(url), home_is("rabbit"))).await
}

async fn worker(client: &Amqp, queue: &str) -> Consumer {
    let options = BasicConsumeOptions::default();
    client.channel.basic_consume(queue.into(), "w".into(), options, FieldTable::default()).await.unwrap()
}

async fn next(worker: &mut Consumer) -> Delivery {
    soon("a message", worker.next()).await.expect("the consumer goes on").expect("a delivery")
}

async fn give_back(delivery: &Delivery, requeue: bool) {
    delivery.nack(BasicNackOptions { requeue, multiple: false }).await.unwrap();
}

/// The queue, the reason and the count of each death that a message tells of.
fn deaths(delivery: &Delivery) -> Vec<(String, String, i64)> {
    let headers = delivery.properties.headers().clone().unwrap_or_default();
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else { return Vec::new() };
    let one = |death: &AMQPValue| {
        let AMQPValue::FieldTable(death) = death else {
            panic!("an entry of x-death is no table: {death:?}")
        };
        let word = |name: &str| match death.inner().get(name) {
            Some(AMQPValue::LongString(word)) => text(word.as_bytes()),
            other => panic!("{name}: {other:?}"),
        };
        let Some(AMQPValue::LongLongInt(count)) = death.inner().get("count") else {
            panic!("no count: {death:?}");
        };
        (word("queue"), word("reason"), *count)
    };
    deaths.as_slice().iter().map(one).collect()
}

async fn replay_one(server: &Server, queue: &str) {
    let path = format!("/v1/queues/{queue}/replay?limit=1");
    let replay = async {
        loop {
            let answer = http::post(server.http(), &path, &[], Vec::new()).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            if answer.body.contains("\"replayed\":1") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the dead letter is there", replay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_is_replayed_is_held_back_and_retried_with_its_history() {
    let jobs = unique("again");
    let terms = "delay = \"150ms\"\nretry = { delay = \"50ms\" }\n\
                 dead-letter = { address = \"again-failed\", queue = \"again-failed\" }";
    let server = server(&jobs, &terms.replace("again", &jobs)).await;
    let client = Amqp::confirming(server.amqp()).await;
    let mut worker = worker(&client, &jobs).await;
    assert!(client.publish_as("amq.topic", &jobs, "job", persistent()).await.is_ack());
    for died in 0..3 {
        let first = next(&mut worker).await;
        let before = match died {
            0 => Vec::new(),
            died => vec![(jobs.clone(), "rejected".to_owned(), died)],
        };
        assert_eq!(deaths(&first), before, "after {died} deaths");
        give_back(&first, true).await;
        let second = next(&mut worker).await;
        assert_eq!((deaths(&second), second.redelivered), (before, true), "after {died} deaths");
        let headers = second.properties.headers().clone().unwrap_or_default();
        let aside = headers.inner().keys().find(|name| name.as_str().starts_with("linkspan-x-"));
        assert_eq!(aside, None, "how it travelled is nobody's business");
        if died == 2 {
            second.ack(BasicAckOptions::default()).await.unwrap();
            break;
        }
        give_back(&second, false).await;
        replay_one(&server, &jobs).await;
    }
    server.stop().await;
}
