//! What goes back to the broker.

use linkspan_contract::{Millis, Settlement};
use linkspan_queues::{Limits, Queue};

use super::{Loan, Loans, Word, Work};
use crate::consumers::LONGEST;

impl Work {
    /// Does what is due.
    pub(in crate::desk) fn tick(&mut self, now: Millis) {
        while let Some((loan, since)) = self.engine.journal().oldest()
            && since.saturating_add(LONGEST) <= now
        {
            if self.together {
                self.overdue = true;
                break;
            }
            self.engine.journal_mut().give_back(loan);
            self.words.push(Word::Reject { loan, requeue: true });
            let in_hand = self
                .tried
                .remove(&loan)
                .is_some_and(|it| self.engine.settle(now, it.of, it.tag, 1, &Settlement::Accept).known > 0);
            if !in_hand {
                self.stale.insert(loan);
            }
        }
        // Each comes again: of a level whose turn does not come there would be ever more here.
        if !self.stale.is_empty() {
            let stale = &self.stale;
            let gone = self.engine.withdraw(|message| stale.contains(&message.position));
            for message in gone {
                self.stale.remove(&message.position);
            }
        }
        self.engine.tick(now);
        self.hand_out(now);
    }

    /// When [`Work::tick`] has something to do.
    pub(in crate::desk) fn next_tick(&self) -> Option<Millis> {
        let oldest = self.engine.journal().oldest().filter(|_| !self.overdue);
        let oldest = oldest.map(|(_, since)| since.saturating_add(LONGEST));
        oldest.into_iter().chain(self.engine.next_tick()).min()
    }

    /// The broker has everything back: it will give it again. Seats stay, and their tags go on.
    pub(in crate::desk) fn lose(&mut self, now: Millis, limits: Limits) {
        let before = std::mem::replace(&mut self.engine, Queue::with_journal(now, limits, Loans::default()));
        for (id, seat) in &self.seats {
            if self.engine.add_consumer(seat.consumer(*id)).is_err() {
                tracing::error!("a seat that was beside others is not any more");
            }
            self.engine.skip_tags(*id, before.next_tag(*id));
            self.engine.set_paused(*id, !seat.is_open());
        }
        self.tried.clear();
        self.stale.clear();
        self.words.clear();
        self.overdue = false;
    }

    /// Gives the broker back what nobody has in hand; with `but_tried`, not what somebody has had, whose count would be
    /// forgotten.
    pub(in crate::desk) fn give_back(&mut self, but_tried: bool) {
        let tried = &self.tried;
        let mut back: Vec<Loan> = self
            .engine
            .withdraw(|message| !but_tried || !tried.contains_key(&message.position))
            .into_iter()
            .map(|message| message.position)
            .filter(|loan| !self.stale.remove(loan))
            .collect();
        // A quorum queue gives out in this order what it gets back.
        back.sort_unstable();
        for loan in back {
            self.tried.remove(&loan);
            self.engine.journal_mut().give_back(loan);
            self.words.push(Word::Reject { loan, requeue: true });
        }
    }

    /// True when all has to go back together, and now.
    pub(in crate::desk) fn is_overdue(&self) -> bool {
        self.overdue
    }
}
