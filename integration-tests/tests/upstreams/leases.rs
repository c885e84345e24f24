//! HTTP leases of queues behind which a broker lies, and of one behind which none does.

use std::net::SocketAddr;

use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::http::{self, Answer};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Mosquitto, RabbitMq, Server, soon};

use crate::back_ends::{all, work};

async fn lease(door: SocketAddr, queue: &str, query: &str) -> Answer {
    http::post(door, &format!("/v1/queues/{queue}/leases{query}"), &[], Vec::new()).await
}

async fn accept(door: SocketAddr, answer: &Answer) -> u16 {
    http::delete(door, answer.header("location").expect("where the lease is"), &[]).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_means_the_same_whatever_lies_behind_the_queue() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let places = [("local", unique("l")), ("rabbit", unique("r")), ("mosquitto", unique("m"))];
    let routes = places.iter().map(|(backend, place)| work(place, &format!("{place}-q"), backend));
    let server =
        Server::start(&format!("{}{}", all(rabbitmq, mosquitto, "local"), routes.collect::<String>())).await;
    let door = server.http();
    let mut mqtt = Mqtt5::connect(server.mqtt(), "publisher").await;
    for (backend, place) in &places {
        let queue = format!("{place}-q");
        assert_eq!(lease(door, &queue, "").await.status, 204, "{backend}: nothing is there");
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { lease(door, &queue, "?wait=30s&lease=2s").await }
        });
        mqtt.publish(place, "one").await;
        let first = soon("the long poll is answered", waiting).await.unwrap();
        assert_eq!((first.status, first.body.as_str()), (200, "one"), "{backend}: {first:?}");
        let again = lease(door, &queue, "?wait=30s").await;
        assert_eq!((again.status, again.body.as_str()), (200, "one"), "{backend}: it ran out: {again:?}");
        assert_eq!(accept(door, &first).await, 410, "{backend}: it is another's");
        assert_eq!(accept(door, &again).await, 204, "{backend}");
        assert_eq!(accept(door, &again).await, 410, "{backend}: once");

        mqtt.publish(place, "two").await;
        let released = lease(door, &queue, "?wait=30s").await;
        let path = format!("{}/release", released.header("location").unwrap());
        assert_eq!(http::post(door, &path, &[], Vec::new()).await.status, 204, "{backend}");
        // Whoever consumes by another protocol gets it, and what comes after: nothing is kept for requests that are over.
        let amqp = Amqp::connect(server.amqp()).await;
        amqp.channel.basic_qos(10, BasicQosOptions::default()).await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumed =
            amqp.channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
        let mut consumer = consumed.await.unwrap();
        mqtt.publish(place, "three").await;
        let mut got = Vec::new();
        while got.len() < 2 {
            let next = soon("an AMQP consumer's turn", futures_lite::StreamExt::next(&mut consumer)).await;
            got.push(String::from_utf8(next.unwrap().unwrap().data).unwrap());
        }
        got.sort();
        assert_eq!(got, ["three", "two"], "{backend}");
    }
}
