//! A queue as one would write it without a thought of speed: every message in one list, looked through each time.

use std::collections::BTreeMap;

use linkspan_contract::{Settle, Settlement};
use linkspan_queues::{Assignment, Consumer, Limits, Offer, Overflow};

use crate::{Happened, Told};

#[derive(Debug, Clone)]
struct Message {
    body: u64,
    size: u64,
    since: u64,
    deadline: Option<u64>,
    attempts: u32,
    level: u8,
    durable: bool,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ready,
    Delayed(u64),
    Out { holder: u64, tag: u64, due: Option<u64> },
}

struct Member {
    consumer: Consumer,
    credit: Option<usize>,
    paused: bool,
}

/// Who has tags.
struct Holder {
    lane: u64,
    last_tag: u64,
    ack_timeout: Option<u64>,
}

/// What is to be known of a message after a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) body: u64,
    pub(crate) size: u64,
    pub(crate) since: u64,
    pub(crate) deadline: Option<u64>,
    pub(crate) attempts: u32,
    pub(crate) level: u8,
    /// Zero when it is ready at once.
    pub(crate) not_before: u64,
}

pub(crate) struct Naive {
    limits: Limits,
    /// In the order in which they came, which is that of their bodies.
    messages: Vec<Message>,
    /// What left for good.
    left: BTreeMap<u64, Message>,
    /// In the order in which they came.
    members: Vec<Member>,
    holders: BTreeMap<u64, Holder>,
    /// Who may be given something, in the order of turns.
    turns: Vec<u64>,
    active: Option<u64>,
    /// What is available, and inside which other one.
    credits: Vec<(i64, i64, Option<usize>)>,
    idle: Option<u64>,
    effects: Vec<Happened>,
}

impl Naive {
    pub(crate) fn new(now: u64, limits: Limits, credits: &[(i64, Option<usize>)]) -> Self {
        Self {
            limits,
            messages: Vec::new(),
            left: BTreeMap::new(),
            members: Vec::new(),
            holders: BTreeMap::new(),
            turns: Vec::new(),
            active: None,
            credits: credits.iter().map(|(limit, parent)| (*limit, *limit, *parent)).collect(),
            idle: Some(now),
            effects: Vec::new(),
        }
    }

    // Messages

    fn ready(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|message| message.place == Place::Ready)
    }

    /// Where the next message stands.
    fn head(&self) -> Option<usize> {
        let level = self.ready().map(|message| message.level).max()?;
        self.messages.iter().position(|message| message.place == Place::Ready && message.level == level)
    }

    fn is_full(&self, messages: u64, bytes: u64) -> bool {
        let (length, total, ..) = self.counts();
        self.limits.max_length.is_some_and(|max| length + messages > max)
            || self.limits.max_bytes.is_some_and(|max| total + bytes > max)
    }

    fn bury(&mut self, at: usize, reason: &'static str) {
        let message = self.messages.remove(at);
        self.effects.push(Happened::Dead(message.body, reason, message.attempts));
    }

    fn drop_expired(&mut self, now: u64) {
        while let Some(at) = self.head()
            && self.messages[at].deadline.is_some_and(|deadline| deadline <= now)
        {
            self.bury(at, "expired");
        }
    }

    pub(crate) fn push(&mut self, now: u64, offer: Offer<u64>) -> (bool, Vec<Told>) {
        let mut out = Vec::new();
        let expiry = [offer.expiry, self.limits.message_ttl].into_iter().flatten().min();
        let message = Message {
            body: offer.body,
            size: offer.size,
            since: now + offer.delay,
            deadline: expiry.map(|expiry| now + offer.delay + expiry.max(1)),
            attempts: 0,
            level: offer.priority.min(self.limits.max_priority),
            durable: offer.durable,
            place: Place::Ready,
        };
        if offer.delay > 0 {
            self.messages.push(Message { place: Place::Delayed(now + offer.delay), ..message });
            return (true, out);
        }
        let was_full = self.is_full(1, offer.size);
        if was_full || expiry == Some(0) {
            out = self.dispatch(now);
        }
        let refuse = self.limits.overflow != Overflow::DropHead && self.is_full(1, offer.size);
        let crowded = self.ready().next().is_some();
        self.messages.push(message);
        if !refuse && expiry != Some(0) {
            if was_full {
                out.extend(self.dispatch(now));
            }
            return (true, out);
        }
        if !crowded {
            out.extend(self.give_out(now));
        }
        let waits = |message: &Message| message.body == offer.body && message.place == Place::Ready;
        let Some(at) = self.messages.iter().position(waits) else { return (true, out) };
        if !refuse {
            self.bury(at, "expired");
        } else if self.limits.overflow == Overflow::RejectDeadLetter {
            self.bury(at, "maxlen");
        } else {
            self.messages.remove(at);
        }
        (!refuse, out)
    }

    pub(crate) fn dispatch(&mut self, now: u64) -> Vec<Told> {
        let out = self.give_out(now);
        while self.limits.overflow == Overflow::DropHead
            && self.is_full(0, 0)
            && let Some(at) = self.head()
        {
            self.bury(at, "maxlen");
        }
        out
    }

    fn give_out(&mut self, now: u64) -> Vec<Told> {
        let mut out = Vec::new();
        loop {
            self.drop_expired(now);
            let Some(at) = self.head() else { break };
            let Some(id) = self.whose_turn() else { break };
            let member = self.members.iter().find(|member| member.consumer.id == id).unwrap();
            let settled = match member.consumer.settle {
                Settle::OnDelivery => true,
                Settle::ByConsumer => false,
                Settle::AsPublished => !self.messages[at].durable,
            };
            self.turns.retain(|other| *other != id);
            if !settled
                && let Some(credit) = member.credit
                && !self.take(credit)
            {
                continue;
            }
            self.turns.push(id);
            out.push(self.give(now, at, id, settled));
        }
        out
    }

    fn give(&mut self, now: u64, at: usize, id: u64, settled: bool) -> Told {
        let mut tag = 0;
        let message = self.messages[at].clone();
        if settled {
            let message = self.messages.remove(at);
            self.left.insert(message.body, message);
        } else {
            let holder = self.holders.get_mut(&id).unwrap();
            holder.last_tag += 1;
            tag = holder.last_tag;
            let due = holder.ack_timeout.map(|timeout| now + timeout);
            self.messages[at].place = Place::Out { holder: id, tag, due };
        }
        (id, tag, settled, now - message.since, message.body, message.attempts, message.level)
    }

    fn whose_turn(&self) -> Option<u64> {
        let priority = |id: &u64| self.member(*id).unwrap().consumer.priority;
        let highest = self.turns.iter().map(priority).max()?;
        self.turns.iter().copied().find(|id| priority(id) == highest)
    }

    pub(crate) fn direct(&mut self, count: u32, durable: bool) -> Vec<(u64, u32)> {
        let takes = |settle| settle == Settle::OnDelivery || settle == Settle::AsPublished && !durable;
        let mut out = Vec::new();
        let Some(first) = self.whose_turn().filter(|_| self.head().is_none()) else { return out };
        let priority = self.member(first).unwrap().consumer.priority;
        let mut equals = self
            .turns
            .iter()
            .map(|id| &self.member(*id).unwrap().consumer)
            .filter(|c| c.priority == priority);
        if !equals.all(|consumer| takes(consumer.settle)) {
            return out;
        }
        for at in 0..count {
            let id = self.whose_turn().unwrap();
            self.turns.retain(|other| *other != id);
            self.turns.push(id);
            out.push((id, at));
        }
        out
    }

    pub(crate) fn fetch(&mut self, now: u64, key: u64, lane: u64, settled: bool) -> Vec<Told> {
        self.touch(now);
        self.drop_expired(now);
        let Some(at) = self.head() else { return Vec::new() };
        if !settled {
            let ack_timeout = self.limits.ack_timeout;
            self.holders.entry(key).or_insert(Holder { lane, last_tag: 0, ack_timeout });
        }
        vec![self.give(now, at, key, settled)]
    }

    /// The bodies of what `id` has unsettled in the run, in order.
    fn held(&self, id: u64, first: u64, count: u32) -> Vec<u64> {
        let mut held: Vec<_> = self
            .messages
            .iter()
            .filter_map(|message| match message.place {
                Place::Out { holder, tag, .. } if holder == id => Some((tag, message.body)),
                _ => None,
            })
            .filter(|(tag, _)| (first..first + u64::from(count)).contains(tag))
            .collect();
        held.sort();
        held.into_iter().map(|(_, body)| body).collect()
    }

    fn at(&self, body: u64) -> usize {
        self.messages.iter().position(|message| message.body == body).unwrap()
    }

    pub(crate) fn settle(
        &mut self,
        now: u64,
        id: u64,
        first: u64,
        count: u32,
        outcome: &Settlement,
    ) -> Vec<u64> {
        let held = self.held(id, first, count);
        match outcome {
            Settlement::Accept => self.messages.retain(|message| !held.contains(&message.body)),
            Settlement::Reject(_) => held.iter().for_each(|body| self.bury(self.at(*body), "rejected")),
            Settlement::Release { delay: 0 } => self.come_back(&held, now, None),
            Settlement::Release { delay } => self.come_back(&held, now, Some(*delay)),
            Settlement::Undo => {
                for body in &held {
                    let at = self.at(*body);
                    self.messages[at].place = Place::Ready;
                }
            }
            Settlement::Receive => {}
            Settlement::Extend(by) => {
                for body in &held {
                    let at = self.at(*body);
                    if let Place::Out { due: Some(due), .. } = &mut self.messages[at].place {
                        *due = now + by;
                    }
                }
            }
        }
        held
    }

    /// Without a delay, each waits as long as the queue says.
    fn come_back(&mut self, bodies: &[u64], now: u64, delay: Option<u64>) {
        let mut bodies = bodies.to_vec();
        bodies.sort();
        for body in bodies {
            let at = self.at(body);
            self.messages[at].attempts += 1;
            let attempts = self.messages[at].attempts;
            let retry = || self.limits.retry.map_or(0, |retry| retry.after(attempts));
            let delay = delay.unwrap_or_else(retry);
            self.messages[at].place = if delay == 0 { Place::Ready } else { Place::Delayed(now + delay) };
            if self.limits.delivery_limit.is_some_and(|limit| self.messages[at].attempts > limit) {
                self.bury(at, "delivery_limit");
            }
        }
    }

    fn all_of_lane(&self, lane: u64) -> Vec<u64> {
        let ids = self.holders.iter().filter(|(_, holder)| holder.lane == lane).map(|(id, _)| *id);
        ids.flat_map(|id| self.held(id, 0, u32::MAX)).collect()
    }

    pub(crate) fn recover(&mut self, now: u64, lane: u64) {
        self.come_back(&self.all_of_lane(lane), now, Some(0));
    }

    pub(crate) fn release_lane(&mut self, now: u64, lane: u64) -> u32 {
        let gone: Vec<u64> = self
            .members
            .iter()
            .filter(|member| member.consumer.lane == lane)
            .map(|m| m.consumer.id)
            .collect();
        self.come_back(&self.all_of_lane(lane), now, Some(0));
        self.holders.retain(|_, holder| holder.lane != lane);
        self.members.retain(|member| member.consumer.lane != lane);
        self.after_removal(now, &gone);
        gone.len() as u32
    }

    pub(crate) fn redeliver(&mut self, now: u64, id: u64) -> Vec<Told> {
        let due = self.holders[&id].ack_timeout.map(|timeout| now + timeout);
        let mut out = Vec::new();
        for body in self.held(id, 0, u32::MAX) {
            let at = self.at(body);
            if self.limits.delivery_limit.is_some_and(|limit| self.messages[at].attempts >= limit) {
                self.messages[at].attempts += 1;
                self.bury(at, "delivery_limit");
            }
        }
        for body in self.held(id, 0, u32::MAX) {
            let at = self.at(body);
            let message = &mut self.messages[at];
            message.attempts += 1;
            let Place::Out { tag, .. } = message.place else { unreachable!() };
            message.place = Place::Out { holder: id, tag, due };
            out.push((id, tag, false, now - message.since, body, message.attempts, message.level));
        }
        out
    }

    pub(crate) fn take_back(&mut self, assignment: &Assignment<u64>) {
        let body = assignment.message.body;
        if assignment.settled {
            let message = self.left.remove(&body).unwrap();
            let at = self.messages.partition_point(|other| other.body < body);
            self.messages.insert(at, message);
            return;
        }
        let at = self.at(body);
        self.messages[at].place = Place::Ready;
        if let Some(credit) = self.member(assignment.consumer).and_then(|member| member.credit) {
            self.grant(credit, 1);
        }
    }

    pub(crate) fn tick(&mut self, now: u64) {
        for message in &mut self.messages {
            if matches!(message.place, Place::Delayed(until) if until <= now) {
                message.place = Place::Ready;
            }
        }
        let mut overdue: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for message in &self.messages {
            if let Place::Out { holder, due: Some(due), .. } = message.place
                && due <= now
            {
                overdue.entry(holder).or_default().push(message.body);
            }
        }
        for (holder, bodies) in &overdue {
            self.effects.push(Happened::Overdue(*holder, bodies.len() as u32));
        }
        let bodies: Vec<u64> = overdue.into_values().flatten().collect();
        self.come_back(&bodies, now, None);
        for level in (0..=self.limits.max_priority).rev() {
            while let Some(at) =
                self.messages.iter().position(|m| m.level == level && m.place == Place::Ready)
                && self.messages[at].deadline.is_some_and(|deadline| deadline <= now)
            {
                self.bury(at, "expired");
            }
        }
        if let (Some(idle), Some(expires)) = (self.idle, self.limits.expires)
            && idle + expires <= now
        {
            self.idle = None;
            self.effects.push(Happened::Unused);
        }
    }

    pub(crate) fn purge(&mut self) -> Vec<u64> {
        let waits = |message: &Message| !matches!(message.place, Place::Out { .. });
        self.messages.extract_if(.., |message| waits(message)).map(|message| message.body).collect()
    }

    // Consumers

    fn member(&self, id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.consumer.id == id)
    }

    pub(crate) fn add(&mut self, consumer: Consumer, credit: Option<usize>) -> bool {
        if self.members.iter().any(|member| member.consumer.exclusive || consumer.exclusive) {
            return false;
        }
        let ack_timeout = consumer.ack_timeout.or(self.limits.ack_timeout);
        self.holders.insert(consumer.id, Holder { lane: consumer.lane, last_tag: 0, ack_timeout });
        self.members.push(Member { consumer, credit, paused: true });
        self.idle = None;
        self.hand_over();
        true
    }

    pub(crate) fn remove(&mut self, now: u64, id: u64) {
        self.members.retain(|member| member.consumer.id != id);
        self.after_removal(now, &[id]);
    }

    fn after_removal(&mut self, now: u64, gone: &[u64]) {
        if gone.is_empty() {
            return;
        }
        self.turns.retain(|id| !gone.contains(id));
        self.active = self.active.filter(|id| !gone.contains(id));
        self.hand_over();
        self.touch(now);
    }

    fn hand_over(&mut self) {
        if self.limits.single_active && self.active.is_none() {
            let highest = self.members.iter().map(|member| member.consumer.priority).max();
            let next = self.members.iter().find(|member| Some(member.consumer.priority) == highest);
            self.active = next.map(|member| member.consumer.id);
            self.effects.push(Happened::Active(self.active));
            if let Some(id) = self.active {
                self.resume(id);
            }
        }
    }

    fn is_eligible(&self, member: &Member) -> bool {
        !member.paused && (!self.limits.single_active || self.active == Some(member.consumer.id))
    }

    pub(crate) fn set_paused(&mut self, id: u64, paused: bool) {
        self.members.iter_mut().find(|member| member.consumer.id == id).unwrap().paused = paused;
        if paused {
            self.turns.retain(|other| *other != id);
        } else {
            self.resume(id);
        }
    }

    pub(crate) fn resume(&mut self, id: u64) {
        if self.member(id).is_some_and(|member| self.is_eligible(member)) && !self.turns.contains(&id) {
            self.turns.push(id);
        }
    }

    pub(crate) fn touch(&mut self, now: u64) {
        self.idle = self.members.is_empty().then_some(now);
    }

    // Credit

    fn take(&mut self, credit: usize) -> bool {
        if self.available(credit) == 0 {
            return false;
        }
        self.credits[credit].0 -= 1;
        if let Some(parent) = self.credits[credit].2 {
            self.credits[parent].0 -= 1;
        }
        true
    }

    pub(crate) fn grant(&mut self, credit: usize, count: u32) {
        self.credits[credit].0 += i64::from(count);
        if let Some(parent) = self.credits[credit].2 {
            self.credits[parent].0 += i64::from(count);
        }
    }

    pub(crate) fn set_limit(&mut self, credit: usize, limit: u32) {
        let (available, before, _) = &mut self.credits[credit];
        *available += i64::from(limit) - *before;
        *before = i64::from(limit);
    }

    pub(crate) fn available(&self, credit: usize) -> u32 {
        let (available, _, parent) = self.credits[credit];
        let own = u32::try_from(available).unwrap_or(0);
        parent.map_or(own, |parent| own.min(self.available(parent)))
    }

    // What is compared

    pub(crate) fn consumer_ids(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.consumer.id).collect()
    }

    pub(crate) fn consumer(&self, at: usize) -> Option<u64> {
        self.members.get(at % self.members.len().max(1)).map(|member| member.consumer.id)
    }

    pub(crate) fn holder(&self, at: usize) -> Option<u64> {
        self.holders.keys().nth(at % self.holders.len().max(1)).copied()
    }

    pub(crate) fn active(&self) -> Option<u64> {
        self.active
    }

    pub(crate) fn effects(&mut self) -> Vec<Happened> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn bodies(&self) -> Vec<u64> {
        self.messages.iter().map(|message| message.body).collect()
    }

    /// Ready, their bytes, delayed, unsettled.
    pub(crate) fn counts(&self) -> (u64, u64, usize, u64) {
        let delayed = self.messages.iter().filter(|m| matches!(m.place, Place::Delayed(_))).count();
        let out = self.messages.iter().filter(|m| matches!(m.place, Place::Out { .. })).count();
        (self.ready().count() as u64, self.ready().map(|m| m.size).sum(), delayed, out as u64)
    }

    /// How many are delayed and not to be ready yet.
    pub(crate) fn delayed_beyond(&self, now: u64) -> usize {
        self.messages.iter().filter(|m| matches!(m.place, Place::Delayed(until) if until > now)).count()
    }

    /// After a dispatch nothing is ready that somebody could take.
    pub(crate) fn assert_nobody_waits(&self) {
        let Some(head) = self.head() else { return };
        for member in &self.members {
            let has_credit = member.credit.is_none_or(|credit| self.available(credit) > 0);
            let able = match member.consumer.settle {
                Settle::OnDelivery => true,
                Settle::ByConsumer => has_credit,
                Settle::AsPublished => has_credit && self.messages[head].durable,
            };
            assert!(
                !able || !self.is_eligible(member),
                "consumer {} waits for what is ready",
                member.consumer.id
            );
        }
    }

    /// The durable messages that are there after a crash, in the order in which they came.
    pub(crate) fn kept(&self, now: u64) -> Vec<Kept> {
        let kept = |message: &Message| Kept {
            body: message.body,
            size: message.size,
            since: message.since,
            deadline: message.deadline,
            attempts: message.attempts + u32::from(matches!(message.place, Place::Out { .. })),
            level: message.level,
            not_before: match message.place {
                Place::Delayed(until) if until > now => until,
                _ => 0,
            },
        };
        let mut all: Vec<Kept> = self.messages.iter().filter(|message| message.durable).map(kept).collect();
        all.sort_by_key(|message| message.body);
        all
    }

    /// Age, body, attempts and level of all that is given out when whoever had something is gone and unheard of.
    pub(crate) fn after_a_crash(&self, now: u64) -> Vec<(u64, u64, u32, u8)> {
        let mut all: Vec<_> = self
            .messages
            .iter()
            .filter(|message| !matches!(message.place, Place::Delayed(until) if until > now))
            .filter(|message| message.deadline.is_none_or(|deadline| deadline > now))
            .map(|message| {
                let given = u32::from(matches!(message.place, Place::Out { .. }));
                (now - message.since, message.body, message.attempts + given, message.level)
            })
            .collect();
        all.sort_by_key(|(_, body, _, level)| (u8::MAX - level, *body));
        all
    }
}
