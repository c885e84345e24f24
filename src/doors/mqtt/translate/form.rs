//! How others read what came in as PUBLISH packets.

use std::num::NonZeroU16;

use linkspan_contract::{Address, Flags, Malformed, Message, Properties, Syntax, WireForm};

use super::properties;
use crate::protocol::mqtt::{PublishProperties, Version};

/// PUBLISH packets of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::doors::mqtt) struct PublishForm {
    version: Version,
}

static V311: PublishForm = PublishForm { version: Version::V311 };
static V5: PublishForm = PublishForm { version: Version::V5 };

/// The form of what clients of this version publish.
pub(in crate::doors::mqtt) fn of(version: Version) -> &'static PublishForm {
    match version {
        Version::V311 => &V311,
        Version::V5 => &V5,
    }
}

/// The version whose form has the number `id`.
#[inline]
pub(super) fn version_of(id: u8) -> Option<Version> {
    Version::from_level(id)
}

impl WireForm for PublishForm {
    fn id(&self) -> u8 {
        self.version.level()
    }

    fn name(&self) -> &'static str {
        match self.version {
            Version::V311 => "MQTT 3.1.1",
            Version::V5 => "MQTT 5.0",
        }
    }

    fn address<'a>(&self, encoded: &'a [u8]) -> Address<'a> {
        Address { exchange: None, path: encoded, syntax: Syntax::Topic }
    }

    fn identifier(&self, bytes: &[u8], message: &Message) -> Option<NonZeroU16> {
        // It follows the topic name (MQTT 5 §3.3.2.2).
        let behind = bytes.get(message.address.end() as usize..)?;
        let identifier = NonZeroU16::new(u16::from_be_bytes(*behind.first_chunk()?));
        identifier.filter(|_| message.flags.has(Flags::EXACTLY_ONCE))
    }

    fn properties<'a>(&self, encoded: &'a [u8]) -> Result<Properties<'a>, Malformed> {
        match PublishProperties::from_encoded(encoded) {
            Ok(properties) => Ok(properties::neutral(&properties)),
            Err(error) => Err(Malformed { form: self.name(), what: error.to_string() }),
        }
    }
}
