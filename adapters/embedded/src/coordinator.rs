//! Looks at queues when something in them becomes due, and wakes publishers that were held long enough.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use linkspan_contract::{Clock, Millis};
use linkspan_queues::log::LogError;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::archive::Archive;
use crate::outlet::Touched;
use crate::postponed::Postponed;
use crate::queue::Queue;
use crate::register::Register;
use crate::vhost::Vhost;

/// What is to be done stands at a time, under a number of its own.
pub(crate) type Place = (Millis, u64);

/// One task that sleeps until the earliest time, and ends when there is none.
pub(crate) struct Coordinator {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    earlier: Notify,
    /// Where the task runs when somebody asks from elsewhere.
    runtime: Option<Handle>,
}

#[derive(Default)]
struct State {
    due: BTreeMap<Place, Due>,
    next: u64,
    runs: bool,
    closed: bool,
}

enum Due {
    Queue(Weak<Queue>),
    Publisher(Waker),
    /// Dead letters that were to wait.
    Letters(Weak<Vhost>, Postponed),
}

impl Coordinator {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let runtime = Handle::try_current().ok();
        Arc::new(Self { clock, state: Mutex::default(), earlier: Notify::new(), runtime })
    }

    /// Has a queue looked at, and no more at the place that it had `before`; tells the new one. Its own lock may be held.
    pub(crate) fn look_at(
        self: &Arc<Self>,
        queue: &Arc<Queue>,
        at: Millis,
        before: Option<Place>,
    ) -> Option<Place> {
        self.add(Due::Queue(Arc::downgrade(queue)), at, before)
    }

    /// Has a publisher's task look again.
    pub(crate) fn wake(self: &Arc<Self>, publisher: &Waker, at: Millis) {
        self.add(Due::Publisher(publisher.clone()), at, None);
    }

    /// Has dead letters published that were to wait.
    pub(crate) fn bury(self: &Arc<Self>, vhost: &Arc<Vhost>, letters: Postponed, at: Millis) {
        self.add(Due::Letters(Arc::downgrade(vhost), letters), at, None);
    }

    fn add(self: &Arc<Self>, due: Due, at: Millis, before: Option<Place>) -> Option<Place> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        if let Some(before) = before {
            state.due.remove(&before);
        }
        let is_first = state.due.first_key_value().is_none_or(|((first, _), _)| at < *first);
        state.next += 1;
        let place = (at, state.next);
        state.due.insert(place, due);
        if state.runs {
            if is_first {
                self.earlier.notify_one();
            }
        } else if let Some(runtime) = Handle::try_current().ok().as_ref().or(self.runtime.as_ref()) {
            state.runs = true;
            runtime.spawn(Arc::clone(self).run());
        }
        Some(place)
    }

    /// Nothing is looked at any more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.due.clear();
        self.earlier.notify_one();
    }

    async fn run(self: Arc<Self>) {
        loop {
            let now = self.clock.now();
            let mut touched = Touched::default();
            while let Some((place, due)) = self.pop(now) {
                match due {
                    Due::Publisher(waker) => waker.wake(),
                    Due::Letters(vhost, letters) => letters.go_on(&vhost, now, &mut touched),
                    Due::Queue(queue) => {
                        if let Some(queue) = queue.upgrade() {
                            queue.tick(place, now, &mut touched);
                        }
                    }
                }
            }
            touched.flush();
            let Some(next) = self.next_or_end() else { return };
            let wait = Duration::from_millis(next.saturating_sub(self.clock.now()));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    fn pop(&self, now: Millis) -> Option<(Place, Due)> {
        let mut state = self.state.lock();
        let first = state.due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove_entry())
    }

    /// When to look next; the task ends when there is nothing to look at.
    fn next_or_end(&self) -> Option<Millis> {
        let mut state = self.state.lock();
        let next = state.due.first_key_value().map(|((at, _), _)| *at);
        state.runs = next.is_some();
        next
    }
}

/// Reads the part of a body that holds the byte at `offset`, from there on, where waiting for the disk holds up nobody.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when it is damaged.
pub(crate) async fn read_body(archive: Arc<Archive>, number: u64, offset: u64) -> io::Result<Vec<u8>> {
    let read = tokio::task::spawn_blocking(move || archive.read_body(number, offset));
    read.await.map_err(io::Error::other)?.map_err(|error| match error {
        LogError::Damaged { .. } => io::Error::new(io::ErrorKind::InvalidData, error),
        error => io::Error::other(error),
    })
}

/// Has everything written, and gives the files free; false when that failed.
pub(crate) async fn close(register: Option<Arc<Register>>, archive: Option<Arc<Archive>>) -> bool {
    let closed = tokio::task::spawn_blocking(move || {
        if let Some(register) = register {
            register.close();
        }
        if let Some(archive) = archive {
            archive.close();
        }
    });
    closed.await.is_ok()
}

#[cfg(test)]
mod tests {
    use linkspan_contract::conformance::clocks::SetClock;
    use linkspan_contract::conformance::letters::Letters;
    use linkspan_contract::{QueueSpec, TargetId, Value};

    use super::*;
    use crate::house::House;
    use crate::options::EmbeddedOptions;

    #[test]
    fn a_queue_stands_at_one_place_however_often_its_next_time_changes() {
        let clock = Arc::new(SetClock::at(1));
        let house = Arc::new(House::new("local", EmbeddedOptions::default(), Arc::clone(&clock) as _, None));
        let vhost = Arc::new(Vhost::new("/".into(), Arc::clone(&house), None));
        let arguments = [("x-expires", Value::I32(3_600_000)), ("x-message-ttl", Value::I32(1))];
        let spec = QueueSpec { arguments: &arguments, ..QueueSpec::new("q") };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (_, queue) = runtime.block_on(vhost.declare_queue(&spec, 1)).unwrap();
        drop(runtime);
        let queue = queue.unwrap();
        let message = Letters::numbered(TargetId(0), [1]).batch().keep(0..1).kept(0).unwrap();
        for _ in 0..100 {
            queue.put(message.clone().into(), house.now(), &mut Touched::default());
            clock.pass(2);
            let now = clock.now();
            let (place, _) = house.coordinator.pop(now).unwrap();
            queue.tick(place, now, &mut Touched::default());
            assert_eq!(queue.depth().0, 0, "its time was over");
            assert_eq!(house.coordinator.state.lock().due.len(), 1);
        }
    }
}
