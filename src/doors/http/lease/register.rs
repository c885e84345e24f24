//! All leases of the door: whose each is, and which desk keeps it; and how many there may be.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::ask::Ask;
use super::id::{Name, Namer};
use crate::doors::http::translate::Problem;

/// How many leases there may be, and how long one may last and be waited for.
#[derive(Debug, Clone, Copy)]
pub struct LeaseLimits {
    /// Of all users; who waits for one counts.
    pub all: usize,
    /// Of one user.
    pub of_user: usize,
    /// Longest time that one is given, or extended by.
    pub longest: Duration,
    /// Longest time that one may be waited for.
    pub longest_wait: Duration,
}

/// The way to a desk.
pub(super) type Asking = mpsc::UnboundedSender<Ask>;

/// Whom a desk serves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// A queue's clients;
    pub(super) queue: Arc<str>,
    /// one user's, where one consumer at a time has the queue.
    pub(super) user: Option<Arc<str>>,
}

/// All of them.
pub(in crate::doors::http) struct Register {
    pub(super) limits: LeaseLimits,
    namer: Namer,
    arrivals: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    desks: HashMap<Place, Asking>,
    out: HashMap<u64, (Arc<str>, Asking)>,
    seats: HashMap<Arc<str>, usize>,
    taken: usize,
}

impl Register {
    pub(in crate::doors::http) fn new(limits: LeaseLimits) -> Arc<Self> {
        Arc::new(Self { limits, namer: Namer::new(), arrivals: AtomicU64::new(0), table: Mutex::default() })
    }

    /// A place among the leases of a user, for who waits and for what is out.
    ///
    /// # Errors
    /// When there is none left.
    pub(super) fn sit(self: &Arc<Self>, user: &Arc<str>) -> Result<Seat, Problem> {
        let LeaseLimits { all, of_user, .. } = self.limits;
        let mut table = self.table.lock();
        if table.taken >= all {
            return Err(Problem::too_many(format!(
                "there are {all} leases and requests that wait for one (doors.http.max-leases)"
            )));
        }
        let own = table.seats.entry(Arc::clone(user)).or_default();
        if *own >= of_user {
            return Err(Problem::too_many(format!(
                "user '{user}' has {of_user} leases and requests that wait for one (doors.http.max-leases-per-user)"
            )));
        }
        *own += 1;
        table.taken += 1;
        drop(table);
        Ok(Seat { register: Arc::downgrade(self), user: Arc::clone(user) })
    }

    /// A number above all that were drawn before.
    pub(super) fn arrive(&self) -> u64 {
        self.arrivals.fetch_add(1, Ordering::Relaxed)
    }

    /// The desk of a place; `open` is given the other end where there is none yet.
    pub(super) fn desk(
        &self,
        place: &Place,
        open: impl FnOnce(mpsc::UnboundedReceiver<Ask>, mpsc::WeakUnboundedSender<Ask>),
    ) -> Asking {
        let mut table = self.table.lock();
        if let Some(desk) = table.desks.get(place) {
            return desk.clone();
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "a lease is asked of a few times, and there are so many leases"
        )]
        let (desk, asks) = mpsc::unbounded_channel();
        open(asks, desk.downgrade());
        table.desks.insert(place.clone(), desk.clone());
        desk
    }

    /// A desk closes, unless it was asked something.
    pub(super) fn close(&self, place: &Place, asks: &mpsc::UnboundedReceiver<Ask>) -> bool {
        let mut table = self.table.lock();
        let idle = asks.is_empty();
        if idle {
            table.desks.remove(place);
        }
        idle
    }

    /// A user has a lease, kept at that desk.
    pub(super) fn issue(&self, user: &Arc<str>, desk: Asking) -> Name {
        let name = self.namer.name();
        self.table.lock().out.insert(name.number, (Arc::clone(user), desk));
        metrics::gauge!("linkspan_leases").increment(1);
        name
    }

    /// The lease is over.
    pub(super) fn forget(&self, lease: u64) {
        if self.table.lock().out.remove(&lease).is_some() {
            metrics::gauge!("linkspan_leases").decrement(1);
        }
    }

    /// The number of a lease, and its desk.
    ///
    /// # Errors
    /// When there never was one, or it is over, or another user's.
    pub(super) fn find(&self, name: &str, user: &str) -> Result<(u64, Asking), Problem> {
        let number = self.namer.read(name).ok_or_else(Problem::no_lease)?;
        let table = self.table.lock();
        let (owner, desk) = table.out.get(&number).ok_or_else(Problem::lease_over)?;
        if **owner != *user {
            return Err(Problem::foreign_lease());
        }
        Ok((number, desk.clone()))
    }
}

/// Counts one while it lives.
pub(super) struct Seat {
    register: Weak<Register>,
    user: Arc<str>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(register) = self.register.upgrade() else { return };
        let mut table = register.table.lock();
        table.taken = table.taken.saturating_sub(1);
        if let Some(own) = table.seats.get_mut(&self.user) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                table.seats.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(all: usize, of_user: usize) -> LeaseLimits {
        LeaseLimits { all, of_user, longest: Duration::from_secs(60), longest_wait: Duration::from_secs(60) }
    }

    #[test]
    fn a_user_has_so_many_leases_and_all_have_so_many() {
        let register = Register::new(limits(3, 2));
        let (ann, ben): (Arc<str>, Arc<str>) = ("ann".into(), "ben".into());
        let one = register.sit(&ann).ok();
        let two = register.sit(&ann).ok();
        assert!(one.is_some() && two.is_some() && register.sit(&ann).is_err());
        let three = register.sit(&ben).ok();
        assert!(three.is_some() && register.sit(&ben).is_err(), "all have three");
        drop(one);
        assert!(register.sit(&ann).is_ok(), "what was given back can be had again");
        drop((two, three));
        assert_eq!(register.table.lock().taken, 0);
        assert!(register.table.lock().seats.is_empty(), "users who have none cost nothing");
    }

    #[test]
    fn a_lease_is_its_users_alone_and_once_over_it_stays_so() {
        let register = Register::new(limits(9, 9));
        let mut end = None;
        let desk = register.desk(&Place { queue: "jobs".into(), user: None }, |asks, _| end = Some(asks));
        let name = register.issue(&"ann".into(), desk);
        let text = name.to_string();
        assert!(register.find(&text, "ann").is_ok_and(|(number, _)| number == name.number));
        assert_eq!(register.find(&text, "ben").err(), Some(Problem::foreign_lease()));
        register.forget(name.number);
        assert_eq!(register.find(&text, "ann").err(), Some(Problem::lease_over()));
        assert_eq!(register.find("0", "ann").err(), Some(Problem::no_lease()));
    }

    #[test]
    fn a_desk_that_was_asked_something_does_not_close() {
        let register = Register::new(limits(9, 9));
        let place = Place { queue: "jobs".into(), user: None };
        let mut end = None;
        let desk = register.desk(&place, |asks, _| end = Some(asks));
        let asks = end.unwrap();
        desk.send(Ask::Leave(1)).unwrap();
        assert!(!register.close(&place, &asks));
        let again = register.desk(&place, |_, _| panic!("there is one"));
        assert!(again.same_channel(&desk));
        drop(asks);
    }
}
