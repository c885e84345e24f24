//! What is published to a queue.

use std::ops::Range;
use std::sync::Arc;

use linkspan_contract::{Batch, Flags, Outcome, Published, Refused};
use linkspan_queues::Pushed;

use super::{State, dropped};
use crate::inward::Inward;
use crate::keeper::{Keeper, Piece};
use crate::parcel::Parcel;
use crate::scratch::Scratch;

impl State {
    /// Keeps messages of a lent batch, puts them into the queue and gives out what can be given: piece by piece, so that
    /// what goes through at once needs little room.
    pub(super) fn push(
        &mut self,
        keeper: &mut Keeper<'_>,
        ranges: &[Range<u32>],
        via: u32,
        scratch: &mut Scratch,
        inward: &mut Inward<'_>,
    ) {
        if ranges.is_empty() {
            return;
        }
        for Piece { ranges, owned } in &*keeper.keep(ranges) {
            for (place, at) in ranges.iter().cloned().flatten().zip(0..) {
                let parcel = Parcel { batch: Arc::clone(owned), at, via };
                let pushed = self.engine.push(inward.now, self.offer(parcel), &mut scratch.assignments);
                if self.repeats.is_some() {
                    let is_taken = pushed == Pushed::Queued;
                    self.took(is_taken, keeper.batch(), place, inward.now, scratch);
                }
                let why = match pushed {
                    Pushed::Queued => continue,
                    Pushed::Refused if self.is_inbox => {
                        dropped("session-full", 1);
                        self.overrun(Parcel::number(via));
                        continue;
                    }
                    Pushed::Refused if self.is_group => {
                        dropped("group-full", 1);
                        continue;
                    }
                    Pushed::Refused => Outcome::Refused(full()),
                    Pushed::Unwritable => Outcome::Failed(self.unwritable()),
                };
                refused(keeper.batch(), place, why, inward.published);
            }
            self.hand_out(inward.now, scratch, inward.touched);
        }
    }
}

/// A queue did not take the message at `place`.
fn refused(batch: &Batch<'_>, place: u32, why: Outcome, published: &mut Published) {
    let reason = if matches!(why, Outcome::Failed(_)) { "unwritable" } else { "queue-full" };
    metrics::counter!("linkspan_messages_refused_total", "reason" => reason).increment(1);
    if batch.message(place).is_some_and(|message| message.flags.has(Flags::RECEIPT)) {
        published.exceptions.push((place, why));
    }
}

fn full() -> Refused {
    Refused::Full("the queue is full and takes no more".into())
}
