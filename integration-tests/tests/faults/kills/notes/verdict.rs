//! What is missing when everything was consumed, and what should not have been there.

use std::collections::HashMap;

use super::{End, Name, Notes, Settled};

/// What became of the messages of a transaction.
#[derive(Debug, Default)]
struct Group {
    all: usize,
    seen: usize,
}

impl Notes {
    /// Whether a queue gave a message out; with `for_good` whether somebody accepted it, or it is a dead letter.
    fn came(&self, name: Name, for_good: bool) -> bool {
        self.queues.iter().filter(|(queue, _)| !self.members.contains_key(*queue)).any(|(_, queue)| {
            let sights = queue.sights.get(&name).map_or(&[][..], Vec::as_slice);
            let done = |sight: &super::Sight| queue.letters || sight.settled == Some(Settled::Accepted);
            if for_good { sights.iter().any(done) } else { !sights.is_empty() }
        })
    }

    /// How many messages of a line were acknowledged and did not come, for good.
    pub fn missing(&self, line: &'static str) -> usize {
        let sent = self.lines.get(line).map_or(&[][..], Vec::as_slice);
        let is_missing = |number: usize| match self.arrivals.get(line) {
            Some(arrivals) => !arrivals.has(number),
            None => !self.came((line, number), true),
        };
        let due = sent.iter().enumerate().filter(|(_, message)| message.durable);
        due.filter(|(number, message)| message.acknowledged.is_some() && is_missing(*number)).count()
    }

    /// Everything was consumed: what is missing, and what should not have been there.
    pub fn verdict(&mut self) -> Result<(), String> {
        let mut wrong = Vec::new();
        self.judge_messages(&mut wrong);
        self.judge_transactions(&mut wrong);
        self.judge_moves(&mut wrong);
        self.judge_members(&mut wrong);
        self.judge_arrivals(&mut wrong);
        wrong.into_iter().for_each(|what| self.wrong(what));
        if self.mistakes == 0 {
            return Ok(());
        }
        Err(format!("{} mistakes, of which:\n{}", self.mistakes, self.wrong.join("\n")))
    }

    fn judge_messages(&self, wrong: &mut Vec<String>) {
        for (line, sent) in self.lines.iter().filter(|(line, _)| !self.arrivals.contains_key(*line)) {
            for (number, message) in sent.iter().enumerate() {
                let name = (*line, number);
                if message.durable && message.acknowledged.is_some() && !self.came(name, true) {
                    let (life, seen) = (message.life, self.came(name, false));
                    wrong.push(format!(
                        "{line} {number} (life {life}) was acknowledged and is lost (was delivered: {seen})"
                    ));
                }
            }
        }
    }

    /// A transaction is there as a whole or not at all. A queue gives nothing of it out before it is safe: so what was
    /// given out, be it once, was there.
    fn judge_transactions(&self, wrong: &mut Vec<String>) {
        let mut groups: Vec<Group> = self.groups.iter().map(|_| Group::default()).collect();
        for (line, sent) in &self.lines {
            for (number, message) in sent.iter().enumerate() {
                if let Some(group) = message.group {
                    groups[group].all += 1;
                    groups[group].seen += usize::from(self.came((*line, number), false));
                }
            }
        }
        for (at, (group, end)) in groups.into_iter().zip(&self.groups).enumerate() {
            let right = match end {
                End::Unknown => group.seen == 0 || group.seen == group.all,
                End::Committed => group.seen == group.all,
                End::RolledBack => group.seen == 0,
            };
            if !right {
                wrong.push(format!("transaction {at} ({end:?}): {group:?}"));
            }
        }
    }

    /// What was taken in a transaction is made into another message once.
    fn judge_moves(&self, wrong: &mut Vec<String>) {
        let mut made: HashMap<Name, usize> = HashMap::new();
        for (name, of) in &self.made_of {
            *made.entry(*of).or_default() += usize::from(self.came(*name, false));
        }
        for (of @ (line, number), made) in made {
            if made > 1 {
                wrong.push(format!("{line} {number} was moved {made} times"));
            } else if made == 0 && self.sent(of).acknowledged.is_some() {
                wrong.push(format!("{line} {number} was taken, and what is made of it is lost"));
            }
        }
    }
}
