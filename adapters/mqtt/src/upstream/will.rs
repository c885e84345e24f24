//! What a client leaves behind, in either version's words.

use std::sync::Arc;

use linkspan_contract::{Refused, Testament};
use rumqttc::v5::mqttbytes::v5::{LastWill, LastWillProperties};

use crate::translate;
use crate::upstream::packet::{Outgoing, Version};

/// A will. One of QoS 2 is published at QoS 1.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    message: Outgoing,
    /// Seconds.
    expiry: Option<u32>,
    delay: u32,
}

impl Will {
    /// The will of a client whose session is to be kept for `keep` seconds: it waits no longer than that (MQTT 5
    /// §3.1.3.2.2), whatever the broker keeps.
    ///
    /// # Errors
    /// When it cannot be one.
    pub(crate) fn of(testament: &Testament, keep: u32) -> Result<Self, Refused> {
        let (batch, head) = (testament.message.batch.batch(), testament.message.message());
        let topic = testament.message.address().topic().into_owned();
        let topic: Arc<str> = String::from_utf8_lossy(&topic).into();
        let message = translate::outgoing(&batch, &head, &topic, Version::V5, None, 0)?;
        let seconds = |end: u64| u32::try_from(end.div_ceil(1000)).unwrap_or(u32::MAX);
        Ok(Self { expiry: message.expires.map(seconds), message, delay: testament.delay.min(keep) })
    }

    /// True when its time has come after so many seconds: the broker has published it.
    pub(crate) fn is_due(&self, waited: u32) -> bool {
        self.delay <= waited
    }

    /// The same when it has waited for so many seconds, and the session has so many left.
    pub(crate) fn after(&self, waited: u32, left: u32) -> Self {
        Self { delay: self.delay.saturating_sub(waited).min(left), ..self.clone() }
    }

    pub(crate) fn v5(&self) -> LastWill {
        use rumqttc::v5::mqttbytes::QoS;
        let said = self.message.properties.as_deref();
        let properties = LastWillProperties {
            delay_interval: (self.delay > 0).then_some(self.delay),
            payload_format_indicator: said.and_then(|said| said.payload_format_indicator),
            message_expiry_interval: self.expiry,
            content_type: said.and_then(|said| said.content_type.clone()),
            response_topic: said.and_then(|said| said.response_topic.clone()),
            correlation_data: said.and_then(|said| said.correlation_data.clone()),
            user_properties: said.map_or_else(Vec::new, |said| said.user_properties.clone()),
        };
        let Outgoing { topic, payload, acknowledged, retain, .. } = &self.message;
        let qos = if *acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        LastWill::new(topic.to_string(), payload.to_vec(), qos, *retain, Some(properties))
    }

    pub(crate) fn v311(&self) -> rumqttc::LastWill {
        use rumqttc::QoS;
        let Outgoing { topic, payload, acknowledged, retain, .. } = &self.message;
        let qos = if *acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        rumqttc::LastWill::new(topic.to_string(), payload.to_vec(), qos, *retain)
    }
}
