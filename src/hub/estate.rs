//! What becomes of queues that lost their route: they are deleted, or emptied into an heir.

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::{Health, QueueCounts, QueueSpec, Refused};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use super::Hub;
use super::carriers::Errand;
use super::memory::Record;
use super::routes_error::{RoutesError, held};
use super::work_queue::{Owned, work_queues};
use crate::mover::{Mover, Station, To, Until};
use crate::routes::{Relation, Routes};

/// How long a back end may take to say what a queue holds.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long who consumes from a queue has for going where the routes lead now.
const GRACE: Duration = Duration::from_secs(1);

/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(10);

/// A queue without a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The namespace.
    pub vhost: Arc<str>,
    /// The back end.
    pub backend: Arc<str>,
    /// The queue.
    pub queue: Arc<str>,
    /// The match of the route that it had.
    pub filter: Arc<str>,
}

impl Left {
    /// Whether both are the same queue, whatever route it had.
    fn is(&self, other: &Self) -> bool {
        self.vhost == other.vhost && self.backend == other.backend && self.queue == other.queue
    }
}

impl From<&Owned> for Left {
    fn from(owned: &Owned) -> Self {
        let Owned { route, queue } = owned;
        Self {
            vhost: Arc::clone(&route.vhost),
            backend: Arc::clone(&route.backend),
            queue: Arc::clone(queue),
            filter: route.filter.as_str().into(),
        }
    }
}

/// What the ledger has of a queue of a route.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    vhost: Box<str>,
    backend: Box<str>,
    queue: Box<str>,
    /// The match of its route.
    r#match: Box<str>,
}

impl Record for Remembered {
    const KIND: &'static str = "queue";

    fn identity(&self) -> [&str; 3] {
        [&self.vhost, &self.backend, &self.queue]
    }
}

impl From<&Left> for Remembered {
    fn from(left: &Left) -> Self {
        Self {
            vhost: (*left.vhost).into(),
            backend: (*left.backend).into(),
            queue: (*left.queue).into(),
            r#match: (*left.filter).into(),
        }
    }
}

impl From<Remembered> for Left {
    fn from(record: Remembered) -> Self {
        Self {
            vhost: record.vhost.into(),
            backend: record.backend.into(),
            queue: record.queue.into(),
            filter: record.r#match.into(),
        }
    }
}

/// Why a queue that loses its route is to be dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// The routes in force have it, or it is being emptied: a reload must not strand what it holds.
    Known,
    /// It was looked for because of its name, or an earlier life knew it: it stands in nobody's way.
    Sought,
}

/// A queue that is emptied into its heir.
#[derive(Debug, Clone)]
pub struct Draining {
    from: Left,
    heir: Owned,
    /// Of one that was sought it is not known whether it is there while its back end is away.
    since: Since,
}

/// What a reload does with queues that lose their route by it.
#[derive(Debug, Default)]
pub struct Estate {
    /// They are empty, and are deleted.
    pub lost: Vec<Left>,
    /// They are emptied into their heirs.
    pub moved: Vec<Draining>,
    /// They seem empty, and stay: their back end does not tell whether workers have messages of them in hand.
    pub kept: Vec<Left>,
    /// An earlier life had routes for them, and they hold messages that nothing leads away.
    pub stranded: Vec<(Left, String)>,
}

impl Hub {
    /// What is to become of the queues that `old` has and `new` has not, of those that are being emptied, and of those
    /// that an earlier life of this server left behind.
    ///
    /// # Errors
    /// When one holds messages and has no heir.
    pub(super) async fn estate(&self, old: &Routes, new: &Routes) -> Result<Estate, RoutesError> {
        let mut estate = Estate::default();
        let lost = work_queues(old);
        let lost = lost.iter().map(|owned| (Left::from(owned), Since::Known));
        let draining = self.draining.lock().clone();
        let mut all: Vec<_> = lost.chain(draining.into_iter().map(|it| (it.from, it.since))).collect();
        for left in self.remembered() {
            if !all.iter().any(|(other, _)| other.is(&left)) {
                all.push((left, Since::Sought));
            }
        }
        for (left, since) in all {
            if is_owned(new, &left) {
                continue;
            }
            let sought = since == Since::Sought;
            let patience = if sought { GRACE } else { PATIENCE };
            let counts = match self.counts_within(&left, patience).await {
                Ok(Some(counts)) => counts,
                Ok(None) => {
                    self.memory.forget(&Remembered::from(&left));
                    continue;
                }
                Err(error) if sought => {
                    // When its back end is back the mover sees.
                    if let Some(heir) = heir_of(new, &left).filter(|_| error.is_away()) {
                        estate.moved.push(Draining { from: left, heir, since });
                    } else {
                        tracing::debug!(queue = %left.queue, backend = %left.backend, %error, "what it holds is not known");
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            if counts.messages == 0 && counts.unsettled == Some(0) {
                estate.lost.push(left);
            } else if let Some(heir) = heir_of(new, &left) {
                estate.moved.push(Draining { from: left, heir, since });
            } else if counts.messages == 0 && counts.unsettled.is_none() {
                estate.kept.push(left);
            } else {
                let (messages, unsettled) = (counts.messages, counts.unsettled);
                if !sought {
                    return Err(RoutesError::NotEmpty { left, messages, unsettled });
                }
                estate.stranded.push((left, held(messages, unsettled)));
            }
        }
        self.seek(new, &mut estate).await;
        Ok(estate)
    }

    /// The queues that routes have or had, as far as an earlier life wrote them down, on back ends that there are.
    pub(super) fn remembered(&self) -> Vec<Left> {
        let known = self.memory.all::<Remembered>().into_iter().map(Left::from);
        known.filter(|left| self.backends.contains_key(&left.backend)).collect()
    }

    /// Whether routes had this queue before, as far as that was written down: then it is nobody else's.
    pub(super) fn has_had(&self, owned: &Owned) -> bool {
        self.memory.has(&Remembered::from(&Left::from(owned)))
    }

    /// Remembers the queues of the routes in force.
    pub(super) fn remember_queues(&self) {
        for owned in work_queues(&self.routes.load()) {
            self.memory.remember(&Remembered::from(&Left::from(&owned)));
        }
    }

    /// A queue that lost its route is empty and gone.
    pub(super) fn is_drained(&self, vhost: &Arc<str>, backend: &Arc<str>, queue: &Arc<str>) {
        let (vhost, backend, queue) = (Arc::clone(vhost), Arc::clone(backend), Arc::clone(queue));
        let left = Left { vhost, backend, queue, filter: "".into() };
        if !is_owned(&self.routes.load(), &left) {
            self.memory.forget(&Remembered::from(&left));
        }
    }

    /// Looks for what routes that say `drain` have left on other back ends: queues of the same name. After a restart that is
    /// all that is known of them.
    async fn seek(&self, new: &Routes, estate: &mut Estate) {
        for heir in work_queues(new).into_iter().filter(|heir| heir.route.drain) {
            for backend in self.backends.keys().filter(|backend| **backend != heir.route.backend) {
                let from = Left { backend: Arc::clone(backend), ..Left::from(&heir) };
                let is_known =
                    estate.lost.iter().chain(estate.moved.iter().map(|it| &it.from)).any(|it| it.is(&from));
                if is_known || is_owned(new, &from) {
                    continue;
                }
                if self.may_hold(&from).await {
                    estate.moved.push(Draining { from, heir: heir.clone(), since: Since::Sought });
                }
            }
        }
    }

    /// Whether a queue holds something, as far as its back end tells. What is away may: when it is back the mover sees.
    pub(super) async fn may_hold(&self, left: &Left) -> bool {
        match timeout(GRACE, self.counts(left)).await {
            Ok(Ok(Some(counts))) => counts.messages > 0 || counts.unsettled != Some(0),
            Ok(Ok(None)) => false,
            Ok(Err(error)) if !error.is_away() => {
                let Left { queue, backend, .. } = left;
                tracing::debug!(%queue, %backend, %error, "what a route left there is not known");
                false
            }
            Ok(Err(_)) | Err(_) => true,
        }
    }

    /// The same of a back end that may not answer at all.
    async fn counts_within(
        &self,
        left: &Left,
        patience: Duration,
    ) -> Result<Option<QueueCounts>, RoutesError> {
        let silent = || RoutesError::Uncounted {
            left: left.clone(),
            why: format!("no answer within {} s", patience.as_secs()),
            is_away: true,
        };
        timeout(patience, self.counts(left)).await.unwrap_or_else(|_| Err(silent()))
    }

    /// What a queue holds; none when it does not exist.
    async fn counts(&self, left: &Left) -> Result<Option<QueueCounts>, RoutesError> {
        let spec = QueueSpec { passive: true, durable: true, ..QueueSpec::new(&left.queue) };
        let uncounted = |why: String, is_away| RoutesError::Uncounted { left: left.clone(), why, is_away };
        let mut own = self
            .lane_on(&left.backend, &left.vhost)
            .await
            .map_err(|error| uncounted(error.to_string(), error.is_away()))?;
        let counts = timeout(PATIENCE, own.lane.declare_queue(&spec)).await;
        match counts.unwrap_or_else(|_| Err(Refused::Away(left.backend.to_string()))) {
            Ok(counts) => Ok(Some(counts)),
            Err(why) if why.is_missing() => Ok(None),
            Err(why) => Err(uncounted(why.to_string(), matches!(why, Refused::Away(_)))),
        }
    }

    /// Carries what waits in queues that move, so that it comes before what is new. What cannot be reached is not waited
    /// for.
    pub(super) async fn carry_first(&self, moved: &[Draining]) {
        for Draining { from, heir, .. } in moved {
            self.end_feed(from).await;
            let counts = timeout(GRACE, self.counts(from)).await;
            if matches!(counts, Ok(Ok(Some(_))))
                && self.is_up(&heir.route.backend).await
                && let Some(mover) = self.drain(from, heir, Until::Empty)
            {
                mover.run().await;
            }
        }
    }

    async fn is_up(&self, backend: &str) -> bool {
        match self.backend(backend) {
            Ok(backend) => backend.health().await == Health::Up,
            Err(_) => false,
        }
    }

    /// Empties the queues that were moved, each into its heir.
    pub(super) fn go_on_draining(&self) {
        for Draining { from, heir, .. } in self.draining.lock().iter() {
            let Left { vhost, backend, queue, .. } = from.clone();
            if let Some(mover) = self.drain(from, heir, Until::Drained) {
                self.carriers.start(Errand::Drain { vhost, backend, queue }, mover);
            }
        }
    }

    /// What empties a queue into its heir.
    fn drain(&self, from: &Left, heir: &Owned, until: Until) -> Option<Mover> {
        let station = |vhost, backend: &str, queue| {
            let backend = Arc::clone(self.backend(backend).ok()?);
            Some(Station { backend, vhost: Arc::clone(vhost), queue: Arc::clone(queue) })
        };
        Some(Mover {
            name: format!("drain {} of {}", from.queue, from.backend).into(),
            from: station(&from.vhost, &from.backend, &from.queue)?,
            bound_by: None,
            unbound: Arc::default(),
            to: To::Queue(station(&heir.route.vhost, &heir.route.backend, &heir.queue)?),
            until,
        })
    }

    /// Deals with the queues that do not move: nothing leads to them any more, and those that are empty are deleted.
    pub(super) async fn wind_up(&self, estate: &Estate) {
        for left in &estate.lost {
            self.end_feed(left).await;
            match self.retire(left).await {
                Ok(()) => self.memory.forget(&Remembered::from(left)),
                Err(why) => tracing::warn!(queue = %left.queue, %why, "a queue that lost its route stays"),
            }
        }
        for (left, held) in &estate.stranded {
            let Left { queue, backend, filter, .. } = left;
            tracing::warn!(
                %queue,
                %backend,
                "the queue's route `{filter}` is gone since Linkspan was started anew, and the queue still holds {held}: \
                 give it a route again, or write `drain = true` in the route that is to take over what it holds"
            );
        }
        for left in &estate.kept {
            self.end_feed(left).await;
            let Left { queue, backend, .. } = left;
            tracing::warn!(
                %queue,
                %backend,
                "a queue that lost its route stays: its broker does not tell whether workers have messages of it in \
                 hand; delete it there when it is not worked any more, with the broker's own tools and only if it is \
                 empty and unused"
            );
        }
    }

    /// Deletes an empty queue. Who consumes from it is given a moment to go where the routes lead now.
    async fn retire(&self, left: &Left) -> Result<(), RoutesError> {
        let until = Instant::now() + GRACE;
        loop {
            let waits = Instant::now() < until;
            let mut own = self.lane_on(&left.backend, &left.vhost).await?;
            match own.lane.delete_queue(&left.queue, waits, true).await {
                Ok(_) => return Ok(()),
                Err(Refused::InUse { .. } | Refused::Upstream { code: 406, .. }) if waits => {
                    sleep(LOOK).await
                }
                Err(why) => return Err(RoutesError::Undeleted { left: left.clone(), why: Box::new(why) }),
            }
        }
    }

    /// Has nothing more led to a queue.
    async fn end_feed(&self, left: &Left) {
        let ended = match self.lane_on(&left.backend, &left.vhost).await {
            Ok(mut own) => own.lane.feed(&left.queue, &[], &[]).await.map_err(|why| why.to_string()),
            Err(why) => Err(why.to_string()),
        };
        if let Err(why) = ended {
            tracing::warn!(queue = %left.queue, backend = %left.backend, why, "a queue that lost its route is still fed");
        }
    }
}

/// Whether a route has that queue: back ends may have one name space for all vhosts.
fn is_owned(routes: &Routes, left: &Left) -> bool {
    let owner = |vhost: &str| routes.vhost(vhost).and_then(|table| table.owner(&left.queue));
    routes.iter().filter_map(|table| owner(table.vhost())).any(|owner| owner.backend == left.backend)
}

/// The queue that takes over what a queue without a route holds: one of the same name on another back end, or the only
/// one of a route for the same addresses.
fn heir_of(new: &Routes, left: &Left) -> Option<Owned> {
    let table = new.vhost(&left.vhost)?;
    let by_name = table.owner(&left.queue).map(|route| (route, &left.queue));
    let by_match = || {
        let route = table.iter().find(|it| it.filter.relation(&left.filter) == Relation::Equal)?;
        match route.queues.as_slice() {
            [only] => Some((route, only)),
            _ => None,
        }
    };
    let (route, queue) = by_name.or_else(by_match).filter(|(route, _)| route.drain)?;
    Some(Owned { route: Arc::clone(route), queue: Arc::clone(queue) })
}
