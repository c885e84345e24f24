//! `dead-letter`: the address of what no consumer can work, and the queue that keeps it there.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};

use super::key::KeyPath;
use super::report::Report;
use super::route::check_queue_name;
use crate::routes::{Filter, Pattern, Route};

/// `"images/failed"`, or `{ address = "images/failed", queue = "images-failed" }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    address: Option<String>,
    queue: Option<String>,
}

/// The key as written.
pub(super) struct DeadLetter {
    /// The address.
    address: Option<String>,
    /// The queue that is made for it.
    queue: Option<String>,
    /// It is a table.
    is_table: bool,
}

impl DeadLetter {
    /// The address, for a route of that pattern.
    pub(super) fn check(
        &self,
        key: &KeyPath,
        pattern: Option<Pattern>,
        report: &mut Report<'_>,
    ) -> Option<Box<str>> {
        let key = key.key("dead-letter");
        if pattern == Some(Pattern::PublishSubscribe) {
            report.bad_value(&key, "a publish-subscribe route has no queue, and so no dead letters");
        }
        let of_address = if self.is_table { key.key("address") } else { key };
        let Some(address) = self.address.as_deref() else {
            report
                .missing(&of_address, "the one that dead letters are published to, such as \"jobs/failed\"");
            return None;
        };
        if let Err(text) = check_address(address) {
            report.bad_value(&of_address, text);
            return None;
        }
        Some(address.into())
    }

    /// The route of the queue that keeps the dead letters, where one is named: on the same back end, at their address.
    pub(super) fn route(
        &self,
        key: &KeyPath,
        route: &Route,
        report: &mut Report<'_>,
    ) -> Option<(KeyPath, Route)> {
        let (key, queue) = (key.key("dead-letter"), self.queue.as_deref()?);
        if let Err(text) = check_queue_name(queue) {
            report.bad_value(&key.key("queue"), text);
            return None;
        }
        let filter = Filter::parse(route.dead_letter.as_deref()?).ok()?;
        let of_dead_letters = Route::new(filter, Pattern::CompetingConsumers, &route.backend);
        let (vhost, queues) = (Arc::clone(&route.vhost), vec![queue.into()]);
        let queue_type = route.queue_type;
        Some((key, Route { vhost, queues, queue_type, ..of_dead_letters }))
    }
}

/// One address that clients can publish to.
fn check_address(address: &str) -> Result<(), String> {
    if address.is_empty() {
        return Err(
            "is empty; write the address that dead letters are published to, such as \"jobs/failed\"".into(),
        );
    }
    if address.contains(['+', '#']) {
        return Err(format!("`{address}` is a filter; dead letters go to one address"));
    }
    if address.starts_with('$') {
        return Err(format!("`{address}` begins with `$`: such addresses are the server's own"));
    }
    Filter::parse(address).map(|_| ()).map_err(|error| error.to_string())
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
                Ok(DeadLetter { address: Some(address.to_owned()), queue: None, is_table: false })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DeadLetter, A::Error> {
                let Table { address, queue } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(DeadLetter { address, queue, is_table: true })
            }
        }
        from.deserialize_any(Either)
    }
}
