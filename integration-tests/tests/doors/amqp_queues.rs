//! AMQP: queues, whose they are and when they go.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use linkspan_integration_tests::amqp::{Amqp, refusal};
use linkspan_integration_tests::{Server, soon};

const PASSIVE: QueueDeclareOptions = QueueDeclareOptions {
    passive: true,
    durable: false,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

#[tokio::test]
async fn a_passive_declare_of_no_queue_is_404() {
    let server = Server::start("").await;
    let amqp = Amqp::connect(server.amqp()).await;
    let declare = amqp.channel.queue_declare("never".into(), PASSIVE, FieldTable::default());
    let text = "NOT_FOUND - no queue 'never' in vhost '/'";
    assert_eq!(refusal(&declare.await.unwrap_err()), (404, text.to_owned()));
}

#[tokio::test]
async fn the_servers_names_differ_and_cannot_be_declared() {
    let server = Server::start("").await;
    let amqp = Amqp::connect(server.amqp()).await;
    let (one, other) = (amqp.own_queue().await, amqp.own_queue().await);
    assert!(one.starts_with("amq.gen-") && one != other, "{one}, {other}");
    let options = QueueDeclareOptions::default();
    let declare = amqp.channel.queue_declare("amq.mine".into(), options, FieldTable::default());
    let text = "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'";
    assert_eq!(refusal(&declare.await.unwrap_err()), (403, text.to_owned()));
}

#[tokio::test]
async fn an_exclusive_queue_is_its_connections_own_and_goes_with_it() {
    let server = Server::start("").await;
    let (owner, mut other) = (Amqp::connect(server.amqp()).await, Amqp::connect(server.amqp()).await);
    let queue = owner.own_queue().await;
    let declare = other.channel.queue_declare(queue.as_str().into(), PASSIVE, FieldTable::default());
    let (code, text) = refusal(&declare.await.unwrap_err());
    let start =
        format!("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'.");
    assert!(code == 405 && text.starts_with(&start), "{code} {text}");

    owner.connection.close(200, "".into()).await.unwrap();
    let gone = soon("the queue goes with its connection", async {
        loop {
            other.reopen().await;
            let declare = other.channel.queue_declare(queue.as_str().into(), PASSIVE, FieldTable::default());
            let (code, text) = refusal(&declare.await.unwrap_err());
            if code != 405 {
                return (code, text);
            }
        }
    });
    assert_eq!(gone.await, (404, format!("NOT_FOUND - no queue '{queue}' in vhost '/'")));
}

#[tokio::test]
async fn a_queue_is_declared_again_only_as_it_is() {
    let server = Server::start("").await;
    let amqp = Amqp::connect(server.amqp()).await;
    amqp.queue("plain").await;
    amqp.queue("plain").await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declare = amqp.channel.queue_declare("plain".into(), durable, FieldTable::default());
    let text = "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'plain' in vhost '/': received 'true' but \
                current is 'false'";
    assert_eq!(refusal(&declare.await.unwrap_err()), (406, text.to_owned()));
}

#[tokio::test]
async fn an_empty_name_means_the_queue_declared_last() {
    let server = Server::start("").await;
    let amqp = Amqp::connect(server.amqp()).await;
    let queue = amqp.own_queue().await;
    amqp.bind("", "amq.topic", "a").await;
    amqp.publish("amq.topic", "a", "1").await;
    assert_eq!(amqp.drain(&queue).await, ["1"]);
}

#[tokio::test]
async fn purge_and_delete_say_how_many_messages_went() {
    let server = Server::start("").await;
    let mut amqp = Amqp::connect(server.amqp()).await;
    amqp.queue("full").await;
    for n in ["1", "2", "3"] {
        amqp.publish("", "full", n).await;
    }
    let if_empty = QueueDeleteOptions { if_empty: true, ..QueueDeleteOptions::default() };
    let error = amqp.channel.queue_delete("full".into(), if_empty).await.unwrap_err();
    let text = "PRECONDITION_FAILED - queue 'full' in vhost '/' not empty";
    assert_eq!(refusal(&error), (406, text.to_owned()));
    amqp.reopen().await;
    assert_eq!(amqp.channel.queue_purge("full".into(), QueuePurgeOptions::default()).await.unwrap(), 3);
    amqp.publish("", "full", "4").await;
    assert_eq!(amqp.channel.queue_delete("full".into(), QueueDeleteOptions::default()).await.unwrap(), 1);
}

#[tokio::test]
async fn an_unbound_queue_gets_nothing_more() {
    let server = Server::start("").await;
    let amqp = Amqp::connect(server.amqp()).await;
    let queue = amqp.bound("amq.topic", "a.*").await;
    amqp.publish("amq.topic", "a.b", "1").await;
    let unbind = amqp.channel.queue_unbind(
        queue.as_str().into(),
        "amq.topic".into(),
        "a.*".into(),
        FieldTable::default(),
    );
    unbind.await.unwrap();
    amqp.publish("amq.topic", "a.b", "2").await;
    assert_eq!(amqp.drain(&queue).await, ["1"]);
}
