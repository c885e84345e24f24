//! Messages of one key go to one consumer at a time, in order, and move when it dies.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use linkspan_integration_tests::{Asking, Consumer, Dialect, Outgoing, Received, Taking};

use super::cell::Place;
use super::stage::Stage;

pub const COURSE: &str = "80 messages of eight keys and two consumers: at no time do both have messages of one key in hand, \
    those of each key come in order, and both consumers get some; when one is killed, its keys move, and go on in order. MQTT \
    3.1.1 has no properties: there a level of the address is the key.";

const KEYS: u32 = 8;

/// Messages of each key.
const EACH: u32 = 10;

/// Messages that one consumer has in hand at most.
const WINDOW: u16 = 3;

/// How long each is listened to when it may be another's turn.
const TURN: Duration = Duration::from_millis(20);

/// How often nothing may come in vain.
const PATIENCE: u32 = 600;

/// How long a lease lasts that nobody ends.
const LEASE: Duration = Duration::from_secs(4);

pub fn route(place: &Place, from: Dialect) -> String {
    let Place { address, queue } = place;
    let key = if from == Dialect::Mqtt3 { "level:3" } else { "property:customer" };
    format!(
        "[[route]]\nmatch = \"{address}/+\"\npattern = \"competing-consumers\"\nqueue = \"{queue}\"\nwindow = {WINDOW}\n\
         ordering-key = \"{key}\"\n"
    )
}

pub async fn check(stage: &Stage) {
    let asking = Asking { in_hand: Some(WINDOW), lease: Some(LEASE), ..Asking::default() };
    let queue = Taking::Queue(&stage.place.queue);
    let member = async |name: &str| stage.consumer(name, queue, asking).await;
    let (mut doomed, mut other) = (Some(member("doomed").await), member("other").await);
    stage.publisher("publisher").await.publish_each((0..KEYS * EACH).map(|n| message(stage, n))).await;
    let mut keys = Keys::default();
    while !keys.are_done() {
        let mut is_idle = true;
        for (name, consumer) in [("doomed", doomed.as_mut()), ("other", Some(&mut other))] {
            let Some(consumer) = consumer else { continue };
            if let Some(received) = consumer.next_within(TURN).await {
                keys.give(name, received);
                is_idle = false;
            }
            if is_idle || keys.in_hand(name) >= 2 {
                keys.settle_one(name).await;
            }
        }
        keys.check_progress(is_idle);
        if keys.worked("doomed") >= EACH
            && keys.worked("other") >= EACH
            && keys.in_hand("doomed") > 0
            && let Some(consumer) = doomed.take()
        {
            Consumer::kill(consumer).await;
            keys.die("doomed");
        }
    }
    assert!(doomed.is_none(), "the one had {} and the other {}", keys.worked("doomed"), keys.worked("other"));
}

/// Message `n`: its key and its number within the key are its payload.
fn message(stage: &Stage, n: u32) -> (String, Outgoing) {
    let (key, number) = (n % KEYS, n / KEYS);
    let (address, message) = (&stage.place.address, Outgoing::text(format!("{key} {number}")));
    match stage.cell.from {
        Dialect::Mqtt3 => (format!("{address}/{key}"), message),
        _ => {
            let properties = vec![("customer".to_owned(), key.to_string())];
            (format!("{address}/any"), Outgoing { properties, ..message })
        }
    }
}

/// Who has what of which key.
#[derive(Default)]
struct Keys {
    /// By key, the messages that are in somebody's hands, in order.
    out: HashMap<u32, VecDeque<(&'static str, u32, Received)>>,
    /// By key, the number of the next one to be settled.
    next: HashMap<u32, u32>,
    worked: HashMap<&'static str, u32>,
    dead: Option<&'static str>,
    idle: u32,
}

impl Keys {
    fn give(&mut self, to: &'static str, received: Received) {
        let (key, number) = received.text().split_once(' ').expect("key and number");
        let (key, number): (u32, u32) = (key.parse().expect("a key"), number.parse().expect("a number"));
        let out = self.out.entry(key).or_default();
        let next = self.next.entry(key).or_default();
        if let Some((by, held, _)) = out.iter().find(|(by, ..)| *by != to) {
            panic!("{to} is given {number} of key {key} while {by} has {held} in hand");
        }
        let ahead = out.iter().filter(|(_, held, _)| *held >= *next).count();
        // What one that died had settled last may have been on the wire.
        if self.dead.is_none() || number >= *next {
            let expected = *next + u32::try_from(ahead).expect("few");
            assert_eq!(
                number, expected,
                "{to} is given another one of key {key}: lost, twice or out of order"
            );
        }
        out.push_back((to, number, received));
    }

    /// Settles the first one that `who` has of some key.
    async fn settle_one(&mut self, who: &'static str) {
        let mine = self.out.iter_mut().find(|(_, out)| out.front().is_some_and(|(by, ..)| *by == who));
        let Some((key, out)) = mine else { return };
        if let Some((_, number, received)) = out.pop_front() {
            let next = self.next.entry(*key).or_default();
            *next = (number + 1).max(*next);
            *self.worked.entry(who).or_default() += 1;
            received.settle().await;
        }
    }

    fn in_hand(&self, who: &str) -> usize {
        self.out.values().flatten().filter(|(by, ..)| *by == who).count()
    }

    fn worked(&self, who: &str) -> u32 {
        self.worked.get(who).copied().unwrap_or_default()
    }

    /// What `who` has in hand is in nobody's hands any more.
    fn die(&mut self, who: &'static str) {
        self.dead = Some(who);
        self.out.values_mut().for_each(|out| out.retain(|(by, ..)| *by != who));
    }

    fn are_done(&self) -> bool {
        self.next.values().filter(|next| **next == EACH).count() == KEYS as usize
    }

    fn check_progress(&mut self, is_idle: bool) {
        self.idle = if is_idle { self.idle + 1 } else { 0 };
        assert!(self.idle < PATIENCE, "nobody is given any more; worked by key: {:?}", self.next);
    }
}
