//! Who publishes: by AMQP with confirms, by MQTT at QoS 1, by HTTP. What is not acknowledged when the server is killed is
//! not sent again.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure};
use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation};
use linkspan_integration_tests::mqtt5::Mqtt5;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event};
use tokio::time::sleep;

use super::life::{Life, Work};
use super::notes::{Name, Notes};

/// What is published to a queue, in a line of its name.
#[derive(Debug, Clone, Copy)]
pub struct Publishing {
    pub queue: &'static str,
    /// So many are sent before their confirms are awaited.
    pub at_once: usize,
    pub bytes: usize,
    pub priorities: u64,
    /// In a hundred.
    pub transient: u64,
    /// Milliseconds.
    pub expiry: Option<u64>,
    /// Milliseconds between two turns.
    pub pause: u64,
}

impl Publishing {
    /// One at a time, durable, short.
    pub const fn singles(queue: &'static str) -> Self {
        Self { queue, at_once: 1, bytes: 0, priorities: 1, transient: 0, expiry: None, pause: 2 }
    }
}

/// So many messages wait in a queue at most: enough to fill the memory's part of it six times, and no more after a
/// thousand lives than after ten.
const WAITING: u32 = 3000;

/// Publishes by AMQP until the connection ends.
pub async fn by_amqp(life: Life, publishing: Publishing) -> Work {
    let Publishing { queue, at_once, bytes, priorities, transient, expiry, pause } = publishing;
    let (_connection, channel) = life.connect().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    loop {
        let there = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
        if there.message_count() > WAITING {
            sleep(Duration::from_millis(20)).await;
            continue;
        }
        let mut names: Vec<(Name, u64)> = Vec::new();
        let mut confirms = Vec::new();
        for _ in 0..at_once {
            let priority = u8::try_from(life.below(priorities))?;
            let durable = life.below(100) >= transient;
            let (name, sent) = life.notes().send(queue, durable, priority);
            let mut properties = BasicProperties::default()
                .with_priority(priority)
                .with_delivery_mode(if durable { 2 } else { 1 });
            if let Some(expiry) = expiry {
                properties = properties.with_expiration(expiry.to_string().into());
            }
            let payload = Notes::payload(name, bytes);
            let options = BasicPublishOptions::default();
            confirms
                .push(channel.basic_publish("".into(), queue.into(), options, &payload, properties).await?);
            names.push((name, sent));
        }
        for ((name, sent), confirmed) in names.into_iter().zip(join_all(confirms).await) {
            let confirmed = confirmed?;
            ensure!(matches!(confirmed, Confirmation::Ack(None)), "{queue}: {confirmed:?}");
            life.notes().acknowledged(name, sent);
        }
        sleep(Duration::from_millis(pause)).await;
    }
}

/// Publishes by MQTT at QoS 1 until the connection ends: so many at once, and milliseconds between two turns.
pub async fn by_mqtt(
    life: Life,
    line: &'static str,
    topic: &'static str,
    (window, pause): (usize, u64),
) -> Work {
    let (client, mut events) = AsyncClient::new(Mqtt5::options(life.mqtt, line), 2 * window);
    // PUBACKs come in the order of the PUBLISHes [MQTT-4.6.0-2].
    let mut waiting: VecDeque<(Name, u64)> = VecDeque::new();
    loop {
        match events.poll().await? {
            Event::Incoming(Packet::PubAck(ack)) => {
                let (name, sent) = waiting.pop_front().ok_or_else(|| anyhow!("a PUBACK of nothing"))?;
                ensure!(ack.reason == PubAckReason::Success, "PUBACK says {:?}", ack.reason);
                life.notes().acknowledged(name, sent);
            }
            Event::Incoming(Packet::ConnAck(_)) | Event::Outgoing(_) => {}
            Event::Incoming(other) => bail!("unexpected: {other:?}"),
        }
        if pause > 0 && !waiting.is_empty() {
            continue;
        }
        if pause > 0 {
            sleep(Duration::from_millis(pause)).await;
        }
        while waiting.len() < window {
            let (name, sent) = life.notes().send(line, true, 0);
            client.try_publish(topic, QoS::AtLeastOnce, false, Notes::payload(name, 0))?;
            waiting.push_back((name, sent));
        }
    }
}

/// Posts by HTTP until the server is gone.
pub async fn by_http(life: Life, line: &'static str, path: &'static str) -> Work {
    loop {
        let (name, sent) = life.notes().send(line, true, 0);
        let url = format!("http://{}/v1/messages/{path}", life.http);
        let post = ureq::post(url).config().http_status_as_error(false).build();
        let posting = move || post.send(Notes::payload(name, 0));
        let status = tokio::task::spawn_blocking(posting).await??.status().as_u16();
        ensure!(status == 204, "HTTP says {status}");
        life.notes().acknowledged(name, sent);
        sleep(Duration::from_millis(5)).await;
    }
}
