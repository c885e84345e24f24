//! Sessions that share a shared subscription's queue and outlive the process, and the queue with them.

use std::sync::Arc;

use linkspan_queues::log::Lsn;

use super::Queue;
use crate::archive::NotTaken;

impl Queue {
    /// True when it outlives the process.
    pub(crate) fn is_kept(&self) -> bool {
        self.state.lock().engine.journal().is_durable()
    }

    /// True when it outlives the process because of this session, among others.
    pub(crate) fn has_kept_member(&self, member: &str) -> bool {
        let state = self.state.lock();
        state.engine.journal().is_durable() && state.members.contains(member)
    }

    /// True when this session is one of those that share it.
    pub(crate) fn has_member(&self, member: &str) -> bool {
        self.state.lock().members.contains(member)
    }

    /// Those sessions.
    pub(crate) fn members(&self) -> Vec<Arc<str>> {
        self.state.lock().members.iter().cloned().collect()
    }

    /// A session is going to share it.
    pub(crate) fn expect_member(&self, member: &Arc<str>) {
        self.state.lock().members.insert(Arc::clone(member));
    }

    /// It outlives the process from now on, with what is in it.
    pub(crate) fn keep(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let Some(desk) = state.engine.journal_mut().desk() else { return };
        if !desk.keep() {
            state.engine.keep_all();
            state.write(self);
        }
    }

    /// Writes down that a session shares it, and tells where that ends in the log.
    ///
    /// # Errors
    /// When the log does not take it.
    pub(crate) fn note_member(self: &Arc<Self>, member: &str) -> Result<Lsn, NotTaken> {
        let mut state = self.state.lock();
        if let Some(desk) = state.engine.journal_mut().desk() {
            desk.note_member(member);
        }
        state.written = 0;
        if state.write(self) { Ok(state.written) } else { Err(NotTaken) }
    }

    /// A session does not share it any more.
    pub(crate) fn forget_member(self: &Arc<Self>, member: &str) -> Lsn {
        let mut state = self.state.lock();
        if !state.members.remove(member) {
            return 0;
        }
        if let Some(desk) = state.engine.journal_mut().desk() {
            desk.forget_member(member);
        }
        state.written = 0;
        state.write(self);
        state.written
    }
}
