//! The table of contents of messaging: a file per pattern, each opening with what the pattern is for.
//!
//! A pattern says what publishing to one of its addresses means (which queues get the message) and what
//! a subscription to them means: who competes, who watches.

pub mod competing_consumers;
pub mod exclusive_consumer;
pub mod priority_queue;
pub mod publish_subscribe;

use std::num::NonZeroU16;
use std::sync::Arc;

use linkspan_contract::{Millis, Refused};

use crate::routes::{Exclusive, Filter, NegativePuback, Pattern, Relation, Route, RouteTable};

/// What a subscription by filter comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taking {
    /// Competes for the messages of one work queue. Most subscriptions do not, and there are many.
    Work(Box<Work>),
    /// Gets copies from each of these places.
    Watch {
        /// Where messages that the filter matches can be published.
        places: Vec<Place>,
    },
}

/// A consumer's share in a work queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The back end that has the queue.
    pub backend: Arc<str>,
    /// The queue.
    pub queue: Arc<str>,
    /// Deliveries that a consumer without a window of its own may have in hand; AMQP clients set theirs themselves.
    pub window: NonZeroU16,
    /// It holds for AMQP clients, too, who set none.
    pub holds_all: bool,
    /// Milliseconds that it may keep one of them without a word.
    pub ack_timeout: Option<Millis>,
    /// What becomes of one that it answers with an error.
    pub negative_puback: NegativePuback,
    /// It has the queue alone.
    pub exclusive: Option<Exclusive>,
}

impl Work {
    /// In a queue of `route`, where it has one; `home` has the others.
    pub fn new(queue: &Arc<str>, route: Option<&Route>, home: &Arc<str>) -> Self {
        Self {
            backend: Arc::clone(route.map_or(home, |route| &route.backend)),
            queue: Arc::clone(queue),
            window: route.map_or(Route::WINDOW, |route| route.window),
            holds_all: route.is_some_and(|route| route.pattern == Pattern::PriorityQueue),
            ack_timeout: route.and_then(|route| route.terms.ack_timeout),
            negative_puback: route.map_or_else(NegativePuback::default, |route| route.negative_puback),
            exclusive: route.and_then(|route| route.exclusive),
        }
    }
}

/// Addresses of one back end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The back end.
    pub backend: Arc<str>,
    /// The filter of the addresses there; none: all that the subscription asks for.
    pub filter: Option<Arc<str>>,
}

/// What a subscription with `filter` means, alone or as a member of the shared subscription `group`.
///
/// # Errors
/// When it would take part of a work queue; the text says what to subscribe to instead.
pub fn taking(table: &RouteTable, group: Option<&str>, filter: &str) -> Result<Taking, Refused> {
    let home = table.home();
    let (mut elsewhere, mut at_home) = (false, false);
    for (route, relation) in table.met_by(filter) {
        if let Some(work) = subscription(route, relation, group, filter)? {
            return Ok(work);
        }
        let is_home = route.backend == *home;
        at_home |= is_home;
        elsewhere |= !is_home && matches!(relation, Relation::Equal | Relation::Narrower);
    }
    let mut places = places_elsewhere(table, filter);
    if at_home || !elsewhere {
        // Most have this one only, and idle clients are many.
        places.reserve_exact(1);
        places.insert(0, Place { backend: Arc::clone(home), filter: None });
    }
    Ok(Taking::Watch { places })
}

/// What other back ends than the home have of the addresses that `filter` matches.
pub fn places_elsewhere(table: &RouteTable, filter: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for (route, _) in table.met_by(filter).filter(|(route, _)| route.backend != *table.home()) {
        if let Some(common) = route.filter.common(filter) {
            watch(&mut places, &route.backend, &common, filter);
        }
    }
    places
}

/// Adds what a route on another back end than the home has of a subscription's addresses. Only these: the broker there
/// may have others, which are none of this vhost. No two filters of one back end may match the same address, or the
/// client would be given a message twice.
fn watch(places: &mut Vec<Place>, backend: &Arc<str>, common: &str, whole: &str) {
    let mut filter = common;
    let relation = |place: &Place, filter: &str| {
        let there = place.filter.as_deref().unwrap_or(whole);
        Filter::parse(there).map_or(Relation::Overlapping, |it| it.relation(filter))
    };
    let of_backend = |place: &&Place| place.backend == *backend;
    for place in places.iter().filter(of_backend) {
        match relation(place, filter) {
            Relation::Equal | Relation::Narrower => return,
            Relation::Overlapping => filter = whole,
            Relation::Wider | Relation::Disjoint => {}
        }
    }
    let covered = |place: &Place| {
        place.backend == *backend && matches!(relation(place, filter), Relation::Wider | Relation::Equal)
    };
    places.retain(|place| !covered(place));
    let filter = (filter != whole).then(|| Arc::from(filter));
    places.push(Place { backend: Arc::clone(backend), filter });
}

fn subscription(
    route: &Route,
    relation: Relation,
    group: Option<&str>,
    filter: &str,
) -> Result<Option<Taking>, Refused> {
    match route.pattern {
        Pattern::PublishSubscribe => Ok(publish_subscribe::subscription()),
        Pattern::CompetingConsumers | Pattern::ExclusiveConsumer | Pattern::PriorityQueue => {
            competing_consumers::subscription(route, relation, group, filter)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::Routes;

    fn places(routes: &[(&str, &str)], filter: &str) -> Vec<String> {
        let route = |(filter, backend): &(&str, &str)| {
            Arc::new(Route::new(Filter::parse(filter).unwrap(), Pattern::PublishSubscribe, backend))
        };
        let routes = Routes::new([("/".into(), "home".into())], routes.iter().map(route)).unwrap();
        match taking(routes.vhost("/").unwrap(), None, filter) {
            Ok(Taking::Watch { places }) => {
                let shown = |place: &Place| {
                    format!("{} {}", place.backend, place.filter.as_deref().unwrap_or(filter))
                };
                places.iter().map(shown).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_watcher_gets_of_another_back_end_what_its_routes_have_there() {
        let routes = [("far/#", "two"), ("sensors/+/t", "two"), ("x", "three"), ("near/#", "home")];
        assert_eq!(places(&routes, "#"), ["home #", "two far/#", "two sensors/+/t", "three x"]);
        assert_eq!(places(&routes, "far/a"), ["two far/a"]);
        assert_eq!(places(&routes, "+/a/+"), ["home +/a/+", "two far/a/+", "two sensors/a/t"]);
        assert_eq!(places(&routes, "near/+"), ["home near/+"]);
        let inside = [("far/#", "two"), ("far/home", "home")];
        assert_eq!(places(&inside, "far/#"), ["home far/#", "two far/#"]);
    }

    #[test]
    fn no_message_is_watched_twice() {
        assert_eq!(places(&[("a/#", "two"), ("a/b", "two")], "#"), ["home #", "two a/#"]);
        assert_eq!(places(&[("a/b", "two"), ("a/#", "two")], "#"), ["home #", "two a/#"]);
        assert_eq!(
            places(&[("a/+", "two"), ("+/b", "two")], "#"),
            ["home #", "two #"],
            "no filter is for both and nothing else"
        );
    }
}
