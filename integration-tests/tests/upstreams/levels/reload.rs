//! Levels that come and go.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::http;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{RabbitMq, Server};
use serde_json::Value;

use super::{WAYS, configuration, publish, ready, server, tickets, work, worked, worker};

async fn is_there(queue: &str) -> bool {
    let direct = Amqp::connect(RabbitMq::shared().await.address()).await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    direct.channel.queue_declare(queue.into(), options, FieldTable::default()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_that_are_empty_go_when_their_route_has_them_no_more_and_others_come() {
    let queue = unique("tickets");
    let five = configuration(&tickets(&queue, WAYS[0])).await;
    let server = Server::start(&five).await;
    let client = Amqp::confirming(server.amqp()).await;
    publish(&client, &queue, &[0, 1]).await;
    ready(&server, &queue, 2).await;
    let top = format!("linkspan.level.{queue}.4");
    assert!(is_there(&top).await);
    for (levels, has_top) in [("levels = 3", false), ("levels = 7", true)] {
        let reloaded = server.broker().reload(server.config(&five.replace("levels = 5", levels))).await;
        reloaded.expect("nothing would be lost");
        assert_eq!(is_there(&top).await, has_top, "{levels}");
    }
    publish(&client, &queue, &[6]).await;
    let other = Amqp::connect(server.amqp()).await;
    let mut worker = worker(&other, &queue).await;
    assert_eq!(worked(&mut worker, 3).await, ["6", "1", "0"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_fails_leaves_a_queue_without_the_levels_that_it_was_to_have() {
    let (queue, full) = (unique("tickets"), unique("zfull"));
    let before =
        configuration(&format!("{}{}", work(&queue, &queue, "rabbit"), work(&full, &full, "rabbit"))).await;
    let weighted = format!(
        "{}{}max-length = 7\n",
        tickets(&queue, "order = \"weighted\""),
        work(&full, &full, "rabbit")
    );
    let server = Server::start(&before).await;
    let client = Amqp::confirming(server.amqp()).await;
    publish(&client, &full, &[0]).await;
    ready(&server, &full, 1).await;
    for _ in 0..2 {
        let refused = server.broker().reload(server.config(&configuration(&weighted).await)).await;
        assert!(refused.expect_err("the other queue is not empty").to_string().contains(&full));
        assert!(!is_there(&format!("linkspan.level.{queue}.3")).await);
        publish(&client, &queue, &[3]).await;
        let other = Amqp::connect(server.amqp()).await;
        let mut worker = worker(&other, &queue).await;
        assert_eq!(worked(&mut worker, 1).await, ["3"], "the route is what it was");
        other.connection.close(200, "OK".into()).await.unwrap();
        ready(&server, &queue, 0).await;
    }
    server.broker().reload(server.config(&before)).await.expect("those routes are in force");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_whose_queue_was_deleted_at_rabbitmq_counts_as_empty() {
    let queue = unique("tickets");
    let server = server(&tickets(&queue, WAYS[0])).await;
    let client = Amqp::confirming(server.amqp()).await;
    publish(&client, &queue, &[0, 4]).await;
    ready(&server, &queue, 2).await;
    let direct = Amqp::connect(RabbitMq::shared().await.address()).await;
    let top = format!("linkspan.level.{queue}.4");
    direct.channel.queue_delete(top.into(), QueueDeleteOptions::default()).await.unwrap();
    assert_eq!(client.counts(&queue).await, (1, 0));
    let purged = http::post(server.http(), &format!("/v1/queues/{queue}/purge"), &[], Vec::new()).await;
    let purged: Value = serde_json::from_str(&purged.body).unwrap();
    assert_eq!(purged["purged"], 1, "{purged}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_would_give_each_level_a_queue_is_refused_where_one_queue_has_them_all() {
    let queue = unique("tickets");
    let server = Server::start(&configuration(&tickets(&queue, "")).await).await;
    let client = Amqp::confirming(server.amqp()).await;
    let other = Amqp::connect(server.amqp()).await;
    let mut worker = worker(&other, &queue).await;
    publish(&client, &queue, &[4]).await;
    assert_eq!(worked(&mut worker, 1).await, ["4"]);
    let apart = configuration(&tickets(&queue, "as = \"queue-per-level\"")).await;
    let refused = server.broker().reload(server.config(&apart)).await;
    assert!(refused.expect_err("it is another kind of queue").to_string().contains("x-max-priority"));
    publish(&client, &queue, &[4, 0]).await;
    assert_eq!(worked(&mut worker, 2).await, ["4", "0"]);
    server.stop().await;
}
