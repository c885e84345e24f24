//! Dead letters that cannot be written down where they go: they lie in the log where they died until the disk takes writes.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Weak};

use linkspan_contract::Millis;
use linkspan_queues::log::Window;
use linkspan_queues::{DeadReason, Position};

use crate::archive::Archive;
use crate::dead_letter::DeadLetters;
use crate::outlet::Touched;
use crate::queue::Queue;
use crate::vhost::Vhost;
use crate::written::{self, Found};

/// Which they are; nothing of them is in memory.
#[derive(Debug, Default)]
pub(crate) struct Postponed {
    runs: VecDeque<Run>,
}

/// Neighbours that died of the same.
#[derive(Debug)]
struct Run {
    from: Arc<Queue>,
    priority: u8,
    positions: Range<Position>,
    reason: DeadReason,
}

/// Messages that are read at a time, and their bytes.
const MESSAGES: usize = 256;
const BYTES: u64 = 1 << 20;

/// Milliseconds that others have between two such reads; and that the disk has when it has much to do.
const PAUSE: Millis = 1;
const REST: Millis = 20;

impl Postponed {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// One more, that is in the log.
    pub(crate) fn add(&mut self, from: &Arc<Queue>, priority: u8, position: Position, reason: &DeadReason) {
        if let Some(last) = self.runs.back_mut()
            && last.positions.end == position
            && last.priority == priority
            && last.reason == *reason
            && Arc::ptr_eq(&last.from, from)
        {
            last.positions.end += 1;
            return;
        }
        let positions = position..position.saturating_add(1);
        self.runs.push_back(Run { from: Arc::clone(from), priority, positions, reason: reason.clone() });
    }

    /// Adds what others have postponed.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.runs.append(&mut other.runs);
    }

    /// Publishes some of them; the rest is postponed again, or comes to its turn soon.
    pub(crate) fn go_on(mut self, vhost: &Weak<Vhost>, now: Millis, touched: &mut Touched) {
        let Some(vhost) = vhost.upgrade() else { return };
        let Some(archive) = &vhost.house.archive else { return };
        if let Some(again) = archive.postpone(&vhost, self) {
            self = again;
        } else {
            return;
        }
        if !archive.is_congested() {
            let letters = self.read(archive);
            letters.bury(&vhost, now, touched);
        }
        if !self.is_empty() {
            let pause = if archive.is_congested() { REST } else { PAUSE };
            vhost.house.coordinator.bury(&vhost, self, now.saturating_add(pause));
        }
    }

    /// The next ones, out of the log.
    fn read(&mut self, archive: &Arc<Archive>) -> DeadLetters {
        let mut letters = DeadLetters::default();
        let Some(run) = self.runs.front_mut() else { return letters };
        let mut next = run.positions.end;
        if let Some(number) = run.from.log_number(run.priority) {
            let mut window = Window::new();
            archive.read(number, run.positions.start, MESSAGES, BYTES, &mut window);
            let last = window.messages().map(|read| read.sequence).last();
            next = last.map_or(next, |last| next.min(last.saturating_add(1)));
            written::read(&window, archive, |found| {
                if let Found::Message(message, _) = found
                    && run.positions.contains(&message.position)
                {
                    letters.add(&run.from, message, run.reason.clone());
                }
            });
        }
        run.positions.start = next;
        if run.positions.is_empty() {
            self.runs.pop_front();
        }
        letters
    }
}
