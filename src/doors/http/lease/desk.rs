//! Who waits for a message of a queue, in the order in which they came, and who has one, and until when.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

/// One queue's clients. `W` is who waits, `O` what is out.
pub(super) struct Desk<W, O> {
    /// By their numbers, which count up: the first is the one who came first.
    waiting: BTreeMap<u64, Waiting<W>>,
    /// By the numbers of their leases.
    out: HashMap<u64, Out<O>>,
    due: BTreeSet<(Instant, Due)>,
}

struct Waiting<W> {
    who: W,
    until: Instant,
}

struct Out<O> {
    what: O,
    until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Waiting(u64),
    Lease(u64),
}

/// What time has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Over<W, O> {
    /// Somebody has waited long enough.
    Waiting(W),
    /// The lease of that number has run out.
    Lease(u64, O),
}

impl<W, O> Desk<W, O> {
    /// Nobody.
    pub(super) fn new() -> Self {
        Self { waiting: BTreeMap::new(), out: HashMap::new(), due: BTreeSet::new() }
    }

    /// One more waits, under a number above all others.
    pub(super) fn wait(&mut self, number: u64, who: W, until: Instant) {
        self.due.insert((until, Due::Waiting(number)));
        self.waiting.insert(number, Waiting { who, until });
    }

    /// One who waited is gone.
    pub(super) fn leave(&mut self, number: u64) -> Option<W> {
        let Waiting { who, until } = self.waiting.remove(&number)?;
        self.due.remove(&(until, Due::Waiting(number)));
        Some(who)
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self) -> Option<W> {
        let (number, Waiting { who, until }) = self.waiting.pop_first()?;
        self.due.remove(&(until, Due::Waiting(number)));
        Some(who)
    }

    /// Somebody has `what` until then.
    pub(super) fn give(&mut self, lease: u64, what: O, until: Instant) {
        self.due.insert((until, Due::Lease(lease)));
        self.out.insert(lease, Out { what, until });
    }

    /// The lease is over.
    pub(super) fn take(&mut self, lease: u64) -> Option<O> {
        let Out { what, until } = self.out.remove(&lease)?;
        self.due.remove(&(until, Due::Lease(lease)));
        Some(what)
    }

    /// The lease lasts until then, whatever it did before.
    pub(super) fn extend(&mut self, lease: u64, until: Instant) -> Option<&O> {
        let out = self.out.get_mut(&lease)?;
        self.due.remove(&(out.until, Due::Lease(lease)));
        out.until = until;
        self.due.insert((until, Due::Lease(lease)));
        Some(&out.what)
    }

    /// The first thing that time has ended, until there is none.
    pub(super) fn fall_due(&mut self, now: Instant) -> Option<Over<W, O>> {
        loop {
            let (_, due) = self.due.first().filter(|(at, _)| *at <= now).copied()?;
            let over = match due {
                Due::Waiting(number) => self.leave(number).map(Over::Waiting),
                Due::Lease(number) => self.take(number).map(|what| Over::Lease(number, what)),
            };
            if over.is_some() {
                return over;
            }
            self.due.pop_first();
        }
    }

    /// When there will be something again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many leases there are.
    pub(super) fn out(&self) -> usize {
        self.out.len()
    }

    /// How many deliveries may be unsettled: one for each who waits, and those that are out.
    pub(super) fn window(&self) -> u32 {
        u32::try_from(self.waiting.len().saturating_add(self.out.len())).unwrap_or(u32::MAX)
    }

    /// All who wait, in their order.
    pub(super) fn dismiss(&mut self) -> impl Iterator<Item = W> + use<W, O> {
        self.due.retain(|(_, due)| matches!(due, Due::Lease(_)));
        std::mem::take(&mut self.waiting).into_values().map(|waiting| waiting.who)
    }

    /// All leases, which are over.
    pub(super) fn end(&mut self) -> impl Iterator<Item = (u64, O)> + use<W, O> {
        self.due.retain(|(_, due)| matches!(due, Due::Waiting(_)));
        std::mem::take(&mut self.out).into_iter().map(|(lease, out)| (lease, out.what))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn who_came_first_is_served_first() {
        let begin = Instant::now();
        let mut desk: Desk<&str, &str> = Desk::new();
        desk.wait(1, "ann", at(begin, 30));
        desk.wait(2, "ben", at(begin, 10));
        desk.wait(3, "cat", at(begin, 20));
        assert_eq!(desk.leave(1), Some("ann"), "who goes waits no more");
        assert_eq!(desk.leave(1), None);
        desk.wait(4, "ann", at(begin, 30));
        assert_eq!((desk.waiting(), desk.window()), (3, 3));
        assert_eq!(
            [desk.next(), desk.next(), desk.next(), desk.next()],
            [Some("ben"), Some("cat"), Some("ann"), None]
        );
        assert_eq!(desk.next_due(), None, "nobody waits for time to pass");
    }

    #[tokio::test]
    async fn time_ends_what_waits_and_what_is_out_each_once() {
        let begin = Instant::now();
        let mut desk: Desk<&str, &str> = Desk::new();
        desk.wait(1, "ann", at(begin, 20));
        desk.give(7, "message", at(begin, 10));
        assert_eq!(desk.window(), 2);
        assert_eq!(desk.fall_due(at(begin, 9)), None);
        assert_eq!(desk.next_due(), Some(at(begin, 10)));
        assert_eq!(desk.fall_due(at(begin, 25)), Some(Over::Lease(7, "message")));
        assert_eq!(desk.fall_due(at(begin, 25)), Some(Over::Waiting("ann")));
        assert_eq!(desk.fall_due(at(begin, 25)), None);
        assert_eq!((desk.window(), desk.take(7)), (0, None));
    }

    #[tokio::test]
    async fn an_extended_lease_runs_out_later_or_sooner() {
        let begin = Instant::now();
        let mut desk: Desk<&str, &str> = Desk::new();
        desk.give(7, "message", at(begin, 10));
        assert_eq!(desk.extend(7, at(begin, 30)), Some(&"message"));
        assert_eq!(desk.fall_due(at(begin, 10)), None);
        assert_eq!(desk.extend(7, at(begin, 20)), Some(&"message"));
        assert_eq!(desk.fall_due(at(begin, 20)), Some(Over::Lease(7, "message")));
        assert_eq!(desk.extend(7, at(begin, 60)), None, "what is over cannot be extended");
    }

    #[tokio::test]
    async fn all_are_sent_away_and_leases_stay_until_they_are_ended_too() {
        let begin = Instant::now();
        let mut desk: Desk<&str, &str> = Desk::new();
        desk.wait(1, "ann", at(begin, 5));
        desk.wait(2, "ben", at(begin, 5));
        desk.give(7, "message", at(begin, 10));
        assert!(desk.dismiss().eq(["ann", "ben"]));
        assert_eq!((desk.waiting(), desk.out(), desk.next_due()), (0, 1, Some(at(begin, 10))));
        assert!(desk.end().eq([(7, "message")]));
        assert_eq!((desk.out(), desk.next_due()), (0, None));
    }
}
