//! Messages that are held back at RabbitMQ, and what may happen to them on the way.

use std::time::Duration;

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Consumer};
use linkspan_integration_tests::amqp::{Amqp, refusal, text};
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

async fn delete(at_rabbitmq: &Amqp, queue: &str) {
    at_rabbitmq.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_queue_that_somebody_has_deleted_is_made_again_and_nothing_published_later_is_lost() {
    let jobs = unique("deleted");
    let server = server(&jobs, "delay = \"200ms\"").await;
    let delay = format!("linkspan.delay.{jobs}.200");
    let client = Amqp::confirming(server.amqp()).await;
    let mut worker = worker(&client, &jobs).await;
    let at_rabbitmq = Amqp::connect(RabbitMq::shared().await.address()).await;
    for round in 0..3 {
        let sent: Vec<_> = (0..20).map(|n| format!("{round}-{n}")).collect();
        for message in &sent {
            assert!(client.publish_as("amq.topic", &jobs, message, persistent()).await.is_ack());
        }
        for message in &sent {
            let delivery = next(&mut worker).await;
            assert_eq!(text(&delivery.data), *message);
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
        delete(&at_rabbitmq, &delay).await;
    }
    let transact = async || {
        let transacting = Amqp::connect(server.amqp()).await;
        transacting.channel.tx_select().await.unwrap();
        for message in ["a", "b", "c"] {
            let (exchange, key) = ("amq.topic".into(), jobs.as_str().into());
            let options = lapin::options::BasicPublishOptions::default();
            let published =
                transacting.channel.basic_publish(exchange, key, options, message.as_bytes(), persistent());
            drop(published.await.unwrap());
        }
        transacting
    };
    let transacting = transact().await;
    // A passive declaration of what is not there closes its channel.
    let declared = async {
        loop {
            let probe = Amqp::connect(RabbitMq::shared().await.address()).await;
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let asked = probe.channel.queue_declare(delay.as_str().into(), options, FieldTable::default());
            if asked.await.is_ok() {
                return;
            }
        }
    };
    soon("the transaction has declared it", declared).await;
    delete(&at_rabbitmq, &delay).await;
    // RabbitMQ has found the queue when the message was published, and closes the channel that commits it.
    let refused = soon("the commit", transacting.channel.tx_commit()).await.unwrap_err();
    assert_eq!(refusal(&refused).0, 406, "{refused}");
    soon("the commit", transact().await.channel.tx_commit()).await.unwrap();
    for message in ["a", "b", "c"] {
        assert_eq!(text(&next(&mut worker).await.data), message);
    }
    server.stop().await;
}
