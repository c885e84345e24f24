//! What publishers and consumers note over all lives of a server, and what it has done wrong by that.
//!
//! A tick is a place in the order of what the test saw. What the server did before it took a durable message is in its log
//! before that message; so a confirm makes everything safe that was seen before its message was sent: that a message was
//! given out, or that it was settled, once the server has answered something behind the settlement. What was seen later may
//! be forgotten by a kill: a settled message comes back, or one that was given out does not say so.

mod arrivals;
mod membership;
mod verdict;

use std::collections::{BTreeMap, HashMap, HashSet};

use membership::Membership;
pub use membership::Standing;

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
    tick: u64,
    durable: bool,
    priority: u8,
    acknowledged: Option<u64>,
    /// The life in which its publisher took it back: it must not come there any more.
    withdrawn: Option<usize>,
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

#[derive(Debug, Default)]
struct Queue {
    /// Dead letters: the same message may come more than once, and in any order.
    letters: bool,
    /// When its consumer of today came: it has been given nothing that was sent later.
    attached: u64,
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
    /// When this life began.
    begun: u64,
    /// By life: what was seen before is safe.
    safe: Vec<u64>,
    lines: BTreeMap<&'static str, Vec<Sent>>,
    /// Lines whose acknowledgements say nothing of the log that queues are in: they wait elsewhere.
    elsewhere: HashSet<&'static str>,
    /// Kept sessions, by the inbox that each has here.
    members: BTreeMap<&'static str, Membership>,
    /// What came at the brokers behind, and how often the ways there broke.
    arrivals: BTreeMap<&'static str, arrivals::Arrivals>,
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
        self.begun = self.next_tick();
        for queue in self.queues.values_mut() {
            queue.unanswered.clear();
            queue.attached = self.begun;
        }
        self.members.values_mut().for_each(Membership::is_on_its_own);
    }

    /// A queue; its consumer came when this life began, unless more is said.
    fn queue(&mut self, name: &'static str) -> &mut Queue {
        let attached = self.begun;
        self.queues.entry(name).or_insert_with(|| Queue { attached, ..Queue::default() })
    }

    /// Acknowledgements of a line say nothing of the log that queues are in.
    pub fn elsewhere(&mut self, line: &'static str) {
        self.elsewhere.insert(line);
    }

    /// Something is wrong.
    pub fn wrong(&mut self, what: String) {
        self.mistakes += 1;
        if self.wrong.len() < TOLD {
            self.wrong.push(format!("life {}: {what}", self.life));
        }
    }

    /// Something happens now.
    pub fn next_tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// A message is about to be sent; also tells when.
    pub fn send(&mut self, line: &'static str, durable: bool, priority: u8) -> (Name, u64) {
        let life = self.life;
        let tick = self.next_tick();
        let sent = self.lines.entry(line).or_default();
        sent.push(Sent { life, tick, durable, priority, acknowledged: None, withdrawn: None, group: None });
        ((line, sent.len() - 1), tick)
    }

    fn sent(&self, (line, number): Name) -> &Sent {
        &self.lines[line][number]
    }

    /// A message may or may not come: its publisher wants it back.
    pub fn withdrawing(&mut self, (line, number): Name) {
        self.lines.get_mut(line).expect("it was sent")[number].acknowledged = None;
    }

    /// A message that its publisher wanted back must not come in this life.
    pub fn withdrawn(&mut self, (line, number): Name) {
        let life = self.life;
        self.lines.get_mut(line).expect("it was sent")[number].withdrawn = Some(life);
    }

    /// It was acknowledged.
    pub fn acknowledged(&mut self, (line, number): Name, sent: u64) {
        let tick = self.next_tick();
        let message = &mut self.lines.get_mut(line).expect("it was sent")[number];
        message.acknowledged = Some(tick);
        if message.durable && !self.elsewhere.contains(line) {
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
        self.queue(queue).letters = true;
    }

    /// Which message a payload is.
    fn named(&mut self, place: &str, payload: &[u8]) -> Option<Name> {
        let text = String::from_utf8_lossy(payload);
        let mut words = text.split(' ');
        let line = words.next().and_then(|line| self.lines.get_key_value(line)).map(|(line, _)| *line);
        let number: Option<usize> = words.next().and_then(|number| number.parse().ok());
        let found = line.zip(number).filter(|(line, number)| *number < self.lines[line].len());
        let Some(name) = found else {
            let text: String = text.chars().take(40).collect();
            self.wrong(format!("{place} gives out what nobody sent: {text}"));
            return None;
        };
        Some(name)
    }

    /// A delivery; tells which message it is.
    pub fn seen(&mut self, queue: &'static str, payload: &[u8], redelivered: bool) -> Option<Name> {
        let name = self.named(queue, payload)?;
        let tick = self.next_tick();
        let mistakes = self.check(queue, name, redelivered);
        mistakes.into_iter().for_each(|mistake| self.wrong(mistake));
        let sight = Sight { life: self.life, tick, settled: None, answered: None };
        self.queue(queue).sights.entry(name).or_default().push(sight);
        Some(name)
    }

    /// A queue's consumer has come once more: what another one had before may come again, and says so.
    pub fn attached(&mut self, queue: &'static str) {
        let tick = self.next_tick();
        let queue = self.queue(queue);
        queue.attached = tick;
        queue.unanswered.clear();
    }

    /// What is wrong with a delivery.
    fn check(&mut self, queue_name: &'static str, name: Name, redelivered: bool) -> Vec<String> {
        self.queue(queue_name);
        let (line, number) = name;
        let Self { life, safe, lines, queues, members, .. } = self;
        let sent = &lines[line][number];
        let it = format!(
            "{line} {number} in {queue_name} (sent in life {}, redelivered {redelivered})",
            sent.life
        );
        let mut wrong = Vec::new();
        if !sent.durable && sent.life != *life {
            wrong.push(format!("{it} is transient and outlived the process"));
        }
        if sent.withdrawn == Some(*life) {
            wrong.push(format!("{it} was withdrawn"));
        }
        if let Some(why) = members.get(queue_name).and_then(|member| member.refuses(line, sent)) {
            wrong.push(format!("{it} {why}"));
        }
        let queue = queues.get_mut(queue_name).expect("it was made above");
        if queue.letters {
            return wrong;
        }
        let sights = queue.sights.get(&name).map_or(&[][..], Vec::as_slice);
        let Some(last) = sights.last() else {
            if redelivered && sent.tick > queue.attached {
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
            if last.tick > queue.attached || last.life == *life && last.answered.is_some() {
                wrong.push(format!("{it} was {how:?} in this life"));
            } else if last.answered.is_some_and(|tick| was_safe(tick, last.life)) {
                wrong.push(format!("{it} was {how:?} for good in life {}", last.life));
            }
        } else if last.tick > queue.attached && last.settled != Some(Settled::Requeued) {
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

    /// The server has answered a commit in which all unanswered settlements of this queue were: they are safe with it.
    pub fn committed(&mut self, queue: &'static str) {
        for name in std::mem::take(&mut self.queue(queue).unanswered) {
            if let Some(sight) = self.queue(queue).sights.get_mut(&name).and_then(|sights| sights.last_mut())
            {
                sight.answered = Some(0);
            }
        }
    }

    /// How much of a line was acknowledged.
    pub fn acknowledgements(&self, line: &str) -> usize {
        self.lines
            .get(line)
            .map_or(0, |sent| sent.iter().filter(|message| message.acknowledged.is_some()).count())
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
