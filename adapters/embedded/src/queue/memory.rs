//! What a queue has in memory, and what of it the log alone keeps when that becomes too much.

use std::sync::Arc;

use linkspan_queues::Window;

use super::{Queue, State};
use crate::budget::Budget;

/// What a message costs beside its bytes while it is ready.
const OVERHEAD: u64 = 112;

/// What of a queue's ready messages is in memory at most where a log keeps the rest.
const WINDOW: Window = Window { messages: 64 << 10, bytes: Budget::MOST };

/// The same of a session's queue: one that is away, and there may be many, holds little.
const INBOX_WINDOW: Window = Window { messages: 1 << 10, bytes: 256 << 10 };

/// Bytes that are written at a time of what was in memory alone.
const PIECE: u64 = 1 << 20;

/// The most that a queue has in memory.
pub(super) const fn widest(is_inbox: bool) -> Window {
    if is_inbox { INBOX_WINDOW } else { WINDOW }
}

impl Queue {
    /// Follows what the budget says that it may have in memory; true when that takes more than this.
    pub(super) fn fit(&self, state: &mut State) -> bool {
        let Some(budget) = &self.budget else { return false };
        state.engine.set_window(budget.window(widest(state.is_inbox)));
        state.engine.page_out(PIECE)
    }

    /// Tells the budget what it has, when that has changed much.
    pub(super) fn tell(self: &Arc<Self>, state: &mut State, bytes: u64) {
        if let Some(budget) = &self.budget
            && bytes.abs_diff(state.told) >= Budget::STEP
        {
            budget.tell(self, std::mem::replace(&mut state.told, bytes), bytes);
        }
    }

    /// It has nothing any more.
    pub(super) fn give_up(&self, state: &mut State) {
        if let Some(budget) = self.budget.as_ref().filter(|_| state.told > 0) {
            budget.leave(std::ptr::from_ref(self).addr(), std::mem::take(&mut state.told));
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let told = std::mem::take(&mut self.state.get_mut().told);
        if let Some(budget) = self.budget.as_ref().filter(|_| told > 0) {
            budget.leave(std::ptr::from_ref(self).addr(), told);
        }
    }
}

impl State {
    /// Bytes that it has in memory of what is ready.
    pub(super) fn in_memory(&self) -> u64 {
        let (messages, bytes) = self.engine.in_memory();
        bytes.saturating_add(messages.saturating_mul(OVERHEAD))
    }
}
