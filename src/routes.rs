//! Routes: which pattern an address follows and which back end holds it.
//!
//! Routes lie over the address space of a vhost. The most specific match wins; what no route matches is
//! publish-subscribe on the vhost's home back end. A table never changes: a reload makes a new one.

mod exclusive;
mod filter;
mod pattern;
mod route;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

pub use exclusive::{Exclusive, Others};
pub use filter::{Filter, FilterError, MAX_LEVELS, Relation};
pub use pattern::Pattern;
pub use route::{NegativePuback, QueueType, Route};
pub(crate) use tree::Tree;

/// All vhosts with their routes.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    vhosts: BTreeMap<Arc<str>, RouteTable>,
}

/// The routes of one vhost.
#[derive(Debug, Clone)]
pub struct RouteTable {
    vhost: Arc<str>,
    home: Arc<str>,
    routes: Vec<Arc<Route>>,
    tree: Tree<Arc<Route>>,
    /// By their filters, canonical.
    matches: HashMap<Box<str>, Arc<Route>, foldhash::fast::RandomState>,
    queues: HashMap<Arc<str>, Arc<Route>, foldhash::fast::RandomState>,
}

/// Why routes make no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteConflict {
    /// Two routes of a vhost match the same addresses.
    #[error("`{second}` matches the same addresses as `{first}` in vhost `{vhost}`")]
    EqualMatch {
        /// Where both lie.
        vhost: Arc<str>,
        /// The earlier match.
        first: Filter,
        /// The later match.
        second: Filter,
    },
    /// Two routes of a vhost own a queue of the same name, or one names it twice.
    #[error("queue `{queue}` of `{second}` already belongs to `{first}` in vhost `{vhost}`")]
    SharedQueue {
        /// Where both lie.
        vhost: Arc<str>,
        /// The queue's name.
        queue: Arc<str>,
        /// The match of the earlier route.
        first: Filter,
        /// The match of the later route.
        second: Filter,
    },
    /// A route lies in a vhost that does not exist.
    #[error("`{filter}` lies in vhost `{vhost}`, which does not exist")]
    NoVhost {
        /// The vhost's name.
        vhost: Arc<str>,
        /// The route's match.
        filter: Filter,
    },
}

impl Routes {
    /// Builds the tables of all `vhosts` (name and home back end).
    ///
    /// # Errors
    /// The first conflict among `routes`; a checked configuration has none.
    pub fn new(
        vhosts: impl IntoIterator<Item = (Arc<str>, Arc<str>)>,
        routes: impl IntoIterator<Item = Arc<Route>>,
    ) -> Result<Self, RouteConflict> {
        let vhosts = vhosts.into_iter().map(|(vhost, home)| (vhost.clone(), RouteTable::new(vhost, home)));
        let mut all = Self { vhosts: vhosts.collect() };
        for route in routes {
            let Some(table) = all.vhosts.get_mut(&route.vhost) else {
                return Err(RouteConflict::NoVhost {
                    vhost: route.vhost.clone(),
                    filter: route.filter.clone(),
                });
            };
            table.add(route)?;
        }
        Ok(all)
    }

    /// The routes of a vhost, if it exists.
    pub fn vhost(&self, name: &str) -> Option<&RouteTable> {
        self.vhosts.get(name)
    }

    /// The tables of all vhosts, by name.
    pub fn iter(&self) -> impl Iterator<Item = &RouteTable> {
        self.vhosts.values()
    }
}

impl RouteTable {
    fn new(vhost: Arc<str>, home: Arc<str>) -> Self {
        let (matches, queues) = (HashMap::default(), HashMap::default());
        Self { vhost, home, routes: Vec::new(), tree: Tree::default(), matches, queues }
    }

    fn add(&mut self, route: Arc<Route>) -> Result<(), RouteConflict> {
        if let Some(first) = self.matches.insert(route.filter.canonical().into(), route.clone()) {
            return Err(RouteConflict::EqualMatch {
                vhost: self.vhost.clone(),
                first: first.filter.clone(),
                second: route.filter.clone(),
            });
        }
        for queue in &route.queues {
            if let Some(first) = self.queues.insert(queue.clone(), route.clone()) {
                return Err(RouteConflict::SharedQueue {
                    vhost: self.vhost.clone(),
                    queue: queue.clone(),
                    first: first.filter.clone(),
                    second: route.filter.clone(),
                });
            }
        }
        self.tree.insert(&route.filter, route.clone());
        self.routes.push(route);
        Ok(())
    }

    /// The vhost's name.
    pub fn vhost(&self) -> &Arc<str> {
        &self.vhost
    }

    /// The back end that holds what no route matches, and what AMQP clients declare.
    pub fn home(&self) -> &Arc<str> {
        &self.home
    }

    /// The route of an address in MQTT topic form (`a/b/c`); none: publish-subscribe on the home back end.
    /// Allocates nothing.
    pub fn find(&self, address: &[u8]) -> Option<&Arc<Route>> {
        self.tree.find(address)
    }

    /// The work route that owns the queue of this name.
    pub fn owner(&self, queue: &str) -> Option<&Arc<Route>> {
        self.queues.get(queue)
    }

    /// The routes whose messages a subscription with `filter` (without `$share/…/`) would meet, and how it stands to
    /// each. A route that is wider than the filter is left out when a more specific route takes all addresses of the
    /// filter: beside `jobs/#` and `jobs/log`, a subscription to `jobs/log` meets `jobs/log` alone.
    pub fn met_by(&self, filter: &str) -> impl Iterator<Item = (&Arc<Route>, Relation)> {
        self.routes.iter().filter_map(move |route| match route.filter.relation(filter) {
            Relation::Disjoint => None,
            Relation::Narrower if self.is_shadowed(route, filter) => None,
            relation => Some((route, relation)),
        })
    }

    /// Whether another route, which wins against `route`, takes every address of `filter`.
    fn is_shadowed(&self, route: &Route, filter: &str) -> bool {
        self.routes.iter().any(|other| {
            other.filter.outranks(&route.filter)
                && matches!(other.filter.relation(filter), Relation::Equal | Relation::Narrower)
        })
    }

    /// The matches that win against that of `route` for some of its addresses.
    pub fn beside<'a>(&'a self, route: &'a Route) -> impl Iterator<Item = &'a str> {
        let wins = |other: &&Arc<Route>| {
            other.filter.outranks(&route.filter)
                && other.filter.relation(route.filter.as_str()) != Relation::Disjoint
        };
        self.routes.iter().filter(wins).map(|other| other.filter.as_str())
    }

    /// All routes, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }
}

/// Which route goes where, for people; the same text at start-up and from `linkspan check`.
impl fmt::Display for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, table) in self.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{table}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ELSE: &str = "(all else)";
        let longest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
        let match_width =
            longest(&mut self.iter().map(|r| r.filter.as_str().chars().count())).max(ELSE.len());
        let pattern_width =
            longest(&mut self.iter().map(|r| r.pattern.name().len())).max("publish-subscribe".len());
        write!(f, "vhost {}", self.vhost)?;
        for route in self.iter() {
            let (filter, pattern, backend) = (route.filter.as_str(), route.pattern, &route.backend);
            write!(f, "\n  {filter:match_width$}  {pattern:pattern_width$}  on {backend}")?;
            match route.queues.as_slice() {
                [] => {}
                [queue] => write!(f, ", queue {queue}")?,
                queues => write!(f, ", queues {}", queues.join(", "))?,
            }
            if let Some(queue_type) = route.queue_type {
                write!(f, " ({})", queue_type.name())?;
            }
            for said in route.said() {
                write!(f, ", {said}")?;
            }
            if let Some(address) = &route.dead_letter {
                write!(f, ", dead letters to {address}")?;
            }
            if route.spool.is_some() {
                write!(f, ", spooled")?;
            }
        }
        let (pattern, home) = (Pattern::PublishSubscribe, &self.home);
        write!(f, "\n  {ELSE:match_width$}  {pattern:pattern_width$}  on {home}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(filter: &str, queues: &[&str]) -> Arc<Route> {
        let pattern = if queues.is_empty() { Pattern::PublishSubscribe } else { Pattern::CompetingConsumers };
        let queues = queues.iter().map(|q| (*q).into()).collect();
        Arc::new(Route { queues, ..Route::new(Filter::parse(filter).unwrap(), pattern, "local") })
    }

    fn routes(all: &[Arc<Route>]) -> Result<Routes, RouteConflict> {
        Routes::new([("/".into(), "local".into())], all.iter().cloned())
    }

    #[test]
    fn a_route_is_found_by_address_and_by_queue() {
        let routes = routes(&[route("jobs/#", &["jobs", "audit"]), route("news/+", &[])]).unwrap();
        let table = routes.vhost("/").unwrap();
        assert_eq!(table.find(b"jobs/1").unwrap().filter.as_str(), "jobs/#");
        assert!(table.find(b"other").is_none(), "no route: publish-subscribe on the home back end");
        assert_eq!(table.owner("audit").unwrap().filter.as_str(), "jobs/#");
        assert!(table.owner("other").is_none());
        assert!(routes.vhost("elsewhere").is_none());
    }

    #[test]
    fn two_equal_matches_are_an_error() {
        let conflict = routes(&[route("#", &[]), route("a", &[]), route("+/#", &[])]).unwrap_err();
        assert_eq!(conflict.to_string(), "`+/#` matches the same addresses as `#` in vhost `/`");
    }

    #[test]
    fn matches_are_equal_when_they_are_for_the_same_addresses_however_they_are_written() {
        let filters = ["#", "+/#", "+", "a", "a/#", "a/+", "a/+/#", "+/+", "+/a", "/#", "/", "a/"];
        let filters = filters.map(|filter| Filter::parse(filter).unwrap());
        for (one, other) in filters.iter().flat_map(|one| filters.iter().map(move |other| (one, other))) {
            let is_equal = one.relation(other.as_str()) == Relation::Equal;
            assert_eq!(one.canonical() == other.canonical(), is_equal, "{one} and {other}");
        }
    }

    #[test]
    fn a_queue_belongs_to_one_route() {
        let conflict = routes(&[route("a", &["q"]), route("b", &["r", "q"])]).unwrap_err();
        assert_eq!(conflict.to_string(), "queue `q` of `b` already belongs to `a` in vhost `/`");
        let conflict = routes(&[route("a", &["q", "q"])]).unwrap_err();
        assert_eq!(conflict.to_string(), "queue `q` of `a` already belongs to `a` in vhost `/`");
    }

    #[test]
    fn a_subscription_meets_the_routes_that_its_addresses_belong_to() {
        let routes =
            routes(&[route("jobs/#", &["jobs"]), route("jobs/log", &[]), route("x/+", &[])]).unwrap();
        let table = routes.vhost("/").unwrap();
        let met = |filter: &str| -> Vec<String> {
            table.met_by(filter).map(|(r, relation)| format!("{} {relation:?}", r.filter)).collect()
        };
        assert_eq!(met("#"), ["jobs/# Wider", "jobs/log Wider", "x/+ Wider"]);
        assert_eq!(met("jobs/#"), ["jobs/# Equal", "jobs/log Wider"]);
        assert_eq!(met("jobs/log"), ["jobs/log Equal"], "no address of it belongs to jobs/#");
        assert_eq!(met("jobs/1"), ["jobs/# Narrower"]);
        assert_eq!(met("+/a"), ["jobs/# Overlapping", "x/+ Overlapping"]);
        assert!(met("$SYS/#").is_empty());
    }

    #[test]
    fn what_more_specific_routes_take_is_known_of_a_route() {
        let all = [route("jobs/#", &["jobs"]), route("jobs/log", &[]), route("+/1/#", &[]), route("x", &[])];
        let routes = routes(&all).unwrap();
        let table = routes.vhost("/").unwrap();
        let beside = |at: usize| table.beside(&all[at]).collect::<Vec<_>>();
        assert_eq!(beside(0), ["jobs/log"], "`+/1/#` loses against it, and `x` is elsewhere");
        assert!(beside(1).is_empty());
        assert_eq!(beside(2), ["jobs/#"]);
    }

    #[test]
    fn routes_are_shown_as_a_table() {
        let routes =
            routes(&[route("images/resize", &["image-resize"]), route("o/+", &["a", "b"]), route("n", &[])])
                .unwrap();
        assert_eq!(
            routes.to_string(),
            "vhost /\n\
             \x20 images/resize  competing-consumers  on local, queue image-resize\n\
             \x20 o/+            competing-consumers  on local, queues a, b\n\
             \x20 n              publish-subscribe    on local\n\
             \x20 (all else)     publish-subscribe    on local"
        );
    }
}
