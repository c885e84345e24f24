//! Routes that are at odds with one another.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Problem;
use super::report::Report;
use super::route_key::RouteKey;
use crate::routes::{Pattern, Route, Tree};

/// Routes by what two of a vhost may not both have, and by their addresses.
struct Index<'r> {
    routes: &'r [(RouteKey, Arc<Route>)],
    matches: HashMap<(&'r str, &'r str), Vec<usize>>,
    queues: HashMap<(&'r str, &'r str), Vec<usize>>,
    trees: HashMap<&'r str, Tree<&'r (RouteKey, Arc<Route>)>>,
}

impl<'r> Index<'r> {
    fn of(routes: &'r [(RouteKey, Arc<Route>)]) -> Self {
        let (matches, queues, trees) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut index = Self { routes, matches, queues, trees };
        for (at, of) in routes.iter().enumerate() {
            let (vhost, route) = (&*of.1.vhost, &of.1);
            index.matches.entry((vhost, route.filter.canonical())).or_default().push(at);
            for queue in &route.queues {
                index.queues.entry((vhost, &**queue)).or_default().push(at);
            }
            index.trees.entry(vhost).or_default().insert(&route.filter, of);
        }
        index
    }

    /// The routes before the one at a place that are at odds with it, in their order: they are for the same addresses, or
    /// have one of its queues.
    fn before(&self, at: usize, route: &'r Route) -> BTreeMap<usize, Option<&'r str>> {
        let earlier = |found: Option<&Vec<usize>>| {
            found.into_iter().flatten().copied().filter(|other| *other < at).collect::<Vec<_>>()
        };
        let vhost = &*route.vhost;
        let equal = earlier(self.matches.get(&(vhost, route.filter.canonical())));
        let mut found: BTreeMap<usize, Option<&str>> = equal.into_iter().map(|other| (other, None)).collect();
        for queue in route.queues.iter().map(|queue| &**queue) {
            for other in earlier(self.queues.get(&(vhost, queue))) {
                found.entry(other).or_insert(Some(queue));
            }
        }
        found
    }

    /// The route that has an address.
    fn keeper(&self, vhost: &str, address: &str) -> Option<&'r (RouteKey, Arc<Route>)> {
        self.trees.get(vhost)?.find(address.as_bytes()).copied()
    }

    /// The route that owns a queue.
    fn owner(&self, vhost: &str, queue: &str) -> Option<&'r (RouteKey, Arc<Route>)> {
        self.routes.get(*self.queues.get(&(vhost, queue))?.first()?)
    }
}

/// Reports each that is at odds with an earlier one, and dead letters that would come back.
pub(super) fn report(routes: &[(RouteKey, Arc<Route>)], report: &mut Report<'_>) {
    let index = Index::of(routes);
    for (at, (key, route)) in routes.iter().enumerate() {
        for (other, queue) in index.before(at, route) {
            let Some((other_key, other)) = routes.get(other) else { continue };
            match queue {
                None => equal_match((key, route), (other_key, other), report),
                Some(queue) => shared_queue(key, other_key, queue, report),
            }
        }
        if let Some(address) = comes_back(route, &index) {
            report.bad_value(&key.key("dead-letter"), text_of_what_comes_back(route, address));
        } else if let Some((fenced, queue)) = is_fenced(route, &index) {
            let (fenced, line) = (fenced.table(), report.line(&fenced.key("fence")));
            let text = format!(
                "only the holder of queue `{queue}` may publish there, by {fenced}{line}: dead letters could not; name \
                 another address"
            );
            report.bad_value(&key.key("dead-letter"), text);
        }
        if let Some(queue) = route.fence.as_deref() {
            fence(key, route, queue, &index, report);
        }
    }
}

/// The queue of a fence has a route, which lets one consumer at a time have it.
fn fence(key: &RouteKey, route: &Route, queue: &str, index: &Index<'_>, report: &mut Report<'_>) {
    let key = key.key("fence");
    match index.owner(&route.vhost, queue) {
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
            let of_vhost = index.routes.iter().filter(|(_, other)| other.vhost == route.vhost);
            let alone = of_vhost.filter(|(_, other)| other.exclusive.is_some());
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
fn is_fenced<'r>(route: &Route, index: &Index<'r>) -> Option<(&'r RouteKey, &'r str)> {
    let (key, keeper) = index.keeper(&route.vhost, route.dead_letter.as_deref()?)?;
    Some((key, keeper.fence.as_deref()?))
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
fn comes_back<'r>(route: &'r Route, index: &Index<'_>) -> Option<&'r str> {
    let address = route.dead_letter.as_deref()?;
    let (_, keeper) = index.keeper(&route.vhost, address)?;
    (keeper.filter.canonical() == route.filter.canonical()).then_some(address)
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
