//! What goes on after Linkspan was started anew: what follows from the configuration, and what the ledger has.

use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicNackOptions};
use lapin::types::FieldTable;
use linkspan::ledger::EmbeddedLedger;
use linkspan_contract::{Ledger, SystemClock};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::Folder;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Cable, Mosquitto, RabbitMq, Server, soon};

use crate::back_ends::{LOCAL, all, home_is, mosquitto_at, news, rabbit_at, work};

fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

async fn drained(client: &Amqp, queue: &str, count: usize) -> Vec<String> {
    let mut came = Vec::new();
    let all = async {
        while came.len() < count {
            match client.get(queue).await {
                Some(one) => came.push(one),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    soon("all that waits", all).await;
    came
}

async fn leave(folder: &Folder, rabbitmq: &RabbitMq, mosquitto: &Mosquitto, jobs: &str) {
    let configuration = format!("{}{}", all(rabbitmq, mosquitto, "local"), work(jobs, jobs, "rabbit"));
    let server = Server::start_in(folder, &configuration).await;
    let client = Amqp::confirming(server.amqp()).await;
    for n in 0..5 {
        client.publish_as("amq.topic", jobs, &n.to_string(), persistent()).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_moved_is_emptied_into_its_heir_also_when_linkspan_was_stopped_in_between() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    for to in ["local", "mosquitto"] {
        let folder = Folder::new();
        let jobs = unique("jobs");
        leave(&folder, rabbitmq, mosquitto, &jobs).await;
        let configuration =
            format!("{}{}drain = true\n", all(rabbitmq, mosquitto, "local"), work(&jobs, &jobs, to));
        let server = Server::start_in(&folder, &configuration).await;
        let client = Amqp::confirming(server.amqp()).await;
        client.publish_as("amq.topic", &jobs, "new", persistent()).await;
        assert_eq!(drained(&client, &jobs, 6).await, ["0", "1", "2", "3", "4", "new"], "to {to}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_at_the_start_is_looked_at_when_it_is_back() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let folder = Folder::new();
    let jobs = unique("jobs");
    leave(&folder, rabbitmq, mosquitto, &jobs).await;
    let cable = Cable::to(rabbitmq.address()).await;
    cable.cut().await;
    let configuration = format!(
        "{LOCAL}{}{}{}drain = true\n",
        rabbit_at(&rabbitmq.url_by(cable.address())),
        home_is("local"),
        work(&jobs, &jobs, "local"),
    );
    let server = Server::start_in(&folder, &configuration).await;
    let client = Amqp::confirming(server.amqp()).await;
    client.publish_as("amq.topic", &jobs, "new", persistent()).await;
    assert_eq!(drained(&client, &jobs, 1).await, ["new"]);
    cable.heal().await;
    assert_eq!(drained(&client, &jobs, 5).await, ["0", "1", "2", "3", "4"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_that_were_not_carried_yet_come_to_their_address_also_when_the_queue_has_moved() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let folder = Folder::new();
    let (jobs, failed) = (unique("jobs"), unique("failed"));
    let cable = Cable::to(mosquitto.address()).await;
    let on = |backend: &str, mosquitto: &str| {
        let backends =
            format!("{LOCAL}{}{}{}", rabbit_at(rabbitmq.url()), mosquitto_at(mosquitto), home_is("local"));
        let jobs = work(&jobs, &jobs, backend);
        format!("{backends}{jobs}dead-letter = \"{failed}\"\n{}", news(&failed, "mosquitto"))
    };
    let server = Server::start_in(&folder, &on("rabbit", &format!("mqtt://{}", cable.address()))).await;
    cable.cut().await;
    let client = Amqp::confirming(server.amqp()).await;
    for n in 0..3 {
        client.publish_as("amq.topic", &jobs, &n.to_string(), persistent()).await;
    }
    for _ in 0..3 {
        let job = client.channel.basic_get(jobs.as_str().into(), BasicGetOptions::default()).await.unwrap();
        let nack = BasicNackOptions { requeue: false, multiple: false };
        job.expect("a job").delivery.nack(nack).await.unwrap();
    }
    let at_rabbitmq = Amqp::connect(rabbitmq.address()).await;
    server.stop().await;
    let dead = format!("linkspan.dead.{jobs}");
    let waits = async {
        while at_rabbitmq.counts(&dead).await.0 < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("they wait at RabbitMQ", waits).await;
    let mut watcher = Mqtt5::connect(mosquitto.address(), &unique("watcher")).await;
    watcher.subscribe(&failed).await;
    let server = Server::start_in(&folder, &on("local", mosquitto.url())).await;
    for n in 0..3 {
        assert_eq!(watcher.next_text().await, n.to_string());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_for_a_binding_wait_at_rabbitmq_until_the_client_binds_again() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let folder = Folder::new();
    let (sensors, readings) = (unique("sensors"), unique("readings"));
    let configuration =
        format!("{}{}", all(rabbitmq, mosquitto, "local"), news(&format!("{sensors}/#"), "rabbit"));
    let bind = async |server: &Server| {
        let client = Amqp::connect(server.amqp()).await;
        client.queue(&readings).await;
        client.bind(&readings, "amq.topic", &format!("{sensors}.#")).await;
        client
    };
    let server = Server::start_in(&folder, &configuration).await;
    bind(&server).await;
    server.stop().await;
    let at_rabbitmq = Amqp::confirming(rabbitmq.address()).await;
    for n in 0..3 {
        at_rabbitmq.publish_as("amq.topic", &format!("{sensors}.7"), &n.to_string(), persistent()).await;
    }
    let server = Server::start_in(&folder, &configuration).await;
    let client = bind(&server).await;
    assert_eq!(drained(&client, &readings, 3).await, ["0", "1", "2"]);
    server.stop().await;
}

/// What the ledger of a Linkspan that has stopped has of that kind.
async fn remembered(folder: &Folder, kind: &str) -> Vec<String> {
    let file = folder.path().join("linkspan-data/ledger.redb");
    let ledger = EmbeddedLedger::open(&file, "test", Arc::new(SystemClock)).expect("nobody has it open");
    let found = ledger.scan(&format!("hub/own/{kind}/"), None, 100).await.unwrap();
    found.iter().map(|(_, entry)| String::from_utf8_lossy(&entry.value).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_at_rabbitmq_goes_on_to_get_what_its_binding_matches_at_mosquitto_without_a_client() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let folder = Folder::new();
    let (sensors, readings) = (unique("sensors"), unique("readings"));
    let configuration =
        format!("{}{}", all(rabbitmq, mosquitto, "rabbit"), news(&format!("{sensors}/#"), "mosquitto"));
    let server = Server::start_in(&folder, &configuration).await;
    let client = Amqp::connect(server.amqp()).await;
    client.queue(&readings).await;
    client.bind(&readings, "amq.topic", &format!("{sensors}.#")).await;
    // one that goes with its client is no matter for the ledger
    client.bound("amq.topic", &format!("{sensors}.#")).await;
    server.stop().await;
    let expected = format!("{{\"vhost\":\"/\",\"queue\":\"{readings}\",\"key\":\"{sensors}.#\"}}");
    assert_eq!(remembered(&folder, "binding").await, [expected]);

    let server = Server::start_in(&folder, &configuration).await;
    let at_rabbitmq = Amqp::connect(rabbitmq.address()).await;
    let mut device = Mqtt5::connect(mosquitto.address(), &unique("device")).await;
    let topic = format!("{sensors}/7");
    let comes = async {
        while at_rabbitmq.get(&readings).await.is_none() {
            device.publish(&topic, "is it there yet").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("the binding is in force", comes).await;
    for n in 0..20 {
        device.publish(&topic, &n.to_string()).await;
    }
    let mut came = Vec::new();
    while came.last().is_none_or(|last| last != "19") {
        came.extend(
            drained(&at_rabbitmq, &readings, 1).await.into_iter().filter(|it| it.parse::<u32>().is_ok()),
        );
    }
    assert!(came.iter().map(|n| n.parse::<u32>().unwrap()).eq(0..20), "{came:?}");
    let client = Amqp::connect(server.amqp()).await;
    let unbound = client.channel.queue_unbind(
        readings.as_str().into(),
        "amq.topic".into(),
        format!("{sensors}.#").as_str().into(),
        FieldTable::default(),
    );
    unbound.await.expect("unbind-ok");
    server.stop().await;
    assert_eq!(remembered(&folder, "binding").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_route_has_another_name_for_it_is_emptied_into_that_also_when_it_moved_between_two_lives()
 {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    for to in ["local", "mosquitto", "rabbit"] {
        let folder = Folder::new();
        let jobs = unique("jobs");
        leave(&folder, rabbitmq, mosquitto, &jobs).await;
        let new = unique("new");
        let configuration =
            format!("{}{}drain = true\n", all(rabbitmq, mosquitto, "local"), work(&jobs, &new, to));
        let server = Server::start_in(&folder, &configuration).await;
        let client = Amqp::confirming(server.amqp()).await;
        client.publish_as("amq.topic", &jobs, "new", persistent()).await;
        assert_eq!(drained(&client, &new, 6).await, ["0", "1", "2", "3", "4", "new"], "to {to}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_of_a_route_that_is_gone_come_to_their_address() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let (jobs, failed) = (unique("jobs"), unique("failed"));
    let cable = Cable::to(mosquitto.address()).await;
    let at = |mosquitto: &str| {
        let backends =
            format!("{LOCAL}{}{}{}", rabbit_at(rabbitmq.url()), mosquitto_at(mosquitto), home_is("local"));
        format!("{backends}{}", news(&failed, "mosquitto"))
    };
    let folder = Folder::new();
    let route = format!("{}dead-letter = \"{failed}\"\n", work(&jobs, &jobs, "rabbit"));
    let server =
        Server::start_in(&folder, &format!("{}{route}", at(&format!("mqtt://{}", cable.address())))).await;
    cable.cut().await;
    let client = Amqp::confirming(server.amqp()).await;
    for n in 0..3 {
        client.publish_as("amq.topic", &jobs, &n.to_string(), persistent()).await;
    }
    for _ in 0..3 {
        let job = client.channel.basic_get(jobs.as_str().into(), BasicGetOptions::default()).await.unwrap();
        let nack = BasicNackOptions { requeue: false, multiple: false };
        job.expect("a job").delivery.nack(nack).await.unwrap();
    }
    let at_rabbitmq = Amqp::connect(rabbitmq.address()).await;
    server.stop().await;
    let dead = format!("linkspan.dead.{jobs}");
    let waits = async {
        while at_rabbitmq.counts(&dead).await.0 < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("they wait at RabbitMQ", waits).await;
    let mut watcher = Mqtt5::connect(mosquitto.address(), &unique("watcher")).await;
    watcher.subscribe(&failed).await;
    let server = Server::start_in(&folder, &at(mosquitto.url())).await;
    for n in 0..3 {
        assert_eq!(watcher.next_text().await, n.to_string());
    }
    server.stop().await;
}

/// Readings that a queue of Linkspan's own gets from a Mosquitto whose link is cut while they come.
struct Archive {
    mosquitto: Mosquitto,
    cable: Cable,
    server: Server,
    client: Amqp,
    device: Mqtt5,
}

impl Archive {
    async fn bound_to(keys: &[&str], version: &str) -> Self {
        let mosquitto = Mosquitto::own().await;
        let cable = Cable::to(mosquitto.address()).await;
        let at = mosquitto_at(&format!("mqtt://{}", cable.address()));
        let server = Server::start(&format!("{at}version = \"{version}\"\n{}", home_is("mosquitto"))).await;
        let client = Amqp::connect(server.amqp()).await;
        client.queue("archive").await;
        for key in keys {
            client.bind("archive", "amq.topic", key).await;
        }
        let device = Mqtt5::connect(mosquitto.address(), "device").await;
        Self { mosquitto, cable, server, client, device }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mosquitto_keeps_for_linkspan_outlives_its_first_stop() {
    for version in ["5", "3.1.1"] {
        let mut it = Archive::bound_to(&["readings"], version).await;
        it.cable.cut().await;
        for n in 0..200 {
            it.device.publish("readings", &n.to_string()).await;
        }
        it.mosquitto.stop().await;
        it.mosquitto.start().await;
        it.cable.heal().await;
        let expected: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        assert_eq!(drained(&it.client, "archive", 200).await, expected, "MQTT {version}");
        it.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_that_mosquitto_had_not_written_down_when_it_was_killed_is_in_force_again() {
    for version in ["5", "3.1.1"] {
        let mut it = Archive::bound_to(&["readings"], version).await;
        it.device.publish("readings", "first").await;
        assert_eq!(drained(&it.client, "archive", 1).await, ["first"]);
        // what it knows by now is on its disk
        it.mosquitto.stop().await;
        it.mosquitto.start().await;
        it.client.bind("archive", "amq.topic", "news").await;
        it.mosquitto.kill().await;
        it.mosquitto.start().await;
        drop(it.device);
        let mut device = Mqtt5::connect(it.mosquitto.address(), "device").await;
        let comes_again = async {
            while it.client.get("archive").await.is_none() {
                device.publish("news", "second").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(&format!("MQTT {version}: news come into the archive"), comes_again).await;
        it.server.stop().await;
    }
}
