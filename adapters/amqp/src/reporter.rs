//! What people are told about a back end: one line for each change, however many connections it has.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::explain::Trouble;

/// The back end's state as it was last told.
#[derive(Debug)]
pub(crate) struct Reporter {
    name: Arc<str>,
    /// Connections that there are to be.
    all: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Connections that are there.
    up: usize,
    /// Whether it was logged that all are there.
    is_told_up: bool,
    /// Why they are not, as far as it was logged since.
    reasons: Vec<String>,
    /// One was there, and was lost since all were.
    is_loss: bool,
    /// Attempts that said nothing clear since the last that did.
    vague: usize,
}

/// So often each connection may fail without a clear word before that is told: within a second.
const VAGUE: usize = 3;

impl Reporter {
    pub(crate) fn new(name: Arc<str>, all: usize) -> Self {
        metrics::gauge!("linkspan_backend_up", "backend" => name.to_string()).set(0.0);
        Self { name, all, state: Mutex::default() }
    }

    /// A connection is there.
    pub(crate) fn up(&self, node: &str) {
        let mut state = self.state.lock();
        state.up += 1;
        if state.up == self.all && !std::mem::replace(&mut state.is_told_up, true) {
            tracing::info!(backend = &*self.name, node, "the back end is connected");
        }
        if state.is_loss {
            metrics::counter!("linkspan_backend_reconnects_total", "backend" => self.name.to_string())
                .increment(1);
        }
        self.gauge(&state);
    }

    /// A connection that was there is lost.
    pub(crate) fn lost(&self, why: &str) {
        let mut state = self.state.lock();
        state.up = state.up.saturating_sub(1);
        state.is_loss = true;
        self.tell(&mut state, why);
        self.gauge(&state);
    }

    /// A connection could not be made; why, as clear as is known. What is not clear is told only when nothing clearer comes.
    pub(crate) fn failed(&self, why: &Trouble) -> String {
        let mut state = self.state.lock();
        state.vague = if why.is_vague { state.vague + 1 } else { 0 };
        if why.is_vague {
            if let (false, Some(known)) = (state.is_told_up, state.reasons.last()) {
                return known.clone();
            }
            if state.vague <= self.all * VAGUE {
                return why.text.clone();
            }
        }
        self.tell(&mut state, &why.text);
        why.text.clone()
    }

    fn tell(&self, state: &mut State, why: &str) {
        if std::mem::take(&mut state.is_told_up) {
            state.reasons.clear();
        }
        // What follows a loss is part of it, whatever it is called.
        let follows = state.is_loss && !state.reasons.is_empty();
        if follows || state.reasons.iter().any(|told| told == why) {
            return;
        }
        tracing::warn!(
            backend = &*self.name,
            why,
            "the back end cannot be reached; what needs it waits, and it is tried again until it answers"
        );
        state.reasons.push(why.into());
    }

    fn gauge(&self, state: &State) {
        let up = if state.up == self.all { 1.0 } else { 0.0 };
        metrics::gauge!("linkspan_backend_up", "backend" => self.name.to_string()).set(up);
    }
}
