//! From a queue to the log, and what waits for it.

use std::sync::Arc;

use linkspan_contract::{Millis, Refused};
use linkspan_queues::log::Lsn;

use super::{Queue, State};
use crate::archive::NotTaken;

/// Milliseconds until a queue is looked at that may write again, or may not.
const MOMENT: Millis = 1;

impl Queue {
    /// What its messages of a priority are called in the log; none when it has ended.
    pub(crate) fn log_number(&self, priority: u8) -> Option<u64> {
        let mut state = self.state.lock();
        let desk = state.engine.journal_mut().desk()?;
        Some(desk.diary.number().saturating_add(priority.into()))
    }

    /// The disk takes writes again.
    pub(crate) fn write_again(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.write(self);
        drop(state);
        // What was to be brought in may have waited for that.
        self.let_go();
    }

    /// What a transaction has published here, or what was kept back, may be given out.
    pub(crate) fn let_go(self: &Arc<Self>) {
        self.state.lock().kept_back.told();
        self.look_soon();
    }

    /// Has the coordinator look at once at what may be given out. Takes no lock of the queue.
    pub(crate) fn look_soon(self: &Arc<Self>) {
        if let Some(vhost) = self.vhost() {
            vhost.house.coordinator.look_at(self, vhost.house.now(), None);
        }
    }

    /// The same, when others have had their turn.
    pub(crate) fn look_in_a_moment(self: &Arc<Self>) {
        if let Some(vhost) = self.vhost() {
            vhost.house.coordinator.look_at(self, vhost.house.now().saturating_add(MOMENT), None);
        }
    }
}

impl State {
    /// True while what was published here last is not to be given out.
    #[inline]
    pub(super) fn is_held(&mut self) -> bool {
        if self.held > 0
            && let Some(desk) = self.engine.journal_mut().desk()
            && desk.archive.is_settled(self.held)
        {
            self.held = 0;
            self.engine.hold(false);
        }
        self.held > 0
    }

    /// Hands what has changed to the log; false when that does not take it.
    #[inline]
    pub(super) fn write(&mut self, queue: &Arc<Queue>) -> bool {
        let journal = self.engine.journal_mut();
        match journal.write() {
            Ok(lsn) => self.written = lsn.unwrap_or(self.written),
            Err((NotTaken, lsn)) => {
                if journal.is_stuck() {
                    journal.ask_again(queue);
                }
                self.written = lsn.unwrap_or(self.written);
                return false;
            }
        }
        self.await_kept_back(queue);
        true
    }

    /// The place in the log of what [`write`](Self::write) could not write, known when it is written: it is not safe before.
    pub(super) fn place_to_come(&mut self) -> Lsn {
        let journal = self.engine.journal_mut();
        let stuck = journal.stuck();
        if stuck == 0 && journal.desk().is_some() {
            // The log was closed, and makes nothing safe any more.
            return Lsn::MAX;
        }
        stuck
    }

    /// Why a message that has to be written down is not taken.
    pub(super) fn unwritable(&mut self) -> Refused {
        let desk = self.engine.journal_mut().desk();
        Refused::Full(desk.map_or_else(String::new, |desk| desk.archive.why()))
    }
}
