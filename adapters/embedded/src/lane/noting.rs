//! Messages that a client whose session is kept publishes exactly once: each is one commit with the note of its identifier,
//! in all queues that it comes to.

use std::num::NonZeroU16;

use linkspan_contract::{Batch, Flags, Message, Outcome, Published, Receipt, Refused, Seq};
use linkspan_queues::log::Lsn;

use super::EmbeddedLane;
use crate::commit::{Commit, Committed};
use crate::retained::Note;
use crate::transaction::Transaction;

/// Whether a message is one of these.
fn is_once(message: &Message) -> bool {
    message.flags.has(Flags::EXACTLY_ONCE | Flags::RECEIPT)
}

impl EmbeddedLane {
    /// Takes the messages of one read of which some are published exactly once.
    #[cold]
    pub(super) fn publish_noted(&mut self, batch: &Batch<'_>) -> Published {
        let mut all = Published { first: self.publisher.next(), ..Published::default() };
        let mut rest = batch.messages;
        while let Some(first) = rest.first() {
            let others = rest.iter().position(is_once).unwrap_or(rest.len());
            let (run, behind) = rest.split_at(others.max(1));
            let run = Batch { messages: run, ..*batch };
            let one = match batch.form.identifier(batch.bytes, first) {
                Some(identifier) if is_once(first) => self.publish_once(&run, first, identifier),
                _ => self.publish_now(&run),
            };
            let all_taken = one.taken as usize == run.messages.len();
            self.add(&mut all, one, &run);
            if !all_taken {
                break;
            }
            rest = behind;
        }
        all
    }

    /// Takes one message, the only one of `batch`. What refuses it says so without a note.
    fn publish_once(&mut self, batch: &Batch<'_>, message: &Message, identifier: NonZeroU16) -> Published {
        let now = self.vhost.house.now();
        let Some((notes, archive)) = self.notes.as_deref_mut().zip(self.vhost.house.archive.clone()) else {
            return self.publish_now(batch);
        };
        let (outcome, written) = if archive.is_failed() {
            (Outcome::Failed(Refused::Full(archive.why())), 0)
        } else if self.publisher.refusal(message.target).is_some() {
            return self.publish_now(batch);
        } else {
            let mut note = Note::default();
            notes.add_to(&mut note.commit, identifier);
            let mut bodies = batch.any.has(Flags::RETAIN).then(|| archive.retained_bodies());
            if let Some(bodies) = &bodies {
                self.publisher.note_retained(batch, 1, now, bodies, &mut note);
            }
            let noted = std::mem::take(&mut note.commit);
            let transaction = Transaction { published: vec![batch.keep(0..1)], ..Transaction::default() };
            let Self { publisher, consumers, vhost, touched, brakes, .. } = self;
            let carried =
                Commit::carry_out(&transaction, noted, publisher, consumers, vhost, now, touched, brakes);
            match carried {
                Ok(Committed { written: Ok(written), missed, .. }) => {
                    notes.noted(identifier, written);
                    if let Some(bodies) = bodies.as_deref_mut() {
                        note.enter(bodies);
                    }
                    (if missed > 0 { Outcome::Unroutable } else { Outcome::Accepted }, written)
                }
                Ok(Committed { written: Err(why), .. }) => (Outcome::Failed(why), 0),
                // Some queue has no room. What the others took now they would take once more when it is sent again.
                Err(why) if archive.is_failed() => (Outcome::Failed(why), 0),
                Err(why) => (Outcome::Refused(why), 0),
            }
        };
        if archive.is_congested() {
            self.brakes.archive(&archive);
        }
        let first = self.publisher.count_one();
        let congested = !self.brakes.is_empty();
        let mut published =
            Published { first, taken: 1, wanting: 1, done: 1, congested, ..Published::default() };
        let receipt = Receipt { first, count: 1, outcome };
        // It is there already, and stays: a sync that fails only takes longer.
        if written > 0 && archive.tell_word(written, &self.receipts, &receipt) {
            published.done = 0;
        } else if receipt.outcome != Outcome::Accepted {
            published.exceptions.push((0, receipt.outcome));
        }
        published
    }

    /// Adds what came of the next messages. What is known of them, and not of those before them, is told as a receipt.
    fn add(&self, all: &mut Published, one: Published, run: &Batch<'_>) {
        let Published { taken, first, wanting, done, exceptions, congested } = one;
        let (begin, known) = (all.taken, all.done == all.wanting);
        if known {
            all.done += done;
        } else if done > 0 {
            let told = (first..).zip((0..).zip(run.messages).filter(|(_, it)| it.flags.has(Flags::RECEIPT)));
            let receipts: Vec<Receipt> = told
                .take(done as usize)
                .map(|(first, (place, _))| {
                    let exception = exceptions.iter().find(|(at, _)| *at == place);
                    let outcome = exception.map_or(Outcome::Accepted, |(_, outcome)| outcome.clone());
                    Receipt { first, count: 1, outcome }
                })
                .collect();
            self.receipts.receipts(&receipts);
        }
        all.taken += taken;
        all.wanting += wanting;
        all.congested |= congested;
        all.exceptions.extend(exceptions.into_iter().map(|(place, outcome)| (begin + place, outcome)));
    }

    /// Whether what is written up to a place is safe; else the word is told when it is.
    pub(super) fn is_safe(&self, written: Lsn, word: Seq) -> bool {
        let word = Receipt { first: word, count: 1, outcome: Outcome::Accepted };
        let archive = self.vhost.house.archive.as_ref().filter(|_| written > 0);
        !archive.is_some_and(|archive| archive.tell_word(written, &self.receipts, &word))
    }
}
