//! Queues where it is not the head alone that counts: messages have keys, and levels may have shares. Which message comes next
//! is not told here, but what may never happen, and what must.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use linkspan_contract::{Credit, Retry, Settle, Settlement};
use linkspan_queues::{
    Absent, Assignment, Consumer, DeadReason, Effect, Key, Limits, Offer, Overflow, Pushed, Queue, Queued,
    Window,
};
use proptest::option;
use proptest::prelude::*;

use crate::recorder::Recorder;

#[derive(Debug, Clone)]
enum Step {
    Push {
        key: u64,
        priority: u8,
        expiry: Option<u64>,
        delay: u64,
    },
    Dispatch,
    Settle {
        consumer: usize,
        nth: usize,
        outcome: Settlement,
    },
    Fetch {
        lane: u64,
    },
    Join {
        lane: u64,
        several: bool,
        window: u32,
        ack_timeout: Option<u64>,
    },
    Pause {
        consumer: usize,
        paused: bool,
    },
    Leave {
        consumer: usize,
    },
    /// A lane is gone.
    Crash {
        lane: u64,
    },
    Recover {
        lane: u64,
    },
    Pass {
        millis: u64,
    },
    Purge,
    /// The route says something else: keys are read anew.
    Reread,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        6 => Just(Settlement::Accept),
        1 => Just(Settlement::Reject(None)),
        2 => Just(Settlement::Release { delay: 0 }),
        2 => (1..40u64).prop_map(|delay| Settlement::Release { delay }),
        1 => Just(Settlement::Undo),
        1 => (0..50u64).prop_map(Settlement::Extend),
    ];
    let expiry = option::weighted(0.2, 1..60u64);
    let delay = prop_oneof![6 => Just(0), 1 => 1..40u64];
    prop_oneof![
        16 => (0..4u64, 0..3u8, expiry, delay)
            .prop_map(|(key, priority, expiry, delay)| Step::Push { key, priority, expiry, delay }),
        10 => Just(Step::Dispatch),
        12 => (0..8usize, 0..4usize, outcome)
            .prop_map(|(consumer, nth, outcome)| Step::Settle { consumer, nth, outcome }),
        1 => (0..3u64).prop_map(|lane| Step::Fetch { lane }),
        4 => (0..3u64, any::<bool>(), 1..4u32, option::of(5..40u64)).prop_map(
            |(lane, several, window, ack_timeout)| Step::Join { lane, several, window, ack_timeout }
        ),
        1 => (0..4usize, any::<bool>()).prop_map(|(consumer, paused)| Step::Pause { consumer, paused }),
        1 => (0..4usize).prop_map(|consumer| Step::Leave { consumer }),
        2 => (0..3u64).prop_map(|lane| Step::Crash { lane }),
        1 => (0..3u64).prop_map(|lane| Step::Recover { lane }),
        6 => (1..25u64).prop_map(|millis| Step::Pass { millis }),
        1 => prop::bool::weighted(0.3).prop_map(|purge| if purge { Step::Purge } else { Step::Reread }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let retry = option::weighted(0.5, Just(Retry { delay: 10, factor: 150, max: 30 }));
    let window = (1..5u64).prop_map(|messages| Window { messages, bytes: 1000 });
    let rest = (any::<bool>(), prop_oneof![Just(0u8), Just(2u8)], option::weighted(0.3, 0..3u32));
    let overflow = prop_oneof![
        2 => Just(Overflow::DropHead),
        1 => Just(Overflow::Reject),
        1 => Just(Overflow::RejectDeadLetter),
    ];
    let room = (option::weighted(0.4, 0..10u64), option::weighted(0.2, 0..100u64), overflow);
    (retry, option::weighted(0.4, window), rest, room).prop_map(
        |(retry, window, (weighted, max_priority, delivery_limit), (max_length, max_bytes, overflow))| {
            Limits {
                max_length,
                max_bytes,
                overflow,
                retry,
                window,
                weighted,
                max_priority,
                delivery_limit,
                keyed: true,
                ..Limits::default()
            }
        },
    )
}

/// The keys of messages, as a route would read them.
fn key_of(body: u64) -> Key {
    Key::try_from(body % 4).unwrap()
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waits,
    /// Until then; it has been given out before.
    Returned(u64),
    Held(u64),
    Out {
        consumer: u64,
        tag: u64,
    },
    /// It is to be told dead.
    Refused,
}

/// Bytes of each message.
const SIZE: u64 = 10;

struct Known {
    level: u8,
    position: u64,
    deadline: Option<u64>,
    attempts: u32,
    place: Place,
}

struct Member {
    id: u64,
    credit: Arc<Credit>,
    paused: bool,
}

struct Watched {
    now: u64,
    queue: Queue<u64, Recorder>,
    messages: BTreeMap<u64, Known>,
    members: Vec<Member>,
    /// Who has tags: its lane, and whether it is several.
    holders: BTreeMap<u64, (u64, bool)>,
    next: u64,
    /// What this step has pushed: what is dropped in it may have been so before that came.
    pushed: Option<u64>,
}

impl Watched {
    fn new(limits: Limits) -> Self {
        Self {
            now: 1000,
            queue: Queue::with_journal(1000, limits, Recorder::default()),
            messages: BTreeMap::new(),
            members: Vec::new(),
            holders: BTreeMap::new(),
            next: 0,
            pushed: None,
        }
    }

    /// Brings in what has to be in memory, with the keys that the journal does not keep.
    fn bring(&mut self) -> bool {
        let mut any = false;
        let keyed = |message: Queued<u64>| Queued { key: key_of(message.body), ..message };
        while let Some(due) = self.queue.due() {
            let all: Vec<_> = self.queue.journal().messages().collect();
            for (message, _) in all {
                if message.priority == due.priority && due.positions.contains(&message.position) {
                    self.queue.come_in(keyed(message));
                }
            }
            assert_eq!(self.queue.stay_out(&due), 0, "{due:?} are all there");
            any = true;
        }
        while let Some(Absent { priority, from }) = self.queue.wants() {
            let mut absent: Vec<_> = self.queue.journal().messages().collect();
            absent.retain(|(message, _)| message.priority == priority && message.position >= from);
            absent.sort_unstable_by_key(|(message, _)| message.position);
            assert!(!absent.is_empty(), "level {priority} has nothing from {from} on");
            for (message, not_before) in absent.into_iter().take(3) {
                self.queue.bring(self.now, keyed(message), not_before);
            }
            any = true;
        }
        any
    }

    fn wake(&mut self) {
        let now = self.now;
        for known in self.messages.values_mut() {
            if matches!(known.place, Place::Returned(until) | Place::Held(until) if until <= now) {
                known.place = Place::Waits;
            }
        }
    }

    fn take(&mut self, step: Step) {
        let now = self.now;
        self.pushed = None;
        match step {
            Step::Push { key, priority, expiry, delay } => {
                let body = self.next * 4 + key;
                self.next += 1;
                self.pushed = Some(body);
                let level = priority.min(self.queue.limits().max_priority);
                let offer = Offer {
                    body,
                    size: SIZE,
                    priority,
                    expiry,
                    key: key_of(body),
                    delay,
                    durable: true,
                    apart: false,
                };
                let mut out = Vec::new();
                let overflow = self.queue.limits().overflow;
                let pushed = self.queue.push(now, offer, &mut out);
                self.bring();
                let place = match pushed {
                    Pushed::Queued if delay > 0 => Place::Held(now + delay),
                    Pushed::Queued => {
                        let is_given = out.iter().any(|given| given.message.body == body);
                        let is_right = overflow == Overflow::DropHead || is_given || !self.is_beyond(0);
                        assert!(is_right, "{body} is one too many");
                        Place::Waits
                    }
                    Pushed::Refused => {
                        assert!(overflow != Overflow::DropHead && self.is_beyond(1), "{body} has room");
                        Place::Refused
                    }
                    Pushed::Unwritable => panic!("{body} can be written"),
                };
                if place != Place::Refused || overflow == Overflow::RejectDeadLetter {
                    let deadline = expiry.map(|expiry| now + delay + expiry);
                    let known = Known { level, position: self.next, deadline, attempts: 0, place };
                    self.messages.insert(body, known);
                }
                self.given(&out);
            }
            Step::Dispatch => self.dispatch(),
            Step::Settle { consumer, nth, outcome } => {
                let Some(id) = self.holders.keys().nth(consumer % self.holders.len().max(1)).copied() else {
                    return;
                };
                let Some((body, tag)) = self.in_hand(id).into_iter().nth(nth) else { return };
                assert_eq!(self.queue.settle(now, id, tag, 1, &outcome).known, 1);
                match outcome {
                    Settlement::Accept => drop(self.messages.remove(&body)),
                    Settlement::Undo => self.messages.get_mut(&body).unwrap().place = Place::Waits,
                    Settlement::Release { delay } => self.come_back(body, Some(delay).filter(|it| *it > 0)),
                    _ => {}
                }
                if outcome.is_last()
                    && let Some(member) = self.members.iter().find(|member| member.id == id)
                {
                    member.credit.grant(1);
                }
            }
            Step::Fetch { lane } => {
                let key = 1_000_000 + lane;
                let mut got = self.queue.fetch(now, key, lane, false);
                while got.is_none() && self.bring() {
                    got = self.queue.fetch(now, key, lane, false);
                }
                if got.is_some() {
                    self.holders.insert(key, (lane, false));
                }
                self.given(got.as_slice());
            }
            Step::Join { lane, several, window, ack_timeout } => {
                let id = self.next + 1;
                self.next += 1;
                let credit = Arc::new(Credit::new(window));
                let consumer = Consumer {
                    credit: Some(Arc::clone(&credit)),
                    several,
                    ack_timeout,
                    ..Consumer::new(id, lane, Settle::ByConsumer)
                };
                self.queue.add_consumer(consumer).unwrap();
                self.queue.set_paused(id, false);
                self.members.push(Member { id, credit, paused: false });
                self.holders.insert(id, (lane, several));
            }
            Step::Pause { consumer, paused } => {
                let at = consumer % self.members.len().max(1);
                let Some(member) = self.members.get_mut(at) else { return };
                member.paused = paused;
                self.queue.set_paused(member.id, paused);
            }
            Step::Leave { consumer } => {
                if self.members.is_empty() {
                    return;
                }
                let member = self.members.remove(consumer % self.members.len());
                self.queue.remove_consumer(now, member.id);
            }
            Step::Crash { lane } => {
                self.queue.release_lane(now, lane);
                self.all_back(lane);
                self.holders.retain(|_, (of, _)| *of != lane);
                let holders = &self.holders;
                self.members.retain(|member| holders.contains_key(&member.id));
            }
            Step::Recover { lane } => {
                self.queue.recover(now, lane);
                self.all_back(lane);
            }
            Step::Pass { millis } => {
                self.now += millis;
                self.tick();
            }
            Step::Purge => {
                let there = self.messages.len();
                self.messages.retain(|_, known| matches!(known.place, Place::Out { .. } | Place::Refused));
                assert_eq!(self.queue.purge(), (there - self.messages.len()) as u64);
            }
            Step::Reread => {
                let waits = |known: &Known| matches!(known.place, Place::Returned(_));
                if !self.messages.values().any(waits) {
                    self.queue.tell_keys(|body| key_of(*body));
                }
            }
        }
    }

    /// So many more would be too many.
    fn is_beyond(&self, more: u64) -> bool {
        let limits = self.queue.limits();
        limits.max_length.is_some_and(|max| self.queue.len() + more > max)
            || limits.max_bytes.is_some_and(|max| self.queue.bytes() + more * SIZE > max)
    }

    fn tick(&mut self) {
        self.queue.tick(self.now);
        while self.bring() {
            self.queue.tick(self.now);
        }
        self.wake();
    }

    fn in_hand(&self, id: u64) -> Vec<(u64, u64)> {
        let out = self.messages.iter().filter_map(|(body, known)| match known.place {
            Place::Out { consumer, tag } if consumer == id => Some((*body, tag)),
            _ => None,
        });
        let mut out: Vec<_> = out.collect();
        out.sort_unstable_by_key(|(_, tag)| *tag);
        out
    }

    fn come_back(&mut self, body: u64, delay: Option<u64>) {
        let (retry, now) = (self.queue.limits().retry, self.now);
        let known = self.messages.get_mut(&body).unwrap();
        known.attempts += 1;
        let delay = delay.unwrap_or_else(|| retry.map_or(0, |retry| retry.after(known.attempts)));
        known.place = if delay > 0 { Place::Returned(now + delay) } else { Place::Waits };
    }

    fn all_back(&mut self, lane: u64) {
        let ids: Vec<_> = self.holders.iter().filter(|(_, (of, _))| *of == lane).map(|(id, _)| *id).collect();
        for id in ids {
            let bodies = self.in_hand(id);
            for (body, _) in &bodies {
                let known = self.messages.get_mut(body).unwrap();
                known.attempts += 1;
                known.place = Place::Waits;
            }
            if let Some(member) = self.members.iter().find(|member| member.id == id) {
                member.credit.grant(bodies.len() as u32);
            }
        }
    }

    /// What died, and what came back by itself.
    fn hear(&mut self) {
        let effects: Vec<_> = self.queue.effects().collect();
        let mut overdue = Vec::new();
        let mut dropped = Vec::new();
        for effect in effects {
            match effect {
                Effect::Dead { message, reason } => {
                    let known = self.messages.remove(&message.body);
                    let known = known.unwrap_or_else(|| panic!("{} died twice", message.body));
                    let is_full = reason == DeadReason::MaxLength;
                    let is_refused = known.place == Place::Refused;
                    assert!(!is_refused || is_full, "{} was refused", message.body);
                    if is_full && !is_refused {
                        assert_eq!(known.place, Place::Waits, "nobody has {}", message.body);
                        dropped.push((message.body, known));
                    }
                }
                Effect::Overdue { consumer, .. } => overdue.push(consumer),
                _ => {}
            }
        }
        for (body, known) in dropped {
            self.was_first(body, &known);
        }
        for id in overdue {
            // Which of them they are shows in who has them still.
            let there: Vec<_> = self.in_hand(id);
            for (body, tag) in there {
                if self.queue.settle(self.now, id, tag, 1, &Settlement::Receive).known == 0 {
                    self.come_back(body, None);
                }
            }
        }
    }

    /// What was dropped had nothing before it that nobody has; where levels take turns, of its level and key.
    fn was_first(&self, body: u64, dropped: &Known) {
        let place = |known: &Known| (Reverse(known.level), known.position);
        let weighted = self.queue.limits().weighted;
        for (other, known) in self.messages.iter().filter(|(_, known)| known.place == Place::Waits) {
            let is_like_it = known.level == dropped.level && key_of(*other) == key_of(body);
            let is_before = place(known) < place(dropped) && (!weighted || is_like_it);
            assert!(!is_before || self.pushed == Some(*other), "{body} is dropped before {other}");
        }
    }

    fn dispatch(&mut self) {
        self.hear();
        for member in &self.members {
            self.queue.resume(member.id);
        }
        let mut out = Vec::new();
        self.queue.dispatch(self.now, &mut out);
        while self.bring() {
            self.queue.dispatch(self.now, &mut out);
        }
        self.given(&out);
        self.hear();
        self.wake();
        self.nobody_waits_in_vain();
        let drops = self.queue.limits().overflow == Overflow::DropHead;
        assert!(!drops || !self.is_beyond(0), "{} are there", self.queue.len());
    }

    /// Messages are given out: in the order of each key, and to one at a time.
    fn given(&mut self, out: &[Assignment<u64>]) {
        self.wake();
        for assignment in out {
            let (body, consumer) = (assignment.message.body, assignment.consumer);
            let key = key_of(body);
            let several = self.holders[&consumer].1;
            let (level, position) = {
                let known = &self.messages[&body];
                assert!(known.place == Place::Waits, "{body} is given from {:?}", known.place);
                assert_eq!(assignment.message.attempts, known.attempts, "of {body}");
                (known.level, known.position)
            };
            for (other, known) in self.messages.iter().filter(|(it, _)| key != 0 && key_of(**it) == key) {
                match known.place {
                    Place::Out { consumer: who, .. } => {
                        assert_eq!(who, consumer, "{body} and {other} are of one key");
                        assert!(!several, "{consumer} is several and has {other} when it is given {body}");
                    }
                    Place::Waits | Place::Returned(_) if *other != body => {
                        let is_before = known.level == level && known.position < position;
                        let is_over = known.deadline.is_some_and(|deadline| deadline <= self.now);
                        assert!(!is_before || is_over, "{body} is given before {other}");
                    }
                    _ => {}
                }
            }
            self.messages.get_mut(&body).unwrap().place = Place::Out { consumer, tag: assignment.tag };
        }
    }

    /// After a dispatch nobody who could take more waits for what nothing is in the way of.
    fn nobody_waits_in_vain(&self) {
        let able: Vec<u64> = self
            .members
            .iter()
            .filter(|member| !member.paused && member.credit.available() > 0)
            .map(|member| member.id)
            .collect();
        for (body, known) in self.messages.iter().filter(|(_, known)| known.place == Place::Waits) {
            if known.deadline.is_some_and(|deadline| deadline <= self.now) {
                continue;
            }
            let key = key_of(*body);
            let others =
                || self.messages.iter().filter(|(it, _)| key != 0 && key_of(**it) == key && *it != body);
            if others().any(|(_, known)| matches!(known.place, Place::Returned(_) | Place::Waits)) {
                continue;
            }
            let holder = others().find_map(|(_, known)| match known.place {
                Place::Out { consumer, .. } => Some(consumer),
                _ => None,
            });
            let takes = |id: &u64| match holder {
                None => true,
                Some(holder) => holder == *id && !self.holders[&holder].1,
            };
            assert!(!able.iter().any(takes), "{body} waits for nobody, and {able:?} could take it");
        }
    }

    /// When all who had something are gone, somebody else gets all that there is.
    fn end(mut self) {
        self.hear();
        for lane in 0..3 {
            self.take(Step::Crash { lane });
            self.hear();
        }
        self.now += 1_000;
        self.tick();
        self.hear();
        self.queue.add_consumer(Consumer::new(u64::MAX, 9, Settle::ByConsumer)).unwrap();
        self.queue.set_paused(u64::MAX, false);
        self.holders.insert(u64::MAX, (9, false));
        self.dispatch();
        let left: Vec<_> = self
            .messages
            .iter()
            .filter(|(_, it)| !matches!(it.place, Place::Out { .. }))
            .map(|(it, _)| *it)
            .collect();
        assert!(left.is_empty(), "{left:?} are never given out");
        assert_eq!((self.queue.len(), self.queue.delayed()), (0, 0));
        assert_eq!(self.queue.unsettled(), self.messages.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_of_a_key_go_to_one_at_a_time_in_order_and_none_stands_still(
        limits in limits(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut watched = Watched::new(limits);
        for step in steps {
            watched.take(step);
            watched.hear();
            let there = watched.messages.len() as u64;
            let (ready, delayed) = (watched.queue.len(), watched.queue.delayed() as u64);
            assert_eq!(ready + delayed + watched.queue.unsettled(), there, "nothing is lost or doubled");
        }
        watched.dispatch();
        watched.end();
    }
}
