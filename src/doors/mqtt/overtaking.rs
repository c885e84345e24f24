//! Which retained messages of a back end were overtaken by newer ones.
//!
//! A back end is asked for what it keeps while it gives the subscription what is published already. So an answer may be
//! older than what the client has, and then is not sent. Nothing is noted as long as nothing is asked and no answer waits.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

/// So many topics are noted during a question; when there are more, no answer is sent.
const TOPICS: usize = 4096;

/// The topics for which a client has newer messages than those that were, or are, asked for.
#[derive(Debug, Default)]
pub(super) struct Overtaking {
    hasher: RandomState,
    /// The subscription for which is asked, and the topics of which it was given messages since.
    asking: Option<(u32, Given)>,
    /// Answers that wait for room, by subscription: the topics of those that are still the newest.
    waiting: HashMap<u32, HashSet<u64, RandomState>, RandomState>,
}

#[derive(Debug)]
enum Given {
    /// Of these.
    Topics(HashSet<u64, RandomState>),
    /// Of more than are noted.
    TooMany,
}

impl Overtaking {
    /// A back end is asked for a subscription.
    pub(super) fn ask(&mut self, number: u32) {
        self.asking = Some((number, Given::Topics(HashSet::default())));
    }

    /// A subscription is given a message.
    pub(super) fn give(&mut self, number: u32, topic: &[u8]) {
        let topic = self.hasher.hash_one(topic);
        if let Some((_, given)) = self.asking.as_mut().filter(|(asking, _)| *asking == number)
            && let Given::Topics(topics) = given
        {
            topics.insert(topic);
            if topics.len() > TOPICS {
                *given = Given::TooMany;
            }
        }
        self.remove(number, topic);
    }

    fn remove(&mut self, number: u32, topic: u64) {
        if let Some(topics) = self.waiting.get_mut(&number) {
            topics.remove(&topic);
            if topics.is_empty() {
                self.waiting.remove(&number);
            }
        }
    }

    /// Whether an answer for that topic came too late.
    pub(super) fn is_late(&self, topic: &[u8]) -> bool {
        match &self.asking {
            None => false,
            Some((_, Given::TooMany)) => true,
            Some((_, Given::Topics(topics))) => topics.contains(&self.hasher.hash_one(topic)),
        }
    }

    /// The question is over.
    pub(super) fn answered(&mut self) {
        self.asking = None;
    }

    /// An answer that is not late waits for room.
    pub(super) fn wait(&mut self, number: u32, topic: &[u8]) {
        self.waiting.entry(number).or_default().insert(self.hasher.hash_one(topic));
    }

    /// Whether an answer that waited is still the newest.
    pub(super) fn is_newest(&self, number: u32, topic: &[u8]) -> bool {
        self.waiting.get(&number).is_some_and(|topics| topics.contains(&self.hasher.hash_one(topic)))
    }

    /// An answer that waited is sent.
    pub(super) fn sent(&mut self, number: u32, topic: &[u8]) {
        self.remove(number, self.hasher.hash_one(topic));
    }

    /// No answers wait for that subscription any more.
    pub(super) fn forget(&mut self, number: u32) {
        self.waiting.remove(&number);
    }

    /// Whether there is nothing to be noted.
    pub(super) fn is_idle(&self) -> bool {
        self.asking.is_none() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_late_when_the_subscription_was_given_that_topic_meanwhile() {
        let mut overtaking = Overtaking::default();
        overtaking.give(1, b"before");
        overtaking.ask(1);
        overtaking.give(1, b"a");
        overtaking.give(2, b"another's");
        assert!(overtaking.is_late(b"a"));
        assert!(!overtaking.is_late(b"before") && !overtaking.is_late(b"another's"));
        overtaking.wait(1, b"b");
        overtaking.wait(1, b"c");
        overtaking.answered();
        assert!(!overtaking.is_late(b"a"));
        overtaking.give(1, b"b");
        overtaking.give(2, b"c");
        assert!(!overtaking.is_newest(1, b"b") && overtaking.is_newest(1, b"c"));
        overtaking.sent(1, b"c");
        assert!(overtaking.is_idle());
    }

    #[test]
    fn no_more_than_so_many_topics_are_noted_and_then_all_answers_are_late() {
        let mut overtaking = Overtaking::default();
        overtaking.ask(1);
        for topic in 0..=TOPICS {
            overtaking.give(1, &topic.to_be_bytes());
        }
        assert!(matches!(overtaking.asking, Some((1, Given::TooMany))));
        assert!(overtaking.is_late(b"any"));
    }
}
