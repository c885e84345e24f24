//! Routes that are at odds with one another.

use std::sync::Arc;

use super::Problem;
use super::report::Report;
use super::route_key::RouteKey;
use crate::routes::{Pattern, Relation, Route};

/// Reports each that is at odds with an earlier one, and dead letters that would come back.
pub(super) fn report(routes: &[(RouteKey, Arc<Route>)], report: &mut Report<'_>) {
    let are_fenced = routes.iter().any(|(_, route)| route.fence.is_some());
    for (at, (key, route)) in routes.iter().enumerate() {
        let earlier = routes.get(..at).unwrap_or_default();
        for (other_key, other) in earlier.iter().filter(|(_, other)| other.vhost == route.vhost) {
            if route.filter.relation(other.filter.as_str()) == Relation::Equal {
                equal_match((key, route), (other_key, other), report);
            } else if let Some(queue) = route.queues.iter().find(|queue| other.queues.contains(queue)) {
                shared_queue(key, other_key, queue, report);
            }
        }
        if let Some(address) = comes_back(route, routes) {
            report.bad_value(&key.key("dead-letter"), text_of_what_comes_back(route, address));
        } else if are_fenced && let Some((fenced, queue)) = is_fenced(route, routes) {
            let (fenced, line) = (fenced.table(), report.line(&fenced.key("fence")));
            let text = format!(
                "only the holder of queue `{queue}` may publish there, by {fenced}{line}: dead letters could not; name \
                 another address"
            );
            report.bad_value(&key.key("dead-letter"), text);
        }
        if let Some(queue) = route.fence.as_deref() {
            fence(key, route, queue, routes, report);
        }
    }
}

/// The queue of a fence has a route, which lets one consumer at a time have it.
fn fence(
    key: &RouteKey,
    route: &Route,
    queue: &str,
    routes: &[(RouteKey, Arc<Route>)],
    report: &mut Report<'_>,
) {
    let key = key.key("fence");
    let of_vhost = || routes.iter().filter(|(_, other)| other.vhost == route.vhost);
    match of_vhost().find(|(_, other)| other.queues.iter().any(|it| **it == *queue)) {
        Some((_, owner)) if owner.exclusive.is_some() => {}
        Some((owner_key, owner)) => {
            let (owner_key, line) = (owner_key.table(), report.line(&owner_key.key("pattern")));
            let text = format!(
                "`{queue}` belongs to {owner_key}{line}, of pattern `{}`: nobody holds it; expected a queue of pattern \
                 `exclusive-consumer`",
                owner.pattern
            );
            report.bad_value(&key, text);
        }
        None => {
            let alone = of_vhost().filter(|(_, other)| other.exclusive.is_some());
            let queues: Vec<Arc<str>> = alone.flat_map(|(_, other)| other.queues.iter().cloned()).collect();
            report.unknown(
                &key,
                "queue of an exclusive consumer",
                queue,
                queues.iter().map(|queue| &**queue),
            );
        }
    }
}

/// The route that has the address of a route's dead letters, and the queue whose holder alone may publish there.
fn is_fenced<'r>(route: &Route, routes: &'r [(RouteKey, Arc<Route>)]) -> Option<(&'r RouteKey, &'r str)> {
    let address = route.dead_letter.as_deref()?;
    let (key, keeper) = routes
        .iter()
        .filter(|(_, other)| other.vhost == route.vhost && is_within(other, address))
        .reduce(|best, other| if other.1.filter.outranks(&best.1.filter) { other } else { best })?;
    Some((key, keeper.fence.as_deref()?))
}

/// Whether an address is one of a route's match.
fn is_within(route: &Route, address: &str) -> bool {
    matches!(route.filter.relation(address), Relation::Equal | Relation::Narrower)
}

fn equal_match(of: (&RouteKey, &Route), other: (&RouteKey, &Route), report: &mut Report<'_>) {
    let (key, dead, kept) = match (of, other) {
        ((RouteKey::DeadLetter(key), dead), kept) | (kept, (RouteKey::DeadLetter(key), dead)) => {
            (key, dead, kept)
        }
        ((key, route), (other_key, other)) => {
            let other_place = report.line(&other_key.key("match"));
            let (filter, other) = (route.filter.as_str().into(), other.filter.as_str().into());
            let other_key = other_key.table().clone();
            report.wrong(&key.key("match"), Problem::EqualMatch { filter, other, other_key, other_place });
            return;
        }
    };
    let (kept_key, kept) = kept;
    let address = dead.filter.as_str();
    let line = report.line(&kept_key.key("match"));
    let kept_key = kept_key.table();
    let text = match kept.pattern {
        Pattern::PublishSubscribe => format!(
            "`{address}` is the match of {kept_key}{line}, which has no queue; give that route the queue, and write \
             `dead-letter = \"{address}\"` here"
        ),
        _ => format!(
            "`{address}` is the address of {kept_key}{line}, which has a queue for it; write `dead-letter = \"{address}\"` here"
        ),
    };
    report.bad_value(&key.key("address"), text);
}

fn shared_queue(key: &RouteKey, other_key: &RouteKey, queue: &str, report: &mut Report<'_>) {
    // The one of a queue's own dead letters stands right behind it.
    if let (RouteKey::DeadLetter(inner), RouteKey::Own(outer)) = (key, other_key)
        && inner.parent() == *outer
    {
        let text =
            format!("`{queue}` is the queue that the dead letters come from; name another one for them");
        report.bad_value(&key.key("queue"), text);
        return;
    }
    let other_place = report.line(&other_key.key("queue"));
    let other_key = other_key.table().clone();
    report.wrong(&key.key("queue"), Problem::SharedQueue { queue: queue.into(), other_key, other_place });
}

/// The address of a route's dead letters, if no other route has it and so they would come back to the queues that they
/// come from.
fn comes_back<'r>(route: &'r Route, routes: &[(RouteKey, Arc<Route>)]) -> Option<&'r str> {
    let address = route.dead_letter.as_deref()?;
    let goes_elsewhere = |other: &Route| {
        other.vhost == route.vhost && other.filter.outranks(&route.filter) && is_within(other, address)
    };
    (is_within(route, address) && !routes.iter().any(|(_, other)| goes_elsewhere(other))).then_some(address)
}

fn text_of_what_comes_back(route: &Route, address: &str) -> String {
    let filter = &route.filter;
    if filter.as_str() == address {
        return format!(
            "`{address}` is this route's own address: its dead letters would come back to it; name another one"
        );
    }
    format!(
        "`{address}` belongs to this route, which is for `{filter}`: its dead letters would come back to it; name an address \
         outside of that, or give this one a queue: {{ address = \"{address}\", queue = \"…\" }}"
    )
}
