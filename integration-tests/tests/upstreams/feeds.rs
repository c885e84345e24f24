//! Work queues that an MQTT broker feeds: what devices publish at the broker, behind Linkspan's back.

use std::time::Duration;

use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::mqtt5::{Mqtt5, payload};
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Mosquitto, Server, soon};
use rumqttc::v5::mqttbytes::v5::PubAckReason;

use crate::LULL;

/// Linkspan's configuration with Mosquitto as its only back end.
fn over(mosquitto: &Mosquitto, routes: &str) -> String {
    format!("[backends.mosquitto]\nkind = \"mqtt\"\nurl = \"{}\"\n{routes}", mosquitto.url())
}

fn work(filter: &str, queue: &str) -> String {
    format!("[[route]]\nmatch = \"{filter}\"\npattern = \"competing-consumers\"\nqueue = \"{queue}\"\n")
}

fn watched(filter: &str) -> String {
    format!("[[route]]\nmatch = \"{filter}\"\npattern = \"publish-subscribe\"\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_is_not_fed_what_a_more_specific_route_has_and_not_fed_at_all_without_its_route() {
    let mosquitto = Mosquitto::shared().await;
    let (root, queue) = (unique("jobs"), unique("queue"));
    let (job, log) = (format!("{root}/1"), format!("{root}/log"));
    let of_all = work(&format!("{root}/#"), &queue);
    let server = Server::start(&over(mosquitto, &format!("{of_all}{}", watched(&log)))).await;
    let amqp = Amqp::connect(server.amqp()).await;
    let mut watcher = Mqtt5::connect(server.mqtt(), "watcher").await;
    watcher.subscribe(&log).await;
    let mut device = Mqtt5::connect(mosquitto.address(), &unique("device")).await;
    for (topic, text) in [(&log, "a line"), (&job, "a job"), (&log, "another line")] {
        assert_eq!(device.publish(topic, text).await, PubAckReason::Success);
    }
    assert_eq!(watcher.next_text().await, "a line");
    assert_eq!(watcher.next_text().await, "another line");
    watcher.leave().await;
    tokio::time::sleep(LULL).await;
    assert_eq!(amqp.drain(&queue).await, ["a job"]);

    server.broker().reload(server.config(&over(mosquitto, &of_all))).await.expect("routes are put in force");
    device.publish(&log, "work now").await;
    let came = async {
        loop {
            match amqp.get(&queue).await {
                Some(text) => return text,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    assert_eq!(soon("what the route has again", came).await, "work now");

    server.broker().reload(server.config(&over(mosquitto, ""))).await.expect("routes are put in force");
    let ended = async {
        while device.publish(&job, "nobody's").await != PubAckReason::NoMatchingSubscribers {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("the end of the feed", ended).await;
    let mut watcher = Mqtt5::connect(server.mqtt(), "watcher").await;
    watcher.subscribe(&job).await;
    device.publish(&job, "the watcher's").await;
    assert_eq!(payload(&watcher.next().await), "the watcher's");
    server.stop().await;
}
