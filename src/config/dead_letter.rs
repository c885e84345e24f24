//! `dead-letter`: the address of what no consumer can work, and the queue that keeps it there.

use std::fmt;

use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};

/// `"images/failed"`, or `{ address = "images/failed", queue = "images-failed" }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    address: String,
    queue: Option<String>,
}

/// The key as written.
pub(super) struct DeadLetter {
    /// The address.
    pub address: String,
    /// The queue that is made for it.
    pub queue: Option<String>,
}

impl<'de> Deserialize<'de> for DeadLetter {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = DeadLetter;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or { address = \"...\", queue = \"...\" }")
            }

            fn visit_str<E: de::Error>(self, address: &str) -> Result<DeadLetter, E> {
                Ok(DeadLetter { address: address.to_owned(), queue: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DeadLetter, A::Error> {
                let Table { address, queue } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(DeadLetter { address, queue })
            }
        }
        from.deserialize_any(Either)
    }
}
