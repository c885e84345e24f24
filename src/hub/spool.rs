//! What is published on a route while its back end is away: it waits here, in a durable queue, and goes on in its order.
//!
//! A spool *diverts* from when its back end goes away until nothing waits in it any more. Meanwhile everything that is
//! published on the route goes through it, also when the back end is there again: nothing may overtake what waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

use linkspan_contract::{Backend, Seq};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::part::Numbers;
use crate::mover::Sluice;
use crate::routes::Route;

/// Opens what keeps the spools of a back end's routes.
pub trait SpoolStores: Send + Sync {
    /// What keeps the spools of a back end's routes, made where there is none.
    ///
    /// # Errors
    /// Why there can be none, for people.
    fn open(&self, backend: &str) -> Result<Arc<dyn SpoolStore>, String>;

    /// The back ends for which an earlier life of this server has made one.
    fn left(&self) -> Vec<Arc<str>>;
}

/// Keeps the spools of a back end's routes: durable queues, each of which is one's.
pub trait SpoolStore: Send + Sync {
    /// The way to its queues.
    fn backend(&self) -> Arc<dyn Backend>;

    /// What a queue holds.
    fn depth(&self, vhost: &str, queue: &str) -> Depth;

    /// All its queues: namespace and name.
    fn queues(&self) -> Vec<(Arc<str>, Arc<str>)>;
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Messages, those included that are on their way.
    pub messages: u64,
    /// Bytes of those that are not.
    pub bytes: u64,
}

/// The spool of a route.
pub struct Spool {
    /// The namespace.
    pub vhost: Arc<str>,
    /// The back end that is spooled for.
    pub backend: Arc<str>,
    /// The match of the route.
    pub filter: Arc<str>,
    /// Keeps what waits.
    pub store: Arc<dyn SpoolStore>,
    /// The queue there.
    pub queue: Arc<str>,
    /// Bytes above which publishers wait; 0 when the route has no spool any more.
    limit: AtomicU64,
    diverts: AtomicBool,
    /// Publishers that divert share it; who ends that has it alone, so that nobody diverts behind his back.
    turn: RwLock<()>,
    /// It never diverts again.
    over: AtomicBool,
    /// The back end is there, and the route's queues are.
    up: AtomicBool,
    full: AtomicBool,
    /// So little waits that it will soon be over, if nothing comes.
    ending: AtomicBool,
    /// The back end is there, and yet it does not get less.
    grows: AtomicBool,
    /// The least that waited since the back end is there.
    least: AtomicU64,
    /// What was published before the back end went away, and is on its way still: lanes, and the numbers below which theirs
    /// are.
    ahead: Mutex<Vec<(Weak<Numbers>, Seq)>>,
    waiting: Mutex<Vec<Waker>>,
}

/// When so few messages wait and the back end is there, publishers wait until none does.
const FEW: u64 = 256;

impl Spool {
    /// The spool of a route, in its queue of `store`. It diverts until it has been looked at.
    pub fn new(route: &Route, store: Arc<dyn SpoolStore>) -> Self {
        Self {
            vhost: Arc::clone(&route.vhost),
            backend: Arc::clone(&route.backend),
            filter: route.filter.as_str().into(),
            store,
            queue: queue_of(route.filter.as_str()).into(),
            limit: AtomicU64::new(0),
            diverts: AtomicBool::new(true),
            turn: RwLock::new(()),
            over: AtomicBool::new(false),
            up: AtomicBool::new(false),
            full: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            grows: AtomicBool::new(false),
            least: AtomicU64::new(u64::MAX),
            ahead: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    /// Whether it is that of a route.
    pub fn is_of(&self, route: &Route) -> bool {
        self.filter.as_ref() == route.filter.as_str()
            && self.backend == route.backend
            && self.vhost == route.vhost
    }

    /// How much a route lets wait; nothing more when it has no spool any more.
    pub fn set_limit(&self, route: &Route) {
        self.limit.store(route.spool.map_or(0, Into::into), Ordering::SeqCst);
    }

    /// What waits.
    pub fn depth(&self) -> Depth {
        self.store.depth(&self.vhost, &self.queue)
    }

    /// Whether what is published on the route goes through it.
    #[inline]
    pub fn diverts(&self) -> bool {
        self.diverts.load(Ordering::SeqCst)
    }

    /// Held while something is put into it; none when it does not divert any more.
    pub fn enter(&self) -> Option<RwLockReadGuard<'_, ()>> {
        let turn = self.turn.read();
        self.diverts().then_some(turn)
    }

    /// The back end cannot be reached: from now on it diverts. False when it never does any more.
    pub fn divert(&self) -> bool {
        let turn = self.turn.read();
        if self.is_over() {
            return false;
        }
        let began = !self.diverts.swap(true, Ordering::SeqCst);
        drop(turn);
        if began {
            self.wake();
        }
        true
    }

    /// True when it never diverts again.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The route is gone: what waits goes another way.
    pub fn end(&self) {
        let turn = self.turn.write();
        self.over.store(true, Ordering::SeqCst);
        self.diverts.store(false, Ordering::SeqCst);
        drop(turn);
        self.wake();
    }

    /// Nothing that waits is carried on before `numbers` has heard of all below `below`.
    pub fn follow(&self, numbers: &Arc<Numbers>, below: Seq) {
        self.ahead.lock().push((Arc::downgrade(numbers), below));
    }

    /// Whether its back end is there.
    pub fn is_reached(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    /// Something was put into it; true when publishers have to wait.
    pub fn filled(&self) -> bool {
        self.judge(self.depth());
        self.holds()
    }

    fn judge(&self, depth: Depth) {
        let limit = self.limit.load(Ordering::SeqCst);
        if depth.bytes >= limit {
            self.full.store(true, Ordering::SeqCst);
        } else if depth.bytes <= limit - limit / 8 {
            self.full.store(false, Ordering::SeqCst);
        }
    }

    /// Whether those who have put something into it wait.
    pub fn holds(&self) -> bool {
        let held = |why: &AtomicBool| why.load(Ordering::SeqCst);
        self.diverts() && (held(&self.full) || held(&self.ending) || held(&self.grows))
    }

    /// Has `waker` woken when it begins to divert, or ends, or holds nobody any more.
    pub fn listen(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock();
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Looks how it stands; called again and again. `is_up` says whether the back end is there, and what it needs.
    pub fn look(&self, is_up: bool) {
        self.up.store(is_up, Ordering::SeqCst);
        if !is_up {
            self.ending.store(false, Ordering::SeqCst);
            self.grows.store(false, Ordering::SeqCst);
            self.least.store(u64::MAX, Ordering::SeqCst);
            self.divert();
        }
        if !self.diverts() {
            return;
        }
        let depth = self.depth();
        self.judge(depth);
        if is_up {
            if depth.messages == 0 && self.turn_back() {
                return;
            }
            if depth.messages <= FEW {
                self.ending.store(true, Ordering::SeqCst);
            }
            // Publishers that are quicker than the way out would never be let go straight on.
            let before = self.least.fetch_min(depth.messages, Ordering::SeqCst);
            self.grows.store(depth.messages >= before, Ordering::SeqCst);
        }
        if !self.holds() {
            self.wake();
        }
    }

    /// What is published goes straight on again, when nothing waits.
    fn turn_back(&self) -> bool {
        let turn = self.turn.write();
        if self.depth().messages > 0 {
            return false;
        }
        self.over.fetch_or(self.limit.load(Ordering::SeqCst) == 0, Ordering::SeqCst);
        self.diverts.store(false, Ordering::SeqCst);
        for why in [&self.full, &self.ending, &self.grows] {
            why.store(false, Ordering::SeqCst);
        }
        self.least.store(u64::MAX, Ordering::SeqCst);
        drop(turn);
        self.wake();
        true
    }
}

impl Sluice for Spool {
    fn is_up(&self) -> bool {
        self.is_reached()
    }

    fn is_open(&self) -> bool {
        let mut ahead = self.ahead.lock();
        ahead.retain(|(numbers, below)| {
            numbers.upgrade().is_some_and(|numbers| numbers.is_open_below(*below))
        });
        self.is_up() && ahead.is_empty()
    }
}

/// What queues of spools begin with.
const PREFIX: &str = "linkspan.spool.";

/// The queue of a route's spool.
fn queue_of(filter: &str) -> String {
    format!("{PREFIX}{filter}")
}

/// The match of the route that such a queue is for.
pub fn filter_of(queue: &str) -> Option<&str> {
    queue.strip_prefix(PREFIX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use linkspan_contract::{Outcome, Receipt, ReceiptSink};

    use super::*;
    use crate::routes::{Filter, Pattern};

    #[derive(Default)]
    struct Shelf(Mutex<Depth>);

    impl SpoolStore for Shelf {
        fn backend(&self) -> Arc<dyn Backend> {
            unreachable!("nothing is published")
        }

        fn depth(&self, _: &str, _: &str) -> Depth {
            *self.0.lock()
        }

        fn queues(&self) -> Vec<(Arc<str>, Arc<str>)> {
            Vec::new()
        }
    }

    fn spool(limit: u64) -> (Spool, Arc<Shelf>) {
        let shelf = Arc::new(Shelf::default());
        let plain = Route::new(Filter::parse("a/#").unwrap(), Pattern::PublishSubscribe, "far");
        let route = Route { spool: NonZeroU64::new(limit), ..plain };
        let spool = Spool::new(&route, Arc::clone(&shelf) as _);
        spool.set_limit(&route);
        (spool, shelf)
    }

    fn holding(shelf: &Shelf, messages: u64, bytes: u64) {
        *shelf.0.lock() = Depth { messages, bytes };
    }

    #[test]
    fn it_diverts_from_when_its_back_end_goes_until_nothing_waits() {
        let (spool, shelf) = spool(1000);
        spool.look(true);
        assert!(!spool.diverts() && spool.enter().is_none());
        spool.look(false);
        assert!(spool.diverts() && spool.enter().is_some());
        holding(&shelf, 10_000, 500);
        spool.look(true);
        assert!(spool.diverts() && !spool.holds());
        holding(&shelf, 0, 0);
        spool.look(true);
        assert!(!spool.diverts());
    }

    #[test]
    fn a_full_one_holds_publishers_until_there_is_room() {
        let (spool, shelf) = spool(1000);
        spool.look(false);
        holding(&shelf, 900, 999);
        assert!(!spool.filled());
        holding(&shelf, 901, 1000);
        assert!(spool.filled());
        holding(&shelf, 800, 900);
        spool.look(false);
        assert!(spool.holds(), "it would be full again at once");
        holding(&shelf, 700, 875);
        spool.look(false);
        assert!(!spool.holds());
    }

    #[test]
    fn publishers_wait_for_the_end_and_while_it_does_not_get_less() {
        let (spool, shelf) = spool(1_000_000);
        spool.look(false);
        for (messages, holds) in [(5000, false), (6000, true), (5000, true), (4999, false), (FEW, true)] {
            holding(&shelf, messages, messages);
            spool.look(true);
            assert_eq!(spool.holds(), holds, "{messages}");
        }
        holding(&shelf, FEW + 1, 1);
        spool.look(false);
        assert!(!spool.holds(), "nobody waits for a back end that is away");
    }

    #[test]
    fn one_without_a_route_that_wants_it_ends_for_good() {
        let (spool, shelf) = spool(0);
        holding(&shelf, 1, 1);
        spool.look(false);
        assert!(spool.filled(), "publishers wait, as they do without a spool");
        holding(&shelf, 0, 0);
        spool.look(true);
        assert!(spool.is_over() && !spool.divert() && !spool.diverts());
    }

    #[test]
    fn nothing_overtakes_what_is_on_its_way() {
        struct Deaf;
        impl ReceiptSink for Deaf {
            fn receipts(&self, _: &[Receipt]) {}
        }
        let (spool, _) = spool(1000);
        let numbers = Arc::new(Numbers::same(Arc::new(Deaf)));
        numbers.part_ways(0);
        numbers.note(0, 0, 2);
        spool.look(false);
        spool.follow(&numbers, 2);
        numbers.note(2, 2, 1);
        spool.look(true);
        assert!(!spool.is_open());
        numbers.receipts(&[Receipt { first: 0, count: 2, outcome: Outcome::Accepted }]);
        assert!(spool.is_open(), "what comes later is another route's");
        spool.follow(&numbers, 3);
        assert!(!spool.is_open());
        drop(numbers);
        assert!(spool.is_open(), "nobody will ever hear of it");
    }

    #[test]
    fn a_queue_tells_its_route() {
        assert_eq!(filter_of(&queue_of("a/+/#")), Some("a/+/#"));
        assert_eq!(filter_of("jobs"), None);
    }
}
