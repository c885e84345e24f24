//! `queue-type` over RabbitMQ.

use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{RabbitMq, Server};

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
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = direct.channel.queue_declare(jobs.as_str().into(), options, arguments).await;
        assert_eq!(declared.is_ok(), is_it, "declared at RabbitMQ as {kind}: {declared:?}");
    }
    assert_eq!(client.get(&jobs).await.as_deref(), Some("1"));
    server.stop().await;
}
