//! What is said to a broker and by it, in neither version's words.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use linkspan_contract::{Millis, Refused};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

/// A message for the broker.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) topic: Arc<str>,
    pub(crate) payload: Bytes,
    /// MQTT 5's; an MQTT 3.1.1 broker is not told them.
    pub(crate) properties: Option<Box<PublishProperties>>,
    /// QoS 1; else QoS 0.
    pub(crate) acknowledged: bool,
    pub(crate) retain: bool,
    /// When its time is over.
    pub(crate) expires: Option<Millis>,
}

impl Outgoing {
    /// Bytes that it takes here.
    pub(crate) fn size(&self) -> u64 {
        OVERHEAD.saturating_add(self.topic.len() as u64).saturating_add(self.payload.len() as u64)
    }

    /// Bytes of the packet, at most.
    pub(crate) fn packet_size(&self) -> u64 {
        let properties = self.properties.as_ref().map_or(0, |properties| {
            let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + 3);
            let user = properties.user_properties.iter().map(|(name, value)| name.len() + value.len() + 5);
            let correlation = properties.correlation_data.as_ref().map_or(0, |data| data.len() + 3);
            text(&properties.content_type)
                + text(&properties.response_topic)
                + correlation
                + user.sum::<usize>()
                + FIXED
        });
        (self.payload.len() as u64).saturating_add((self.topic.len() + properties + FIXED) as u64)
    }
}

/// What a message costs beside its bytes.
const OVERHEAD: u64 = 200;

/// Headers, lengths, packet identifier, numbers among the properties.
const FIXED: usize = 16;

/// A message from the broker.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) properties: Option<Box<PublishProperties>>,
    /// QoS 1 or 2; to be acknowledged under this number.
    pub(crate) packet_id: Option<u16>,
    /// QoS 2.
    pub(crate) exactly_once: bool,
    /// It may have been sent before.
    pub(crate) repeated: bool,
    pub(crate) retain: bool,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ack {
    /// The broker has it.
    Taken,
    /// The broker has nobody for it, and has dropped it.
    Nobody,
    /// The broker does not take it.
    Refused(Refused),
}

/// What happened on a connection, in order.
#[derive(Debug)]
pub(crate) enum Happened {
    /// A message was sent under this packet identifier; 0 at QoS 0.
    Sent(u16),
    /// A SUBSCRIBE or UNSUBSCRIBE was sent.
    Asked(u16),
    /// A message's identifier is still in use: numbers and messages are out of step.
    OutOfStep,
    Acked(u16, Ack),
    /// The answer to a SUBSCRIBE of one filter.
    Granted(u16, Result<(), Refused>),
    /// The answer to an UNSUBSCRIBE, and whether there was such a subscription.
    Released(u16, bool),
    Delivered(Incoming),
}

/// What the broker said when it let us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// Which MQTT is spoken.
    pub version: Version,
    /// It knows the session.
    pub resumed: bool,
    /// Messages without acknowledgement that it allows.
    pub receive_maximum: u16,
    /// Bytes of the largest packet that it takes, when it said so.
    pub max_packet_size: Option<u32>,
    /// Seconds for which it keeps the session.
    pub session_expiry: u32,
    /// It tells by which subscription a message comes.
    pub identifies: bool,
    /// It keeps retained messages.
    pub retains: bool,
    /// Its subscriptions can be shared.
    pub shares: bool,
}

/// A version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.0.
    V5,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V311 => "MQTT 3.1.1",
            Self::V5 => "MQTT 5",
        })
    }
}
