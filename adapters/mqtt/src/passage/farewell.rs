//! What is still owed to the broker when a client has left: it has the session for longer than the client wanted.
//!
//! A link that is cut must cost a client nothing, so the broker is asked to keep every session for a while, also one that is
//! to end with its client's connection. When the client is gone the broker has to be told. Who comes with the same
//! identifier is first: what is owed for the client before it is settled by its own coming.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::Millis;
use linkspan_contract::session::FOREVER;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::upstream::connection::Introduction;
use crate::upstream::packet::Version;

/// Seconds that the broker keeps a client's session at least while the client's link to it is down.
pub(crate) const LIFETIME: u32 = 300;

/// Farewells that are said at the same time: each has a connection for that long.
const AT_ONCE: usize = 64;

/// One session that the broker has for too long.
pub(crate) struct Farewell {
    pub(crate) identifier: Arc<str>,
    /// Seconds that the broker is to keep it after the client's end, and keeps it.
    keep: u32,
    held: u32,
    /// When the client's end was.
    since: Millis,
    /// How it is taken up once more to be ended: with the client's will where the broker has that and its time has not come.
    how: Introduction,
    /// Whose turn it is to speak to the broker of this session.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

/// How a session stands that a client has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    /// Seconds that it is to be kept.
    pub(crate) keep: u32,
    /// Seconds that the broker keeps it.
    pub(crate) held: u32,
    pub(crate) version: Version,
    /// The broker may publish a will that it must not any more.
    pub(crate) will_stands: bool,
}

impl Left {
    /// Whether the broker has to be told.
    pub(crate) fn owes(&self) -> bool {
        match self.version {
            Version::V5 => self.keep != self.held || self.will_stands,
            // It has no word for anything between not at all and for good.
            Version::V311 => self.keep == 0,
        }
    }
}

impl Farewell {
    pub(crate) fn new(identifier: Arc<str>, left: Left, since: Millis, how: Introduction) -> Arc<Self> {
        let Left { keep, held, .. } = left;
        Arc::new(Self { identifier, keep, held, since, how, turn: tokio::sync::Mutex::default() })
    }

    /// Seconds that the session has left.
    fn left(&self, now: Millis) -> u32 {
        if self.keep == FOREVER { FOREVER } else { self.keep.saturating_sub(self.age(now)) }
    }

    fn age(&self, now: Millis) -> u32 {
        u32::try_from(now.saturating_sub(self.since) / 1000).unwrap_or(u32::MAX)
    }

    /// The client's session is over, whatever the broker still has.
    pub(crate) fn is_over(&self, now: Millis) -> bool {
        self.left(now) == 0
    }

    /// The broker has forgotten it by itself.
    pub(crate) fn is_forgotten(&self, now: Millis) -> bool {
        self.held != FOREVER && self.age(now) > self.held
    }

    /// How the session is taken up to be ended, or to be kept for what it has left.
    pub(crate) fn introduction(&self, now: Millis) -> Introduction {
        let left = self.left(now);
        let age = self.age(now);
        let will = self.how.will.as_ref().filter(|will| left > 0 && !will.is_due(age));
        Introduction {
            fresh: left == 0,
            session_expiry: left,
            // What waits for the client is not for this connection.
            receive_maximum: 1,
            will: will.map(|will| Arc::new(will.after(age, left))),
            ..self.how.clone()
        }
    }
}

/// All clients that are passed through, and what is owed for those that have left.
pub(crate) struct Farewells {
    seats: Mutex<HashMap<Arc<str>, Seat, RandomState>>,
    said: Notify,
    pub(crate) turns: Semaphore,
}

/// What there is under one client identifier.
#[derive(Default)]
struct Seat {
    /// The number of the client that has it.
    taken_by: Option<u64>,
    owed: Option<Arc<Farewell>>,
}

impl Default for Farewells {
    fn default() -> Self {
        Self { seats: Mutex::default(), said: Notify::new(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl Farewells {
    /// A client comes: whoever had its identifier before owes nothing from now on, unless it is not let in.
    pub(crate) fn enter(&self, identifier: &Arc<str>, number: u64) -> Entrance<'_> {
        let mut seats = self.seats.lock();
        let seat = seats.entry(Arc::clone(identifier)).or_default();
        let before = seat.taken_by.replace(number);
        let owed = seat.owed.clone();
        Entrance { farewells: self, identifier: Arc::clone(identifier), number, before, owed, is_in: false }
    }

    /// A client leaves and owes this, unless another has its place.
    pub(crate) fn leave(&self, identifier: &Arc<str>, number: u64, owes: Option<Arc<Farewell>>) -> bool {
        let mut seats = self.seats.lock();
        let Some(seat) = seats.get_mut(identifier).filter(|seat| seat.taken_by == Some(number)) else {
            return false;
        };
        seat.taken_by = None;
        let is_owed = owes.is_some();
        seat.owed = owes;
        if !is_owed {
            seats.remove(identifier);
        }
        is_owed
    }

    /// False when it is said, or a successor has made it needless.
    pub(crate) fn is_owed(&self, farewell: &Arc<Farewell>) -> bool {
        let seats = self.seats.lock();
        let owed = seats.get(&farewell.identifier).and_then(|seat| seat.owed.as_ref());
        owed.is_some_and(|owed| Arc::ptr_eq(owed, farewell))
    }

    /// It is said, or given up.
    pub(crate) fn said(&self, farewell: &Arc<Farewell>) {
        let mut seats = self.seats.lock();
        if let Some(seat) = seats.get_mut(&farewell.identifier)
            && seat.owed.as_ref().is_some_and(|owed| Arc::ptr_eq(owed, farewell))
        {
            seat.owed = None;
            if seat.taken_by.is_none() {
                seats.remove(&farewell.identifier);
            }
        }
        drop(seats);
        self.said.notify_waiters();
    }

    /// How many are owed.
    pub(crate) fn owed(&self) -> usize {
        self.seats.lock().values().filter(|seat| seat.owed.is_some()).count()
    }

    /// Waits until all are said.
    pub(crate) async fn all_said(&self) {
        loop {
            let said = self.said.notified();
            tokio::pin!(said);
            said.as_mut().enable();
            if self.owed() == 0 {
                return;
            }
            said.await;
        }
    }
}

/// A client on its way in.
pub(crate) struct Entrance<'a> {
    farewells: &'a Farewells,
    identifier: Arc<str>,
    number: u64,
    before: Option<u64>,
    /// What is owed for the client before it.
    pub(crate) owed: Option<Arc<Farewell>>,
    is_in: bool,
}

impl Entrance<'_> {
    /// It is in: what was owed for the one before it is settled.
    pub(crate) fn settle(mut self) {
        self.is_in = true;
        if let Some(owed) = self.owed.take() {
            self.farewells.said(&owed);
        }
    }
}

impl Drop for Entrance<'_> {
    fn drop(&mut self) {
        if self.is_in {
            return;
        }
        let mut seats = self.farewells.seats.lock();
        if let Some(seat) = seats.get_mut(&self.identifier).filter(|seat| seat.taken_by == Some(self.number))
        {
            seat.taken_by = self.before;
            if seat.taken_by.is_none() && seat.owed.is_none() {
                seats.remove(&self.identifier);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::{self, Dial};
    use crate::options::{MqttOptions, VersionChoice};

    fn farewell(keep: u32, held: u32) -> Arc<Farewell> {
        let options = MqttOptions::new("mqtt://127.0.0.1:1884", "here");
        let dial = Dial::new(options.place().unwrap(), None, VersionChoice::V5);
        let how = house::introduction(&dial, &options, "device".into());
        let left = Left { keep, held, version: Version::V5, will_stands: false };
        Farewell::new("device".into(), left, 1_000, how)
    }

    #[test]
    fn a_session_is_ended_when_its_time_is_over_and_else_kept_for_the_rest() {
        let ended = farewell(0, 300);
        assert!(ended.is_over(1_000) && ended.introduction(1_000).fresh);
        assert!(!ended.is_forgotten(301_000) && ended.is_forgotten(302_000), "the broker's time for it");
        let short = farewell(60, 300);
        let how = short.introduction(11_000);
        assert_eq!((how.fresh, how.session_expiry, short.is_over(11_000)), (false, 50, false));
        assert!(short.is_over(61_000) && short.introduction(61_000).fresh);
        let lasting = farewell(FOREVER, 300);
        assert_eq!(lasting.introduction(u64::MAX).session_expiry, FOREVER);
    }

    #[test]
    fn the_broker_is_told_what_it_does_not_know() {
        let left = |keep, held, version, will_stands| Left { keep, held, version, will_stands }.owes();
        assert!(left(0, 300, Version::V5, false) && left(3600, 300, Version::V5, false));
        assert!(!left(3600, 3600, Version::V5, false) && left(3600, 3600, Version::V5, true));
        assert!(left(0, FOREVER, Version::V311, false) && !left(60, FOREVER, Version::V311, false));
    }

    #[test]
    fn a_successor_settles_what_is_owed_unless_it_is_not_let_in() {
        let farewells = Farewells::default();
        let name: Arc<str> = "device".into();
        farewells.enter(&name, 1).settle();
        let owed = farewell(0, 300);
        assert!(farewells.leave(&name, 1, Some(Arc::clone(&owed))));
        drop(farewells.enter(&name, 2));
        assert!(farewells.is_owed(&owed), "it was not let in");
        farewells.enter(&name, 3).settle();
        assert!(!farewells.is_owed(&owed));
        assert!(!farewells.leave(&name, 1, Some(farewell(0, 300))), "another has its place");
        assert!(!farewells.leave(&name, 3, None));
        assert!(farewells.seats.lock().is_empty());
    }
}
