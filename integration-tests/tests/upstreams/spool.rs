//! Routes with a spool: what is published while the broker is away is acknowledged, and comes in its order when it is back.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::http::{get, post};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::Folder;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Cable, Mosquitto, Process, RabbitMq, Server, Way, soon, within};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::LULL;
use crate::back_ends::{LOCAL, home_is, mosquitto_at, news, rabbit_at, work};

/// A cable to a broker, and the configuration for a Linkspan in front of it.
struct Plant {
    cable: Cable,
    configuration: String,
}

impl Plant {
    async fn with(backend: &str, routes: &str) -> Self {
        let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
        let is_rabbit = backend == "rabbit";
        let cable = Cable::to(if is_rabbit { rabbitmq.address() } else { mosquitto.address() }).await;
        let far = match is_rabbit {
            true => rabbit_at(&rabbitmq.url_by(cable.address())),
            false => mosquitto_at(&format!("mqtt://{}", cable.address())),
        };
        Self { cable, configuration: format!("{LOCAL}{far}{}{routes}", home_is("local")) }
    }

    /// Cuts the cable, and returns when Linkspan has noticed.
    async fn cut(&self, http: SocketAddr) {
        self.cable.cut().await;
        reaches(http, 503).await;
    }

    async fn heal(&self, http: SocketAddr) {
        self.cable.heal().await;
        reaches(http, 200).await;
    }
}

async fn reaches(http: SocketAddr, status: u16) {
    let known = async {
        while get(http, "/readyz", &[]).await.status != status {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(&format!("/readyz says {status}"), known).await;
    // spools are looked at every 20 ms
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn spooled(route: String, size: &str) -> String {
    format!("{route}spool = \"{size}\"\n")
}

fn numbers(of: std::ops::Range<u32>) -> Vec<String> {
    of.map(|n| n.to_string()).collect()
}

/// A client of the broker itself that gets what arrives there.
enum Watcher {
    Mqtt(Box<Mqtt5>),
    Amqp(Box<Amqp>, String),
}

impl Watcher {
    async fn of(backend: &str, topic: &str) -> Self {
        if backend == "rabbit" {
            let client = Amqp::connect(RabbitMq::shared().await.address()).await;
            let queue = client.bound("amq.topic", &topic.replace('/', ".")).await;
            Self::Amqp(Box::new(client), queue)
        } else {
            let mosquitto = Mosquitto::shared().await.address();
            let mut client = Mqtt5::connect(mosquitto, &unique("watcher")).await;
            client.subscribe(topic).await;
            Self::Mqtt(Box::new(client))
        }
    }

    async fn next(&mut self) -> String {
        match self {
            Self::Mqtt(client) => client.next_text().await,
            Self::Amqp(client, queue) => {
                let comes = async {
                    loop {
                        if let Some(text) = client.get(queue).await {
                            return text;
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                soon("a message", comes).await
            }
        }
    }

    async fn take(&mut self, count: usize) -> Vec<String> {
        let mut came = Vec::with_capacity(count);
        while came.len() < count {
            came.push(self.next().await);
        }
        came
    }

    /// Takes until `count` different ones have come, which may come twice; tells them in the order of their first coming.
    async fn take_different(&mut self, count: usize) -> Vec<String> {
        let (mut seen, mut came) = (HashSet::new(), Vec::new());
        while came.len() < count {
            let one = self.next().await;
            if seen.insert(one.clone()) {
                came.push(one);
            }
        }
        came
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_any_door_takes_while_the_broker_is_away_comes_in_order_when_it_is_back() {
    for backend in ["rabbit", "mosquitto"] {
        let root = unique("plant");
        let plant = Plant::with(backend, &spooled(news(&format!("{root}/#"), backend), "1 GiB")).await;
        let server = Server::start(&plant.configuration).await;
        let mut watchers = Vec::new();
        for door in ["mqtt", "amqp", "http"] {
            watchers.push(Watcher::of(backend, &format!("{root}/{door}")).await);
        }
        let mut device = Mqtt5::connect(server.mqtt(), "device").await;
        let program = Amqp::confirming(server.amqp()).await;
        let mut publish = async |n: u32| {
            let text = n.to_string();
            device.publish(&format!("{root}/mqtt"), &text).await;
            // a transient one, too, is safe before it is confirmed
            let mode = BasicProperties::default().with_delivery_mode(1 + (n % 2) as u8);
            let confirm = program.publish_as("amq.topic", &format!("{root}.amqp"), &text, mode).await;
            assert!(confirm.is_ack(), "{backend}: {confirm:?}");
            let answer = post(server.http(), &format!("/v1/messages/{root}/http"), &[], text.into()).await;
            assert_eq!(answer.status, 204, "{backend}: {}", answer.body);
        };
        reaches(server.http(), 200).await;
        for n in 0..5 {
            publish(n).await;
        }
        plant.cut(server.http()).await;
        for n in 5..25 {
            publish(n).await;
        }
        plant.cable.heal().await;
        for n in 25..60 {
            publish(n).await;
        }
        for watcher in &mut watchers {
            assert_eq!(watcher.take(60).await, numbers(0..60), "{backend}");
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mosquitto_that_is_stopped_and_started_gets_what_it_missed_and_retains_it() {
    let mosquitto = Mosquitto::own().await;
    let routes = spooled(news("plant/#", "mosquitto"), "1 MiB");
    let at = mosquitto_at(mosquitto.url());
    let server = Server::start(&format!("{LOCAL}{at}{}{routes}", home_is("local"))).await;
    reaches(server.http(), 200).await;
    mosquitto.stop().await;
    reaches(server.http(), 503).await;
    let mut device = Mqtt5::connect(server.mqtt(), "device").await;
    for n in 0..10 {
        device.retain("plant/state", &n.to_string()).await;
    }
    let short = PublishProperties { message_expiry_interval: Some(1), ..PublishProperties::default() };
    device.publish_as("plant/state", "expires", true, short).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    mosquitto.start().await;
    let is_retained = async {
        loop {
            let mut late = Mqtt5::connect(mosquitto.address(), &unique("late")).await;
            late.subscribe("plant/state").await;
            if let Some(last) = late.next_within(LULL).await
                && last.payload == "9"
            {
                return;
            }
        }
    };
    soon("the last that has not expired is retained", is_retained).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_breaks_under_load_costs_no_order_and_no_message() {
    const ALL: u32 = 3000;
    for backend in ["rabbit", "mosquitto"] {
        let topic = unique("load");
        let plant = Plant::with(backend, &spooled(news(&topic, backend), "1 GiB")).await;
        let server = Server::start(&plant.configuration).await;
        reaches(server.http(), 200).await;
        let mut watcher = Watcher::of(backend, &topic).await;
        let program = Amqp::confirming(server.amqp()).await;
        let publishing = async {
            let mut confirms = Vec::new();
            for n in 0..ALL {
                let (options, text) = (BasicPublishOptions::default(), n.to_string());
                let properties = BasicProperties::default().with_delivery_mode(2);
                let channel = &program.channel;
                let publish = channel.basic_publish(
                    "amq.topic".into(),
                    topic.as_str().into(),
                    options,
                    text.as_bytes(),
                    properties,
                );
                confirms.push(publish.await.expect("published"));
                if n % 10 == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            for confirm in confirms {
                assert!(soon("a confirm", confirm).await.expect("a confirm").is_ack());
            }
        };
        let breaking = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(200)).await;
                plant.cable.cut().await;
                tokio::time::sleep(Duration::from_millis(200)).await;
                plant.cable.heal().await;
            }
        };
        let ((), (), came) = tokio::join!(publishing, breaking, watcher.take_different(ALL as usize));
        assert!(came == numbers(0..ALL), "{backend}: {came:?}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_waits_in_a_spool_outlives_linkspan_killed_again_and_again() {
    for backend in ["rabbit", "mosquitto"] {
        let jobs = unique("jobs");
        let plant = Plant::with(backend, &spooled(work(&jobs, &jobs, backend), "1 GiB")).await;
        let folder = Folder::new();
        let file = folder.write("linkspan.toml", &plant.configuration);
        let start = || {
            let mut process = Process::start(folder.path(), &["--config", &file]);
            let doors = ["mqtt", "amqp", "http"].map(|door| process.door(door));
            (process, doors)
        };
        let (process, [mqtt, _, http]) = start();
        reaches(http, 200).await;
        plant.cut(http).await;
        let mut device = Mqtt5::connect(mqtt, "device").await;
        for n in 0..100 {
            device.publish(&jobs, &n.to_string()).await;
        }
        let labels = format!("{{vhost=\"/\",backend=\"{backend}\",route=\"{jobs}\"}}");
        let figures = get(http, "/metrics", &[]).await.body;
        for figure in [
            format!("linkspan_spool_messages{labels} 100"),
            format!("linkspan_spool_bytes{labels} "),
            "linkspan_spooled_total 100".to_owned(),
        ] {
            assert!(figures.contains(&figure), "`{figure}` is not in {figures}");
        }
        process.signal("KILL");
        drop(process);

        let (process, [mqtt, ..]) = start();
        let mut device = Mqtt5::connect(mqtt, "device").await;
        for n in 100..150 {
            device.publish(&jobs, &n.to_string()).await;
        }
        process.signal("KILL");
        drop(process);

        // and once more while it carries
        let (process, _) = start();
        plant.cable.heal().await;
        plant.cable.throttle(Way::ToServer, 5_000);
        tokio::time::sleep(Duration::from_millis(700)).await;
        process.signal("KILL");
        drop(process);

        let (_process, [_, amqp, http]) = start();
        plant.heal(http).await;
        let empty = format!("linkspan_spool_messages{labels} 0");
        let is_empty = async {
            while !get(http, "/metrics", &[]).await.body.contains(&empty) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("nothing waits in the spool", is_empty).await;
        let worker = Amqp::connect(amqp).await;
        let mut came = Vec::new();
        let all = async {
            while came.len() < 150 {
                match worker.get(&jobs).await {
                    Some(one) if !came.contains(&one) => came.push(one),
                    Some(_) => {}
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        soon(&format!("all jobs on {backend}"), all).await;
        assert_eq!(came, numbers(0..150), "{backend}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_holds_publishers_until_the_broker_is_back() {
    let topic = unique("full");
    let plant = Plant::with("mosquitto", &spooled(news(&topic, "mosquitto"), "16 KiB")).await;
    let server = Server::start(&plant.configuration).await;
    reaches(server.http(), 200).await;
    let mut watcher = Watcher::of("mosquitto", &topic).await;
    plant.cut(server.http()).await;
    let mut device = Mqtt5::connect(server.mqtt(), "device").await;
    let mut taken = 0;
    let filler = "x".repeat(1000);
    while within(LULL, device.publish(&topic, &format!("{taken} {filler}"))).await.is_some() {
        taken += 1;
        assert!(taken < 100, "it was to be full");
    }
    assert!(taken >= 15, "{taken} messages of 1 KB fill 16 KiB");
    let mut other = Mqtt5::connect(server.mqtt(), "other").await;
    soon("who publishes elsewhere is not held", other.publish(&unique("elsewhere"), "x")).await;
    plant.cable.heal().await;
    let came = watcher.take(taken + 1).await;
    let came: Vec<&str> = came.iter().filter_map(|text| text.split(' ').next()).collect();
    assert_eq!(came, numbers(0..taken as u32 + 1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_takes_the_spool_or_the_route_away_loses_nothing_of_what_waits() {
    for keeps_route in [true, false] {
        let topic = unique("reload");
        let with = news(&topic, "rabbit");
        let plant = Plant::with("rabbit", &spooled(with.clone(), "1 MiB")).await;
        let server = Server::start(&plant.configuration).await;
        reaches(server.http(), 200).await;
        let mut at_rabbit = Watcher::of("rabbit", &topic).await;
        let mut at_home = Mqtt5::connect(server.mqtt(), "watcher").await;
        at_home.subscribe(&topic).await;
        plant.cut(server.http()).await;
        let mut device = Mqtt5::connect(server.mqtt(), "device").await;
        for n in 0..10 {
            device.publish(&topic, &n.to_string()).await;
        }
        let without = match keeps_route {
            true => plant.configuration.replace("spool = \"1 MiB\"\n", ""),
            false => plant.configuration.replace(&spooled(with, "1 MiB"), ""),
        };
        server.broker().reload(server.config(&without)).await.expect("reloaded");
        if keeps_route {
            plant.cable.heal().await;
            assert_eq!(at_rabbit.take(10).await, numbers(0..10));
            device.publish(&topic, "10").await;
            assert_eq!(at_rabbit.take(1).await, ["10"]);
        } else {
            for n in 0..10 {
                assert_eq!(at_home.next_text().await, n.to_string(), "its addresses are the home's now");
            }
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_0_is_not_kept_for_a_broker_that_is_away() {
    let topic = unique("weather");
    let plant = Plant::with("rabbit", &spooled(news(&topic, "rabbit"), "1 MiB")).await;
    let server = Server::start(&plant.configuration).await;
    reaches(server.http(), 200).await;
    let mut watcher = Watcher::of("rabbit", &topic).await;
    plant.cut(server.http()).await;
    let mut device = Mqtt5::connect(server.mqtt(), "device").await;
    device.tell(&topic, "lost").await;
    device.publish(&topic, "kept").await;
    plant.cable.heal().await;
    assert_eq!(watcher.next().await, "kept");
    server.stop().await;
}
