//! Routes that a broker refuses: what people are told.

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::process::Folder;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Process, RabbitMq};

use crate::back_ends::{rabbit_at, work};

#[tokio::test]
async fn a_queue_that_the_broker_has_otherwise_is_told_with_the_line_that_names_it() {
    let rabbitmq = RabbitMq::shared().await;
    let queue = unique("refused");
    let client = Amqp::connect(rabbitmq.address()).await;
    let transient = QueueDeclareOptions::default();
    client.channel.queue_declare(queue.as_str().into(), transient, FieldTable::default()).await.unwrap();

    let folder = Folder::new();
    let home = rabbit_at(rabbitmq.url());
    let route = work("jobs", &queue, "rabbit");
    let line =
        format!("linkspan.toml:7: route[0].queue: queue `{queue}` on back end `rabbit` is there already");
    let file = folder.write("linkspan.toml", &format!("{home}{route}"));
    let (status, said) = Process::start(folder.path(), &["--config", &file]).exit();
    assert_eq!(status.code(), Some(2), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with(&line) && last.contains("'durable'"), "{last}");

    folder.write("linkspan.toml", &home);
    let mut process = Process::start(folder.path(), &["--config", &file]);
    process.door("http");
    folder.write("linkspan.toml", &format!("{home}{route}"));
    process.signal("HUP");
    process.line_with(&["ERROR", "not reloaded", &line]);
}
