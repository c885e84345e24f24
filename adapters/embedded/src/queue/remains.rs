//! The end of a queue, and what it leaves behind.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::{Ended, Refused, What};
use linkspan_queues::{ConsumerId, Limits, Queue as Engine};

use super::record::Record;
use super::{Queue, Seat, State};
use crate::parcel::Parcel;

/// What a queue that has ended leaves behind.
pub(crate) struct Remains {
    engine: Engine<Parcel, Record>,
    seats: HashMap<ConsumerId, Seat, RandomState>,
}

impl Remains {
    /// Tells its consumers, behind what they were given; and how many messages were ready.
    pub(crate) fn tell(self) -> u64 {
        for mut seat in self.seats.into_values() {
            seat.outlet.sink().ended(seat.key, Ended::QueueDeleted);
        }
        self.engine.len()
    }
}

impl Queue {
    /// It was taken out of the topology: its messages go, its consumers are told. Tells how many messages were ready.
    pub(crate) fn end(&self) -> u64 {
        let remains = self.end_now(&mut self.state.lock());
        remains.tell()
    }

    /// It takes nothing more, unless it is in use or not empty and must not be: nothing comes between the look and the
    /// end. The caller holds the topology, and lets go of it before the remains are told.
    pub(crate) fn end_if(&self, if_unused: bool, if_empty: bool) -> Result<Remains, Refused> {
        let mut state = self.state.lock();
        if if_unused && state.engine.consumers() > 0 {
            return Err(Refused::InUse { what: What::Queue, name: self.name.to_string() });
        }
        let engine = &state.engine;
        if if_empty && !(engine.is_empty() && engine.unsettled() == 0 && engine.delayed() == 0) {
            return Err(Refused::NotEmpty(self.name.to_string()));
        }
        Ok(self.end_now(&mut state))
    }

    fn end_now(&self, state: &mut State) -> Remains {
        state.ended = true;
        state.congested = 0;
        self.give_up(state);
        state.kept_back.clear();
        self.gate.open();
        let nothing = Engine::with_journal(0, Limits::default(), Record::default());
        let mut engine = std::mem::replace(&mut state.engine, nothing);
        let levels = engine.limits().max_priority;
        if let Some(desk) = engine.journal_mut().desk() {
            // What was not written yet is not missed.
            desk.diary.commit.clear();
            desk.archive.drop_queue(desk.diary.number(), u64::from(levels) + 1);
        }
        Remains { engine, seats: std::mem::take(&mut state.seats) }
    }
}
