//! Consuming by MQTT 3.1.1.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS, SubscribeReasonCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::received::{Hand, Received};
use super::{Refusal, Taking};
use crate::patience::soon;

/// The return code of a subscription that is not granted (3.1.1, 3.9.3).
const FAILURE: u16 = 0x80;

pub(super) async fn consume(
    at: SocketAddr,
    name: &str,
    taking: Taking<'_>,
    sender: mpsc::Sender<Received>,
) -> Result<JoinHandle<()>, Refusal> {
    let mut options = MqttOptions::new(name, at.ip().to_string(), at.port());
    options.set_keep_alive(Duration::from_secs(60)).set_manual_acks(true);
    let (client, mut events) = AsyncClient::new(options, 100);
    let filter = match taking {
        Taking::Watch(filter) => filter.to_owned(),
        Taking::Work { address, .. } => address.to_owned(),
        Taking::Queue(queue) => format!("$queue/{queue}"),
    };
    client.subscribe(filter.as_str(), QoS::AtLeastOnce).await.expect("the client lives");
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
        SubscribeReasonCode::Failure => {
            return Err(Refusal { code: FAILURE, text: format!("SUBACK of {filter}") });
        }
    }
    Ok(tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            if let Event::Incoming(Packet::Publish(publish)) = event {
                let payload = publish.payload.to_vec();
                let hand = Hand::Mqtt3(client.clone(), publish);
                if sender.try_send(Received { payload, properties: Vec::new(), hand }).is_err() {
                    return;
                }
            }
        }
    }))
}
