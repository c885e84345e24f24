//! The turns of a connected client's task: what is to be written, what other tasks have said, what was read.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::{AcquireError, OwnedSemaphorePermit};

use super::KeepAlive;
use super::ahead::{AHEAD, Ahead, answer_pings};
use super::held::Held;
use crate::alarms::Alarms;
use crate::doors::listener::ReadHalf;
use crate::doors::mqtt::MqttDoor;
use crate::doors::mqtt::ending::Ending;
use crate::doors::mqtt::input::Input;
use crate::doors::mqtt::mailbox::{Letters, Mailbox};
use crate::doors::mqtt::registry::{Claim, Successor};
use crate::doors::mqtt::session::{Next, Session, Taken};
use crate::doors::mqtt::sink::Sink;
use crate::doors::mqtt::subscribing::Request;
use crate::doors::mqtt::work::Work;
use crate::doors::outbound::{Owner, Turn};
use crate::doors::{buffer, give_way};

/// Bytes that a connection handles before it lets others have their turn.
const FAIR_SHARE: usize = buffer::READ;

/// What a connection waits for beside its socket.
type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A connected client.
pub(super) struct Live {
    pub(super) read: ReadHalf,
    pub(super) input: Input,
    pub(super) sink: Arc<Sink>,
    owner: Owner,
    mailbox: Arc<Mailbox>,
    pub(super) session: Session,
    pub(super) claim: Claim,
    pub(super) keep_alive: Option<KeepAlive>,
    /// An alarm keeps back what is unread.
    pub(super) held: Option<Box<Held>>,
    pub(super) permit: Option<Waiting<Result<OwnedSemaphorePermit, AcquireError>>>,
    #[allow(clippy::box_collection, reason = "idle clients hold one word instead of three")]
    pub(super) successors: Option<Box<Vec<Successor>>>,
    changed: bool,
    drained: bool,
}

/// What the connection does next.
pub(super) enum Step {
    /// The back end is asked for something.
    Request(Request),
    /// The lane's subscriptions are resolved again.
    Refresh,
    /// It is over.
    End(Ending),
}

impl Live {
    pub(super) fn new(
        read: ReadHalf,
        input: Input,
        sink: Arc<Sink>,
        session: Session,
        claim: Claim,
        keep_alive: Option<KeepAlive>,
    ) -> Self {
        Self {
            read,
            input,
            sink,
            owner: Owner::default(),
            mailbox: Arc::clone(claim.mailbox()),
            keep_alive,
            held: None,
            session,
            claim,
            permit: None,
            successors: None,
            changed: false,
            drained: false,
        }
    }

    /// Asks the back end; meanwhile what is to be written is written, and the client is not left alone. The request is
    /// given up when the connection has to end.
    pub(super) async fn carry_out(&mut self, request: Option<Request>) -> Result<(), Ending> {
        let Self { session, sink, owner, drained, read, input, keep_alive, mailbox, .. } = self;
        let mut ahead = Ahead::default();
        session.asking = true;
        let mut asking = Box::pin(async {
            let answered = match request {
                Some(request) => session.carry_out(request).await,
                None => {
                    session.lane.refresh().await;
                    session.lane.flush();
                    Ok(())
                }
            };
            session.asking = false;
            answered
        });
        poll_fn(|cx| {
            match sink.outbound.poll_owner(cx, owner) {
                Poll::Ready(Turn::Closed(how)) => return Poll::Ready(Err(how.into())),
                Poll::Ready(Turn::Drained) => {
                    *drained = true;
                    cx.waker().wake_by_ref();
                }
                Poll::Pending => {}
            }
            if let Poll::Ready(answered) = asking.as_mut().poll(cx) {
                return Poll::Ready(answered);
            }
            if mailbox.is_urgent(cx) {
                return Poll::Ready(Ok(()));
            }
            let answer = |input: &mut Input, looked: &mut usize| {
                answer_pings(input, looked, sink);
                Ok(())
            };
            match ahead.poll(cx, read, input, sink, keep_alive.as_mut(), answer) {
                Ok(()) => Poll::Pending,
                Err(ending) => Poll::Ready(Err(ending)),
            }
        })
        .await
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, door: &Arc<MqttDoor>) -> Poll<Step> {
        loop {
            match self.sink.outbound.poll_owner(cx, &mut self.owner) {
                Poll::Ready(Turn::Closed(how)) => return Poll::Ready(Step::End(how.into())),
                Poll::Ready(Turn::Drained) => self.drained = true,
                Poll::Pending => break,
            }
        }
        if std::mem::take(&mut self.drained) {
            self.session.drained();
        }
        while let Some(letters) = self.mailbox.collect(cx) {
            if let Err(ending) = self.heed(*letters) {
                return Poll::Ready(Step::End(ending));
            }
        }
        if std::mem::take(&mut self.changed) {
            return Poll::Ready(Step::Refresh);
        }
        let mut handled = 0;
        while handled < FAIR_SHARE {
            match self.poll_held(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(ending)) => return Poll::Ready(Step::End(ending)),
                Poll::Pending => break,
            }
            match self.session.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(ending)) => return Poll::Ready(Step::End(ending)),
                // Who is not listened to is not silent.
                Poll::Pending => {
                    self.heard();
                    break;
                }
            }
            match self.poll_input(cx, door) {
                Poll::Ready(Ok((count, None))) => handled += count.max(1),
                Poll::Ready(Ok((_, Some(request)))) => return Poll::Ready(Step::Request(request)),
                Poll::Ready(Err(ending)) => return Poll::Ready(Step::End(ending)),
                Poll::Pending => break,
            }
        }
        if handled >= FAIR_SHARE {
            give_way(cx);
        }
        match self.keep_alive.as_mut().map(|keep_alive| keep_alive.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Step::End(Ending::Silent)),
            _ => Poll::Pending,
        }
    }

    pub(super) fn heard(&mut self) {
        if let Some(keep_alive) = &mut self.keep_alive {
            keep_alive.heard();
        }
    }

    /// Deals with what other tasks have said.
    fn heed(&mut self, letters: Letters) -> Result<(), Ending> {
        let Letters { receipts, discards, ended, successors, closed, taken_over, changed, stop } = letters;
        if !successors.is_empty() {
            self.successors.get_or_insert_default().extend(successors);
        }
        if !receipts.is_empty() {
            Work::with(|work| self.session.receipts(&receipts, work))?;
        }
        if discards {
            self.session.settle_discarded();
        }
        self.changed |= changed;
        if let Some(ending) = ended.and_then(Ending::unsubscribed) {
            return Err(ending);
        }
        if taken_over {
            return Err(Ending::TakenOver);
        }
        if let Some(text) = closed {
            return Err(Ending::Lost(text));
        }
        if stop {
            return Err(Ending::ShuttingDown);
        }
        if self.successors.is_some() {
            return Err(Ending::TakenOver);
        }
        Ok(())
    }

    /// Reads once and deals with it; says how many bytes that were, and what the back end has to be asked for.
    fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
        door: &Arc<MqttDoor>,
    ) -> Poll<Result<(usize, Option<Request>), Ending>> {
        let alarm = door.alarms.is_on();
        if let Some(bytes) = self.input.take_unread() {
            return Poll::Ready(self.deal_with_unread(bytes, alarm.then_some(&door.alarms)));
        }
        if self.input.is_large() {
            return self.poll_large(cx, door, alarm);
        }
        let Self { read, input, session, held, .. } = self;
        let result = ready!(buffer::with_scratch(|scratch| {
            let before = input.place_before(scratch);
            let end = if alarm { scratch.len().min(before + AHEAD) } else { scratch.len() };
            let room = scratch.get_mut(before..end).unwrap_or_default();
            let count = match ready!(read.poll_read(cx, room)) {
                Ok(0) => return Poll::Ready(Err(Ending::Gone(None))),
                Ok(count) => count,
                Err(error) => return Poll::Ready(Err(Ending::Gone(Some(error.kind())))),
            };
            let received = scratch.get(..before + count).unwrap_or_default();
            let kept_back = if alarm { Held::before_publish(received, &door.alarms) } else { None };
            let end = kept_back.as_ref().map_or(received.len(), |(at, _)| *at);
            let taken = deal_with(session, received.get(..end).unwrap_or_default(), count);
            let rest = received.get(taken.consumed..).unwrap_or_default();
            Poll::Ready(match taken.next {
                Next::Bytes { needed } => {
                    match kept_back {
                        Some((_, by)) => {
                            *held = Some(by);
                            input.keep_unread(rest);
                        }
                        None => input.keep(rest, needed),
                    }
                    Ok((count, None))
                }
                Next::Request(request) => {
                    input.keep_unread(rest);
                    Ok((count, Some(request)))
                }
                Next::End(ending) => Err(ending),
            })
        }));
        self.heard();
        Poll::Ready(result)
    }

    /// Deals with packets that came together with a request that has been carried out by now, or that an alarm has kept
    /// back; up to the first PUBLISH where there are `alarms`.
    pub(super) fn deal_with_unread(
        &mut self,
        bytes: Vec<u8>,
        alarms: Option<&Arc<Alarms>>,
    ) -> Result<(usize, Option<Request>), Ending> {
        let kept_back = alarms.and_then(|alarms| Held::before_publish(&bytes, alarms));
        let end = kept_back.as_ref().map_or(bytes.len(), |(at, _)| *at);
        let Taken { consumed, next } = deal_with(&mut self.session, bytes.get(..end).unwrap_or_default(), 0);
        match (next, kept_back) {
            (Next::Bytes { .. }, Some((_, by))) => {
                self.held = Some(by);
                self.input.put_back(bytes, consumed);
                Ok((consumed, None))
            }
            (Next::Bytes { needed }, None) => {
                self.input.keep(bytes.get(consumed..).unwrap_or_default(), needed);
                Ok((consumed, None))
            }
            (Next::Request(request), _) => {
                self.input.put_back(bytes, consumed);
                Ok((consumed, Some(request)))
            }
            (Next::End(ending), _) => Err(ending),
        }
    }
}

/// Lets the session deal with what was received.
pub(super) fn deal_with(session: &mut Session, received: &[u8], count: usize) -> Taken {
    Work::with(|work| {
        let mut taken = session.take(received, work);
        if let (Err(ending), false) = (session.conclude(work), matches!(taken.next, Next::End(_))) {
            taken.next = Next::End(ending);
        }
        let messages = session.publishing.take_count();
        session.count_received(messages, count as u64);
        taken
    })
}
