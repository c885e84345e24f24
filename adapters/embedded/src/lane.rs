//! An ordered way through the back end.

mod noting;

use std::num::NonZeroU16;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use linkspan_contract::backend::Fetched;
use linkspan_contract::{
    Batch, Binding, Body, BodyWriter, Credit, Destination, ExchangeSpec, Flags, Lane, LaneEvent, LaneEvents,
    Lost, Message, Outcome, Published, QueueCounts, QueueSpec, Receipt, ReceiptSink, Refused, Seq, Settle,
    Settled, Source, Subscribe, SubscriptionKey, TargetId,
};

use linkspan_queues::log::{Commit as LogCommit, Lsn};
use smallvec::{SmallVec, smallvec};

use crate::archive::Archive;
use crate::body::{LogBody, LogWriter};
use crate::brake::Brakes;
use crate::commit::{Commit, Committed};
use crate::connection::Own;
use crate::consumers::Consumers;
use crate::notes::Notes;
use crate::outlet::Touched;
use crate::publisher::Publisher;
use crate::session::Session;
use crate::transaction::Transaction;
use crate::vhost::Vhost;

/// One lane: a publisher and its consumers.
pub(crate) struct EmbeddedLane {
    vhost: Arc<Vhost>,
    client: u64,
    publisher: Publisher,
    consumers: Consumers,
    touched: Touched,
    brakes: Brakes,
    transaction: Option<Box<Transaction>>,
    /// Only where the client's session outlives the process.
    notes: Option<Box<Notes>>,
    own: Arc<Own>,
    receipts: Arc<dyn ReceiptSink>,
    events: Arc<dyn LaneEvents>,
}

/// AMQP's reply code for a message that nobody takes.
const NO_ROUTE: u16 = 312;

impl EmbeddedLane {
    pub(crate) fn new(
        vhost: Arc<Vhost>,
        client: u64,
        session: Arc<Session>,
        own: Arc<Own>,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Self {
        let number = vhost.house.number();
        let archive = vhost.house.archive.as_ref();
        let notes = session.inbox().zip(archive).and_then(|(inbox, archive)| Notes::of(inbox, archive));
        Self {
            notes: notes.map(Box::new),
            publisher: Publisher::new(Arc::clone(&vhost), client),
            consumers: Consumers::new(Arc::clone(&vhost), number, session),
            vhost,
            client,
            touched: Touched::default(),
            brakes: Brakes::default(),
            transaction: None,
            own,
            receipts,
            events,
        }
    }

    fn publish_now(&mut self, batch: &Batch<'_>) -> Published {
        let now = self.vhost.house.now();
        let mut published = self.publisher.publish(batch, &mut self.touched, &mut self.brakes, now);
        if self.publisher.written > 0
            && published.wanting > 0
            && let Some(archive) = &self.vhost.house.archive
            && archive.tell(self.publisher.written, &self.receipts, || receipts(batch, &published))
        {
            published.done = 0;
            let taken = published.taken;
            published.exceptions.retain(|(place, outcome)| {
                *place >= taken
                    || batch.message(*place).is_none_or(|message| !is_told_later(message, outcome))
            });
        }
        published
    }

    fn settle_now(&mut self, runs: &[Settled]) {
        let now = self.vhost.house.now();
        for run in runs {
            let (known, written) = self.consumers.settle(run, now, &mut self.touched);
            self.tell(run, known, written);
        }
    }

    /// Says the word that a run of settlements asks for, when what was `written` is safe.
    fn tell(&self, run: &Settled, known: bool, written: Lsn) {
        if let Some(word) = run.word {
            let outcome = if known { Outcome::Accepted } else { Outcome::Refused(Refused::Late) };
            let receipt = Receipt { first: word, count: 1, outcome };
            let later =
                |archive: &Arc<Archive>| written > 0 && archive.tell_word(written, &self.receipts, &receipt);
            if !self.vhost.house.archive.as_ref().is_some_and(later) {
                self.receipts.receipts(&[receipt]);
            }
        }
    }

    /// Tells where what the transaction wrote ends in the log.
    fn commit_now(&mut self, transaction: &Transaction) -> Result<Lsn, Refused> {
        let now = self.vhost.house.now();
        let Self { publisher, consumers, vhost, touched, brakes, .. } = self;
        let Committed { known, returned, written, .. } = Commit::carry_out(
            transaction,
            LogCommit::new(),
            publisher,
            consumers,
            vhost,
            now,
            touched,
            brakes,
        )?;
        let written = written?;
        for (run, known) in transaction.settled.iter().zip(known) {
            let known = self.consumers.settled(run, known);
            self.tell(run, known, written);
        }
        for message in returned {
            let text = "NO_ROUTE".into();
            self.events.event(LaneEvent::Returned { message, code: NO_ROUTE, text });
        }
        Ok(written)
    }

    /// Publishes what is complete.
    fn publish_here(&mut self, batch: &Batch<'_>) -> Published {
        if self.transaction.is_some() {
            self.hold(batch)
        } else if self.notes.is_some() && batch.any.has(Flags::EXACTLY_ONCE) {
            self.publish_noted(batch)
        } else {
            self.publish_now(batch)
        }
    }

    /// A large body is put into the log, where there is one: all who get it share it there.
    fn publish_body(&mut self, batch: &Batch<'_>, body: &Body) -> Published {
        let house = &self.vhost.house;
        let put = match (body, &house.archive) {
            (Body::Shared(bytes), Some(archive)) if body.len() >= house.options.large_body => {
                // What the log does not take now is written down by nobody: who needs it written says so.
                LogWriter::put(archive, bytes).ok()
            }
            (Body::Shared(_), _) => None,
            (Body::Stored(_), archive) => {
                let is_here = archive.as_ref().is_some_and(|archive| LogBody::place(body, archive).is_some());
                if !is_here {
                    let text = "the payload could not be written, or is kept by another back end than its address is at now";
                    return self.publisher.refuse(batch, Refused::Full(text.into()));
                }
                None
            }
        };
        let batch = &Batch { body: Some(put.as_ref().unwrap_or(body)), ..*batch };
        self.publish_here(batch)
    }

    /// Holds a batch back until the commit, up to the first message that has nowhere to go.
    fn hold(&mut self, batch: &Batch<'_>) -> Published {
        let mut published = Published::default();
        for (place, message) in (0..).zip(batch.messages) {
            if let Some(why) = self.publisher.refusal(message.target) {
                published.exceptions.push((place, Outcome::Refused(why)));
                break;
            }
            published.taken = place + 1;
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.hold(batch, published.taken);
        }
        published
    }
}

#[async_trait]
impl Lane for EmbeddedLane {
    fn target(&mut self, to: &Destination<'_>) -> TargetId {
        self.publisher.target(to)
    }

    fn forget(&mut self, targets: &[TargetId]) {
        match &mut self.transaction {
            Some(transaction) if !transaction.published.is_empty() => transaction.forgotten.extend(targets),
            _ => self.publisher.forget(targets),
        }
    }

    fn publish(&mut self, batch: &Batch<'_>) -> Published {
        match batch.body {
            Some(body) => self.publish_body(batch, body),
            None => self.publish_here(batch),
        }
    }

    fn note(&mut self, identifier: NonZeroU16, word: Seq) -> bool {
        let written = self.notes.as_mut().map_or(0, |notes| notes.note(identifier));
        self.is_safe(written, word)
    }

    fn unnote(&mut self, identifier: NonZeroU16, word: Seq) -> bool {
        let written = self.notes.as_mut().map_or(0, |notes| notes.unnote(identifier));
        self.is_safe(written, word)
    }

    fn noted(&self) -> Vec<NonZeroU16> {
        self.notes.as_ref().map(|notes| notes.all()).unwrap_or_default()
    }

    fn flush(&mut self) {
        self.touched.flush();
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let house = &self.vhost.house;
        if house.is_closed() {
            let backend = house.name.to_string();
            return Poll::Ready(Err(Lost { backend, why: "it was closed".into() }));
        }
        self.brakes.poll(cx, house.now(), &house.coordinator).map(Ok)
    }

    fn settle(&mut self, runs: &[Settled]) {
        match &mut self.transaction {
            Some(transaction) => transaction.settled.extend_from_slice(runs),
            None => self.settle_now(runs),
        }
    }

    fn resume(&mut self) {
        self.consumers.resume(self.vhost.house.now(), &mut self.touched);
    }

    fn body(&mut self, _target: TargetId, size: Option<u64>) -> Result<Option<Box<dyn BodyWriter>>, Refused> {
        let house = &self.vhost.house;
        let is_large = size.is_none_or(|size| size >= house.options.large_body);
        match house.archive.as_ref().filter(|_| is_large) {
            None => Ok(None),
            // In memory it goes as small ones do: who needs it written is told so, and others get it.
            Some(archive) if archive.is_failed() => Ok(None),
            Some(archive) => Ok(Some(Box::new(LogWriter::new(archive, size)))),
        }
    }

    async fn subscribe(
        &mut self,
        source: &Source<'_>,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        if let Source::Group { group, filter } = *source
            && how.settle != Settle::OnDelivery
            && let Some(member) = self.consumers.member().cloned()
        {
            self.vhost.keep_group(group, filter, &member).await?;
        }
        let now = self.vhost.house.now();
        self.consumers.subscribe(source, key, how, credit, now, &mut self.touched)
    }

    fn start(&mut self, key: SubscriptionKey) {
        self.consumers.start(key, self.vhost.house.now(), &mut self.touched);
    }

    async fn unsubscribe(&mut self, key: SubscriptionKey) -> Result<(), Refused> {
        let written = self.consumers.unsubscribe(key, self.vhost.house.now(), &mut self.touched);
        if let Some(archive) = self.vhost.house.archive.as_ref().filter(|_| written > 0) {
            // It is written when the disk takes it; nobody could do more about it.
            drop(archive.safe(written).await);
        }
        Ok(())
    }

    async fn feed(&mut self, queue: &str, filters: &[&str], except: &[&str]) -> Result<(), Refused> {
        let _ = except;
        if filters.is_empty() {
            self.vhost.lose_route(queue);
        }
        Ok(())
    }

    async fn fetch(
        &mut self,
        queue: &str,
        key: SubscriptionKey,
        settled: bool,
    ) -> Result<Option<Fetched>, Refused> {
        self.consumers.fetch(queue, key, settled, self.vhost.house.now(), &mut self.touched)
    }

    async fn recover(&mut self, requeue: bool) -> Result<(), Refused> {
        self.consumers.recover(requeue, self.vhost.house.now(), &mut self.touched);
        Ok(())
    }

    async fn declare_exchange(&mut self, exchange: &ExchangeSpec<'_>) -> Result<(), Refused> {
        self.vhost.declare_exchange(exchange).await
    }

    async fn delete_exchange(&mut self, name: &str, if_unused: bool) -> Result<(), Refused> {
        self.vhost.delete_exchange(name, if_unused).await
    }

    async fn declare_queue(&mut self, queue: &QueueSpec<'_>) -> Result<QueueCounts, Refused> {
        let (counts, made) = self.vhost.declare_queue(queue, self.client).await?;
        if let Some(made) = made
            && queue.exclusive
        {
            self.own.add(&made);
        }
        Ok(counts)
    }

    async fn delete_queue(&mut self, name: &str, if_unused: bool, if_empty: bool) -> Result<u64, Refused> {
        self.vhost.delete_queue(name, if_unused, if_empty, self.client).await
    }

    async fn purge_queue(&mut self, name: &str) -> Result<u64, Refused> {
        Ok(self.vhost.queue(name, self.client)?.purge(self.vhost.house.now()))
    }

    async fn bind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        self.vhost.bind(binding, self.client).await
    }

    async fn unbind(&mut self, binding: &Binding<'_>) -> Result<(), Refused> {
        self.vhost.unbind(binding, self.client).await
    }

    async fn begin(&mut self) -> Result<(), Refused> {
        self.transaction.get_or_insert_default();
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Refused> {
        let Some(transaction) = self.transaction.take() else { return Err(no_transaction()) };
        let result = self.commit_now(&transaction);
        self.publisher.forget(&transaction.forgotten);
        self.transaction = Some(Box::default());
        let written = result?;
        match &self.vhost.house.archive {
            Some(archive) if written > 0 => archive.safe(written).await.map_err(|why| {
                Refused::Away(format!(
                    "{}: the transaction could not be written down: {why}",
                    self.vhost.house.name
                ))
            }),
            _ => Ok(()),
        }
    }

    async fn rollback(&mut self) -> Result<(), Refused> {
        let transaction = self.transaction.as_deref_mut().map(std::mem::take).ok_or_else(no_transaction)?;
        self.publisher.forget(&transaction.forgotten);
        Ok(())
    }
}

/// What the publisher is told of a batch when it is safe: the messages that were not simply accepted apart.
fn receipts(batch: &Batch<'_>, published: &Published) -> SmallVec<[Receipt; 1]> {
    let (first, count) = (published.first, published.wanting);
    let mut runs: SmallVec<[Receipt; 1]> = smallvec![Receipt { first, count, outcome: Outcome::Accepted }];
    if published.exceptions.is_empty() {
        return runs;
    }
    runs.clear();
    let mut exceptions = published.exceptions.iter().peekable();
    let messages = batch.messages.get(..published.taken as usize).unwrap_or_default();
    let wanting = (0..).zip(messages).filter(|(_, message)| message.flags.has(Flags::RECEIPT));
    for (seq, (place, message)) in (first..).zip(wanting) {
        while exceptions.next_if(|(at, _)| *at < place).is_some() {}
        let exception = exceptions.next_if(|(at, outcome)| *at == place && is_told_later(message, outcome));
        let outcome = exception.map_or(Outcome::Accepted, |(_, outcome)| outcome.clone());
        match runs.last_mut() {
            Some(last) if last.outcome == outcome => last.count += 1,
            _ => runs.push(Receipt { first: seq, count: 1, outcome }),
        }
    }
    runs
}

/// Whether what became of a message is told with its receipt, and not at once: what goes back to its publisher does so
/// before it is confirmed.
fn is_told_later(message: &Message, outcome: &Outcome) -> bool {
    let goes_back = message.flags.has(Flags::MANDATORY) && *outcome == Outcome::Unroutable;
    message.flags.has(Flags::RECEIPT) && !goes_back
}

fn no_transaction() -> Refused {
    Refused::Precondition("channel is not transactional".into())
}

impl Drop for EmbeddedLane {
    fn drop(&mut self) {
        self.consumers.close(self.vhost.house.now(), &mut self.touched);
        self.touched.flush();
    }
}
