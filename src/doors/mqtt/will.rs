//! The message that a client leaves behind (MQTT 5 §3.1.2.5).

use crate::protocol::mqtt::{Error, Packet, Publish, PublishProperties, Version, Will};

use std::num::NonZeroU16;

/// A will, kept as the PUBLISH that it will be. Sessions end with their connection, so that a will delay interval never
/// outlasts the session: it is published at once [MQTT-3.1.3-9].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Testament {
    packet: Box<[u8]>,
}

impl Testament {
    /// Writes it down.
    ///
    /// # Errors
    /// When topic, properties and payload together are larger than a packet may be.
    pub(super) fn new(will: &Will<'_>, version: Version) -> Result<Self, Error> {
        let publish = Publish {
            dup: false,
            qos: will.qos,
            retain: will.retain,
            topic: will.topic,
            packet_id: Some(NonZeroU16::MIN),
            properties: PublishProperties::from(will.properties),
            payload: will.payload,
        };
        let mut packet = Vec::new();
        Packet::Publish(publish).encode(version, &mut packet)?;
        Ok(Self { packet: packet.into() })
    }

    /// The PUBLISH.
    pub(super) fn packet(&self) -> &[u8] {
        &self.packet
    }
}
