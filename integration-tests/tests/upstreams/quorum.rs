//! `queue-type` over RabbitMQ.

use std::time::Duration;

use futures_lite::StreamExt;
use lapin::BasicProperties;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use linkspan_integration_tests::amqp::{Amqp, text};
use linkspan_integration_tests::process::Folder;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{RabbitMq, Server, soon, within};

use crate::back_ends::{home_is, rabbit_at, work};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_asks_for_a_quorum_queue_has_one_at_rabbitmq() {
    let rabbitmq = RabbitMq::shared().await;
    let jobs = unique("jobs");
    let route = format!("{}queue-type = \"quorum\"\n", work(&jobs, &jobs, "rabbit"));
    let server = Server::start(&format!("{}{}{route}", rabbit_at(rabbitmq.url()), home_is("rabbit"))).await;
    let client = Amqp::confirming(server.amqp()).await;
    let persistent = BasicProperties::default().with_delivery_mode(2);
    client.publish_as("amq.topic", &jobs, "1", persistent).await;
    for (kind, is_it) in [("quorum", true), ("classic", false)] {
        let direct = Amqp::connect(rabbitmq.address()).await;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        if is_it {
            // The route says no `max-deliveries`.
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(1_000_000_000));
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = direct.channel.queue_declare(jobs.as_str().into(), options, arguments).await;
        assert_eq!(declared.is_ok(), is_it, "declared at RabbitMQ as {kind}: {declared:?}");
    }
    assert_eq!(client.get(&jobs).await.as_deref(), Some("1"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_queue_that_is_there_with_rabbitmqs_own_limit_of_deliveries_is_taken_as_it_is() {
    let rabbitmq = RabbitMq::shared().await;
    let jobs = unique("older");
    let direct = Amqp::connect(rabbitmq.address()).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    direct.channel.queue_declare(jobs.as_str().into(), options, arguments).await.unwrap();
    let route = format!("{}queue-type = \"quorum\"\n", work(&jobs, &jobs, "rabbit"));
    let server = Server::start(&format!("{}{}{route}", rabbit_at(rabbitmq.url()), home_is("rabbit"))).await;
    let client = Amqp::confirming(server.amqp()).await;
    client.publish("amq.topic", &jobs, "1").await;
    assert_eq!(client.get(&jobs).await.as_deref(), Some("1"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_a_quorum_queue_without_max_deliveries_is_given_out_for_ever() {
    let jobs = unique("for-ever");
    let route = format!("{}queue-type = \"quorum\"\n", work(&jobs, &jobs, "rabbit"));
    let url = RabbitMq::shared().await.url();
    let server = Server::start(&format!("{}{}{route}", rabbit_at(url), home_is("rabbit"))).await;
    let client = Amqp::confirming(server.amqp()).await;
    client.publish_as("amq.topic", &jobs, "1", BasicProperties::default().with_delivery_mode(2)).await;
    for attempt in 0..25 {
        let got = async {
            loop {
                let options = BasicGetOptions { no_ack: false };
                if let Some(got) = client.channel.basic_get(jobs.as_str().into(), options).await.unwrap() {
                    return got;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let got = soon(&format!("attempt {attempt}"), got).await;
        got.delivery.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_back_to_a_quorum_queue_without_max_deliveries_has_its_place_again() {
    let jobs = unique("places");
    let route = format!("{}queue-type = \"quorum\"\n", work(&jobs, &jobs, "rabbit"));
    let url = RabbitMq::shared().await.url();
    let server = Server::start(&format!("{}{}{route}", rabbit_at(url), home_is("rabbit"))).await;
    let client = Amqp::confirming(server.amqp()).await;
    let all: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    for n in &all {
        client.publish_as("amq.topic", &jobs, n, BasicProperties::default().with_delivery_mode(2)).await;
    }
    let worker = Amqp::connect(server.amqp()).await;
    worker.channel.basic_qos(10, BasicQosOptions::default()).await.unwrap();
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut given =
        worker.channel.basic_consume(jobs.as_str().into(), "".into(), options, none).await.unwrap();
    let mut next = async || soon("a message", given.next()).await.unwrap().unwrap();
    let mut last = next().await;
    for _ in 1..10 {
        last = next().await;
    }
    last.nack(BasicNackOptions { requeue: true, multiple: true }).await.unwrap();
    let mut again = Vec::new();
    for _ in &all {
        let delivery = next().await;
        again.push(text(&delivery.data));
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    assert_eq!(again, all);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn having_been_at_desks_counts_as_one_delivery_whatever_rabbitmq_has_counted() {
    let jobs = unique("counted");
    let terms = "queue-type = \"quorum\"\nmax-deliveries = 3\nretry = { delay = \"10ms\" }\n";
    let route = format!("{}{terms}", work(&jobs, &jobs, "rabbit"));
    let config = format!("{}{}{route}", rabbit_at(RabbitMq::shared().await.url()), home_is("rabbit"));
    let folder = Folder::new();
    let consume = async |client: &Amqp, prefetch: u16| {
        client.channel.basic_qos(prefetch, BasicQosOptions::default()).await.unwrap();
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        client.channel.basic_consume(jobs.as_str().into(), "w".into(), options, arguments).await.unwrap()
    };
    for round in 0..3 {
        let server = Server::start_in(&folder, &config).await;
        let client = Amqp::confirming(server.amqp()).await;
        if round == 0 {
            for number in 0..4 {
                let persistent = BasicProperties::default().with_delivery_mode(2);
                client.publish_as("amq.topic", &jobs, &number.to_string(), persistent).await;
            }
        }
        // The desk has four, and the worker three of them.
        let mut worker = consume(&client, 3).await;
        for _ in 0..3 {
            soon("a message", worker.next()).await.unwrap().unwrap();
        }
        server.stop().await;
    }
    let server = Server::start_in(&folder, &config).await;
    let client = Amqp::connect(server.amqp()).await;
    let mut worker = consume(&client, 10).await;
    let mut of_last = 0;
    while let Some(Some(delivery)) = within(Duration::from_secs(2), worker.next()).await {
        let delivery = delivery.unwrap();
        of_last += u32::from(text(&delivery.data) == "3");
        delivery.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
    }
    assert_eq!(of_last, 2, "nobody was given it before");
    server.stop().await;
}
