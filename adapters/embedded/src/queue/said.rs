//! What a queue's engine has to say, for its owner to carry out.

use linkspan_queues::log::Commit;
use linkspan_queues::{Effect, Queue as Engine};

use super::record::Record;
use crate::parcel::Parcel;

/// Effects, and what is to be written behind them.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) effects: Vec<Effect<Parcel>>,
    /// That the dead ones among them are gone: written behind what becomes of them, so that none is lost in between.
    pub(crate) dead: Commit,
    /// What was put into the queue has to be written down, and cannot be now: the queue does not have it.
    pub(crate) unwritable: bool,
}

impl Said {
    pub(super) fn of(engine: &mut Engine<Parcel, Record>) -> Self {
        Self { effects: engine.effects().collect(), dead: engine.journal_mut().dead(), unwritable: false }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }
}
