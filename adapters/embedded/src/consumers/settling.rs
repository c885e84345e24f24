//! What clients say of their deliveries: from a run of tags to the queues.

use std::ops::Range;
use std::sync::Arc;

use linkspan_contract::{DeliveryTag, Millis, Settled, Settlement};
use linkspan_queues::ConsumerId;
use linkspan_queues::log::Lsn;

use super::{Consumers, Consuming};
use crate::outlet::Touched;
use crate::queue::Queue;

impl Consumers {
    /// Carries out a run of settlements; false when nothing of it was there to be settled. And where what that wrote ends
    /// in the log.
    pub(crate) fn settle(&mut self, run: &Settled, now: Millis, touched: &mut Touched) -> (bool, Lsn) {
        let mut written = 0;
        let at_inbox = self.at_inbox();
        let mut settle_as = |queue: &Arc<Queue>, consumer, first, count, outcome: &Settlement| {
            let (tally, lsn) = queue.settle(consumer, first, count, outcome, now, touched);
            written = written.max(lsn);
            tally.known
        };
        // What a session gives back is of a subscription that is over, for nobody else has its queue: it would come again at
        // once, and for ever.
        let of_inbox = match &run.outcome {
            Settlement::Release { .. } | Settlement::Undo => &Settlement::Accept,
            outcome => outcome,
        };
        let settle = |queue: &Arc<Queue>, consumer, first, count| {
            settle_as(queue, consumer, first, count, &run.outcome)
        };
        let known = match self.by_key.get_mut(&run.key) {
            Some(Consuming::Filter { .. }) => match at_inbox {
                Some((inbox, consumer)) => settle_as(&inbox, consumer, run.first, run.count, of_inbox) > 0,
                None => {
                    self.session.settle(run.key, run.first, run.count);
                    true
                }
            },
            Some(Consuming::Queue(working)) => {
                let known = working.share_out(run.first, run.count, settle);
                if working.tidy() {
                    self.by_key.remove(&run.key);
                }
                note_unknown(run.count.saturating_sub(known));
                known > 0
            }
            // The subscription may be over, what it brought is still the client's.
            None => match at_inbox {
                Some((inbox, consumer)) => settle_as(&inbox, consumer, run.first, run.count, of_inbox) > 0,
                None => self.settle_fetched(run, settle),
            },
        };
        (known, written)
    }

    /// Tells in which queues the deliveries of a run are, and whose; [`settled`](Self::settled) has to follow.
    pub(crate) fn share_out(
        &self,
        run: &Settled,
        mut to: impl FnMut(&Arc<Queue>, ConsumerId, DeliveryTag, u32),
    ) {
        let mut to = |queue: &_, consumer, first, count| {
            to(queue, consumer, first, count);
            0
        };
        match self.by_key.get(&run.key) {
            Some(Consuming::Queue(working)) => working.share_out(run.first, run.count, to),
            Some(Consuming::Filter { .. }) => match self.at_inbox() {
                Some((inbox, consumer)) => to(&inbox, consumer, run.first, run.count),
                None => 0,
            },
            None => match self.fetches.as_ref().filter(|fetches| fetches.key == run.key) {
                Some(fetches) => fetches.share_out(tags(run), to),
                None => 0,
            },
        };
    }

    /// So many deliveries of a run were there, and their queues have carried it out. False when there was nothing of it.
    pub(crate) fn settled(&mut self, run: &Settled, known: u32) -> bool {
        match self.by_key.get_mut(&run.key) {
            Some(Consuming::Filter { .. }) => {
                self.session.settle(run.key, run.first, run.count);
                true
            }
            Some(Consuming::Queue(working)) => {
                if working.tidy() {
                    self.by_key.remove(&run.key);
                }
                note_unknown(run.count.saturating_sub(known));
                known > 0
            }
            None => {
                let mut known = known;
                self.settle_fetched(run, |_, _, _, _| {
                    let one = known.min(1);
                    known -= one;
                    one
                })
            }
        }
    }

    fn settle_fetched(
        &mut self,
        run: &Settled,
        with: impl FnMut(&Arc<Queue>, ConsumerId, DeliveryTag, u32) -> u32,
    ) -> bool {
        let Some(fetches) = self.fetches.as_mut().filter(|fetches| fetches.key == run.key) else {
            // What a topic filter gave before it was unsubscribed is nobody's to settle any more.
            self.session.settle(run.key, run.first, run.count);
            return false;
        };
        let tags = tags(run);
        let known = fetches.share_out(tags.clone(), with);
        if run.outcome.is_last() {
            fetches.unsettled.extract_if(tags, |_, _| true).for_each(drop);
        }
        note_unknown(run.count.saturating_sub(known));
        known > 0
    }
}

fn tags(run: &Settled) -> Range<DeliveryTag> {
    run.first..run.first.saturating_add(run.count.into())
}

fn note_unknown(count: u32) {
    if count > 0 {
        metrics::counter!("linkspan_settlements_ignored_total").increment(count.into());
    }
}
