//! Who has a queue of an exclusive consumer, and who stands by.

pub mod coordinator;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use linkspan_contract::{Fence, LaneEvent, LaneEvents, Refused};
use parking_lot::Mutex;

use super::tenancy::Tenancy;
use crate::routes::Others;

/// A queue: vhost and name.
pub type Place = (Arc<str>, Arc<str>);

/// The queues that one consumer at a time has, as far as clients of this instance ask for them.
#[derive(Default)]
pub struct Exclusives {
    posts: Mutex<HashMap<Place, Post>>,
    applications: AtomicU64,
}

/// One queue.
#[derive(Default)]
struct Post {
    holder: Option<Holder>,
    /// In no order.
    standing_by: Vec<StandingBy>,
    /// Another instance has it, as far as is known: nobody here is asked.
    is_elsewhere: bool,
}

/// Who has it here.
struct Holder {
    number: u64,
    /// None while it still gets ready.
    tenancy: Option<Arc<Tenancy>>,
    by: StandingBy,
}

/// Somebody who wants it.
struct StandingBy {
    number: u64,
    /// Higher ones come first.
    priority: i32,
    /// Told when it is its turn, or when it is over.
    ear: Weak<dyn LaneEvents>,
}

/// A consumer's claim to a queue, until it is dropped.
pub struct Application {
    exclusives: Arc<Exclusives>,
    place: Place,
    number: u64,
}

impl Exclusives {
    /// Asks for a queue. Whether it is the applicant's turn says [`Application::is_chosen`]; `ear` is told when it becomes so.
    ///
    /// # Errors
    /// When somebody has it, and there is no standing by.
    pub fn apply(
        self: &Arc<Self>,
        place: &Place,
        others: Others,
        priority: i32,
        ear: &Arc<dyn LaneEvents>,
    ) -> Result<Application, Refused> {
        let mut posts = self.posts.lock();
        let post = posts.entry(place.clone()).or_default();
        let is_taken = post.holder.is_some() || !post.standing_by.is_empty();
        if others == Others::Reject && is_taken {
            return Err(Refused::ExclusiveUse(place.1.to_string()));
        }
        let number = self.applications.fetch_add(1, Ordering::Relaxed);
        post.standing_by.push(StandingBy { number, priority, ear: Arc::downgrade(ear) });
        // Who asks looks itself: nobody need be told.
        post.choose();
        Ok(Application { exclusives: Arc::clone(self), place: place.clone(), number })
    }

    /// Whether clients here stand by for queues that nobody here has: their leases are to be asked for.
    fn wanted(&self) -> Vec<Place> {
        let posts = self.posts.lock();
        let is_wanted = |post: &Post| post.holder.is_none() && !post.standing_by.is_empty();
        posts.iter().filter(|(_, post)| is_wanted(post)).map(|(place, _)| place.clone()).collect()
    }

    /// The queues that somebody here has.
    fn held(&self) -> Vec<(Place, Arc<Tenancy>)> {
        let posts = self.posts.lock();
        let held = posts.iter().filter_map(|(place, post)| {
            Some((place.clone(), Arc::clone(post.holder.as_ref()?.tenancy.as_ref()?)))
        });
        held.collect()
    }

    /// Who here has a queue, and under which number.
    pub fn holder(&self, place: &Place) -> Option<(Arc<str>, Fence)> {
        let posts = self.posts.lock();
        let tenancy = posts.get(place)?.holder.as_ref()?.tenancy.as_ref()?;
        Some((Arc::clone(&tenancy.client), tenancy.fence))
    }

    /// Whether anybody here has the queue, or is about to.
    fn has(&self, place: &Place) -> bool {
        self.posts.lock().get(place).is_some_and(|post| post.holder.is_some())
    }

    /// This instance may have the queue now.
    fn is_here(&self, place: &Place) {
        let ear = {
            let mut posts = self.posts.lock();
            posts.get_mut(place).and_then(|post| {
                post.is_elsewhere = false;
                post.choose()
            })
        };
        tell(ear);
    }

    /// Its holder has lost it, whatever it thinks; it may stand by.
    fn oust(&self, place: &Place, tenancy: &Arc<Tenancy>, is_elsewhere: bool) {
        tenancy.end();
        let (ousted, chosen) = {
            let mut posts = self.posts.lock();
            let Some(post) = posts.get_mut(place) else { return };
            let is_it =
                |holder: &mut Holder| holder.tenancy.as_ref().is_some_and(|held| Arc::ptr_eq(held, tenancy));
            let Some(holder) = post.holder.take_if(is_it) else { return };
            post.is_elsewhere = is_elsewhere;
            (holder.by.ear.upgrade(), post.choose())
        };
        // It finds out for itself, and asks again.
        tell(ousted);
        tell(chosen);
    }
}

fn tell(ear: Option<Arc<dyn LaneEvents>>) {
    if let Some(ear) = ear {
        ear.event(LaneEvent::Changed);
    }
}

impl Post {
    /// Chooses the first by priority, then arrival, when nobody has it.
    fn choose(&mut self) -> Option<Arc<dyn LaneEvents>> {
        if self.holder.is_some() || self.is_elsewhere {
            return None;
        }
        let first =
            self.standing_by.iter().enumerate().max_by_key(|(_, it)| (it.priority, Reverse(it.number)));
        let by = self.standing_by.swap_remove(first?.0);
        let ear = by.ear.upgrade();
        self.holder = Some(Holder { number: by.number, tenancy: None, by });
        ear
    }
}

impl Application {
    /// Whether it is the applicant's turn to get ready.
    pub fn is_chosen(&self) -> bool {
        let posts = self.exclusives.posts.lock();
        let holder = posts.get(&self.place).and_then(|post| post.holder.as_ref());
        holder.is_some_and(|holder| holder.number == self.number && holder.tenancy.is_none())
    }

    /// It has the queue.
    pub fn hold(&self, tenancy: &Arc<Tenancy>) {
        let mut posts = self.exclusives.posts.lock();
        let holder = posts.get_mut(&self.place).and_then(|post| post.holder.as_mut());
        if let Some(holder) = holder.filter(|holder| holder.number == self.number) {
            holder.tenancy = Some(Arc::clone(tenancy));
        }
    }

    /// It cannot have the queue now, because another instance has it or nobody can say: it stands by, as all others here.
    pub fn step_back(&self) {
        let mut posts = self.exclusives.posts.lock();
        let Some(post) = posts.get_mut(&self.place) else { return };
        post.is_elsewhere = true;
        if let Some(holder) = post.holder.take_if(|holder| holder.number == self.number) {
            post.standing_by.push(holder.by);
        }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let chosen = {
            let mut posts = self.exclusives.posts.lock();
            let Some(post) = posts.get_mut(&self.place) else { return };
            post.standing_by.retain(|it| it.number != self.number);
            post.holder.take_if(|holder| holder.number == self.number);
            let chosen = post.choose();
            if post.holder.is_none() && post.standing_by.is_empty() {
                posts.remove(&self.place);
            }
            chosen
        };
        tell(chosen);
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

    impl Town {
        fn new() -> Self {
            Self { exclusives: Arc::default(), ears: Vec::new() }
        }

        fn apply(&mut self, others: Others, priority: i32) -> Result<Application, Refused> {
            let ear = Arc::new(Ear::default());
            self.ears.push(Arc::clone(&ear));
            let place = ("/".into(), "bids".into());
            let application = self.exclusives.apply(&place, others, priority, &(ear as Arc<dyn LaneEvents>));
            application
        }

        fn told(&self, at: usize) -> usize {
            self.ears[at].0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let mut town = Town::new();
        let first = town.apply(Others::Reject, 0).unwrap();
        assert!(first.is_chosen());
        assert_eq!(town.apply(Others::Reject, 9).err(), Some(Refused::ExclusiveUse("bids".into())));
        drop(first);
        assert!(town.apply(Others::Reject, 0).unwrap().is_chosen());
        assert!(town.exclusives.posts.lock().is_empty(), "nobody is left");
    }

    #[test]
    fn the_first_by_priority_then_arrival_takes_over_and_is_told() {
        let mut town = Town::new();
        let holder = town.apply(Others::StandBy, 0).unwrap();
        let standing_by: Vec<_> =
            [0, 5, 5].into_iter().map(|priority| town.apply(Others::StandBy, priority).unwrap()).collect();
        assert!(standing_by.iter().all(|it| !it.is_chosen()));
        drop(holder);
        assert_eq!(standing_by.iter().map(Application::is_chosen).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!((town.told(2), town.told(1), town.told(3)), (1, 0, 0));
    }

    #[test]
    fn while_another_instance_has_it_nobody_is_chosen() {
        let mut town = Town::new();
        let one = town.apply(Others::StandBy, 0).unwrap();
        one.step_back();
        let two = town.apply(Others::StandBy, 0).unwrap();
        assert!(!one.is_chosen() && !two.is_chosen());
        let place = ("/".into(), "bids".into());
        assert_eq!(town.exclusives.wanted(), [place]);
        town.exclusives.is_here(&("/".into(), "bids".into()));
        assert!(one.is_chosen(), "it came first");
        assert_eq!(town.told(0), 1);
    }
}
