//! The filters of one client's session: what it asked for, and what the broker has not answered yet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::Refused;
use tokio::sync::oneshot;

use crate::upstream::wish::Wish;

/// What the broker says of a filter: whether there was a subscription, when one is given up. None when it is away: then it
/// is asked when it is back.
pub(crate) type Answer = oneshot::Receiver<Result<bool, Refused>>;

/// What is to be said to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Say {
    Subscribe(Arc<str>, Wish),
    Unsubscribe(Arc<str>),
}

/// Filters in the order of the alphabet: who subscribes again does so in a known order.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    wanted: BTreeMap<Arc<str>, Wanted>,
    /// Given up while the broker was away.
    leaving: Vec<Arc<str>>,
    /// What has no packet identifier yet, and what has one.
    asked: VecDeque<Question>,
    numbered: HashMap<u16, Question, RandomState>,
}

#[derive(Debug)]
struct Wanted {
    wish: Wish,
    granted: bool,
}

#[derive(Debug)]
struct Question {
    say: Say,
    who: Option<oneshot::Sender<Result<bool, Refused>>>,
}

/// Questions and answers are out of step: the connection has to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfStep;

impl Questions {
    /// The client wants what `filter` brings; an older wish for it counts until the broker has answered.
    pub(crate) fn want(&mut self, filter: &Arc<str>, wish: Wish) -> Say {
        self.leaving.retain(|other| other != filter);
        self.wanted.insert(Arc::clone(filter), Wanted { wish, granted: false });
        Say::Subscribe(Arc::clone(filter), wish)
    }

    /// It does not any more.
    pub(crate) fn give_up(&mut self, filter: &Arc<str>) -> Say {
        self.wanted.remove(filter);
        if !self.leaving.contains(filter) {
            self.leaving.push(Arc::clone(filter));
        }
        Say::Unsubscribe(Arc::clone(filter))
    }

    /// It was said: whoever waits for the answer is told.
    pub(crate) fn said(&mut self, say: Say) -> Answer {
        let (who, answer) = oneshot::channel();
        self.asked.push_back(Question { say, who: Some(who) });
        answer
    }

    /// A connection begins: what has to be said on it.
    pub(crate) fn connected(&mut self, resumed: bool) -> Vec<Say> {
        if !resumed {
            self.leaving.clear();
            self.wanted.values_mut().for_each(|wanted| wanted.granted = false);
        }
        let subscribe = self.wanted.iter().filter(|(_, wanted)| !wanted.granted);
        let subscribe = subscribe.map(|(filter, wanted)| Say::Subscribe(Arc::clone(filter), wanted.wish));
        self.leaving.iter().map(|filter| Say::Unsubscribe(Arc::clone(filter))).chain(subscribe).collect()
    }

    /// What was said on behalf of nobody who waits.
    pub(crate) fn said_again(&mut self, say: Say) {
        self.asked.push_back(Question { say, who: None });
    }

    /// The oldest question has got a packet identifier.
    pub(crate) fn numbered(&mut self, packet_id: u16) -> Result<(), OutOfStep> {
        let question = self.asked.pop_front().ok_or(OutOfStep)?;
        self.numbered.insert(packet_id, question);
        Ok(())
    }

    /// The broker has answered: true when there was, or is, a subscription.
    pub(crate) fn answered(
        &mut self,
        packet_id: u16,
        answer: Result<bool, Refused>,
    ) -> Result<(), OutOfStep> {
        let Question { say, who } = self.numbered.remove(&packet_id).ok_or(OutOfStep)?;
        match &say {
            Say::Subscribe(filter, wish) => {
                let same = self.wanted.get_mut(filter).filter(|wanted| wanted.wish == *wish);
                match (&answer, same) {
                    (Ok(_), Some(wanted)) => wanted.granted = true,
                    (Err(why), Some(_)) => {
                        if who.is_none() {
                            tracing::warn!(%filter, %why, "the broker does not grant a subscription again");
                        }
                        self.wanted.remove(filter);
                    }
                    (_, None) => {}
                }
            }
            Say::Unsubscribe(filter) => self.leaving.retain(|other| other != filter),
        }
        if let Some(who) = who {
            // Whoever asked may be gone.
            let _ = who.send(answer);
        }
        Ok(())
    }

    /// The client subscribes to something.
    pub(crate) fn wants_something(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The broker has answered all that it was asked.
    pub(crate) fn are_answered(&self) -> bool {
        self.asked.is_empty() && self.numbered.is_empty()
    }

    /// The connection is gone: whoever waits is told so by the end of the channel.
    pub(crate) fn lost(&mut self) {
        self.asked.clear();
        self.numbered.clear();
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::{Settle, Subscribe};

    use super::*;

    fn wish() -> Wish {
        Wish::of(&Subscribe::new(Settle::AsPublished))
    }

    #[test]
    fn who_asks_is_told_what_the_broker_says_or_that_it_is_away() {
        let mut questions = Questions::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let say = questions.want(&a, wish());
        let mut one = questions.said(say);
        let say = questions.want(&b, wish());
        let mut two = questions.said(say);
        questions.numbered(4).unwrap();
        assert_eq!(questions.answered(5, Ok(true)), Err(OutOfStep));
        let why = Refused::AccessRefused("no".into());
        questions.answered(4, Err(why.clone())).unwrap();
        assert_eq!(one.try_recv(), Ok(Err(why)));
        questions.lost();
        assert_eq!(two.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(
            questions.connected(true),
            [Say::Subscribe(b, wish())],
            "what was refused is not asked again"
        );
    }

    #[test]
    fn a_resumed_session_is_told_what_was_not_answered_and_a_new_one_everything_that_is_wanted() {
        let mut questions = Questions::default();
        let (a, b, c): (Arc<str>, Arc<str>, Arc<str>) = ("a".into(), "b".into(), "c".into());
        let say = questions.want(&a, wish());
        drop(questions.said(say));
        questions.numbered(1).unwrap();
        questions.answered(1, Ok(true)).unwrap();
        questions.want(&b, wish());
        questions.give_up(&c);
        questions.lost();
        let left = Say::Unsubscribe(c);
        assert_eq!(questions.connected(true), [left, Say::Subscribe(Arc::clone(&b), wish())]);
        assert_eq!(questions.connected(false), [Say::Subscribe(a, wish()), Say::Subscribe(b, wish())]);
    }
}
