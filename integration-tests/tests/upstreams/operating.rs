//! What operators do with queues at brokers: pause, list and replay dead letters.

use std::time::Duration;

use lapin::options::{BasicGetOptions, BasicNackOptions};
use lapin::types::AMQPValue;
use linkspan_integration_tests::amqp::{Amqp, text};
use linkspan_integration_tests::http;
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Mosquitto, RabbitMq, Server, soon};
use serde_json::{Value, json};

use crate::LULL;
use crate::back_ends::{all, work};

async fn asked(server: &Server, path: &str) -> Value {
    let answer = http::get(server.http(), path, &[]).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

async fn told(server: &Server, path: &str) -> Value {
    let answer = http::post(server.http(), path, &[], Vec::new()).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

/// Dead letters as they are listed, as soon as there are so many.
async fn letters(server: &Server, path: &str, count: usize) -> Value {
    let gather = async {
        loop {
            let list = asked(server, path).await;
            if list["letters"].as_array().is_some_and(|letters| letters.len() == count) {
                return list;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("all dead letters", gather).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_queue_gives_nothing_out_on_any_back_end() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let run = unique("pause");
    let mut configuration = all(rabbitmq, mosquitto, "local");
    for backend in ["rabbit", "mosquitto"] {
        let jobs = format!("{run}-{backend}");
        configuration.push_str(&work(&jobs, &jobs, backend));
    }
    let server = Server::start(&configuration).await;
    for backend in ["rabbit", "mosquitto"] {
        let jobs = format!("{run}-{backend}");
        let mut worker = Mqtt5::connect(server.mqtt(), &format!("worker-{backend}")).await;
        worker.subscribe(&format!("$queue/{jobs}")).await;
        let mut device = Mqtt5::connect(server.mqtt(), &format!("device-{backend}")).await;
        device.publish(&jobs, "0").await;
        assert_eq!(worker.next_text().await, "0", "{backend}");
        told(&server, &format!("/v1/queues/{jobs}/pause")).await;
        for job in 1..5 {
            device.publish(&jobs, &job.to_string()).await;
        }
        assert!(worker.next_within(LULL).await.is_none(), "{backend}");
        let found = soon("all are there", async {
            loop {
                let found = asked(&server, &format!("/v1/queues/{jobs}")).await;
                if found["ready"] == 4 {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert_eq!((&found["paused"], &found["backend"]), (&json!(true), &json!(backend)), "{found}");
        told(&server, &format!("/v1/queues/{jobs}/resume")).await;
        for job in 1..5 {
            assert_eq!(worker.next_text().await, job.to_string(), "{backend}: in order");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_and_moved_back_on_any_back_end() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let run = unique("replay");
    let mut configuration = all(rabbitmq, mosquitto, "local");
    for backend in ["rabbit", "mosquitto"] {
        let jobs = format!("{run}-{backend}");
        configuration.push_str(&work(&jobs, &jobs, backend));
        let failed = format!("{run}-failed-{backend}");
        configuration
            .push_str(&format!("dead-letter = {{ address = \"{failed}\", queue = \"{failed}\" }}\n"));
    }
    let server = Server::start(&configuration).await;
    let client = Amqp::confirming(server.amqp()).await;
    for backend in ["rabbit", "mosquitto"] {
        let jobs = format!("{run}-{backend}");
        let next = async || {
            let got = async {
                loop {
                    let options = BasicGetOptions::default();
                    if let Some(message) =
                        client.channel.basic_get(jobs.as_str().into(), options).await.unwrap()
                    {
                        return message;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            soon("a message", got).await
        };
        for job in ["one", "two", "three"] {
            client.publish("amq.topic", &jobs, job).await;
            let message = next().await;
            message.delivery.nack(BasicNackOptions { requeue: false, multiple: false }).await.unwrap();
        }
        let path = format!("/v1/queues/{jobs}/dead-letters");
        let list = letters(&server, &path, 3).await;
        let first = &list["letters"][0];
        assert_eq!(
            (&first["reason"], &first["count"]),
            (&json!("rejected"), &json!(1)),
            "{backend}: {first}"
        );
        assert_eq!(first["first_queue"], jobs.as_str(), "{backend}");
        assert_eq!(first["last_address"], jobs.as_str(), "{backend}");
        let shown = asked(&server, &format!("{path}/3")).await;
        assert_eq!(shown["message"]["payload"], "three", "{backend}: {shown}");
        let replayed = told(&server, &format!("/v1/queues/{jobs}/replay?limit=2")).await;
        assert_eq!(replayed, json!({ "replayed": 2, "expired": 0, "stopped": null }), "{backend}");
        for expected in ["one", "two"] {
            let message = next().await;
            assert_eq!(text(&message.delivery.data), expected, "{backend}: in order");
            let headers = message.delivery.properties.headers().clone().unwrap_or_default();
            assert!(headers.inner().contains_key("x-death"), "{backend}: {headers:?}");
            let replays = headers.inner().get("linkspan-dead-replays");
            assert_eq!(replays, Some(&AMQPValue::LongLongInt(1)), "{backend}: {headers:?}");
            assert!(headers.inner().contains_key("linkspan-dead-reason"), "{backend}: {headers:?}");
            message.delivery.nack(BasicNackOptions { requeue: false, multiple: false }).await.unwrap();
        }
        let again = letters(&server, &path, 3).await;
        let counts: Vec<_> = again["letters"].as_array().unwrap().iter().map(|it| &it["count"]).collect();
        // Of what was carried through an MQTT broker only texts are left.
        let twice = if backend == "mosquitto" { 1 } else { 2 };
        assert_eq!(counts, [1, twice, twice], "{backend}: what died twice says so: {again}");
        if backend == "mosquitto" {
            let failed = format!("{run}-failed-{backend}");
            let options = BasicGetOptions::default();
            let unseen = client.channel.basic_get(failed.as_str().into(), options).await.unwrap();
            let unseen = unseen.expect("the first").delivery;
            assert!(!unseen.redelivered, "who looks at it is given nothing");
            unseen.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
        }
        let purged = told(&server, &format!("{path}/purge")).await;
        assert_eq!(purged["purged"], 3, "{backend}");
        assert_eq!(asked(&server, &path).await["waiting"], 0, "{backend}");
    }
    server.stop().await;
}
