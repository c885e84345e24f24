//! The publishing side of a lane: what goes to addresses goes up, what goes to queues stays here.

use std::sync::Arc;
use std::task::{Context, Poll};

use linkspan_contract::{
    Batch, BodyWriter, Client, Destination, Flags, Lane, Message, Millis, Outcome, Published, Receipt,
    Refused, Seq, TargetId,
};
use slab::Slab;

use crate::claim::{Claim, Ears, Joint, Words};
use crate::house::House;
use crate::target::Target;
use crate::translate;
use crate::upstream::packet::{Ack, Outgoing, Version};
use crate::upstream::session::Session;

/// A lane's targets, and what of its messages is under way.
pub(crate) struct Publisher {
    house: Arc<House>,
    vhost: Arc<str>,
    session: Arc<Session>,
    ears: Arc<Ears>,
    /// Says who published, at the broker, when many publish there as one; with a number behind it, so that no two messages
    /// are the same.
    origin: Option<String>,
    count: u64,
    targets: Slab<Target>,
    next: Seq,
    /// Receipts that are known and stand behind others that are not.
    late: Vec<Receipt>,
    words: Words,
    /// Room that is used again.
    outgoing: Vec<(Outgoing, Claim)>,
    refused: Vec<(Claim, Ack)>,
    here: Vec<Message>,
}

/// One `publish` on its way.
struct Progress {
    published: Published,
    now: Millis,
    /// A receipt before this one is not known yet.
    open: bool,
}

impl Publisher {
    /// One that publishes by a session that others use too.
    pub(crate) fn shared(house: Arc<House>, client: &Client, ears: Arc<Ears>) -> Self {
        let count = house.publishers.len().max(1) as u64;
        let at = usize::try_from(client.number % count).unwrap_or_default();
        let session = Arc::clone(house.publishers.get(at).unwrap_or(&house.subscriber));
        let origin = format!("{}/{}/{:x}", house.options.instance, client.number, house.number());
        Self { origin: Some(origin), ..Self::by(session, house, client, ears) }
    }

    /// One that publishes by the client's own session.
    pub(crate) fn by(session: Arc<Session>, house: Arc<House>, client: &Client, ears: Arc<Ears>) -> Self {
        Self {
            session,
            vhost: Arc::clone(&client.vhost),
            origin: None,
            count: 0,
            house,
            ears,
            targets: Slab::new(),
            next: 0,
            late: Vec::new(),
            words: Words::default(),
            outgoing: Vec::new(),
            refused: Vec::new(),
            here: Vec::new(),
        }
    }

    pub(crate) fn target(&mut self, to: &Destination<'_>, inner: &mut dyn Lane) -> TargetId {
        let place = self.targets.insert(Target::new(to, |to| inner.target(to)));
        TargetId(u32::try_from(place).unwrap_or(u32::MAX))
    }

    pub(crate) fn forget(&mut self, targets: &[TargetId], inner: &mut dyn Lane) {
        for target in targets {
            if let Some(target) = self.targets.try_remove(target.0 as usize) {
                inner.forget(&target.here());
            }
        }
    }

    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.session.poll_ready(cx)
    }

    /// Says what was known too early to be said.
    pub(crate) fn flush(&mut self) {
        self.words.say();
        if !self.late.is_empty() {
            self.ears.receipts.receipts(&std::mem::take(&mut self.late));
        }
    }

    /// Only queues on this side take a body piece by piece: an MQTT packet is sent whole.
    pub(crate) fn body(
        &mut self,
        target: TargetId,
        size: Option<u64>,
        inner: &mut dyn Lane,
    ) -> Result<Option<Box<dyn BodyWriter>>, Refused> {
        match self.targets.get(target.0 as usize) {
            Some(Target::Here(target)) => inner.body(*target, size),
            _ => Ok(None),
        }
    }

    /// Takes the messages of one read, in order.
    pub(crate) fn publish(&mut self, batch: &Batch<'_>, inner: &mut dyn Lane) -> Published {
        let published = Published { first: self.next, ..Published::default() };
        let mut progress = Progress { published, now: self.house.now(), open: false };
        let mut at = 0_u32;
        while let Some(message) = batch.messages.get(at as usize) {
            let took = match self.targets.get(message.target.0 as usize) {
                Some(Target::Here(_)) => self.publish_here(batch, at, inner, &mut progress),
                Some(Target::Addresses { .. }) => {
                    self.publish_there(batch, at, message, inner, &mut progress)
                }
                Some(Target::NoTopic(why)) => {
                    let why = Outcome::Refused(why.clone());
                    dropped("not-a-topic", message);
                    self.answer(at, message, Some(why), &mut progress);
                    1
                }
                Some(Target::Closed(why)) => {
                    progress.published.exceptions.push((at, Outcome::Refused(why.clone())));
                    0
                }
                None => {
                    let why = format!(
                        "target {} was never given out by this lane, or was forgotten",
                        message.target.0
                    );
                    progress.published.exceptions.push((at, Outcome::Refused(Refused::Precondition(why))));
                    0
                }
            };
            if took == 0 {
                break;
            }
            at += took;
        }
        progress.published.taken = at;
        progress.published.congested |=
            self.session.publish(&mut self.outgoing, progress.now, &mut self.refused);
        for (claim, ack) in self.refused.drain(..) {
            self.words.answer(&self.house.name, claim, ack);
        }
        progress.published
    }

    /// A run of messages to the engine's own targets; tells how many were dealt with.
    fn publish_here(
        &mut self,
        batch: &Batch<'_>,
        from: u32,
        inner: &mut dyn Lane,
        progress: &mut Progress,
    ) -> u32 {
        self.here.clear();
        for message in batch.messages.get(from as usize..).unwrap_or_default() {
            let Some(Target::Here(target)) = self.targets.get(message.target.0 as usize) else { break };
            self.here.push(Message { target: *target, ..*message });
        }
        let here = std::mem::take(&mut self.here);
        let published = inner.publish(&Batch { messages: &here, ..*batch });
        progress.published.congested |= published.congested;
        let mut exceptions = published.exceptions.into_iter().peekable();
        for (place, message) in (0..published.taken).zip(&here) {
            let exception =
                exceptions.next_if(|(exception, _)| *exception == place).map(|(_, outcome)| outcome);
            self.answer(from + place, message, Some(exception.unwrap_or(Outcome::Accepted)), progress);
        }
        // The one that could not even be looked at.
        progress.published.exceptions.extend(exceptions.map(|(place, outcome)| (from + place, outcome)));
        self.here = here;
        published.taken
    }

    /// One message to addresses.
    fn publish_there(
        &mut self,
        batch: &Batch<'_>,
        at: u32,
        message: &Message,
        inner: &mut dyn Lane,
        progress: &mut Progress,
    ) -> u32 {
        let Some(Target::Addresses { topics, queues }) = self.targets.get(message.target.0 as usize) else {
            return 0;
        };
        let mut works = false;
        let mut kept = false;
        let mut refusal = None;
        for (queue, target) in queues {
            if self.house.feeds.of(&self.vhost, Arc::clone(queue)).is_some() {
                // The broker brings it: it must not be there twice.
                works = true;
                continue;
            }
            let flags = message.flags.without(Flags::MANDATORY) | Flags::RECEIPT;
            let one = [Message { target: *target, flags, ..*message }];
            let published = inner.publish(&Batch { messages: &one, ..*batch });
            progress.published.congested |= published.congested;
            match published.exceptions.into_iter().next() {
                Some((_, Outcome::Refused(why) | Outcome::Failed(why))) => refusal = Some(why),
                Some((_, Outcome::Unroutable)) => {}
                Some((_, Outcome::Accepted)) | None => kept = true,
            }
        }
        let version = self.house.dial.version().unwrap_or(Version::V5);
        self.count = self.count.wrapping_add(1);
        let origin = self.origin.as_ref().filter(|_| version != Version::V311);
        let origin = origin.map(|origin| format!("{origin}.{:x}", self.count));
        let made: Result<Vec<Outgoing>, Refused> = match refusal {
            Some(why) => Err(why),
            None => topics
                .iter()
                .map(|topic| {
                    translate::outgoing(batch, message, topic, version, origin.as_deref(), progress.now)
                })
                .collect(),
        };
        let messages = match made {
            Ok(messages) => messages,
            Err(why) => {
                dropped("refused", message);
                self.answer(at, message, Some(Outcome::Refused(why)), progress);
                return 1;
            }
        };
        let seq = self.answer(at, message, None, progress);
        let returns = message.flags.has(Flags::MANDATORY).then(|| batch.keep(at..at + 1).kept(0)).flatten();
        let joint = (messages.len() > 1).then(|| Joint::of(messages.len()));
        self.outgoing.extend(messages.into_iter().map(|outgoing| {
            let claim = Claim {
                ears: Arc::clone(&self.ears),
                seq,
                returns: returns.clone(),
                works,
                kept,
                joint: joint.clone(),
            };
            (outgoing, claim)
        }));
        1
    }

    /// Notes what is known about the message at `at`; yields the number of its receipt, if it wants one.
    fn answer(
        &mut self,
        at: u32,
        message: &Message,
        outcome: Option<Outcome>,
        progress: &mut Progress,
    ) -> Option<Seq> {
        let wants = message.flags.has(Flags::RECEIPT);
        let seq = wants.then_some(self.next);
        if wants {
            self.next = self.next.saturating_add(1);
            progress.published.wanting += 1;
        }
        let Some(outcome) = outcome else {
            progress.open |= wants;
            return seq;
        };
        let mut told = message.flags.any(Flags::RECEIPT | Flags::MANDATORY);
        match seq {
            Some(first) if progress.open => {
                self.late.push(Receipt { first, count: 1, outcome: outcome.clone() });
                told = message.flags.has(Flags::MANDATORY);
            }
            Some(_) => progress.published.done += 1,
            None => {}
        }
        if told && outcome != Outcome::Accepted {
            progress.published.exceptions.push((at, outcome));
        }
        seq
    }
}

fn dropped(reason: &'static str, message: &Message) {
    if !message.flags.any(Flags::RECEIPT | Flags::MANDATORY) {
        metrics::counter!("linkspan_messages_dropped_total", "reason" => reason).increment(1);
    }
}
