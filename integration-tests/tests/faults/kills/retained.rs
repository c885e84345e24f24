//! Retained messages: what was acknowledged last under a topic is what later subscribers get, in every life.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{bail, ensure};
use linkspan_integration_tests::mqtt5::{Mqtt5, payload, topic};
use linkspan_integration_tests::soon;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event};
use tokio::time::{sleep, timeout};

use super::life::{Life, Work};

const TOPICS: u64 = 5;

/// Every so many is empty, which clears the topic.
const CLEARED: u64 = 6;

fn is_cleared(number: u64) -> bool {
    number.is_multiple_of(CLEARED)
}

/// What is under a topic: the number of a message.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    acknowledged: u64,
    sent: u64,
}

impl State {
    /// What may be found: the last that was acknowledged, or one that was sent later.
    fn numbers(self) -> impl Iterator<Item = u64> {
        self.acknowledged..=self.sent
    }
}

/// All of them, over all lives.
#[derive(Debug, Clone, Default)]
pub struct States(Arc<Mutex<HashMap<u64, State>>>);

impl States {
    fn state(&self, at: u64, change: impl FnOnce(&mut State)) -> State {
        let mut all = self.0.lock().expect("nobody has failed");
        let state = all.entry(at).or_default();
        change(state);
        *state
    }

    /// How many were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.0.lock().expect("nobody has failed").values().map(|state| state.acknowledged).sum()
    }

    /// Looks at what a new subscriber gets, and notes it.
    pub async fn check(&self, life: &Life) -> Work {
        let mut client = Mqtt5::connect(life.mqtt, "reader").await;
        client.subscribe("state/+").await;
        let mut found: HashMap<u64, u64> = HashMap::new();
        let due: Vec<u64> =
            (0..TOPICS).filter(|at| !self.state(*at, |_| {}).numbers().any(is_cleared)).collect();
        let all = async {
            while !due.iter().all(|at| found.contains_key(at)) {
                let message = client.next().await;
                let at: u64 = topic(&message).trim_start_matches("state/").parse()?;
                ensure!(message.retain, "what a new subscriber gets first is retained");
                if found.insert(at, payload(&message).parse()?).is_some() {
                    bail!("topic {at} has two retained messages");
                }
            }
            Ok(())
        };
        match timeout(Duration::from_secs(10), all).await {
            Ok(read) => read?,
            Err(_) => life.notes().wrong(format!("not all of {due:?} are retained, only {found:?}")),
        }
        // Behind this one nothing is on its way.
        client.publish("state/end", "end").await;
        loop {
            let message = soon("a message of its own", client.next()).await;
            let at = topic(&message);
            if at == "state/end" {
                break;
            }
            found.insert(at.trim_start_matches("state/").parse()?, payload(&message).parse()?);
        }
        client.leave().await;
        for at in 0..TOPICS {
            let number = found.get(&at).copied();
            let state = self.state(at, |_| {});
            let known = match number {
                Some(number) => state.numbers().find(|known| *known == number),
                None => state.numbers().find(|known| is_cleared(*known)),
            };
            match known {
                Some(known) => drop(self.state(at, |state| state.acknowledged = known)),
                None => life.notes().wrong(format!("under state/{at} is {number:?}, and {state:?} was said")),
            }
            self.state(at, |state| state.sent = state.acknowledged);
        }
        Ok(())
    }

    /// Publishes one after the other until the connection ends.
    pub async fn change(self, life: Life) -> Work {
        let (client, mut events) = AsyncClient::new(Mqtt5::options(life.mqtt, "states"), 10);
        let mut waiting = None;
        loop {
            match events.poll().await? {
                Event::Incoming(Packet::PubAck(ack)) => {
                    let fine = [PubAckReason::Success, PubAckReason::NoMatchingSubscribers];
                    ensure!(fine.contains(&ack.reason), "PUBACK says {:?}", ack.reason);
                    let Some(at) = waiting.take() else { bail!("a PUBACK of nothing") };
                    self.state(at, |state| state.acknowledged = state.sent);
                    sleep(Duration::from_millis(5)).await;
                }
                Event::Incoming(Packet::ConnAck(_)) | Event::Outgoing(_) => {}
                Event::Incoming(other) => bail!("unexpected: {other:?}"),
            }
            if waiting.is_none() {
                let at = life.below(TOPICS);
                let number = self.state(at, |state| state.sent += 1).sent;
                let text = if is_cleared(number) { String::new() } else { number.to_string() };
                client.try_publish(format!("state/{at}"), QoS::AtLeastOnce, true, text)?;
                waiting = Some(at);
            }
        }
    }
}
