//! What publishers and consumers note over all lives of a server, and what it has done wrong by that.
//!
//! A tick is a place in the order of what the test saw. What the server did before it took a durable message is in its log
//! before that message; so a confirm makes everything safe that was seen before its message was sent: that a message was
//! given out, or that it was settled, once the server has answered something behind the settlement. What was seen later may
//! be forgotten by a kill: a settled message comes back, or one that was given out does not say so.

use std::collections::{BTreeMap, HashMap};

/// A message: the line that it was published in, and its number there.
pub type Name = (&'static str, usize);

/// Mistakes that are told; there may be thousands of one kind.
const TOLD: usize = 30;

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is done.
    Accepted,
    /// Back to the queue.
    Requeued,
    /// To the dead letters.
    Rejected,
}

#[derive(Debug)]
struct Sent {
    life: usize,
    durable: bool,
    priority: u8,
    acknowledged: bool,
    /// Its transaction.
    group: Option<usize>,
}

#[derive(Debug)]
struct Sight {
    life: usize,
    tick: u64,
    settled: Option<Settled>,
    /// When the server had answered something behind the settlement.
    answered: Option<u64>,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Unknown,
    Committed,
    RolledBack,
}

/// What became of the messages of a transaction.
#[derive(Debug, Default)]
struct Group {
    all: usize,
    seen: usize,
    there: usize,
    absent: usize,
}

#[derive(Debug, Default)]
struct Queue {
    /// Dead letters: the same message may come more than once, and in any order.
    letters: bool,
    sights: HashMap<Name, Vec<Sight>>,
    /// The newest of each line and priority.
    newest: HashMap<(&'static str, u8), usize>,
    unanswered: Vec<Name>,
}

/// The notes.
#[derive(Debug, Default)]
pub struct Notes {
    life: usize,
    tick: u64,
    /// By life: what was seen before is safe.
    safe: Vec<u64>,
    lines: BTreeMap<&'static str, Vec<Sent>>,
    queues: BTreeMap<&'static str, Queue>,
    groups: Vec<End>,
    /// Messages that were made of others, in a transaction that also accepted these.
    made_of: HashMap<Name, Name>,
    wrong: Vec<String>,
    mistakes: usize,
    /// Deliveries that came again.
    pub again: usize,
    /// Settlements that a kill made undone.
    pub undone: usize,
}

impl Notes {
    /// Another life of the server begins.
    pub fn begin(&mut self, life: usize) {
        self.life = life;
        self.safe.push(0);
        self.queues.values_mut().for_each(|queue| queue.unanswered.clear());
    }

    /// Something is wrong.
    pub fn wrong(&mut self, what: String) {
        self.mistakes += 1;
        if self.wrong.len() < TOLD {
            self.wrong.push(format!("life {}: {what}", self.life));
        }
    }

    fn next_tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// A message is about to be sent; also tells when.
    pub fn send(&mut self, line: &'static str, durable: bool, priority: u8) -> (Name, u64) {
        let life = self.life;
        let sent = self.lines.entry(line).or_default();
        sent.push(Sent { life, durable, priority, acknowledged: false, group: None });
        let number = sent.len() - 1;
        ((line, number), self.next_tick())
    }

    /// It was acknowledged.
    pub fn acknowledged(&mut self, (line, number): Name, sent: u64) {
        let message = &mut self.lines.get_mut(line).expect("it was sent")[number];
        message.acknowledged = true;
        if message.durable {
            let safe = &mut self.safe[self.life];
            *safe = sent.max(*safe);
        }
    }

    /// Messages are sent in one transaction.
    pub fn group(&mut self, messages: &[Name]) -> usize {
        let group = self.groups.len();
        self.groups.push(End::Unknown);
        for (line, number) in messages {
            self.lines.get_mut(line).expect("it was sent")[*number].group = Some(group);
        }
        group
    }

    /// It is known how a transaction ended.
    pub fn ended(&mut self, group: usize, committed: bool) {
        self.groups[group] = if committed { End::Committed } else { End::RolledBack };
    }

    /// A message is made of another.
    pub fn made_of(&mut self, made: Name, of: Name) {
        self.made_of.insert(made, of);
    }

    /// The payload of a message.
    pub fn payload((line, number): Name, bytes: usize) -> Vec<u8> {
        let mut payload = format!("{line} {number} ").into_bytes();
        payload.resize(payload.len().max(bytes), b'x');
        payload
    }

    /// A queue gets dead letters.
    pub fn letters(&mut self, queue: &'static str) {
        self.queues.entry(queue).or_default().letters = true;
    }

    /// A delivery; tells which message it is.
    pub fn seen(&mut self, queue: &'static str, payload: &[u8], redelivered: bool) -> Option<Name> {
        let text = String::from_utf8_lossy(payload);
        let mut words = text.split(' ');
        let line = words.next().and_then(|line| self.lines.get_key_value(line)).map(|(line, _)| *line);
        let number: Option<usize> = words.next().and_then(|number| number.parse().ok());
        let found = line.zip(number).filter(|(line, number)| *number < self.lines[line].len());
        let Some(name) = found else {
            let text: String = text.chars().take(40).collect();
            self.wrong(format!("{queue} gives out what nobody sent: {text}"));
            return None;
        };
        let tick = self.next_tick();
        let mistakes = self.check(queue, name, redelivered);
        mistakes.into_iter().for_each(|mistake| self.wrong(mistake));
        let sight = Sight { life: self.life, tick, settled: None, answered: None };
        self.queues.entry(queue).or_default().sights.entry(name).or_default().push(sight);
        Some(name)
    }

    /// What is wrong with a delivery.
    fn check(&mut self, queue: &'static str, name: Name, redelivered: bool) -> Vec<String> {
        let Self { life, safe, lines, queues, .. } = self;
        let (line, number) = name;
        let sent = &lines[line][number];
        let it =
            format!("{line} {number} in {queue} (sent in life {}, redelivered {redelivered})", sent.life);
        let mut wrong = Vec::new();
        if !sent.durable && sent.life != *life {
            wrong.push(format!("{it} is transient and outlived the process"));
        }
        let queue = queues.entry(queue).or_default();
        if queue.letters {
            return wrong;
        }
        let sights = queue.sights.get(&name).map_or(&[][..], Vec::as_slice);
        let Some(last) = sights.last() else {
            if redelivered && sent.life == *life {
                wrong.push(format!("{it} was never delivered before"));
            }
            let newest = queue.newest.entry((line, sent.priority)).or_insert(number);
            if *newest > number {
                wrong.push(format!("{it} comes behind {newest}"));
            }
            *newest = number;
            return wrong;
        };
        self.again += 1;
        let was_safe = |tick: u64, life: usize| tick < safe[life];
        if let Some(how @ (Settled::Accepted | Settled::Rejected)) = last.settled {
            self.undone += 1;
            if last.life == *life {
                wrong.push(format!("{it} was {how:?} in this life"));
            } else if last.answered.is_some_and(|tick| was_safe(tick, last.life)) {
                wrong.push(format!("{it} was {how:?} for good in life {}", last.life));
            }
        } else if last.life == *life && last.settled != Some(Settled::Requeued) {
            wrong.push(format!("{it} is in a consumer's hands in this life"));
        }
        if !redelivered {
            // Given out and taken back in one life; or in the life before and known to the log.
            if let Some(sight) =
                sights.iter().find(|sight| sight.life == *life || was_safe(sight.tick, sight.life))
            {
                let (when, safe) = (sight.tick, safe[sight.life]);
                wrong.push(format!("{it} was delivered in life {} (at {when}, safe {safe})", sight.life));
            }
        }
        wrong
    }

    /// A consumer's word on its last delivery of a message is on its way.
    pub fn settled(&mut self, queue: &'static str, name: Name, how: Settled) {
        let queue = self.queues.get_mut(queue).expect("it gave out something");
        let sight = queue.sights.get_mut(&name).and_then(|sights| sights.last_mut()).expect("it was seen");
        sight.settled = Some(how);
        queue.unanswered.push(name);
    }

    /// The server has answered something that was asked behind all settlements of this queue.
    pub fn answered(&mut self, queue: &'static str) {
        let tick = self.next_tick();
        let Some(queue) = self.queues.get_mut(queue) else { return };
        for name in queue.unanswered.drain(..) {
            if let Some(sight) = queue.sights.get_mut(&name).and_then(|sights| sights.last_mut()) {
                sight.answered = Some(tick);
            }
        }
    }

    /// Whether a message of a transaction was in the log when its life ended; none when that cannot be known. It may have
    /// been given out before it was, and that is undone with it.
    fn survived(&self, (line, number): Name) -> Option<bool> {
        let sent = &self.lines[line][number];
        if sent.acknowledged {
            return Some(true);
        }
        let sights = self.queues.values().filter_map(|queue| queue.sights.get(&(line, number))).flatten();
        let mut found = Some(false);
        for sight in sights {
            let safe = |tick: u64| tick < self.safe[sight.life];
            if sight.life > sent.life || sight.answered.is_some_and(safe) {
                return Some(true);
            }
            if matches!(sight.settled, Some(Settled::Accepted | Settled::Rejected)) {
                found = None;
            }
        }
        found
    }

    fn was(&self, name: Name, at_end: bool) -> bool {
        self.queues.values().any(|queue| {
            let sights = queue.sights.get(&name).map_or(&[][..], Vec::as_slice);
            let done = |sight: &Sight| queue.letters || sight.settled == Some(Settled::Accepted);
            if at_end { sights.iter().any(done) } else { !sights.is_empty() }
        })
    }

    /// Everything was consumed: what is missing, and what should not have been there.
    pub fn verdict(&mut self) -> Result<(), String> {
        let mut wrong = Vec::new();
        let mut groups: Vec<Group> = self.groups.iter().map(|_| Group::default()).collect();
        for (line, sent) in &self.lines {
            for (number, message) in sent.iter().enumerate() {
                let name = (*line, number);
                let it = || format!("{line} {number} (life {})", message.life);
                if message.durable && message.acknowledged && !self.was(name, true) {
                    let seen = self.was(name, false);
                    wrong.push(format!("{} was acknowledged and is lost (was delivered: {seen})", it()));
                }
                if let Some(group) = message.group {
                    let group = &mut groups[group];
                    group.all += 1;
                    group.seen += usize::from(self.was(name, false));
                    match self.survived(name) {
                        Some(true) => group.there += 1,
                        Some(false) => group.absent += 1,
                        None => {}
                    }
                }
            }
        }
        for (at, (group, end)) in groups.into_iter().zip(&self.groups).enumerate() {
            let right = match end {
                End::Unknown => group.there == 0 || group.absent == 0,
                End::Committed => group.seen == group.all,
                End::RolledBack => group.seen == 0,
            };
            if !right {
                wrong.push(format!("transaction {at} ({end:?}): {group:?}"));
            }
        }
        let mut made: HashMap<Name, (usize, usize)> = HashMap::new();
        for (name, of) in &self.made_of {
            let (there, perhaps) = made.entry(*of).or_default();
            match self.survived(*name) {
                Some(true) => *there += 1,
                Some(false) => {}
                None => *perhaps += 1,
            }
        }
        for ((line, number), (there, perhaps)) in made {
            if there > 1 {
                wrong.push(format!("{line} {number} was moved {there} times"));
            } else if there + perhaps == 0 && self.lines[line][number].acknowledged {
                wrong.push(format!("{line} {number} was taken, and what is made of it is lost"));
            }
        }
        wrong.into_iter().for_each(|what| self.wrong(what));
        if self.mistakes == 0 {
            return Ok(());
        }
        Err(format!("{} mistakes, of which:\n{}", self.mistakes, self.wrong.join("\n")))
    }

    /// How much of a line was acknowledged.
    pub fn acknowledgements(&self, line: &str) -> usize {
        self.lines.get(line).map_or(0, |sent| sent.iter().filter(|message| message.acknowledged).count())
    }

    /// In figures.
    pub fn summary(&self) -> String {
        let lines = self.lines.iter().map(|(line, sent)| {
            format!("{line}: {} sent, {} acknowledged", sent.len(), self.acknowledgements(line))
        });
        let lines: Vec<_> = lines.collect();
        format!("{}; {} came again, {} of them settled", lines.join("; "), self.again, self.undone)
    }
}
