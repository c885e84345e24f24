//! What Mosquitto retains, for clients whose subscription reaches there through Linkspan.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use linkspan_integration_tests::mqtt5::{Mqtt5, payload};
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Mosquitto, Server};
use rumqttc::v5::mqttbytes::v5::Publish;

use crate::back_ends::{LOCAL, home_is, mosquitto_at, news};

/// What a subscriber was given of each topic.
#[derive(Default)]
struct Given {
    /// The newest that was not retained.
    live: HashMap<String, u32>,
    topics: HashSet<String>,
    quiet: usize,
}

impl Given {
    fn take(&mut self, round: u32, publish: &Publish) {
        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
        if topic.ends_with("quiet") {
            assert!(publish.retain);
            self.quiet += 1;
            return;
        }
        let value = payload(publish).parse().unwrap();
        if let Some(newest) = self.live.get(&topic) {
            let kind = if publish.retain { "retained" } else { "live" };
            assert!(*newest <= value, "round {round}, {topic}: {kind} {value} behind {newest}");
        }
        if !publish.retain {
            self.live.insert(topic.clone(), value);
        }
        self.topics.insert(topic);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_gets_no_retained_message_behind_a_newer_one() {
    let mosquitto = Mosquitto::shared().await;
    let place = unique("place");
    let route = news(&format!("{place}/#"), "mosquitto");
    let server =
        Server::start(&format!("{LOCAL}{}{}{route}", mosquitto_at(mosquitto.url()), home_is("local"))).await;
    let mut device = Mqtt5::connect(mosquitto.address(), &unique("device")).await;
    let over = Arc::new(AtomicBool::new(false));
    const TOPICS: u32 = 5;
    device.retain(&format!("{place}/quiet"), "kept").await;
    let publishing = tokio::spawn({
        let (place, over) = (place.clone(), Arc::clone(&over));
        async move {
            let mut value = 0u32;
            while !over.load(Ordering::Relaxed) {
                device.retain(&format!("{place}/{}", value % TOPICS), &value.to_string()).await;
                value += 1;
            }
        }
    });
    for round in 0..40 {
        let mut subscriber = Mqtt5::connect(server.mqtt(), &format!("subscriber-{round}")).await;
        subscriber.subscribe(&format!("{place}/#")).await;
        let mut given = Given::default();
        while given.quiet == 0 || given.topics.len() < TOPICS as usize || given.live.len() < 2 {
            given.take(round, &subscriber.next().await);
        }
        for _ in 0..20 {
            given.take(round, &subscriber.next().await);
        }
        assert_eq!(given.quiet, 1, "round {round}: what nobody changes comes once");
    }
    over.store(true, Ordering::Relaxed);
    publishing.await.unwrap();
    server.stop().await;
}
