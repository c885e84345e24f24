//! One connection of Linkspan's to the broker, as those see it who use it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use lapin::{Channel, Connection};
use linkspan_contract::{LaneEvent, Refused};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::declared::Declared;
use crate::origin::Origin;
use crate::translate::refused;

/// A connection that comes and goes.
pub(crate) struct Upstream {
    pub(crate) backend: Arc<str>,
    /// For people, and for the broker's own lists.
    pub(crate) name: String,
    link: watch::Sender<Link>,
    /// It is to end.
    pub(crate) closing: Notify,
    closed: AtomicBool,
    /// What is published for the users of a consuming one goes this way.
    publishing: OnceLock<Arc<Upstream>>,
    lanes: AtomicUsize,
    blocked: Mutex<Option<Arc<str>>>,
    origins: Mutex<Vec<Weak<Origin>>>,
    declared: Mutex<Vec<Weak<Declared>>>,
    idle: Mutex<Vec<(u64, Channel)>>,
    /// What subscribers here are sent comes by this connection: whether all that they asked for is asked of the broker.
    watched: watch::Sender<bool>,
}

/// How a connection is.
#[derive(Clone)]
pub(crate) enum Link {
    /// Not there, and why.
    Down(Arc<str>),
    /// There.
    Up(Arc<Live>),
    /// Never again.
    Closed,
}

/// A connection as long as it lasts.
pub(crate) struct Live {
    /// Grows with each.
    pub(crate) generation: u64,
    pub(crate) connection: Connection,
}

impl Live {
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }
}

/// Channels for requests that are kept open.
const IDLE: usize = 8;

impl Upstream {
    pub(crate) fn new(backend: Arc<str>, name: String) -> Arc<Self> {
        let (link, _) = watch::channel(Link::Down("it was not reached yet".into()));
        Arc::new(Self {
            backend,
            name,
            link,
            closing: Notify::new(),
            closed: AtomicBool::new(false),
            publishing: OnceLock::new(),
            lanes: AtomicUsize::new(0),
            blocked: Mutex::default(),
            origins: Mutex::default(),
            declared: Mutex::default(),
            idle: Mutex::default(),
            watched: watch::Sender::new(false),
        })
    }

    pub(crate) fn set(&self, link: Link) {
        if !matches!(link, Link::Up(_)) {
            self.idle.lock().clear();
            self.unblock();
        }
        self.link.send_if_modified(|now| {
            let stays = matches!(now, Link::Closed);
            if !stays {
                *now = link;
            }
            !stays
        });
    }

    pub(crate) fn link(&self) -> Link {
        self.link.borrow().clone()
    }

    /// The connection when it is there now.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        match &*self.link.borrow() {
            Link::Up(live) if live.is_connected() => Some(Arc::clone(live)),
            _ => None,
        }
    }

    /// Waits for a connection after the one of that generation; none when there will be none.
    pub(crate) async fn after(&self, generation: u64) -> Option<Arc<Live>> {
        let mut link = self.link.subscribe();
        let up = |link: &Link| match link {
            Link::Up(live) => live.generation > generation,
            Link::Closed => true,
            Link::Down(_) => false,
        };
        match &*link.wait_for(up).await.ok()? {
            Link::Up(live) => Some(Arc::clone(live)),
            _ => None,
        }
    }

    /// Says whether the queue of subscribers here is bound as they want it, or cannot be.
    pub(crate) fn set_watched(&self, is_watched: bool) {
        self.watched.send_replace(is_watched);
    }

    /// Waits until it is.
    pub(crate) async fn watched(&self) {
        if self.watched.subscribe().wait_for(|is_watched| *is_watched).await.is_err() {
            tracing::debug!(upstream = self.name, "nobody subscribes any more");
        }
    }

    /// Waits until the connection of that generation is gone.
    pub(crate) async fn gone(&self, generation: u64) {
        let mut link = self.link.subscribe();
        let is_gone = |link: &Link| !matches!(link, Link::Up(live) if live.generation == generation);
        if link.wait_for(is_gone).await.is_err() {
            tracing::debug!(upstream = self.name, "the connection ended with its back end");
        }
    }

    /// True when it is not there now.
    pub(crate) fn is_down(&self) -> bool {
        self.live().is_none()
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.closing.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// How many clients use it.
    pub(crate) fn load(&self) -> usize {
        self.lanes.load(Ordering::Relaxed)
    }

    pub(crate) fn join(&self, declared: &Arc<Declared>) {
        self.lanes.fetch_add(1, Ordering::Relaxed);
        note(&mut self.declared.lock(), declared);
    }

    pub(crate) fn leave(&self) {
        self.lanes.fetch_sub(1, Ordering::Relaxed);
    }

    /// What clients have declared, to be declared again.
    pub(crate) fn declared(&self) -> Vec<Arc<Declared>> {
        self.declared.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Tells a lane when the broker takes nothing.
    pub(crate) fn listen(&self, origin: &Arc<Origin>) {
        note(&mut self.origins.lock(), origin);
    }

    pub(crate) fn block(&self, reason: &str) {
        let reason: Arc<str> = reason.into();
        *self.blocked.lock() = Some(Arc::clone(&reason));
        for origin in self.origins() {
            origin.event(LaneEvent::Blocked(Arc::clone(&reason)));
        }
    }

    pub(crate) fn unblock(&self) {
        if self.blocked.lock().take().is_none() {
            return;
        }
        for origin in self.origins() {
            origin.event(LaneEvent::Unblocked);
            origin.gauge.wake();
        }
    }

    fn origins(&self) -> Vec<Arc<Origin>> {
        self.origins.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Why the broker takes nothing now, when it does not.
    pub(crate) fn blocked(&self) -> Option<Arc<str>> {
        self.blocked.lock().clone()
    }

    /// Has what is published for users of this one go by another.
    pub(crate) fn publish_by(&self, publishing: &Arc<Self>) {
        let _ = self.publishing.set(Arc::clone(publishing));
    }

    /// The way for what is published for users of this one, unless the broker takes nothing now.
    pub(crate) fn publishing(&self) -> Option<&Arc<Self>> {
        self.publishing.get().filter(|publishing| publishing.blocked().is_none())
    }

    /// Carries out a request on a channel that nothing else is on: when the broker refuses, it closes no other.
    ///
    /// # Errors
    /// What the broker said, or that it is away.
    pub(crate) async fn request<T>(
        &self,
        what: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
    ) -> Result<T, Refused> {
        let live = self.live().ok_or_else(|| Refused::Away(self.backend.to_string()))?;
        self.request_on(&live, what).await.map_err(|error| refused(&error, &self.backend))
    }

    /// The same on a connection that may not have been announced yet.
    pub(crate) async fn request_on<T>(
        &self,
        live: &Live,
        what: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
    ) -> lapin::Result<T> {
        let idle = {
            let mut idle = self.idle.lock();
            idle.retain(|(generation, channel)| {
                *generation == live.generation && channel.status().connected()
            });
            idle.pop()
        };
        let channel = match idle {
            Some((_, channel)) => channel,
            None => live.connection.create_channel().await?,
        };
        let done = what(&channel).await?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE {
            idle.push((live.generation, channel));
        }
        Ok(done)
    }
}

fn note<T>(all: &mut Vec<Weak<T>>, one: &Arc<T>) {
    if all.len() == all.capacity() {
        all.retain(|other| other.strong_count() > 0);
        let live = all.len();
        all.shrink_to(live.saturating_mul(2));
        all.reserve(live.saturating_add(1));
    }
    all.push(Arc::downgrade(one));
}

/// The time before the attempt after one that had to wait for `last`: twice as long, within bounds, and not the same for
/// all who lost their connection at the same moment.
pub(crate) fn next_wait(last: Duration, most: Duration, random: u64) -> (Duration, Duration) {
    let next = last.saturating_mul(2).min(most);
    let share = u32::try_from(random % 500).unwrap_or(0);
    (next, last.saturating_mul(500 + share) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_made_less_often_and_never_in_step() {
        let (most, mut last) = (Duration::from_secs(1), Duration::from_millis(100));
        for expected in [100, 200, 400, 800, 1000, 1000] {
            assert_eq!(last, Duration::from_millis(expected));
            let (next, shortest) = next_wait(last, most, 0);
            let (_, longest) = next_wait(last, most, 499);
            assert!(shortest == last / 2 && longest < last && longest > last * 99 / 100);
            last = next;
        }
    }
}
