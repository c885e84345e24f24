//! Who has a queue of an exclusive consumer, who asks for it, and whose turn it is.

pub mod coordinator;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use linkspan_contract::{Fence, LaneEvent, LaneEvents, Refused};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::tenancy::{Over, Tenancy};

/// A queue: back end, vhost and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The back end.
    pub backend: Arc<str>,
    /// The vhost.
    pub vhost: Arc<str>,
    /// The queue.
    pub queue: Arc<str>,
}

/// The queues that one consumer at a time has, as far as clients of this instance ask for them.
#[derive(Default)]
pub struct Exclusives {
    posts: Mutex<HashMap<Place, Post>>,
    numbers: AtomicU64,
    /// Somebody has stopped presiding over a queue.
    closed: Notify,
}

/// One queue.
#[derive(Default)]
struct Post {
    applicants: Vec<Applicant>,
    /// Told of every change.
    changed: Arc<Notify>,
}

/// Somebody who asks for it.
struct Applicant {
    number: u64,
    /// Its client's identifier.
    client: Arc<str>,
    /// Lower ones come first.
    rank: u64,
    /// Higher ones come first.
    priority: i32,
    /// Else it is refused when it cannot have the queue at once.
    stands_by: bool,
    /// How long it may have something in hand without a word.
    patience: Option<Duration>,
    /// Told when the queue is offered to it, and when it is over.
    ear: Weak<dyn LaneEvents>,
    state: State,
}

enum State {
    Waits,
    /// It can have the queue, or has it.
    Offered(Arc<Tenancy>),
    /// It is to say something first.
    Silent,
    /// It cannot have it.
    Refused(Refused),
}

/// What a consumer asks for.
pub struct Terms {
    /// Its client's identifier.
    pub client: Arc<str>,
    /// Higher ones come first.
    pub priority: i32,
    /// It waits when somebody else has the queue.
    pub stands_by: bool,
    /// How long it may have something in hand without a word.
    pub patience: Option<Duration>,
}

/// A consumer's claim to a queue, until it is dropped.
pub struct Application {
    exclusives: Arc<Exclusives>,
    place: Place,
    number: u64,
}

impl Exclusives {
    /// Asks for a queue. `ear` is told when it is offered. True when nobody presides over the queue yet: the caller has to
    /// see that somebody does.
    ///
    /// # Errors
    /// When somebody else asks for it and the applicant does not stand by.
    pub fn apply(
        self: &Arc<Self>,
        place: &Place,
        terms: &Terms,
        ear: &Arc<dyn LaneEvents>,
    ) -> Result<(Application, bool), Refused> {
        let mut posts = self.posts.lock();
        let is_new = !posts.contains_key(place);
        let post = posts.entry(place.clone()).or_default();
        if !terms.stands_by && !post.applicants.is_empty() {
            return Err(Refused::ExclusiveUse(place.queue.to_string()));
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        post.applicants.push(Applicant {
            number,
            client: Arc::clone(&terms.client),
            rank: number,
            priority: terms.priority,
            stands_by: terms.stands_by,
            patience: terms.patience,
            ear: Arc::downgrade(ear),
            state: State::Waits,
        });
        post.changed.notify_waiters();
        Ok((Application { exclusives: Arc::clone(self), place: place.clone(), number }, is_new))
    }

    /// Whose turn it is, by priority, then arrival, and how long it may be silent.
    fn next(&self, place: &Place) -> Option<(u64, Option<Duration>)> {
        let posts = self.posts.lock();
        let waiting = posts.get(place)?.applicants.iter().filter(|it| matches!(it.state, State::Waits));
        let first = waiting.min_by_key(|it| (Reverse(it.priority), it.rank))?;
        Some((first.number, first.patience))
    }

    /// Who here has a queue, and under which number.
    pub fn holder(&self, place: &Place) -> Option<(Arc<str>, Fence)> {
        let posts = self.posts.lock();
        posts.get(place)?.applicants.iter().find_map(|applicant| match &applicant.state {
            State::Offered(tenancy) if tenancy.is_served() && tenancy.over().is_none() => {
                Some((Arc::clone(&applicant.client), tenancy.fence))
            }
            _ => None,
        })
    }

    /// Forgets a queue that nobody asks for; false when somebody does.
    fn forget(&self, place: &Place) -> bool {
        let mut posts = self.posts.lock();
        let is_over = posts.get(place).is_none_or(|post| post.applicants.is_empty());
        if is_over {
            posts.remove(place);
            self.closed.notify_waiters();
        }
        is_over
    }

    /// What is told when something changes.
    fn changed(&self, place: &Place) -> Option<Arc<Notify>> {
        self.posts.lock().get(place).map(|post| Arc::clone(&post.changed))
    }

    /// Offers the queue to an applicant; false when it is gone.
    fn offer(&self, place: &Place, number: u64, tenancy: &Arc<Tenancy>) -> bool {
        self.with(place, number, |applicant| applicant.state = State::Offered(Arc::clone(tenancy)))
    }

    /// The queue cannot be had here now: who does not stand by is refused.
    fn refuse(&self, place: &Place, refused: &Refused) {
        let mut posts = self.posts.lock();
        let Some(post) = posts.get_mut(place) else { return };
        for applicant in post.applicants.iter_mut().filter(|it| !it.stands_by) {
            applicant.state = State::Refused(refused.clone());
        }
        post.changed.notify_waiters();
    }

    /// Somebody's time with a queue is over.
    fn vacate(&self, place: &Place, number: u64, over: Over) {
        let behind = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.with(place, number, |applicant| {
            // It has had the queue: now it waits as who stands by, behind the others.
            applicant.stands_by = true;
            applicant.state = if over == Over::Silent { State::Silent } else { State::Waits };
            applicant.rank = behind;
        });
    }

    /// Changes an applicant, and tells it and who presides.
    fn with(&self, place: &Place, number: u64, change: impl FnOnce(&mut Applicant)) -> bool {
        let ear = {
            let mut posts = self.posts.lock();
            let Some(post) = posts.get_mut(place) else { return false };
            let Some(applicant) = post.applicants.iter_mut().find(|it| it.number == number) else {
                return false;
            };
            change(applicant);
            let ear = applicant.ear.upgrade();
            post.changed.notify_waiters();
            ear
        };
        if let Some(ear) = ear {
            ear.event(LaneEvent::Changed);
        }
        true
    }

    /// Waits until nobody asks for anything any more.
    pub async fn closed(&self) {
        loop {
            let closed = self.closed.notified();
            if self.posts.lock().is_empty() {
                return;
            }
            closed.await;
        }
    }
}

impl Application {
    /// What it has been offered, if anything, or why it cannot have the queue.
    pub fn offer(&self) -> Option<Result<Arc<Tenancy>, Refused>> {
        let posts = self.exclusives.posts.lock();
        let applicants = &posts.get(&self.place)?.applicants;
        match &applicants.iter().find(|it| it.number == self.number)?.state {
            State::Offered(tenancy) => Some(Ok(Arc::clone(tenancy))),
            State::Refused(refused) => Some(Err(refused.clone())),
            State::Waits | State::Silent => None,
        }
    }

    /// The same, as soon as there is an answer.
    pub async fn answer(&self) -> Result<Arc<Tenancy>, Refused> {
        loop {
            let Some(changed) = self.exclusives.changed(&self.place) else {
                return Err(Refused::Away(self.place.queue.to_string()));
            };
            let notified = changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if let Some(answer) = self.offer() {
                return answer;
            }
            notified.await;
        }
    }

    /// It was silent and has said something: it waits with the others again.
    pub fn was_heard(&self) {
        self.exclusives.with(&self.place, self.number, |applicant| {
            if matches!(applicant.state, State::Silent) {
                applicant.state = State::Waits;
            }
        });
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let mut posts = self.exclusives.posts.lock();
        let Some(post) = posts.get_mut(&self.place) else { return };
        if let Some(at) = post.applicants.iter().position(|it| it.number == self.number) {
            let gone = post.applicants.swap_remove(at);
            if let State::Offered(tenancy) = &gone.state {
                tenancy.end(Over::Left);
            }
        }
        post.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Ear(AtomicUsize);

    impl LaneEvents for Ear {
        fn event(&self, _: LaneEvent) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Town {
        exclusives: Arc<Exclusives>,
        ears: Vec<Arc<Ear>>,
    }

    fn bids() -> Place {
        Place { backend: "local".into(), vhost: "/".into(), queue: "bids".into() }
    }

    impl Town {
        fn new() -> Self {
            Self { exclusives: Arc::default(), ears: Vec::new() }
        }

        fn apply(&mut self, stands_by: bool, priority: i32) -> Result<Application, Refused> {
            let ear = Arc::new(Ear::default());
            self.ears.push(Arc::clone(&ear));
            let terms = Terms { client: "one".into(), priority, stands_by, patience: None };
            let ear = ear as Arc<dyn LaneEvents>;
            Ok(self.exclusives.apply(&bids(), &terms, &ear)?.0)
        }

        /// Who is next is offered the queue.
        fn offer(&self) -> Arc<Tenancy> {
            let (number, _) = self.exclusives.next(&bids()).expect("somebody waits");
            let tenancy = Tenancy::of_test(number);
            assert!(self.exclusives.offer(&bids(), number, &tenancy));
            tenancy
        }

        fn told(&self, at: usize) -> usize {
            self.ears[at].0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn who_does_not_stand_by_is_refused_while_anybody_asks_for_the_queue() {
        let mut town = Town::new();
        let first = town.apply(false, 0).unwrap();
        assert_eq!(town.apply(false, 9).err(), Some(Refused::ExclusiveUse("bids".into())));
        drop(first);
        assert!(town.apply(false, 0).is_ok());
    }

    #[tokio::test]
    async fn the_first_by_priority_then_arrival_is_next_and_told() {
        let mut town = Town::new();
        let standing_by: Vec<_> = [0, 5, 5].map(|priority| town.apply(true, priority).unwrap()).into();
        let tenancy = town.offer();
        assert!(standing_by[1].offer().is_some_and(|offer| offer.is_ok()));
        assert!(standing_by[0].offer().is_none() && standing_by[2].offer().is_none());
        assert_eq!((town.told(0), town.told(1), town.told(2)), (0, 1, 0));
        drop(standing_by);
        assert_eq!(tenancy.over(), Some(Over::Left), "what it was offered is over with its claim");
        assert!(town.exclusives.next(&bids()).is_none() && town.exclusives.forget(&bids()));
    }

    #[tokio::test]
    async fn a_silent_one_is_not_next_before_it_has_said_something() {
        let mut town = Town::new();
        let one = town.apply(true, 0).unwrap();
        let (number, _) = town.exclusives.next(&bids()).unwrap();
        town.offer();
        town.exclusives.vacate(&bids(), number, Over::Silent);
        assert!(town.exclusives.next(&bids()).is_none());
        one.was_heard();
        assert_eq!(town.exclusives.next(&bids()).map(|(next, _)| next), Some(number));
    }

    #[tokio::test]
    async fn where_the_queue_cannot_be_had_only_who_does_not_stand_by_is_refused() {
        let mut town = Town::new();
        let one = town.apply(false, 0).unwrap();
        let refused = Refused::ExclusiveUse("bids".into());
        town.exclusives.refuse(&bids(), &refused);
        assert_eq!(one.answer().await.err(), Some(refused.clone()));
        drop(one);
        let stands_by = town.apply(true, 0).unwrap();
        town.exclusives.refuse(&bids(), &refused);
        assert!(stands_by.offer().is_none());
    }
}
