//! A session between two connections: what of it stays when its client goes, and how it is taken up again.

use std::sync::Arc;

use linkspan_contract::session::FOREVER;
use linkspan_contract::{
    Connection, Credit, Lane, LedgerError, Millis, Receipt, Refused, Seq, Settle, Source,
};
use tokio::sync::OwnedSemaphorePermit;

use super::away::Away;
use super::deliveries::Deliveries;
use super::ending::Ending;
use super::handshake::Agreement;
use super::limits::Limits;
use super::mailbox::Mailbox;
use super::metric::{Counters, Tally};
use super::notes::Notes;
use super::publishing::Publishing;
use super::record::{self, Line, Record};
use super::session::{Parts, Session};
use super::sink::Sink;
use super::subscribing::{Subscriptions, key};
use super::translate::delivery::Receiver;
use super::will::Testament;
use crate::protocol::mqtt::{Qos, Version};
use crate::retained::Retained;

/// Bytes of a record that its subscriptions may take: the rest is the will's and everything else's.
const ROOM: usize = linkspan_contract::ledger::LARGEST_VALUE - 2 * (u16::MAX as usize + 1024) * 2;

/// What a session has that may outlive its connection.
pub(super) struct Tenure {
    /// Whose it is.
    pub user: Arc<str>,
    /// Seconds for which it is kept without its client.
    pub keep: u32,
    /// One of as many as there may be.
    pub _place: OwnedSemaphorePermit,
    /// Where it is written down; none where there is no ledger.
    pub record: Option<record::Place>,
    /// What of it waits for the disk; none where it ends with the process.
    pub notes: Option<Notes>,
}

/// A session without a connection.
pub(super) struct Resting {
    /// Names the client.
    pub identifier: Arc<str>,
    /// The standard that the client followed last.
    version: Version,
    /// What it has that may outlive a connection.
    pub tenure: Box<Tenure>,
    /// What the client has left behind and nobody has published yet.
    pub will: Option<Box<Testament>>,
    /// What is published of that, until the receipt of this number says that it is safe.
    left: Option<(Seq, Box<Testament>)>,
    connection: Box<dyn Connection>,
    lane: Box<dyn Lane>,
    limits: Arc<Limits>,
    retained: Arc<Retained>,
    counters: Arc<Counters>,
    credit: Arc<Credit>,
    publishing: Publishing,
    subscriptions: Subscriptions,
    mailbox: Arc<Mailbox>,
    place: Lying,
}

/// Where the deliveries of a resting session lie.
enum Lying {
    /// With it.
    Here(Box<Deliveries>),
    /// With the socket that it is about to be given.
    There(Arc<Sink>),
}

impl Session {
    /// Whether it is to go on without this connection, which ended so.
    pub(super) fn outlives(&self, ending: &Ending) -> bool {
        // What was asked for and not answered may have been done in part.
        let goes_on = !self.asking && !matches!(ending, Ending::Unsubscribed(..) | Ending::Lost(_));
        goes_on && self.tenure.as_ref().is_some_and(|tenure| tenure.keep > 0)
    }

    /// The client has gone, and the session stays; with `will` what it left behind is published, at once or when its delay
    /// is over. None when it is not one that may stay.
    pub(super) fn rest(mut self, will: bool, mailbox: &Arc<Mailbox>) -> Option<Resting> {
        self.credit.set_limit(0);
        self.settle_discarded();
        let now = self.agreement.will.take_if(|left| !will || left.delay() == 0);
        let left = now.filter(|_| will).and_then(|will| {
            let version = self.agreement.version;
            Some((self.publishing.publish_left(will.packet(), version, &mut *self.lane)?, will))
        });
        let deliveries = self.sink.outbound.lock().state().leave();
        self.lane.attended(false);
        self.connection.attach(Arc::new(Away::new(mailbox)));
        self.publishing.rest();
        if let Some(notes) = self.notes() {
            notes.rest();
        }
        Some(Resting {
            identifier: self.agreement.identifier,
            version: self.agreement.version,
            tenure: self.tenure?,
            will: self.agreement.will,
            left,
            connection: self.connection,
            lane: self.lane,
            limits: self.limits,
            retained: self.retained,
            counters: self.counters,
            credit: self.credit,
            publishing: self.publishing,
            subscriptions: self.subscriptions,
            mailbox: Arc::clone(mailbox),
            place: Lying::Here(Box::new(deliveries)),
        })
    }

    /// Writes the session down as it is now.
    ///
    /// # Errors
    /// When that cannot be done, so that the client must not be told that it was.
    pub(super) async fn write_down(&mut self) -> Result<(), Ending> {
        let Some(tenure) = &mut self.tenure else { return Ok(()) };
        let Some(place) = &mut tenure.record else { return Ok(()) };
        let Agreement { identifier, version, will, .. } = &self.agreement;
        let mut record = Record::new(identifier, &tenure.user, *version);
        record.keep = tenure.keep;
        self.subscriptions.write(&mut record);
        record.will = will.as_ref().map(|will| record::Will::new(will.packet(), will.delay(), None));
        place.write(&record).await.map_err(|error| Ending::NotWritten(error.to_string().into()))
    }

    /// Whether there is room for another subscription in the session's record.
    pub(super) fn may_be_written_down(&self, filter: &str) -> bool {
        let is_written = self.tenure.as_ref().is_some_and(|tenure| tenure.record.is_some());
        // JSON writes a quotation mark in two bytes, and names take a hundred.
        !is_written || self.subscriptions.weight() + 2 * filter.len() + 128 <= ROOM
    }
}

impl Subscriptions {
    /// Bytes that they take in a record, roughly and at most.
    fn weight(&self) -> usize {
        self.held.iter().map(|(filter, _)| 2 * filter.len() + 128).sum()
    }

    fn write(&self, record: &mut Record) {
        record.next = self.next;
        record.subscriptions = self
            .held
            .iter()
            .map(|(filter, held)| Line {
                filter: filter.into(),
                number: held.number,
                qos: held.qos as u8,
                no_local: held.no_local,
                retain_as_published: held.retain_as_published,
                identifier: held.identifier,
            })
            .collect();
        record.subscriptions.sort_unstable_by_key(|line| line.number);
    }
}

impl Resting {
    /// Seconds for which it is kept; none: for ever.
    pub(super) fn keep(&self) -> Option<u32> {
        Some(self.tenure.keep).filter(|keep| *keep != FOREVER)
    }

    /// Publishes what the client has left behind.
    pub(super) fn publish_will(&mut self) {
        if let Some(will) = self.will.take() {
            let seq = self.publishing.publish_left(will.packet(), self.version, &mut *self.lane);
            self.left = seq.map(|seq| (seq, will));
        }
    }

    /// Receipts have come; true when it has to be written down anew, as its will is safe elsewhere. Nobody asks while it is
    /// about to be given a socket.
    pub(super) fn receipts(&mut self, runs: &[Receipt]) -> bool {
        let (words, runs): (Vec<Receipt>, Vec<Receipt>) = runs.iter().cloned().partition(Notes::is_word);
        let mut word = 0;
        if let (Some(notes), Lying::Here(deliveries)) = (&mut self.tenure.notes, &mut self.place) {
            word = notes.word();
            notes.hear(&words, deliveries, &mut self.publishing, None);
        }
        self.publishing.hear(&runs, &mut *self.lane, word);
        let tells = |seq: Seq| {
            runs.iter().any(|run| (run.first..run.first.saturating_add(run.count.into())).contains(&seq))
        };
        self.left.take_if(|(seq, _)| tells(*seq)).is_some()
    }

    /// Resolves its subscriptions again.
    pub(super) async fn refresh(&mut self) {
        self.lane.refresh().await;
        self.lane.flush();
    }

    /// Writes it down as one that ends at `ends`, and whose will is due at `due`.
    ///
    /// # Errors
    /// Why that was not possible.
    pub(super) async fn write_down(
        &mut self,
        ends: Option<Millis>,
        due: Option<Millis>,
    ) -> Result<(), LedgerError> {
        let Some(place) = &mut self.tenure.record else { return Ok(()) };
        let mut record = Record::new(&self.identifier, &self.tenure.user, self.version);
        (record.keep, record.ends) = (self.tenure.keep, ends);
        self.subscriptions.write(&mut record);
        let will = |will: &Testament, delay, due| record::Will::new(will.packet(), delay, due);
        record.will = match (&self.will, &self.left) {
            (Some(waits), _) => Some(will(waits, waits.delay(), due)),
            // Whoever reads this publishes it again: better twice than not at all.
            (None, Some((_, left))) => Some(will(left, 0, None)),
            (None, None) => None,
        };
        place.write(&record).await
    }

    /// Writes it down as one whose client is there, and has agreed on `agreement`.
    ///
    /// # Errors
    /// Why that was not possible.
    pub(super) async fn write_down_for(
        &mut self,
        agreement: &Agreement,
        keep: u32,
    ) -> Result<(), LedgerError> {
        let Some(place) = &mut self.tenure.record else { return Ok(()) };
        let mut record = Record::new(&self.identifier, &self.tenure.user, agreement.version);
        record.keep = keep;
        self.subscriptions.write(&mut record);
        let will = agreement.will.as_ref();
        record.will = will.map(|will| record::Will::new(will.packet(), will.delay(), None));
        place.write(&record).await
    }

    /// Gives it a socket; nothing is appended there before [`Resting::send_again`].
    pub(super) fn lie_at(&mut self, sink: &Arc<Sink>, receiver: Receiver) {
        let here = std::mem::replace(&mut self.place, Lying::There(Arc::clone(sink)));
        let mut tally = Tally::default();
        let mut guard = sink.outbound.lock();
        if let Lying::Here(deliveries) = here {
            *guard.state() = *deliveries;
        }
        guard.state().receiver = receiver;
        guard.state().begin_again(&mut tally);
        drop(guard);
        self.counters.count(&tally);
        self.connection.attach(Arc::clone(sink) as _);
        self.lane.attended(true);
    }

    /// Has the back end give again what the client has not acknowledged, and sends it in its order [MQTT-4.4.0-1], behind
    /// the `welcome`.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) async fn send_again(&mut self, welcome: &[u8]) -> Result<(), Refused> {
        self.lane.recover(false).await?;
        let Lying::There(sink) = &self.place else { return Ok(()) };
        let mut guard = sink.outbound.lock();
        let (packets, runs, freed) = guard.state().end_again();
        guard.parts().1.extend_from_slice(welcome);
        sink.append_again(&mut guard, packets);
        drop(guard);
        self.lane.settle(&runs);
        self.credit.grant(freed);
        sink.outbound.flush();
        Ok(())
    }

    /// It rests on: the socket that it was about to be given is not to be had.
    pub(super) fn lie_down(&mut self) {
        let Lying::There(sink) = &self.place else { return };
        self.credit.set_limit(0);
        let deliveries = sink.outbound.lock().state().leave();
        self.place = Lying::Here(Box::new(deliveries));
        self.lane.attended(false);
        self.connection.attach(Arc::new(Away::new(&self.mailbox)));
    }

    /// The session goes on with the socket that it lies at; its will of before is not published [MQTT-3.1.3-9].
    pub(super) fn rise(self, mut agreement: Agreement, sink: &Arc<Sink>) -> Session {
        let window = agreement.window;
        agreement.identifier = self.identifier;
        let parts = Parts {
            agreement,
            connection: self.connection,
            lane: self.lane,
            sink: Arc::clone(sink),
            limits: self.limits,
            retained: self.retained,
            counters: self.counters,
            tenure: Some(self.tenure),
        };
        let mut session = Session {
            credit: self.credit,
            publishing: self.publishing,
            subscriptions: self.subscriptions,
            ..Session::new(parts)
        };
        session.credit.set_limit(window);
        session.drained();
        session
    }

    /// Ends it: returns when what belonged to it is gone, but for its record.
    pub(super) async fn end(self) {
        let Self { connection, lane, .. } = self;
        drop(lane);
        connection.close().await;
    }

    /// Makes the session that `record` tells of, on a lane of its own.
    ///
    /// # Errors
    /// When one of its subscriptions cannot be made.
    pub(super) async fn made(parts: Resumed, record: &Record) -> Result<Self, Refused> {
        let Resumed { version, mut tenure, will, connection, lane, limits, retained, counters, mailbox } =
            parts;
        let lasts = connection.lasts();
        tenure.notes = lasts.then(Notes::default);
        let mut deliveries = Deliveries::default();
        deliveries.keep(lasts);
        let mut publishing = Publishing::default();
        publishing.know(lane.noted());
        let mut resting = Self {
            identifier: record.client.as_ref().into(),
            version,
            tenure,
            will,
            left: None,
            connection,
            lane,
            limits,
            retained,
            counters,
            credit: Arc::new(Credit::new(0)),
            publishing,
            subscriptions: Subscriptions::default(),
            mailbox,
            place: Lying::Here(Box::new(deliveries)),
        };
        resting.subscribe(record).await?;
        Ok(resting)
    }

    async fn subscribe(&mut self, record: &Record) -> Result<(), Refused> {
        let Lying::Here(deliveries) = &mut self.place else { return Ok(()) };
        for line in &record.subscriptions {
            let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];
            let Some(qos) = qos.into_iter().find(|qos| *qos as u8 == line.qos) else { continue };
            let credit = (qos != Qos::AtMostOnce).then(|| Arc::clone(&self.credit));
            let held = self
                .subscriptions
                .take_up(line, qos, self.limits.filter_levels, &mut *self.lane, credit)
                .await?;
            deliveries.subscribe(held.subscribed());
            self.lane.start(key(held.number));
        }
        self.subscriptions.next = record.next;
        if self.tenure.notes.is_some() {
            // What is on its way to the client is completed, whatever has become of its subscriptions [MQTT-4.4.0-1].
            let (key, credit) = (key(record.next), Some(Arc::clone(&self.credit)));
            let how = linkspan_contract::Subscribe::new(Settle::AsPublished);
            self.lane.subscribe(&Source::Session, key, &how, credit).await?;
            self.lane.start(key);
        }
        self.lane.flush();
        Ok(())
    }
}

/// What a session is made of that was written down.
pub(super) struct Resumed {
    pub version: Version,
    pub tenure: Box<Tenure>,
    pub will: Option<Box<Testament>>,
    pub connection: Box<dyn Connection>,
    pub lane: Box<dyn Lane>,
    pub limits: Arc<Limits>,
    pub retained: Arc<Retained>,
    pub counters: Arc<Counters>,
    pub mailbox: Arc<Mailbox>,
}
