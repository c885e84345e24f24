//! A lane's way through spools: what is published on a route that has one while its back end is away.

use std::sync::Arc;

use linkspan_contract::{
    Batch, Body, Destination, Flags, Message, Outcome, Published, Refused, Seq, TargetId,
};

use super::lane::HubLane;
use super::part::OfAnother;
use super::plan::{Course, Wanted};
use super::publishing::at_once;
use super::spool::Spool;

/// A spool as a lane uses it.
pub struct Spooling {
    /// The spool.
    pub spool: Arc<Spool>,
    /// The way into it, and its number there, once something was put into it.
    into: Option<(u16, TargetId)>,
    /// The part that messages of the route went to straight, and the number behind the last of them.
    straight: Option<(u16, Seq)>,
    /// The spool follows what went straight up to here.
    followed: Seq,
}

impl Spooling {
    /// Whether its publisher has to wait.
    pub fn holds(&self) -> bool {
        self.into.is_some() && self.spool.holds()
    }
}

/// A way for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lead {
    /// By a part; the spool of the route, if it has one.
    Straight(u16, Option<usize>),
    /// Into that spool.
    Spool(usize),
    /// Nobody wants to know whether it arrives, and it cannot now.
    Nowhere,
}

/// The spool of a target, and its course.
pub type Led = (Option<usize>, Result<(u16, TargetId), Refused>);

/// What of a published message a spool sees to, or cannot.
const DROPPED: Flags = Flags(Flags::MANDATORY.0 | Flags::EXACTLY_ONCE.0);

/// Someone counts on a message with one of these.
const COUNTED_ON: Flags = Flags(Flags::RECEIPT.0 | Flags::DURABLE.0);

impl HubLane {
    /// The spools of routes that it has published to.
    pub(super) fn spoolings(&self) -> &[Spooling] {
        self.spoolings.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The spool of a destination, as a place among those that this lane uses.
    pub(super) fn spool_of(&mut self, wanted: &Wanted, course: &Course) -> Option<usize> {
        let route = course.route.as_ref().filter(|_| wanted.is_told_by_message())?;
        let spool = self.scope.hub.spool_of(route)?;
        let known = self.spoolings().iter().position(|it| Arc::ptr_eq(&it.spool, &spool));
        Some(known.unwrap_or_else(|| {
            let spoolings = self.spoolings.get_or_insert_default();
            spoolings.push(Spooling { spool, into: None, straight: None, followed: 0 });
            spoolings.len().saturating_sub(1)
        }))
    }

    /// Whether a spool diverts what this lane publishes.
    #[inline]
    pub(super) fn is_diverted(&self, spool: Option<usize>) -> bool {
        let diverts = |at| self.spoolings().get(at).is_some_and(|it: &Spooling| it.spool.diverts());
        !self.transacts && spool.is_some_and(diverts)
    }

    /// Whether nothing that this lane publishes goes by that part now.
    pub(super) fn is_bypassed(&self, at: usize) -> bool {
        let uses = |it: &&Spooling| it.straight.is_some_and(|(part, _)| usize::from(part) == at);
        let mut spoolings = self.spoolings().iter().filter(uses).peekable();
        spoolings.peek().is_some()
            && self.parts.get(at).is_some_and(|part| !part.plain)
            && spoolings.all(|it| it.spool.diverts())
    }

    /// The way of a message, and its target there.
    pub(super) fn lead_of(
        &self,
        batch: &Batch<'_>,
        message: &Message,
        (spool, course): Led,
    ) -> Result<(Lead, TargetId), Refused> {
        let Some((at, it)) = spool.and_then(|at| Some((at, self.spoolings().get(at)?))) else {
            return course.map(|(part, target)| (Lead::Straight(part, None), target));
        };
        // A body that is kept by the back end waits with it.
        let fits = !self.transacts && !matches!(batch.body, Some(Body::Stored(_)));
        let is_away = matches!(course, Err(Refused::Away(_)));
        if !fits || !(it.spool.diverts() || is_away && it.spool.divert()) {
            return course.map(|(part, target)| (Lead::Straight(part, spool), target));
        }
        if !message.flags.any(COUNTED_ON) && !it.spool.is_reached() {
            return Ok((Lead::Nowhere, TargetId::default()));
        }
        Ok((Lead::Spool(at), TargetId::default()))
    }

    /// Messages went straight by a part.
    pub(super) fn went_straight(&mut self, part: u16, spool: Option<usize>) {
        let Some(by) = self.parts.get_mut(usize::from(part)) else { return };
        match spool.and_then(|at| self.spoolings.as_mut().and_then(|them| them.get_mut(at))) {
            Some(it) => it.straight = Some((part, by.next)),
            None => by.plain = true,
        }
    }

    /// Puts messages into a spool, and tells how many were taken; none when it does not divert any more.
    ///
    /// # Errors
    /// When it is closed.
    pub(super) fn publish_into(
        &mut self,
        at: usize,
        batch: &Batch<'_>,
        messages: &mut [Message],
        begin: u32,
        all: &mut Published,
    ) -> Result<Option<u32>, Refused> {
        let Some(spool) = self.spoolings().get(at).map(|it| Arc::clone(&it.spool)) else { return Ok(None) };
        let Some(_turn) = spool.enter() else { return Ok(None) };
        self.follow(at);
        let (part, target) = self.way_into(at)?;
        for message in messages.iter_mut() {
            let durable = Flags::DURABLE.when(message.flags.has(Flags::RECEIPT));
            (message.target, message.flags) = (target, message.flags.without(DROPPED) | durable);
        }
        let run = Batch { messages, any: batch.any | Flags::DURABLE, ..*batch };
        let known = all.exceptions.len();
        let taken = self.publish_run(part, &run, begin, all);
        for (_, outcome) in all.exceptions.iter_mut().skip(known) {
            if *outcome == Outcome::Unroutable {
                // It did not find its queue: nothing was kept.
                *outcome = Outcome::Failed(Refused::Away(spool.backend.to_string()));
            }
        }
        metrics::counter!("linkspan_spooled_total").increment(taken.into());
        all.congested |= spool.filled();
        Ok(Some(taken))
    }

    /// What went straight and is on its way comes before what is put into a spool now.
    fn follow(&mut self, at: usize) {
        let Some(it) = self.spoolings.as_mut().and_then(|them| them.get_mut(at)) else { return };
        let Some((part, behind)) = it.straight.filter(|(_, behind)| *behind > it.followed) else { return };
        it.followed = behind;
        if let Some(part) = self.parts.get(usize::from(part))
            && part.numbers.is_open_below(behind)
        {
            it.spool.follow(&part.numbers, behind);
        }
    }

    fn way_into(&mut self, at: usize) -> Result<(u16, TargetId), Refused> {
        let Some(it) = self.spoolings().get(at) else { return Err(Refused::Away("unknown".into())) };
        if let Some(into) = it.into {
            return Ok(into);
        }
        let spool = Arc::clone(&it.spool);
        let known = self.parts.iter().position(|part| part.spool.is_some() && part.backend == spool.backend);
        let part = match known {
            Some(known) => u16::try_from(known).unwrap_or(u16::MAX),
            None => {
                let (receipts, events) = (Arc::clone(&self.receipts), Arc::clone(&self.events));
                let events = Arc::new(OfAnother(events));
                let opened = at_once(self.scope.spool_part(&spool.backend, &*spool.store, receipts, events));
                match opened {
                    Some(Ok(part)) => self.add(part)?,
                    _ => return Err(Refused::Away(spool.backend.to_string())),
                }
            }
        };
        let target = self.part(part)?.target(&Destination::Queue { name: &spool.queue, more: &[] });
        if let Some(it) = self.spoolings.as_mut().and_then(|them| them.get_mut(at)) {
            it.into = Some((part, target));
        }
        Ok((part, target))
    }
}
