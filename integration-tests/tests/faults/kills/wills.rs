//! Clients that leave a will: it is published once they are gone, in whichever life, and not when they have said farewell.

use std::time::Duration;

use anyhow::bail;
use linkspan_integration_tests::mqtt5::Mqtt5;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, LastWillProperties, Packet};
use rumqttc::v5::{AsyncClient, Event};
use tokio::time::{sleep, timeout};

use super::life::{Life, Work};
use super::notes::Notes;

/// The line, the queue that gets them, and their topic.
pub const WILLS: &str = "wills";

/// Makes wills until the server is killed. Each client's session is kept, and its will with that.
pub async fn leave(life: Life) -> Work {
    loop {
        let (name, sent) = life.notes().send(WILLS, true, 0);
        let delay = LastWillProperties {
            delay_interval: Some(u32::try_from(life.below(2))?),
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        };
        let will = LastWill::new(WILLS, Notes::payload(name, 0), QoS::AtLeastOnce, false, Some(delay));
        let mut options = Mqtt5::options(life.mqtt, &format!("testator-{}", name.1));
        options.set_last_will(will).set_session_expiry_interval(Some(300));
        let (client, mut events) = AsyncClient::new(options, 10);
        loop {
            match events.poll().await? {
                Event::Incoming(Packet::ConnAck(_)) => break,
                Event::Outgoing(_) => {}
                Event::Incoming(other) => bail!("unexpected: {other:?}"),
            }
        }
        life.notes().acknowledged(name, sent);
        // Polled on: it has to answer what the server asks.
        let stays = Duration::from_millis(life.below(200));
        if timeout(stays, async { while events.poll().await.is_ok() {} }).await.is_ok() {
            bail!("the connection of a testator ended");
        }
        if life.below(3) == 0 {
            life.notes().withdrawing(name);
            client.try_disconnect()?;
            while events.poll().await.is_ok() {}
            // Nothing answers DISCONNECT: a kill right behind it may bring the will back.
            if !life.is_over() {
                life.notes().withdrawn(name);
            }
        }
        drop(events);
        sleep(Duration::from_millis(life.below(50))).await;
    }
}
