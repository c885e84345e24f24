//! A lane's transaction: the broker's own, on the consuming channel.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use linkspan_contract::{
    Batch, Body, DeliveryTag, Flags, Kept, LaneEvent, Message, Outcome, Refused, Seq, SubscriptionKey,
};

use super::coordinator::Worker;
use super::held::Unsettled;
use crate::delay_queue::DelayQueue;
use crate::now::at_once;
use crate::origin::Origin;
use crate::publisher::Parcel;
use crate::repeats::{Repeats, Verdict, count};
use crate::translate::{Sender, outgoing, refused};

/// A publish that was handed to lapin.
type Writing = Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>>;

/// What a transaction holds back.
#[derive(Default)]
pub(super) struct Transaction {
    /// Published and not committed.
    published: Vec<Kept>,
    /// Receipts to be given with the commit.
    wanted: Vec<Seq>,
    /// Settled and not committed.
    pub(super) settled: Vec<(SubscriptionKey, DeliveryTag, Unsettled)>,
    /// Publishes that lapin has not written yet: it writes a commit before them.
    writing: Vec<Writing>,
    /// What of it is new to queues that remember what they have taken.
    ids: Ids,
    /// Why it cannot be committed.
    failed: Option<Refused>,
}

/// What identifies messages at their queues, which have not taken them unless it is said.
#[derive(Default)]
struct Ids(Vec<Fresh>);

/// A message that is new to its queue.
struct Fresh {
    repeats: Arc<Repeats>,
    id: u128,
    /// Where it was sent to, and what was sent.
    sent: Option<(ShortString, ShortString, Bytes)>,
    /// Who published it wants to know when it comes back.
    is_mandatory: bool,
}

impl Ids {
    /// Whether a queue has a message already, or may have; and what is to be remembered of it.
    fn judge(
        &mut self,
        repeats: Option<&Arc<Repeats>>,
        batch: &Batch<'_>,
        message: &Message,
    ) -> (Verdict, Option<&mut Fresh>) {
        let Some(repeats) = repeats else { return (Verdict::New, None) };
        let Some(id) = repeats.id(batch, message) else { return (Verdict::New, None) };
        let verdict = match self.0.iter().any(|other| other.id == id && other.repeats == *repeats) {
            true => Verdict::Known,
            false => repeats.judge(id, false, Waker::noop()),
        };
        match verdict {
            Verdict::New => {
                self.0.push(Fresh { repeats: Arc::clone(repeats), id, sent: None, is_mandatory: false });
                return (verdict, self.0.last_mut());
            }
            Verdict::Known => count(),
            Verdict::Wait => {}
        }
        (verdict, None)
    }

    /// The broker has sent one back: no queue has taken it. Whether who published it wants to know that.
    fn withdraw(&mut self, returned: &BasicReturnMessage) -> bool {
        let is_it = |fresh: &Fresh| {
            fresh.sent.as_ref().is_some_and(|(exchange, key, payload)| {
                (exchange, key, &payload[..])
                    == (
                        &returned.delivery.exchange,
                        &returned.delivery.routing_key,
                        &returned.delivery.data[..],
                    )
            })
        };
        if let Some(place) = self.0.iter().position(is_it) {
            let fresh = self.0.remove(place);
            fresh.repeats.withdraw(fresh.id);
            return fresh.is_mandatory;
        }
        true
    }

    /// They have taken them: returns when that is written down.
    async fn note(&self) {
        join_all(self.0.iter().map(|fresh| fresh.repeats.note(fresh.id))).await;
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        self.0.iter().for_each(|fresh| fresh.repeats.withdraw(fresh.id));
    }
}

/// A transaction that the broker has carried out.
pub(super) struct Committed {
    ids: Ids,
    wanted: Vec<Seq>,
}

impl Committed {
    /// True when somebody is to be told only when more is written down.
    pub(super) fn has_ids(&self) -> bool {
        !self.ids.0.is_empty()
    }

    /// Returns when it is written down what its queues have taken.
    pub(super) async fn noted(&self) {
        self.ids.note().await;
    }

    /// Gives the receipts.
    pub(super) fn tell(self, origin: &Origin) {
        for seq in &self.wanted {
            origin.note(*seq, Outcome::Accepted);
        }
        origin.flush();
    }
}

impl Transaction {
    /// True when something would be lost with it.
    pub(super) fn holds(&self) -> bool {
        !self.published.is_empty() || !self.settled.is_empty()
    }
}

impl Transaction {
    /// Waits until lapin has written what was published. What it could not write the answer to the commit tells.
    async fn written(&mut self) {
        for writing in std::mem::take(&mut self.writing) {
            if let Err(error) = writing.await {
                tracing::debug!(%error, "a publish inside a transaction was not written");
            }
        }
    }
}

impl Worker {
    pub(super) async fn begin(&mut self) -> Result<(), Refused> {
        if self.transaction.is_some() {
            return Ok(());
        }
        let channel = self.channel().await?;
        let done = channel.tx_select().await;
        self.answered(done).await?;
        self.transaction = Some(Transaction::default());
        Ok(())
    }

    /// Publishes inside the transaction.
    pub(super) fn hold(&mut self, parcel: Parcel) {
        let count = parcel.batch.messages().len() as u64;
        parcel.origin.gauge.sub(count, parcel.size());
        let Some(transaction) = &mut self.transaction else { return };
        let away = || Refused::Away(self.plan.upstream.backend.to_string());
        let Some((_, channel)) = &self.link else {
            transaction.failed = Some(away());
            return;
        };
        let options = Arc::clone(&self.plan.options);
        let batch = parcel.batch.batch();
        for (at, message, goal, seq) in parcel.letters() {
            let sender = Sender {
                account: &options.user,
                from: parcel.from.as_deref(),
                by_name: goal.is_by_name(),
                terms: goal.terms(0),
                is_delayed: DelayQueue::of(&goal.leg(0).1, goal.terms(0), &batch, message).is_some(),
                now: self.plan.clock.now(),
                frame_max: options.frame_max,
                body_limit: options.body_limit,
            };
            let payload = match batch.body {
                None => message.payload.of(batch.bytes),
                Some(Body::Shared(bytes)) => bytes,
                Some(Body::Stored(_)) => {
                    let why = "a payload that is not in memory cannot be published inside a transaction";
                    transaction.failed = Some(Refused::NotImplemented(why.into()));
                    continue;
                }
            };
            match outgoing(&batch, message, &sender) {
                Err(why) => transaction.failed = Some(why),
                Ok(properties) => {
                    let mut known = 0;
                    for leg in 0..goal.legs() {
                        let (verdict, fresh) = match goal.is_for_watchers(leg) && known > 0 && known == leg {
                            true => (Verdict::Known, None),
                            false => transaction.ids.judge(goal.repeats(leg), &batch, message),
                        };
                        match verdict {
                            Verdict::New => {}
                            Verdict::Known => {
                                known += 1;
                                continue;
                            }
                            Verdict::Wait => {
                                let why = "a message that may be the same is under way: publish the transaction again";
                                transaction.failed = Some(Refused::Precondition(why.into()));
                                continue;
                            }
                        }
                        let (exchange, key) = goal.way(leg, &batch, message);
                        let delay = DelayQueue::of(&key, goal.terms(leg), &batch, message);
                        if let Some(delay) = &delay {
                            delay.declare(channel);
                        }
                        let key = delay.map_or(key, |delay| delay.name);
                        let payload = Bytes::copy_from_slice(payload);
                        let is_mandatory = message.flags.has(Flags::MANDATORY) && leg == 0;
                        let mandatory = is_mandatory || fresh.is_some();
                        if let Some(fresh) = fresh {
                            fresh.sent = Some((exchange.clone(), key.clone(), payload.clone()));
                            fresh.is_mandatory = is_mandatory;
                        }
                        let options = BasicPublishOptions { mandatory, immediate: false };
                        let channel = Arc::clone(channel);
                        let properties = properties.clone();
                        let mut writing: Writing = Box::pin(async move {
                            channel
                                .basic_publish(exchange, key, options, &payload, properties)
                                .await
                                .map(drop)
                        });
                        // The first poll hands it over, in this order.
                        match at_once(writing.as_mut()) {
                            None => transaction.writing.push(writing),
                            Some(Ok(())) => {}
                            Some(Err(_)) => transaction.failed = Some(away()),
                        }
                    }
                    transaction.published.extend(parcel.batch.kept(at));
                    transaction.wanted.extend(seq);
                }
            }
        }
    }

    pub(super) async fn commit(&mut self) -> Result<Committed, Refused> {
        let alive = self.link.as_ref().is_some_and(|(_, channel)| channel.status().connected());
        if !alive && self.transaction.as_ref().is_some_and(Transaction::holds) {
            // On another channel nothing of it would be carried out, and the broker would say that all is well.
            self.lose_transaction();
        }
        let channel = self.channel().await?;
        let Some(mut transaction) = self.transaction.replace(Transaction::default()) else {
            self.transaction = None;
            return Err(no_transaction());
        };
        transaction.written().await;
        if let Some(why) = transaction.failed.take() {
            let done = channel.tx_rollback().await;
            self.unsettle(transaction.settled);
            self.answered(done).await?;
            return Err(why);
        }
        let done = channel.tx_commit().await;
        if done.is_err() {
            // It may have been carried out or not: the lane has to be told that it does not know.
            self.transaction = Some(transaction);
            self.answered(done).await?;
            return Err(Refused::Away(self.plan.upstream.backend.to_string()));
        }
        // On a channel without confirms these are the messages that came back, nothing is waited for.
        let returned = channel.wait_for_confirms().await.unwrap_or_default();
        let mut published = &transaction.published[..];
        for returned in returned {
            if !transaction.ids.withdraw(&returned) {
                continue;
            }
            let place = published.iter().position(|kept| {
                kept.message().flags.has(Flags::MANDATORY) && kept.payload() == Some(&returned.data[..])
            });
            if let Some((message, rest)) = place.and_then(|at| published.get(at..)?.split_first()) {
                published = rest;
                let (message, code) = (message.clone(), returned.reply_code);
                let text = returned.reply_text.as_str().into();
                self.plan.origin.event(LaneEvent::Returned { message, code, text });
            }
        }
        for (.., unsettled) in &transaction.settled {
            self.held.marks().told(unsettled.upstream);
        }
        Ok(Committed { ids: transaction.ids, wanted: transaction.wanted })
    }

    pub(super) async fn rollback(&mut self) -> Result<(), Refused> {
        let channel = self.channel().await?;
        let Some(mut transaction) = self.transaction.replace(Transaction::default()) else {
            self.transaction = None;
            return Err(no_transaction());
        };
        transaction.written().await;
        let done = channel.tx_rollback().await;
        self.unsettle(transaction.settled);
        self.answered(done).await
    }

    /// # Errors
    /// What the broker said; its channel is gone then.
    async fn answered(&mut self, done: lapin::Result<()>) -> Result<(), Refused> {
        match done {
            Ok(()) => Ok(()),
            Err(error) => {
                let why = refused(&error, &self.plan.upstream.backend);
                self.lost(&error).await;
                Err(why)
            }
        }
    }
}

fn no_transaction() -> Refused {
    Refused::Precondition("channel is not transactional".into())
}
