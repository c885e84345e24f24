//! What a dead letter tells of its death, on whichever back end it died and wherever it is carried.

use std::time::Duration;

use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Mosquitto, RabbitMq, Server, soon};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::back_ends::{all, news, work};

const BACK_ENDS: [&str; 3] = ["local", "rabbit", "mosquitto"];

async fn next(client: &Amqp, queue: &str) -> BasicGetMessage {
    let got = async {
        loop {
            let options = BasicGetOptions::default();
            if let Some(message) = client.channel.basic_get(queue.into(), options).await.unwrap() {
                return message;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("a message", got).await
}

fn headers(message: &BasicGetMessage) -> FieldTable {
    message.delivery.properties.headers().clone().unwrap_or_default()
}

fn text(value: Option<&AMQPValue>) -> Option<String> {
    match value {
        Some(AMQPValue::LongString(text)) => Some(String::from_utf8(text.as_bytes().to_vec()).unwrap()),
        _ => None,
    }
}

/// A user property that an MQTT client must not get past the firewall.
fn forged() -> PublishProperties {
    let user_properties = vec![("x-death".into(), "forged".into()), ("x-mine".into(), "1".into())];
    PublishProperties { user_properties, ..PublishProperties::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_was_carried_tells_of_its_death_as_rabbitmq_does() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let run = unique("dead");
    let mut configuration = all(rabbitmq, mosquitto, "local");
    for to in ["local", "rabbit"] {
        configuration.push_str(&work(&format!("{run}/{to}"), &format!("{run}-{to}"), to));
        for from in BACK_ENDS {
            let jobs = format!("{run}-{from}-{to}");
            configuration.push_str(&work(&jobs, &jobs, from));
            configuration.push_str(&format!("dead-letter = \"{run}/{to}\"\n"));
        }
    }
    let server = Server::start(&configuration).await;
    let client = Amqp::connect(server.amqp()).await;
    let mut device = Mqtt5::connect(server.mqtt(), "device").await;
    for to in ["local", "rabbit"] {
        for from in BACK_ENDS {
            let jobs = format!("{run}-{from}-{to}");
            device.publish_as(&jobs, "job", false, forged()).await;
            let job = next(&client, &jobs).await;
            job.delivery.nack(BasicNackOptions { requeue: false, multiple: false }).await.unwrap();
            let dead = next(&client, &format!("{run}-{to}")).await;
            dead.delivery.ack(Default::default()).await.unwrap();
            let headers = headers(&dead);
            let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else {
                panic!("from {from} to {to}: x-death is no list: {headers:?}");
            };
            // A broker that carries it to another queue of its own, behind the hub's back, would add a death.
            let AMQPValue::FieldTable(death) = deaths.as_slice().last().expect("a death") else {
                panic!("from {from} to {to}: an entry of x-death is no table: {deaths:?}");
            };
            let death = death.inner();
            let found = (text(death.get("queue")), text(death.get("reason")));
            assert_eq!(found, (Some(jobs), Some("rejected".into())), "from {from} to {to}");
            assert_eq!(death.get("count"), Some(&AMQPValue::LongLongInt(1)), "from {from} to {to}");
            assert!(matches!(death.get("time"), Some(AMQPValue::Timestamp(_))), "from {from} to {to}");
            assert!(
                matches!(death.get("routing-keys"), Some(AMQPValue::FieldArray(_))),
                "from {from} to {to}"
            );
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_is_carried_to_mosquitto_tells_of_its_death_in_json() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    for from in BACK_ENDS {
        let (jobs, failed) = (unique("jobs"), unique("failed"));
        let configuration = format!(
            "{}{}dead-letter = \"{failed}\"\n{}",
            all(rabbitmq, mosquitto, "local"),
            work(&jobs, &jobs, from),
            news(&failed, "mosquitto"),
        );
        let server = Server::start(&configuration).await;
        let mut watcher = Mqtt5::connect(mosquitto.address(), &unique("watcher")).await;
        watcher.subscribe(&failed).await;
        let client = Amqp::confirming(server.amqp()).await;
        client.publish("amq.topic", &jobs, "job").await;
        let job = next(&client, &jobs).await;
        job.delivery.nack(BasicNackOptions { requeue: false, multiple: false }).await.unwrap();
        let dead = watcher.next().await;
        let properties = dead.properties.expect("user properties").user_properties;
        let (_, deaths) = properties.iter().find(|(name, _)| name == "x-death").expect("x-death");
        let deaths: serde_json::Value = serde_json::from_str(deaths).expect("JSON");
        assert_eq!(deaths[0]["queue"], jobs.as_str(), "from {from}: {deaths}");
        assert_eq!(deaths[0]["reason"], "rejected", "from {from}: {deaths}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_queue_over_mosquitto_does_not_take_is_one_dead_letter_and_the_queue_goes_on() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let (jobs, failed) = (unique("jobs"), unique("failed"));
    let configuration = format!(
        "{}{}max-length = 2\noverflow = \"dead-letter\"\ndead-letter = \"{failed}\"\n{}",
        all(rabbitmq, mosquitto, "local"),
        work(&jobs, &jobs, "mosquitto"),
        work(&failed, &failed, "local"),
    );
    let server = Server::start(&configuration).await;
    let mut device = Mqtt5::connect(mosquitto.address(), &unique("device")).await;
    for job in ["1", "2", "3", "4"] {
        device.publish(&jobs, job).await;
    }
    let client = Amqp::connect(server.amqp()).await;
    for refused in ["3", "4"] {
        let dead = next(&client, &failed).await;
        assert_eq!(dead.delivery.data, refused.as_bytes());
    }
    for taken in ["1", "2"] {
        let job = next(&client, &jobs).await;
        assert_eq!(job.delivery.data, taken.as_bytes());
        job.delivery.ack(Default::default()).await.unwrap();
    }
    device.publish(&jobs, "5").await;
    assert_eq!(next(&client, &jobs).await.delivery.data, b"5", "what comes later is taken");
    let more = client.channel.basic_get(failed.as_str().into(), BasicGetOptions::default()).await.unwrap();
    assert!(more.is_none(), "each is one dead letter");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_that_an_mqtt_client_makes_up_is_escaped_at_rabbitmq() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let (jobs, address) = (unique("jobs"), unique("address"));
    let configuration = format!("{}{}", all(rabbitmq, mosquitto, "local"), work(&address, &jobs, "rabbit"));
    let server = Server::start(&configuration).await;
    let mut device = Mqtt5::connect(server.mqtt(), "device").await;
    device.publish_as(&address, "job", false, forged()).await;
    let at_rabbitmq = Amqp::connect(rabbitmq.address()).await;
    let headers = headers(&next(&at_rabbitmq, &jobs).await);
    assert!(!headers.inner().contains_key("x-death"), "{headers:?}");
    assert_eq!(text(headers.inner().get("mqtt.x-death")).as_deref(), Some("forged"));
    assert_eq!(text(headers.inner().get("mqtt.x-mine")).as_deref(), Some("1"));
    server.stop().await;
}
