//! Queues at RabbitMQ whose routes say `deduplicate`: what is published again is taken and dropped.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::{Folder, Process};
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{RabbitMq, Server, soon};

use crate::back_ends::{home_is, rabbit_at, work};

fn named(id: &str) -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2).with_message_id(id.into())
}

fn configuration(url: &str, orders: &str, window: &str) -> String {
    let route = work(&format!("{orders}/placed"), orders, "rabbit");
    let terms = format!("deduplicate = {{ by = \"message-id\", window = \"{window}\" }}\n");
    format!("{}{}{route}{terms}", rabbit_at(url), home_is("rabbit"))
}

/// The routing key of the address that orders are published to.
fn key(orders: &str) -> String {
    format!("{orders}.placed")
}

async fn server(orders: &str, window: &str) -> Server {
    Server::start(&configuration(RabbitMq::shared().await.url(), orders, window)).await
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
    got.extend(client.drain(queue).await);
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_again_is_taken_and_dropped_until_its_window_is_over() {
    let orders = unique("orders");
    let server = server(&orders, "2s").await;
    let mut watcher = Mqtt5::connect(server.mqtt(), "watcher").await;
    watcher.subscribe(&format!("{orders}/#")).await;
    let client = Amqp::confirming(server.amqp()).await;
    for (n, id) in ["a", "b", "a", "c", "b", "a"].into_iter().enumerate() {
        let confirmed = client.publish_as("amq.topic", &key(&orders), &format!("{id}{n}"), named(id)).await;
        assert!(confirmed.is_ack(), "{id}{n}");
    }
    for unnamed in ["x", "x"] {
        assert!(client.publish("amq.topic", &key(&orders), unnamed).await.is_ack());
    }
    let taken = ["a0", "b1", "c3", "x", "x"];
    assert_eq!(all(&client, &orders, 5).await, taken);
    for expected in taken {
        assert_eq!(watcher.next_text().await, expected, "who watches gets no copy of what is dropped");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(client.publish_as("amq.topic", &key(&orders), "again", named("a")).await.is_ack());
    assert_eq!(all(&client, &orders, 1).await, ["again"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_those_who_publish_the_same_at_once_one_is_first() {
    let orders = unique("at-once");
    let server = server(&orders, "10m").await;
    let publish = |n: usize| {
        let (door, orders) = (server.amqp(), orders.clone());
        tokio::spawn(async move {
            let client = Amqp::confirming(door).await;
            for id in 0..20 {
                let text = format!("{id} by {n}");
                assert!(client.publish_as("", &orders, &text, named(&id.to_string())).await.is_ack());
            }
        })
    };
    let publishers: Vec<_> = (0..4).map(publish).collect();
    for publisher in publishers {
        soon("all are confirmed", publisher).await.unwrap();
    }
    let client = Amqp::connect(server.amqp()).await;
    let got = all(&client, &orders, 20).await;
    let ids: Vec<_> = got.iter().map(|text| text.split(' ').next().unwrap().to_owned()).collect();
    let expected: Vec<_> = (0..20).map(|id| id.to_string()).collect();
    assert_eq!(ids, expected, "each once, in order");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_is_known_after_linkspan_was_killed() {
    let orders = unique("killed");
    let folder = Folder::new();
    let configuration = configuration(RabbitMq::shared().await.url(), &orders, "10m");
    let doors = "[doors.mqtt]\nlisten = \"127.0.0.1:0\"\n[doors.amqp]\nlisten = \"127.0.0.1:0\"\n[doors.http]\n\
                 listen = \"127.0.0.1:0\"\n";
    let file = folder.write("linkspan.toml", &format!("{doors}{configuration}"));
    for life in 0..3 {
        let mut process = Process::start(folder.path(), &["--config", &file]);
        let client = Amqp::connect(process.door("amqp")).await;
        client.channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        for id in 0..50 {
            let text = format!("{id} in life {life}");
            assert!(
                client.publish_as("amq.topic", &key(&orders), &text, named(&id.to_string())).await.is_ack()
            );
        }
        process.kill();
    }
    let at_rabbitmq = Amqp::connect(RabbitMq::shared().await.address()).await;
    let expected: Vec<_> = (0..50).map(|id| format!("{id} in life 0")).collect();
    assert_eq!(all(&at_rabbitmq, &orders, 50).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_transaction_publishes_counts_when_it_is_committed() {
    let orders = unique("transaction");
    let server = server(&orders, "10m").await;
    let client = Amqp::connect(server.amqp()).await;
    client.channel.tx_select().await.unwrap();
    let publish = async |ids: &[&str]| {
        for id in ids {
            let options = BasicPublishOptions::default();
            let (exchange, key) = ("amq.topic".into(), key(&orders).into());
            let published = client.channel.basic_publish(exchange, key, options, id.as_bytes(), named(id));
            drop(published.await.unwrap());
        }
    };
    publish(&["a", "b"]).await;
    client.channel.tx_rollback().await.unwrap();
    for _ in 0..2 {
        publish(&["a", "c", "a"]).await;
        client.channel.tx_commit().await.unwrap();
    }
    let other = Amqp::confirming(server.amqp()).await;
    for id in ["a", "b", "c"] {
        assert!(other.publish_as("", &orders, id, named(id)).await.is_ack());
    }
    assert_eq!(all(&other, &orders, 3).await, ["a", "c", "b"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_arrives_that_a_client_had_published_twice_before_it_left() {
    let orders = unique("left");
    let server = server(&orders, "10m").await;
    let client = Amqp::connect(server.amqp()).await;
    let expected: Vec<String> = (0..300).map(|id| id.to_string()).collect();
    for id in &expected {
        for _ in 0..2 {
            let (exchange, key, options) =
                ("amq.topic".into(), key(&orders).into(), BasicPublishOptions::default());
            let published = client.channel.basic_publish(exchange, key, options, id.as_bytes(), named(id));
            drop(published.await.unwrap());
        }
    }
    client.connection.close(200, "OK".into()).await.unwrap();
    let other = Amqp::connect(server.amqp()).await;
    assert_eq!(all(&other, &orders, expected.len()).await, expected);
    server.stop().await;
}
