//! `dead-letter`: the address of what no consumer can work, and the queue that keeps it there.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};

use super::key::KeyPath;
use super::report::Report;
use super::route::check_queue_name;
use crate::routes::{Filter, Pattern, Relation, Route};

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

impl DeadLetter {
    /// The address, for a route of that pattern and match.
    pub(super) fn check(
        &self,
        key: &KeyPath,
        pattern: Option<Pattern>,
        filter: Option<&Filter>,
        report: &mut Report<'_>,
    ) -> Box<str> {
        let key = key.key("dead-letter");
        let address = self.address.as_str();
        if pattern == Some(Pattern::PublishSubscribe) {
            report.bad_value(&key, "a publish-subscribe route has no queue, and so no dead letters");
        }
        let comes_back = |own: &Filter| {
            filter.is_some_and(|filter| {
                matches!(filter.relation(own.as_str()), Relation::Narrower | Relation::Equal)
            })
        };
        let wrong = match Filter::parse(address) {
            Err(error) => Some(error.to_string()),
            Ok(_) if address.contains(['+', '#']) => {
                Some(format!("`{address}` is a filter; dead letters go to one address"))
            }
            Ok(_) if address.starts_with('$') => {
                Some(format!("`{address}` begins with `$`: such addresses are the server's own"))
            }
            Ok(own) if comes_back(&own) => {
                Some(format!("`{address}` belongs to this route: its dead letters would come back to it"))
            }
            Ok(_) => None,
        };
        if let Some(text) = wrong {
            report.bad_value(&key, text);
        }
        address.into()
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
        let filter = Filter::parse(&self.address).ok()?;
        let of_dead_letters = Route::new(filter, Pattern::CompetingConsumers, &route.backend);
        let (vhost, queues) = (Arc::clone(&route.vhost), vec![queue.into()]);
        let queue_type = route.queue_type;
        Some((key, Route { vhost, queues, queue_type, ..of_dead_letters }))
    }
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
