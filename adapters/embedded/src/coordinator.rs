//! Looks at queues when something in them becomes due, and wakes publishers that were held long enough.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use linkspan_contract::{Clock, Millis};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::outlet::Touched;
use crate::queue::Queue;

/// One task that sleeps until the earliest time, and ends when there is none.
pub(crate) struct Coordinator {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    earlier: Notify,
}

#[derive(Default)]
struct State {
    due: BTreeMap<(Millis, u64), Due>,
    next: u64,
    runs: bool,
    closed: bool,
}

enum Due {
    Queue(Weak<Queue>),
    Publisher(Waker),
}

impl Coordinator {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, state: Mutex::default(), earlier: Notify::new() })
    }

    /// Has a queue looked at. Its own lock may be held.
    pub(crate) fn look_at(self: &Arc<Self>, queue: &Arc<Queue>, at: Millis) {
        self.add(Due::Queue(Arc::downgrade(queue)), at);
    }

    /// Has a publisher's task look again.
    pub(crate) fn wake(self: &Arc<Self>, publisher: &Waker, at: Millis) {
        self.add(Due::Publisher(publisher.clone()), at);
    }

    fn add(self: &Arc<Self>, due: Due, at: Millis) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        let is_first = state.due.first_key_value().is_none_or(|((first, _), _)| at < *first);
        state.next += 1;
        let number = state.next;
        state.due.insert((at, number), due);
        if state.runs {
            if is_first {
                self.earlier.notify_one();
            }
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            state.runs = true;
            runtime.spawn(Arc::clone(self).run());
        }
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
            while let Some(due) = self.pop(now) {
                match due {
                    Due::Publisher(waker) => waker.wake(),
                    Due::Queue(queue) => {
                        if let Some(queue) = queue.upgrade() {
                            queue.tick(now, &mut touched);
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

    fn pop(&self, now: Millis) -> Option<Due> {
        let mut state = self.state.lock();
        let first = state.due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// When to look next; the task ends when there is nothing to look at.
    fn next_or_end(&self) -> Option<Millis> {
        let mut state = self.state.lock();
        let next = state.due.first_key_value().map(|((at, _), _)| *at);
        state.runs = next.is_some();
        next
    }
}
