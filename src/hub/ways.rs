//! The ways of a hub's lane to its back ends: opened at first use, and numbered for the keys of subscriptions.

use std::sync::Arc;

use linkspan_contract::{Lane, Refused};

use super::lane::HubLane;
use super::part::{OfAnother, Part};

impl HubLane {
    /// The lane on the back end that is the `at`th in use.
    pub(super) fn part(&mut self, at: u16) -> Result<&mut Box<dyn Lane>, Refused> {
        self.parts
            .get_mut(usize::from(at))
            .map(|part| &mut part.lane)
            .ok_or_else(|| Refused::Away("unknown".into()))
    }

    /// The part that a number in a subscription's key stands for.
    pub(super) fn way(&mut self, way: u16) -> Result<&mut Box<dyn Lane>, Refused> {
        let part = self.ways.get(usize::from(way)).copied();
        self.part(part.unwrap_or(u16::MAX))
    }

    /// A number for the part at `at` that does not stand in keys of a subscription yet, which has those of `taken`.
    pub(super) fn free_way(&mut self, at: u16, taken: &[u16]) -> Result<u16, Refused> {
        let Some(part) = self.parts.get(usize::from(at)) else {
            return Err(Refused::Away("unknown".into()));
        };
        // Those before are of a time before routes were changed.
        let known = (0u16..).zip(&self.ways).skip(usize::from(part.way)).filter(|(_, of)| **of == at);
        if let Some((free, _)) = known.into_iter().find(|(way, _)| !taken.contains(way)) {
            return Ok(free);
        }
        let full = |_| Refused::Full("a client's subscriptions come to 65,536 places at most".into());
        let way = u16::try_from(self.ways.len()).map_err(full)?;
        self.ways.push(at);
        Ok(way)
    }

    /// Gives every part another number for the keys of subscriptions to come.
    pub(super) fn renumber(&mut self) {
        for (part, at) in self.parts.iter_mut().zip(0u16..) {
            if let Ok(way) = u16::try_from(self.ways.len()) {
                part.way = way;
                self.ways.push(at);
            }
        }
    }

    /// The part of `backend`, opened at first use.
    pub(super) async fn reach(&mut self, backend: &Arc<str>) -> Result<u16, Refused> {
        let known = self.parts.iter().position(|part| part.spool.is_none() && part.backend == *backend);
        let at = match known {
            Some(at) => at,
            None => {
                let events = Arc::new(OfAnother(Arc::clone(&self.events)));
                let part =
                    self.scope.part(backend, Arc::clone(&self.receipts), events).await.map_err(|error| {
                        tracing::debug!(%backend, %error, "a back end was not reached");
                        Refused::Away(backend.to_string())
                    })?;
                return self.add(part);
            }
        };
        Ok(u16::try_from(at).unwrap_or(u16::MAX))
    }

    /// Gives a new part its place.
    pub(super) fn add(&mut self, mut part: Part) -> Result<u16, Refused> {
        let full = |_| Refused::Full("a client uses 65,536 back ends at most".into());
        let at = u16::try_from(self.parts.len()).map_err(full)?;
        part.way = u16::try_from(self.ways.len()).map_err(full)?;
        self.part_ways();
        part.numbers.part_ways(0);
        self.parts.push(part);
        self.ways.push(at);
        Ok(at)
    }

    /// Like [`HubLane::reach`], for what an open transaction has to be able to undo.
    pub(super) async fn reach_to_take(&mut self, backend: &Arc<str>) -> Result<u16, Refused> {
        match self.reach(backend).await? {
            0 => Ok(0),
            _ if self.transacts => Err(beyond_transaction(backend)),
            part => Ok(part),
        }
    }

    /// The match of the work route that owns a queue.
    pub(super) fn owner(&self, queue: &str) -> Option<String> {
        let routes = self.scope.hub.routes();
        Some(routes.vhost(&self.scope.client.vhost)?.owner(queue)?.filter.as_str().to_owned())
    }

    /// Whether one consumer at a time has a queue.
    pub(super) fn is_for_one(&self, queue: &str) -> bool {
        let routes = self.scope.hub.routes();
        let route = routes.vhost(&self.scope.client.vhost).and_then(|table| table.owner(queue));
        route.is_some_and(|route| route.exclusive.is_some())
    }

    /// The part of the back end that has a queue.
    pub(super) async fn holder(&mut self, queue: &str) -> Result<u16, Refused> {
        let routes = self.scope.hub.routes();
        let route = routes.vhost(&self.scope.client.vhost).and_then(|table| table.owner(queue));
        match route {
            Some(route) => self.reach(&Arc::clone(&route.backend)).await,
            None => Ok(0),
        }
    }
}

/// What does not lie on the home back end cannot be part of a transaction.
pub(super) fn beyond_transaction(backend: &str) -> Refused {
    Refused::Precondition(format!(
        "a transaction reaches the home back end only, and the routes lead to back end '{backend}': use another channel"
    ))
}
