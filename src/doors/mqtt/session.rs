//! An MQTT session: what the packets of one client mean. Bytes in; calls of its lane and packets for the client out.
//!
//! The session owns its way through the back end and what is unacknowledged; a socket only lends it a sink.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::task::{Context, Poll};

use linkspan_contract::{Connection, Credit, Lane, Receipt, Settled, Settlement};

use super::ending::Ending;
use super::handshake::Agreement;
use super::limits::Limits;
use super::metric::Counters;
use super::notes::{Due, Notes};
use super::publishing::Publishing;
use super::resting::Tenure;
use super::sink::Sink;
use super::subscribing::{Request, Subscriptions};
use super::translate;
use super::work::{Acked, Work};
use crate::protocol::mqtt::{
    Ack, AckKind, Disconnect, Frame, Framing, Packet, Publishes, ReasonCode, Sender, Version,
};
use crate::retained::Retained;

/// What a session is made of.
pub(super) struct Parts {
    pub agreement: Agreement,
    pub connection: Box<dyn Connection>,
    pub lane: Box<dyn Lane>,
    pub sink: Arc<Sink>,
    pub limits: Arc<Limits>,
    pub retained: Arc<Retained>,
    pub counters: Arc<Counters>,
    pub tenure: Option<Box<Tenure>>,
}

/// One client's session.
pub(super) struct Session {
    pub(super) agreement: Agreement,
    pub(super) connection: Box<dyn Connection>,
    pub(super) lane: Box<dyn Lane>,
    pub(super) sink: Arc<Sink>,
    pub(super) limits: Arc<Limits>,
    pub(super) retained: Arc<Retained>,
    /// Deliveries that the client may have unacknowledged, all its subscriptions together.
    pub(super) credit: Arc<Credit>,
    pub(super) publishing: Publishing,
    pub(super) subscriptions: Subscriptions,
    /// Something that was published to is above its mark.
    pub(super) congested: bool,
    /// It is one at the back end, which sees to what outlives the connection.
    pub(super) kept: bool,
    /// The back end is asked for something.
    pub(super) asking: bool,
    /// It may outlive its connection here.
    pub(super) tenure: Option<Box<Tenure>>,
    pub(super) counters: Arc<Counters>,
}

/// How far a session has come with the bytes it was given.
#[derive(Debug)]
pub(super) struct Taken {
    /// Bytes that are dealt with.
    pub consumed: usize,
    /// What comes next.
    pub next: Next,
}

/// What a session waits for.
#[derive(Debug)]
pub(super) enum Next {
    /// More bytes: `needed` for the packet that has begun, once that is known.
    Bytes { needed: Option<usize> },
    /// The back end's answer to a request; what follows in the bytes comes after it.
    Request(Request),
    /// Nothing: it is over.
    End(Ending),
}

impl Session {
    /// A session that has just begun.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { mut agreement, connection, lane, sink, limits, retained, counters, tenure } = parts;
        let session = connection.session();
        if session.is_some_and(|session| session.will) {
            agreement.will = None;
        }
        let credit = Arc::new(Credit::new(agreement.window));
        Self {
            publishing: Publishing::default(),
            agreement,
            connection,
            lane,
            sink,
            limits,
            retained,
            credit,
            subscriptions: Subscriptions::default(),
            kept: session.is_some(),
            congested: false,
            asking: false,
            tenure,
            counters,
        }
    }

    /// Deals with all whole packets in `bytes`. Afterwards [`Session::conclude`] is due, once per read.
    pub(super) fn take(&mut self, bytes: &[u8], work: &mut Work) -> Taken {
        let mut at = 0;
        let next = loop {
            match self.take_some(bytes, &mut at, work) {
                Ok(None) => {}
                Ok(Some(next)) => break next,
                Err(ending) => break Next::End(ending),
            }
        };
        self.hand_over(bytes, work);
        let next = match self.publishing.refused() {
            Some(ending) => Next::End(ending),
            None => next,
        };
        Taken { consumed: at, next }
    }

    /// Deals with a run of PUBLISHes and the packet behind it.
    fn take_some(&mut self, bytes: &[u8], at: &mut usize, work: &mut Work) -> Result<Option<Next>, Ending> {
        let maximum = self.limits.packet;
        let rest = bytes.get(*at..).unwrap_or_default();
        let mut publishes = Publishes::new(rest, self.agreement.version, Sender::Client, maximum);
        let base = *at;
        while let Some(publish) = publishes.next() {
            self.publish(bytes, base, &publish?, work)?;
            *at = base + publishes.position();
        }
        match Framing::read(bytes.get(*at..).unwrap_or_default(), maximum)? {
            Framing::Incomplete { needed } => Ok(Some(Next::Bytes { needed })),
            Framing::Complete(frame) => {
                *at += frame.wire.len();
                self.packet(&frame, work)
            }
        }
    }

    /// Deals with a packet that is no PUBLISH.
    fn packet(&mut self, frame: &Frame<'_>, work: &mut Work) -> Result<Option<Next>, Ending> {
        let version = self.agreement.version;
        match Packet::decode(frame, version, Sender::Client)? {
            Packet::Puback(ack) => work.acks.push(acked(AckKind::Puback, &ack)),
            Packet::Pubrec(ack) => work.acks.push(acked(AckKind::Pubrec, &ack)),
            Packet::Pubcomp(ack) => work.acks.push(acked(AckKind::Pubcomp, &ack)),
            Packet::Pubrel(ack) => self.release(ack.packet_id, work),
            Packet::Subscribe(subscribe) => {
                return Ok(Some(Next::Request(Request::subscribe(&subscribe))));
            }
            Packet::Unsubscribe(unsubscribe) => {
                return Ok(Some(Next::Request(Request::unsubscribe(&unsubscribe))));
            }
            Packet::Pingreq => reply(&Packet::Pingresp, version, work),
            Packet::Disconnect(disconnect) => return Err(self.leave(&disconnect)),
            Packet::Connect(_) => {
                return Err(Ending::violated(
                    ReasonCode::ProtocolError,
                    "a second CONNECT on one connection [MQTT-3.1.0-2]",
                ));
            }
            // The codec lets only a client's packets through; PUBLISHes are taken before.
            Packet::Auth(_)
            | Packet::Publish(_)
            | Packet::Connack(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp => {
                return Err(Ending::violated(
                    ReasonCode::ProtocolError,
                    "AUTH on a connection without extended authentication [MQTT-4.12.0-6]",
                ));
            }
        }
        Ok(None)
    }

    fn leave(&mut self, disconnect: &Disconnect<'_>) -> Ending {
        let keeps = disconnect.session_expiry_interval.is_some_and(|seconds| seconds > 0);
        if keeps && !self.agreement.may_keep_session() {
            return Ending::violated(
                ReasonCode::ProtocolError,
                "a DISCONNECT that lets a session live on which the CONNECT did not (§3.14.2.2.2)",
            );
        }
        if let Some(seconds) = disconnect.session_expiry_interval {
            self.connection.keep_session(seconds);
            if let Some(tenure) = &mut self.tenure {
                tenure.keep = self.limits.kept_for(seconds);
            }
        }
        Ending::Left(disconnect.reason)
    }

    /// Settles what was acknowledged, answers what was published, and lets everything be written.
    ///
    /// # Errors
    /// When the client acknowledged what it was not sent that way.
    pub(super) fn conclude(&mut self, work: &mut Work) -> Result<(), Ending> {
        let settled = if work.acks.is_empty() { Ok(()) } else { self.settle(work) };
        self.reply(work);
        self.lane.flush();
        settled
    }

    /// Sends the replies that have gathered.
    pub(super) fn reply(&self, work: &mut Work) {
        if !work.replies.is_empty() {
            self.sink.append(&work.replies);
            self.sink.outbound.flush();
            work.replies.clear();
        }
    }

    fn settle(&mut self, work: &mut Work) -> Result<(), Ending> {
        let Work { acks, runs, received, replies, .. } = work;
        let settled = self.sink.outbound.lock().state().settle(acks, runs, received, replies);
        acks.clear();
        if !received.is_empty() {
            self.await_received(received, runs);
        }
        if !runs.is_empty() {
            self.lane.settle(runs);
            runs.clear();
        }
        settled.map(|count| self.grant(count))
    }

    /// What the client has is released when that is safe: the last run of these says so for all.
    #[cold]
    fn await_received(&mut self, received: &mut Vec<NonZeroU16>, runs: &mut [Settled]) {
        let Some(notes) = self.notes() else { return };
        let word = notes.word();
        notes.wait(word, Due::Pubrel(std::mem::take(received)));
        if let Some(last) = runs.iter_mut().rfind(|run| run.outcome == Settlement::Receive) {
            last.word = Some(word);
        }
    }

    /// What waits for the disk, where the session outlives the process.
    pub(super) fn notes(&mut self) -> Option<&mut Notes> {
        self.tenure.as_mut()?.notes.as_mut()
    }

    /// The client may have as many more deliveries.
    fn grant(&mut self, count: u32) {
        if count > 0 && self.credit.grant(count) {
            self.lane.resume();
            self.replay();
        }
    }

    /// Settles what the sink could not send.
    pub(super) fn settle_discarded(&mut self) {
        let runs = self.sink.outbound.lock().state().take_discarded();
        if !runs.is_empty() {
            self.lane.settle(&runs);
            self.grant(runs.iter().filter(|run| run.outcome.is_last()).map(|run| run.count).sum());
            self.lane.flush();
        }
    }

    /// The client has room again.
    pub(super) fn drained(&mut self) {
        self.lane.resume();
        self.replay();
        self.sink.outbound.flush();
        self.lane.flush();
    }

    /// Receipts have come.
    pub(super) fn receipts(&mut self, runs: &[Receipt], work: &mut Work) -> Result<(), Ending> {
        for run in runs.iter().filter(|run| !Notes::is_word(run)) {
            self.publishing.receipt(run.first, run.count, &translate::answer(&run.outcome));
        }
        if let Some(notes) = self.tenure.as_mut().and_then(|tenure| tenure.notes.as_mut()) {
            let words: Vec<Receipt> = runs.iter().filter(|run| Notes::is_word(run)).cloned().collect();
            if !words.is_empty() {
                let mut guard = self.sink.outbound.lock();
                notes.hear(&words, guard.state(), &mut self.publishing, Some(&mut work.replies));
            }
        }
        self.answer_waiting(work);
        self.reply(work);
        self.publishing.refused().map_or(Ok(()), Err)
    }

    /// Pending while what was published to is above its mark.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        if self.congested {
            match self.lane.poll_ready(cx) {
                Poll::Ready(Ok(())) => self.congested = false,
                Poll::Ready(Err(lost)) => return Poll::Ready(Err(lost.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Counts what was read.
    pub(super) fn count_received(&self, messages: u64, bytes: u64) {
        self.counters.received.increment(messages);
        self.counters.received_bytes.increment(bytes);
    }

    /// Publishes the will.
    pub(super) fn publish_will(&mut self) {
        if let Some(will) = self.agreement.will.take() {
            self.publishing.publish_unasked(will.packet(), self.agreement.version, &mut *self.lane);
        }
    }

    /// Ends it: returns when what belonged to it is gone. With `will` a back end that keeps the session publishes the will.
    pub(super) async fn close(self, will: bool) {
        let Self { connection, lane, kept, .. } = self;
        drop(lane);
        if !(kept && will) {
            connection.close().await;
        }
    }

    /// PUBREL: the client will not send the PUBLISH again.
    fn release(&mut self, packet_id: NonZeroU16, work: &mut Work) {
        if self.publishing.knows(packet_id)
            && let Some(notes) = self.tenure.as_mut().and_then(|tenure| tenure.notes.as_mut())
        {
            if notes.is_ending(packet_id) {
                return;
            }
            let word = notes.word();
            if !self.lane.unnote(packet_id, word) {
                notes.wait(word, Due::Pubcomp { packet_id, asked: 1 });
                return;
            }
        }
        let reason = match self.publishing.release(packet_id) {
            true => ReasonCode::Success,
            false => ReasonCode::PacketIdentifierNotFound,
        };
        reply(&Packet::Pubcomp(Ack::new(packet_id, reason)), self.agreement.version, work);
    }
}

const fn acked(kind: AckKind, ack: &Ack<'_>) -> Acked {
    Acked { kind, packet_id: ack.packet_id, reason: ack.reason }
}

/// Appends a small packet for the client.
pub(super) fn reply(packet: &Packet<'_>, version: Version, work: &mut Work) {
    // Acknowledgements without diagnostics fit into every packet and can always be said.
    let _ = packet.encode(version, &mut work.replies);
}

/// Appends the answer to a PUBLISH.
pub(super) fn acknowledge(
    kind: AckKind,
    ack: Ack<'_>,
    maximum: u32,
    version: Version,
    replies: &mut Vec<u8>,
) {
    let packet = match kind {
        AckKind::Puback => Packet::Puback(ack),
        AckKind::Pubrec => Packet::Pubrec(ack),
        AckKind::Pubrel => Packet::Pubrel(ack),
        AckKind::Pubcomp => Packet::Pubcomp(ack),
    };
    let _ = packet.encode_within(maximum, version, replies);
}
