//! One client publishes what a broker closes channels and connections for. Others, whose messages go the same way, do not
//! notice.

use std::time::Duration;

use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::http::get;
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::Folder;
use linkspan_integration_tests::{Mosquitto, Process, RabbitMq};
use rumqttc::v5::mqttbytes::v5::{PubAckReason, PublishProperties};
use tokio::time::{Instant, sleep};

use crate::back_ends::{home_is, mosquitto_at, rabbit_at, work};
use crate::traffic::{Line, Sender, Taker, Traffic};

/// The largest message that the brokers of these tests take, in bytes.
const LIMIT: usize = 100_000;

/// What is published, and what the publisher is told.
struct Poison {
    what: &'static str,
    topic: String,
    size: usize,
    properties: PublishProperties,
    expected: &'static [PubAckReason],
}

impl Poison {
    fn new(what: &'static str, expected: &'static [PubAckReason]) -> Self {
        let properties = PublishProperties::default();
        Self { what, topic: "poison".into(), size: 10, properties, expected }
    }

    fn with_user_properties(self, properties: &[(&str, &str)]) -> Self {
        let pairs = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let properties = PublishProperties { user_properties: pairs.collect(), ..self.properties };
        Self { properties, ..self }
    }
}

/// What goes where nobody listens is taken, too.
const TAKEN: &[PubAckReason] = &[PubAckReason::Success, PubAckReason::NoMatchingSubscribers];

/// Linkspan with one connection for all that is published, and traffic over it.
struct Stage {
    process: Process,
    traffic: Traffic,
    _folder: Folder,
}

impl Stage {
    async fn over(back_end: &str, home: &str) -> Self {
        let folder = Folder::new();
        let configuration =
            format!("{back_end}connections = 1\n{}{}", home_is(home), work("work/today", "work", home));
        let file = folder.write("linkspan.toml", &configuration);
        let mut process = Process::start(folder.path(), &["--config", &file]);
        let (mqtt, amqp) = (process.door("mqtt"), format!("amqp://guest:guest@{}/%2f", process.door("amqp")));
        let (news, work) = (Line::from("news/today"), Line::from("work/today"));
        let takers = vec![
            Taker::mqtt("watcher", mqtt, &news).await,
            Taker::bound("archive", &amqp, &news, "archive").await,
            Taker::worker("worker", &amqp, &work, "work").await,
        ];
        let senders = vec![
            Sender::mqtt("mqtt-news", mqtt, &news),
            Sender::amqp("amqp-news", &amqp, &news),
            Sender::mqtt("mqtt-work", mqtt, &work),
            Sender::amqp("amqp-work", &amqp, &work),
        ];
        let traffic = Traffic::new("beside poison", senders, takers);
        traffic.flows(Instant::now()).await;
        Self { process, traffic, _folder: folder }
    }

    /// Publishes all of it a few times while others publish; nobody notices. `closing` of the poisons close a channel, with
    /// which lapin may lose the connection: what it still has to write for the channel it writes behind `channel.close-ok`.
    async fn bears(mut self, poisons: &[Poison], closing: usize) {
        const ROUNDS: usize = 5;
        let mut poisoner = Mqtt5::connect(self.process.door("mqtt"), "poisoner").await;
        let mut faults = Vec::new();
        for _ in 0..ROUNDS {
            for poison in poisons {
                faults.push(Instant::now());
                let (topic, body) = (&poison.topic, "x".repeat(poison.size));
                let reason = poisoner.publish_as(topic, &body, false, poison.properties.clone()).await;
                assert!(poison.expected.contains(&reason), "{}: PUBACK says {reason:?}", poison.what);
                sleep(Duration::from_millis(50)).await;
            }
        }
        self.traffic.flows(Instant::now()).await;
        let figures = get(self.process.door("http"), "/metrics", &[]).await.body;
        let figure = figures.lines().find_map(|line| line.strip_prefix("linkspan_backend_reconnects_total{"));
        let reconnects = figure.map_or(0, |it| it.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap());
        assert!(reconnects <= closing * ROUNDS, "connections to the broker were lost {reconnects} times");
        self.traffic.end(&faults).await.judge_alone();
        let lines = self.process.listen(Duration::from_millis(100));
        let lost: Vec<&String> =
            lines.iter().filter(|line| line.contains("away") || line.contains("cannot be reached")).collect();
        assert!(lost.len() <= reconnects, "{lost:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rabbitmq_closes_channels_for_disturbs_nobody_else() {
    let rabbitmq = RabbitMq::own_with(&format!("max_message_size = {LIMIT}"), &[]).await;
    let direct = Amqp::connect(rabbitmq.address()).await;
    let elsewhere = direct.bound("amq.topic", "elsewhere").await;
    let stage = Stage::over(&rabbit_at(rabbitmq.url()), "rabbit").await;
    const REFUSED: &[PubAckReason] = &[PubAckReason::ImplementationSpecificError];
    let expiring = PublishProperties { message_expiry_interval: Some(u32::MAX), ..Default::default() };
    let poisons = [
        Poison::new("CC", TAKEN).with_user_properties(&[
            ("CC", "elsewhere"),
            ("CC", "elsewhere"),
            ("BCC", "elsewhere"),
        ]),
        Poison::new("user-id", TAKEN)
            .with_user_properties(&[("user-id", "somebody"), ("amqp-user-id", "somebody")]),
        Poison { properties: expiring, ..Poison::new("an expiry beyond RabbitMQ's", TAKEN) },
        Poison { size: LIMIT * 2, ..Poison::new("a body over the limit", REFUSED) },
        Poison {
            topic: "t".repeat(300),
            ..Poison::new("a topic of 300 bytes", &[PubAckReason::TopicNameInvalid])
        },
    ];
    stage.bears(&poisons, 1).await;
    assert_eq!(direct.get(&elsewhere).await, None, "CC and BCC of an MQTT client are no routing keys");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mosquitto_closes_connections_for_disturbs_nobody_else() {
    let acl = "topic readwrite #\ntopic deny closed/#\n";
    let configuration = format!("acl_file acl\nmax_packet_size {LIMIT}");
    let mosquitto = Mosquitto::own_with(&configuration, &[("acl", acl)]).await;
    let stage = Stage::over(&mosquitto_at(mosquitto.url()), "mosquitto").await;
    let expiring = PublishProperties { message_expiry_interval: Some(u32::MAX), ..Default::default() };
    let poisons = [
        Poison { size: LIMIT * 2, ..Poison::new("a packet over the limit", &[PubAckReason::QuotaExceeded]) },
        Poison { properties: expiring, ..Poison::new("the longest expiry", TAKEN) },
        Poison { topic: "t".repeat(300), ..Poison::new("a topic of 300 bytes", TAKEN) },
        Poison {
            topic: "closed/to/everybody".into(),
            ..Poison::new("a topic that is closed", &[PubAckReason::NotAuthorized])
        },
    ];
    stage.bears(&poisons, 0).await;
}
