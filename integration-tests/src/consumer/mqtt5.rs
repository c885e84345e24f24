//! Consuming by MQTT 5.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAck, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, MqttOptions, Request};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::received::{Hand, Received};
use super::{Asking, Refusal, Taking};
use crate::patience::soon;

/// How many refusals may wait to be sent.
const UNSENT: usize = 1024;

pub(super) async fn consume(
    at: SocketAddr,
    name: &str,
    taking: Taking<'_>,
    asking: Asking,
    sender: mpsc::Sender<Received>,
) -> Result<JoinHandle<()>, Refusal> {
    let mut options = MqttOptions::new(name, at.ip().to_string(), at.port());
    options.set_keep_alive(Duration::from_secs(60)).set_manual_acks(true);
    options.set_outgoing_inflight_upper_limit(100);
    if let Some(in_hand) = asking.in_hand {
        options.set_receive_maximum(Some(in_hand));
    }
    let (client, mut events) = AsyncClient::new(options, 100);
    let filter = match taking {
        Taking::Watch(filter) => filter.to_owned(),
        Taking::Work { queue, address } => format!("$share/{queue}/{address}"),
        Taking::Queue(queue) => format!("$queue/{queue}"),
    };
    client.subscribe(&filter, QoS::AtLeastOnce).await.expect("the client lives");
    let code = soon("a SUBACK", async {
        loop {
            if let Event::Incoming(Packet::SubAck(ack)) = events.poll().await.expect("the connection lives") {
                return ack.return_codes[0];
            }
        }
    })
    .await;
    match code {
        SubscribeReasonCode::Success(granted) => assert_eq!(granted, QoS::AtLeastOnce, "SUBACK of {filter}"),
        refused => {
            return Err(Refusal { code: number(refused), text: format!("SUBACK of {filter}: {refused:?}") });
        }
    }
    let (refusals, mut refused) = mpsc::channel::<PubAck>(UNSENT);
    Ok(tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                // The client has no call for a PUBACK of an error; what is pending goes out first.
                Some(ack) = refused.recv() => {
                    events.pending.push_back(Request::PubAck(ack));
                    continue;
                }
                event = events.poll() => event,
            };
            let Ok(event) = event else { return };
            if let Event::Incoming(Packet::Publish(publish)) = event {
                let (payload, properties) = (publish.payload.to_vec(), properties(&publish));
                let hand = Hand::Mqtt5 { client: client.clone(), refusals: refusals.clone(), publish };
                if sender.try_send(Received { payload, properties, hand }).is_err() {
                    return;
                }
            }
        }
    }))
}

fn properties(publish: &Publish) -> Vec<(String, String)> {
    publish.properties.as_ref().map_or_else(Vec::new, |properties| properties.user_properties.clone())
}

/// A reason code of a SUBACK (5.0, 3.9.3), as far as servers refuse.
fn number(code: SubscribeReasonCode) -> u16 {
    match code {
        SubscribeReasonCode::NotAuthorized => 0x87,
        SubscribeReasonCode::TopicFilterInvalid => 0x8f,
        SubscribeReasonCode::QuotaExceeded => 0x97,
        _ => 0x80,
    }
}
