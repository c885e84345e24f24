//! The message that a client leaves behind (MQTT 5 §3.1.2.5).

use std::num::NonZeroU16;

use linkspan_contract::OwnedBatch;

use super::publishing::reread;
use super::translate;
use crate::protocol::mqtt::{Error, Packet, Publish, PublishProperties, Version, Will};

/// A will, kept as the PUBLISH that it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Testament {
    packet: Box<[u8]>,
    /// Seconds.
    delay: u32,
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
        Ok(Self { packet: packet.into(), delay: will.properties.will_delay_interval.unwrap_or(0) })
    }

    /// What a back end is told that publishes it.
    pub(super) fn testament(&self, version: Version) -> Option<linkspan_contract::Testament> {
        let message = reread(&self.packet, 0, version)?;
        let form = translate::form::of(version);
        let batch = OwnedBatch::new(self.packet.clone(), Box::new([message]), None, form);
        Some(linkspan_contract::Testament { message: batch.kept(0)?, delay: self.delay })
    }

    /// One that was written down.
    pub(super) fn of_packet(packet: Vec<u8>, delay: u32) -> Self {
        Self { packet: packet.into(), delay }
    }

    /// The PUBLISH.
    pub(super) fn packet(&self) -> &[u8] {
        &self.packet
    }

    /// Seconds between the connection's end and the message (MQTT 5 §3.1.3.2.2).
    pub(super) const fn delay(&self) -> u32 {
        self.delay
    }
}
