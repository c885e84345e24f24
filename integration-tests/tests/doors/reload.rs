//! SIGHUP: other routes, the same connections.

use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::{Folder, Process};
use linkspan_integration_tests::soon;

use crate::LULL;

const NO_ROUTES: &str = "# none\n";

const WORK: &str =
    "[[route]]\nmatch = \"images/resize\"\npattern = \"competing-consumers\"\nqueue = \"image-resize\"\n";

#[tokio::test]
async fn subscribers_from_before_compete_after_a_reload_and_nobody_is_dropped() {
    let folder = Folder::new();
    let file = folder.write("linkspan.toml", NO_ROUTES);
    let mut process = Process::start(folder.path(), &["--config", &file]);
    let mqtt = process.door("mqtt");
    let (mut one, mut other) = (Mqtt5::connect(mqtt, "one").await, Mqtt5::connect(mqtt, "other").await);
    one.subscribe("images/resize").await;
    other.subscribe("images/resize").await;
    let mut watcher = Mqtt5::connect(mqtt, "watcher").await;
    watcher.subscribe("images/#").await;
    let amqp = Amqp::confirming(process.door("amqp")).await;
    amqp.publish("amq.topic", "images.resize", "both").await;
    for subscriber in [&mut one, &mut other, &mut watcher] {
        assert_eq!(subscriber.next_text().await, "both");
    }

    folder.write("linkspan.toml", WORK);
    process.signal("HUP");
    process.line_with(&["reloaded"]);
    process.line_with(&["images/resize", "competing-consumers", "queue image-resize"]);
    soon("both consume from the queue", async {
        while amqp.counts("image-resize").await.1 < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for n in 0..10 {
        amqp.publish("amq.topic", "images.resize", &n.to_string()).await;
    }
    let mut got = Vec::new();
    for worker in [&mut one, &mut other] {
        let before = got.len();
        while let Some(publish) = worker.next_within(LULL).await {
            got.push(String::from_utf8(publish.payload.to_vec()).unwrap());
        }
        assert!(got.len() > before, "each of the two works");
    }
    got.sort();
    assert_eq!(got.join(""), "0123456789", "each task is given to one of them");
    for n in 0..10 {
        assert_eq!(watcher.next_text().await, n.to_string(), "a wider filter still watches");
    }
}

#[tokio::test]
async fn a_file_that_became_wrong_changes_nothing_and_says_why() {
    let folder = Folder::new();
    let file = folder.write("linkspan.toml", WORK);
    let mut process = Process::start(folder.path(), &["--config", &file]);
    let amqp = Amqp::confirming(process.door("amqp")).await;
    folder.write("linkspan.toml", "[[route]]\nmatch = \"images/resize\"\npattern = \"competing\"\n");
    process.signal("HUP");
    process.line_with(&["not reloaded", "linkspan.toml:3", "route[0].pattern"]);
    amqp.publish("amq.topic", "images.resize", "1").await;
    assert_eq!(amqp.counts("image-resize").await.0, 1, "the old route holds");

    folder.write("linkspan.toml", &format!("{WORK}\n[limits]\nretained = 5\n"));
    process.signal("HUP");
    process.line_with(&["not reloaded", "linkspan.toml:7: limits.retained", "restart"]);
    assert_eq!(amqp.get("image-resize").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_reload_that_would_strand_messages_is_refused_with_their_number() {
    let folder = Folder::new();
    let file = folder.write("linkspan.toml", WORK);
    let mut process = Process::start(folder.path(), &["--config", &file]);
    let amqp = Amqp::confirming(process.door("amqp")).await;
    for n in ["1", "2", "3"] {
        amqp.publish("amq.topic", "images.resize", n).await;
    }
    folder.write("linkspan.toml", NO_ROUTES);
    process.signal("HUP");
    process.line_with(&["not reloaded", "linkspan.toml: queue `image-resize`", "3 messages"]);
    folder.write("linkspan.toml", &WORK.replace("\"image-resize\"", "\"other\""));
    process.signal("HUP");
    process.line_with(&["not reloaded", "linkspan.toml:1: route[0]: queue `image-resize`", "drain = true"]);
    folder.write("linkspan.toml", NO_ROUTES);
    assert_eq!(amqp.drain("image-resize").await, ["1", "2", "3"]);
    process.signal("HUP");
    process.line_with(&["INFO", "reloaded"]);
    let error = amqp.channel.queue_purge("image-resize".into(), Default::default()).await.unwrap_err();
    assert!(error.to_string().contains("NOT_FOUND"), "the queue went with its route: {error}");
}

#[tokio::test]
async fn users_are_swapped_too() {
    let folder = Folder::new();
    let file = folder.write("linkspan.toml", NO_ROUTES);
    let mut process = Process::start(folder.path(), &["--config", &file]);
    let mut before = Mqtt5::connect(process.door("mqtt"), "before").await;
    let hash = linkspan::identity::hash_password(b"s3cret").unwrap();
    folder.write("linkspan.toml", &format!("[users.sensor]\npassword = \"{hash}\"\n"));
    process.signal("HUP");
    process.line_with(&["reloaded"]);
    let options = Mqtt5::options(process.door("mqtt"), "after");
    assert!(Mqtt5::connect_with(options).await.is_err(), "anonymous clients stay outside now");
    before.subscribe("a").await;
    before.publish("a", "1").await;
    assert_eq!(before.next_text().await, "1", "who is in stays in");
}
