//! How the back end's shared sessions are, all in all: one line in the log for each change.

use std::sync::Arc;

use linkspan_contract::Health;
use parking_lot::Mutex;

use crate::upstream::failure::Failure;
use crate::upstream::packet::Welcome;

/// The state of all shared sessions.
pub(crate) struct Status {
    backend: Arc<str>,
    at: String,
    state: Mutex<State>,
}

struct State {
    parts: Vec<Part>,
    /// Counts what happened to any of them.
    epoch: u64,
    /// Whether it was told that all of them are connected.
    is_told_up: bool,
    /// Why they are not, as far as it was told since.
    reasons: Vec<Failure>,
}

#[derive(Clone)]
struct Part {
    now: Result<Welcome, Failure>,
    /// It was connected before.
    knew: bool,
}

impl Status {
    pub(crate) fn new(backend: Arc<str>, at: String, parts: usize) -> Self {
        let part = Part { now: Err(Failure::Unreachable("it was not reached yet".into())), knew: false };
        metrics::gauge!("linkspan_backend_up", "backend" => backend.to_string()).set(0.0);
        Self {
            backend,
            at,
            state: Mutex::new(State {
                parts: vec![part; parts],
                epoch: 0,
                is_told_up: false,
                reasons: Vec::new(),
            }),
        }
    }

    /// A session is connected.
    pub(crate) fn up(&self, part: usize, welcome: Welcome) {
        let mut state = self.state.lock();
        state.epoch += 1;
        if let Some(part) = state.parts.get_mut(part) {
            part.now = Ok(welcome);
            if std::mem::replace(&mut part.knew, true) {
                metrics::counter!("linkspan_backend_reconnects_total", "backend" => self.backend.to_string())
                    .increment(1);
            }
        }
        let all = state.parts.iter().all(|part| part.now.is_ok());
        if all && !std::mem::replace(&mut state.is_told_up, true) {
            metrics::gauge!("linkspan_backend_up", "backend" => self.backend.to_string()).set(1.0);
            tracing::info!(backend = %self.backend, at = %self.at, version = %welcome.version, "the back end is reached");
        }
    }

    /// A session is not, and why.
    pub(crate) fn away(&self, part: usize, why: Failure) {
        let mut state = self.state.lock();
        state.epoch += 1;
        let clearer = state.reasons.iter().find(|known| !state.is_told_up && why.is_muffled(known));
        let why = clearer.cloned().unwrap_or(why);
        if let Some(part) = state.parts.get_mut(part) {
            part.now = Err(why.clone());
        }
        if std::mem::take(&mut state.is_told_up) {
            state.reasons.clear();
        }
        if !state.reasons.iter().any(|known| why.follows(known)) {
            metrics::gauge!("linkspan_backend_up", "backend" => self.backend.to_string()).set(0.0);
            tracing::warn!(backend = %self.backend, at = %self.at, %why, "the back end is away; it is tried again");
            state.reasons.push(why);
        }
    }

    /// Counts what happened to any of the shared sessions.
    pub(crate) fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    /// Why it cannot be used, if it cannot.
    pub(crate) fn away_because(&self) -> Option<String> {
        let state = self.state.lock();
        state.parts.iter().find_map(|part| part.now.as_ref().err().map(ToString::to_string))
    }

    pub(crate) fn health(&self) -> Health {
        match self.away_because() {
            None => Health::Up,
            Some(why) => Health::Away(format!("{}: {why}", self.at)),
        }
    }
}
