//! What routes say of their queues at RabbitMQ, as clients find it.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{RabbitMq, Server, soon};

use crate::back_ends::{home_is, rabbit_at, work};

/// A server with RabbitMQ as its only back end.
async fn server(routes: &str) -> Server {
    let rabbitmq = RabbitMq::shared().await;
    Server::start(&format!("{}{}{routes}", rabbit_at(rabbitmq.url()), home_is("rabbit"))).await
}

fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

/// What a queue has, as soon as it has so many.
async fn all(client: &Amqp, queue: &str, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    let gather = async {
        while got.len() < count {
            match client.get(queue).await {
                Some(message) => got.push(message),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    soon("all messages", gather).await;
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_does_what_its_route_says() {
    let run = unique("full");
    let mut routes = String::new();
    for overflow in ["reject", "drop-head", "dead-letter"] {
        let jobs = format!("{run}-{overflow}");
        routes.push_str(&work(&jobs, &jobs, "rabbit"));
        routes
            .push_str(&format!("max-length = 2\noverflow = \"{overflow}\"\ndead-letter = \"{jobs}-dead\"\n"));
        routes.push_str(&work(&format!("{jobs}-dead"), &format!("{jobs}-dead"), "rabbit"));
    }
    let server = server(&routes).await;
    let client = Amqp::confirming(server.amqp()).await;
    for (overflow, taken, left, dead) in [
        ("reject", false, ["1", "2"], &[][..]),
        ("drop-head", true, ["2", "3"], &["1"]),
        ("dead-letter", false, ["1", "2"], &["3"]),
    ] {
        let jobs = format!("{run}-{overflow}");
        for message in ["1", "2"] {
            assert!(client.publish_as("amq.topic", &jobs, message, persistent()).await.is_ack());
        }
        let third = client.publish_as("amq.topic", &jobs, "3", persistent()).await;
        assert_eq!(third.is_ack(), taken, "{overflow}");
        assert_eq!(all(&client, &format!("{jobs}-dead"), dead.len()).await, dead, "{overflow}");
        assert_eq!(client.drain(&jobs).await, left, "{overflow}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_waits_no_longer_than_its_route_says() {
    let jobs = unique("brief");
    let dead = format!("{jobs}-dead");
    let routes = format!(
        "{}expiry = \"200ms\"\ndead-letter = \"{dead}\"\n{}",
        work(&jobs, &jobs, "rabbit"),
        work(&dead, &dead, "rabbit")
    );
    let server = server(&routes).await;
    let client = Amqp::confirming(server.amqp()).await;
    let long = persistent().with_expiration("600000".into());
    client.publish_as("amq.topic", &jobs, "late", long).await;
    assert_eq!(all(&client, &dead, 1).await, ["late"]);
    assert_eq!(client.get(&jobs).await, None);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_a_priority_has_the_one_that_its_route_reads() {
    let jobs = unique("tickets");
    let routes = format!(
        "[[route]]\nmatch = \"{jobs}/+\"\npattern = \"priority-queue\"\nqueue = \"{jobs}\"\nbackend = \"rabbit\"\n\
         levels = 10\npriority-from = \"property:urgency\"\n"
    );
    let server = server(&routes).await;
    let client = Amqp::confirming(server.amqp()).await;
    let urgent = |urgency: &str| {
        let mut headers = FieldTable::default();
        headers.insert("urgency".into(), AMQPValue::LongString(urgency.into()));
        persistent().with_headers(headers)
    };
    let key = format!("{jobs}.a");
    client.publish_as("amq.topic", &key, "none", persistent()).await;
    client.publish_as("amq.topic", &key, "header 3", urgent("3")).await;
    client.publish_as("amq.topic", &key, "header 9", urgent("9")).await;
    client.publish_as("amq.topic", &key, "own 5", urgent("9").with_priority(5)).await;
    client.publish_as("", &jobs, "header 7, by name", urgent("7")).await;
    let sorted = ["header 9", "header 7, by name", "own 5", "header 3", "none"];
    assert_eq!(all(&client, &jobs, 5).await, sorted);
    server.stop().await;
}
