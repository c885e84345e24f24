//! What happens to messages of one destination: made once per lane and destination, not per message.

use std::sync::Arc;

use linkspan_contract::address::{Syntax, respelled};
use linkspan_contract::{Destination, Refused, TargetId};

use super::exclusive::Place;
use crate::routes::{Pattern, Route, RouteTable};

/// What was planned for a destination, and by which routes.
pub struct Plan {
    /// What was asked for.
    pub wanted: Wanted,
    /// The routes' epoch.
    pub epoch: u64,
    /// Whether messages flagged so are retained.
    pub retains: bool,
    /// The part that it goes to, and its number there.
    pub course: Result<(u16, TargetId), Refused>,
    /// The spool that it goes to while that diverts: a place among those of the lane.
    pub spool: Option<usize>,
    /// Queues whose holders alone may publish there.
    pub fences: Box<[Place]>,
}

impl Plan {
    /// True when the same plan may come out otherwise although the routes are the same: the back end was away.
    pub fn may_change(&self) -> bool {
        self.course.as_ref().is_err_and(Refused::may_retry)
    }
}

/// A [`Destination`] that owns its bytes, so that it can be planned again after a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    kind: Kind,
    more: Box<[Box<[u8]>]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Address { path: Box<[u8]>, syntax: Syntax },
    Exchange { name: Box<str>, key: Box<[u8]> },
    Queue { name: Box<str> },
}

impl From<&Destination<'_>> for Wanted {
    fn from(to: &Destination<'_>) -> Self {
        let (kind, more) = match *to {
            Destination::Address { path, syntax, more, .. } => {
                (Kind::Address { path: path.into(), syntax }, more)
            }
            Destination::Exchange { name, key, more } => {
                (Kind::Exchange { name: name.into(), key: key.into() }, more)
            }
            Destination::Queue { name, more } => (Kind::Queue { name: name.into() }, more),
        };
        Self { kind, more: more.iter().map(|key| Box::from(*key)).collect() }
    }
}

impl Wanted {
    /// Calls `with` with the destination that a back end is given: the route's queues filled in.
    pub fn with_queues<R>(&self, queues: &[Arc<str>], with: impl FnOnce(&Destination<'_>) -> R) -> R {
        let more: Vec<&[u8]> = self.more.iter().map(|key| &**key).collect();
        match &self.kind {
            Kind::Address { path, syntax } => {
                with(&Destination::Address { path, syntax: *syntax, more: &more, queues })
            }
            Kind::Exchange { name, key } => with(&Destination::Exchange { name, key, more: &more }),
            Kind::Queue { name } => with(&Destination::Queue { name, more: &more }),
        }
    }

    /// The queue, when it is one by name.
    pub fn queue(&self) -> Option<&str> {
        match &self.kind {
            Kind::Queue { name } => Some(name),
            _ => None,
        }
    }

    /// What the routes of the vhost say about it.
    ///
    /// # Errors
    /// When nothing may be published there.
    pub fn course(&self, table: &RouteTable) -> Result<Course, Refused> {
        let backend = Arc::clone(table.home());
        let home = Course { backend, queues: Vec::new(), retains: false, route: None, fences: Vec::new() };
        match &self.kind {
            Kind::Exchange { .. } => Ok(home),
            Kind::Queue { name } => {
                let others = self.more.iter().filter_map(|name| std::str::from_utf8(name).ok());
                let owners = std::iter::once(&**name).chain(others).filter_map(|name| table.owner(name));
                let fences = owners.filter_map(|route| route.fence.clone()).collect();
                let home = Course { fences, ..home };
                Ok(match table.owner(name) {
                    Some(route) => {
                        let (backend, route) = (Arc::clone(&route.backend), Some(Arc::clone(route)));
                        Course { backend, route, ..home }
                    }
                    None => home,
                })
            }
            Kind::Address { path, syntax } => {
                let mut course = Course { retains: true, ..home };
                for (at, path) in std::iter::once(path).chain(&self.more).enumerate() {
                    let topic = respelled(path, *syntax, Syntax::Topic);
                    if topic.first() == Some(&b'$') {
                        return Err(Refused::AccessRefused(format!(
                            "nothing can be published to '{}': addresses that begin with '$' are the server's own",
                            String::from_utf8_lossy(&topic)
                        )));
                    }
                    let Some(route) = table.find(&topic) else { continue };
                    if at == 0 {
                        course.backend = Arc::clone(&route.backend);
                        course.route = Some(Arc::clone(route));
                    }
                    if route.pattern != Pattern::PublishSubscribe {
                        course.retains = false;
                    }
                    course.fences.extend(route.fence.iter().cloned());
                    if route.backend == course.backend {
                        course.queues.extend(route.queues.iter().cloned());
                    }
                }
                Ok(course)
            }
        }
    }

    /// Whether a message says itself where it was published to; not when it goes to more places than one.
    pub fn is_told_by_message(&self) -> bool {
        self.more.is_empty()
    }
}

/// Where messages of a destination go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// The back end that holds the address.
    pub backend: Arc<str>,
    /// The route's queues there.
    pub queues: Vec<Arc<str>>,
    /// Whether a message flagged so is retained: never on work routes.
    pub retains: bool,
    /// The route, where it is one's.
    pub route: Option<Arc<Route>>,
    /// Queues whose holders alone may publish there.
    pub fences: Vec<Arc<str>>,
}
