//! One consumer: what it was sent, and what it may be given.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use lapin::Consumer;
use lapin::message::Delivery;
use linkspan_contract::{Credit, Settle, SubscriptionKey};

use super::Wanted;
use super::attendance::Attendance;

/// A subscription of a lane to a queue.
pub(super) struct Taker {
    pub(super) wanted: Wanted,
    /// What takes the place of `wanted` when it is started; the broker's consumer is of these terms already.
    next: Option<Wanted>,
    /// The broker's consumers and their windows: a second one when the window has grown. None while it is paused or the
    /// connection is away.
    pub(super) streams: Vec<(Consumer, u16)>,
    /// What was sent and not given, in the broker's order.
    pub(super) buffer: VecDeque<Delivery>,
    pub(super) started: bool,
    /// Its sink is above its mark.
    pub(super) congested: bool,
    /// Deliveries that the broker waits for because their release is delayed.
    pub(super) delayed: u16,
    /// Deliveries whose deadline has passed, and which the client still holds.
    pub(super) late: u16,
    /// Its sink takes nothing any more.
    pub(super) gone: bool,
    /// Credit that its lane has taken for it.
    pub(super) prepaid: u32,
    /// It is of a session that is kept: its client may be away.
    kept: bool,
    /// It is the one that consumes the queue of the client's session, for all its subscriptions.
    pub(super) attendance: Option<Box<Attendance>>,
}

/// What the broker's consumer has come to.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// All that was there was taken.
    Runs,
    /// There may be more.
    More,
    /// The broker has cancelled it.
    Cancelled,
    /// The channel is lost.
    Lost(lapin::Error),
}

/// A consumer that bounds itself is sent at most so much.
const MOST: u16 = u16::MAX;

/// So many deliveries are taken from lapin at a time.
const AT_A_TIME: usize = 256;

impl Taker {
    /// `kept`: of a session that may be without its client.
    pub(super) fn new(wanted: Wanted, kept: bool) -> Self {
        Self {
            wanted,
            kept,
            next: None,
            streams: Vec::new(),
            buffer: VecDeque::new(),
            started: false,
            congested: false,
            delayed: 0,
            late: 0,
            gone: false,
            prepaid: 0,
            attendance: None,
        }
    }

    /// The one that consumes the queue of the client's session. It needs no start: its subscriptions do.
    pub(super) fn attending(wanted: Wanted, attendance: Attendance) -> Self {
        Self { started: true, attendance: Some(Box::new(attendance)), ..Self::new(wanted, true) }
    }

    /// Begins a subscription of the session, if it has that one.
    pub(super) fn start_interest(&mut self, key: SubscriptionKey) {
        if let Some(interest) = self.attendance.as_mut().and_then(|it| it.interest(key)) {
            interest.start();
        }
    }

    /// The terms that the broker's consumer has.
    pub(super) fn terms(&self) -> &Wanted {
        self.next.as_ref().unwrap_or(&self.wanted)
    }

    /// Notes the terms of what is to take its place; yields those that were noted before.
    pub(super) fn replace(&mut self, next: Option<Wanted>) -> Option<Wanted> {
        std::mem::replace(&mut self.next, next)
    }

    /// Begins, or goes on under the terms that it was given last: what it was sent and nobody was given is theirs.
    pub(super) fn start(&mut self) {
        self.started = true;
        let Some(next) = self.next.take() else { return };
        let before = std::mem::replace(&mut self.wanted, next);
        if let Some(credit) = before.credit {
            credit.give_back(std::mem::take(&mut self.prepaid));
        }
    }

    /// How many deliveries the broker may have under way to it now.
    pub(super) fn window(&self) -> u16 {
        self.streams.iter().fold(0, |all, (_, window)| all.saturating_add(*window))
    }

    /// How many deliveries the broker should have under way to it; 0: none, it is to be paused. `unsettling` is what a
    /// consumer is sent that settles nothing.
    pub(super) fn wanted_window(&self, unsettling: u16) -> u16 {
        if self.gone {
            return 0;
        }
        let terms = self.terms();
        // The client is away, and has what it has; what it would be sent is for others who are there.
        if self.kept && terms.credit.as_ref().is_some_and(|credit| credit.limit() == 0) {
            return 0;
        }
        let own = match (terms.settle, &terms.credit) {
            (Settle::OnDelivery, _) => unsettling,
            (_, None) => MOST,
            (_, Some(credit)) => bounded(credit, terms.settle, unsettling),
        };
        match own.checked_sub(self.late) {
            None | Some(0) => 0,
            // A second consumer beside an exclusive one is refused.
            Some(own) if terms.exclusive => own,
            Some(own) => own.saturating_add(self.delayed),
        }
    }

    /// True when the broker should have another window than it has. What comes in the place of a delayed release is asked
    /// for when the client may take it, behind what it gave back at the same time.
    pub(super) fn is_to_be_adjusted(&self, unsettling: u16) -> bool {
        let (wanted, window) = (self.wanted_window(unsettling), self.window());
        let may_take = || self.credit().is_none_or(|credit| credit.available() > 0);
        wanted < window || (wanted > window && (self.delayed == 0 || window == 0 || may_take()))
    }

    /// Takes what lapin has, up to a bound.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>) -> Source {
        self.fill_to(AT_A_TIME, cx)
    }

    fn fill_to(&mut self, most: usize, cx: &mut Context<'_>) -> Source {
        let Self { streams, buffer, .. } = self;
        let (before, several) = (buffer.len(), streams.len() > 1);
        let most = if several { usize::MAX } else { most };
        loop {
            let known = buffer.len();
            for (consumer, _) in streams.iter_mut() {
                while buffer.len() < most {
                    match Pin::new(&mut *consumer).poll_next(cx) {
                        Poll::Ready(Some(Ok(delivery))) => buffer.push_back(delivery),
                        Poll::Ready(Some(Err(error))) => return Source::Lost(error),
                        Poll::Ready(None) => return Source::Cancelled,
                        Poll::Pending => break,
                    }
                }
            }
            // The first of them may have been sent something, since it was looked at, before what another was sent.
            if !several || buffer.len() == known {
                break;
            }
        }
        if several && buffer.len() > before {
            buffer.make_contiguous().sort_by_key(|delivery| delivery.delivery_tag);
        }
        if buffer.len() < most { Source::Runs } else { Source::More }
    }

    /// Takes all that lapin has, when the broker's consumers from the one at `from` on were cancelled.
    pub(super) fn take_rest(&mut self, from: usize, cx: &mut Context<'_>) -> Source {
        let Self { streams, buffer, .. } = self;
        for (place, (consumer, _)) in streams.iter_mut().enumerate() {
            loop {
                match Pin::new(&mut *consumer).poll_next(cx) {
                    Poll::Ready(Some(Ok(delivery))) => buffer.push_back(delivery),
                    Poll::Ready(Some(Err(error))) => return Source::Lost(error),
                    Poll::Ready(None) if place < from => return Source::Cancelled,
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
        }
        buffer.make_contiguous().sort_by_key(|delivery| delivery.delivery_tag);
        Source::Runs
    }

    /// True when it may be given something.
    pub(super) fn is_open(&self) -> bool {
        let has_letter = self.attendance.as_ref().is_some_and(|it| it.letter.is_some());
        self.started && !self.gone && !self.congested && (has_letter || !self.buffer.is_empty())
    }

    /// The window that bounds it when somebody settles; `None` is the sink's mark.
    pub(super) fn credit(&self) -> Option<&Arc<Credit>> {
        self.wanted.credit.as_ref().filter(|_| self.wanted.settle != Settle::OnDelivery)
    }
}

/// The client's window; one that is shared or may grow may be 0 for now. What the client does not settle is not bounded
/// by it.
fn bounded(credit: &Credit, settle: Settle, unsettling: u16) -> u16 {
    let limit = u16::try_from(credit.limit()).unwrap_or(MOST).max(1);
    if settle == Settle::AsPublished { limit.min(unsettling) } else { limit }
}
