//! PUBLISHes of a client that are not answered yet: PUBACKs and PUBRECs go out in the order of the PUBLISHes
//! [MQTT-4.6.0-2] [MQTT-4.6.0-3], in whatever order the receipts come.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use linkspan_contract::Seq;

use crate::protocol::mqtt::{AckKind, ReasonCode};

/// What a PUBACK or PUBREC says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// How it went.
    pub reason: ReasonCode,
    /// An explanation for people.
    pub text: Option<Box<str>>,
}

impl Answer {
    /// All is well.
    pub(super) const SUCCESS: Self = Self { reason: ReasonCode::Success, text: None };

    /// What became of it is not known.
    pub(super) const UNKNOWN: Self = Self { reason: ReasonCode::UnspecifiedError, text: None };
}

/// In the order of the PUBLISHes.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// The receipt's number, or that of the next one behind.
    seq: Seq,
    packet_id: NonZeroU16,
    kind: AckKind,
    answer: Option<Answer>,
    noting: Noting,
    /// The connection that it came by is over: nobody is answered.
    mute: bool,
}

/// How far it is written down what a PUBLISH of QoS 2 came to, where that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noting {
    /// It has not come to anything yet.
    Ahead,
    /// It is safe when this word is told.
    Waits(Seq),
    /// It is safe.
    Safe,
}

/// A PUBLISH whose answer is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub packet_id: NonZeroU16,
    pub kind: AckKind,
    pub answer: Answer,
    /// Nobody is to be told.
    pub mute: bool,
}

impl Receipts {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a PUBLISH of QoS 2 with this packet identifier waits: it came again, so that it is answered whatever became
    /// of the connection that it came by first.
    pub(super) fn holds(&mut self, packet_id: NonZeroU16) -> bool {
        let same = |waiting: &&mut Waiting| waiting.packet_id == packet_id && waiting.kind == AckKind::Pubrec;
        let found = self.waiting.iter_mut().find(same);
        found.map(|waiting| waiting.mute = false).is_some()
    }

    /// The connection is over: what waits is not answered on the next one.
    pub(super) fn mute(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.mute = true);
    }

    /// The next PUBLISH: its receipt is, or will be, number `seq`; without `answer` it is still to come. One that has an
    /// answer of its own takes the number of the one behind it.
    pub(super) fn push(&mut self, seq: Seq, packet_id: NonZeroU16, kind: AckKind, answer: Option<Answer>) {
        let noting = Noting::Ahead;
        self.waiting.push_back(Waiting { seq, packet_id, kind, answer, noting, mute: false });
    }

    /// The receipts `first..first + count` have come.
    pub(super) fn settle(&mut self, first: Seq, count: u32, answer: &Answer) {
        let end = first.saturating_add(count.into());
        let from = self.waiting.partition_point(|waiting| waiting.seq < first);
        for waiting in self.waiting.range_mut(from..).take_while(|waiting| waiting.seq < end) {
            waiting.answer.get_or_insert_with(|| answer.clone());
        }
    }

    /// Has it written down what PUBLISHes of QoS 2 came to, each once: `note` is told the packet identifier and whether the
    /// message was taken, and says the word that tells when that is safe; none when it is.
    pub(super) fn note(&mut self, mut note: impl FnMut(NonZeroU16, bool) -> Option<Seq>) {
        for waiting in &mut self.waiting {
            if let (Some(answer), AckKind::Pubrec, Noting::Ahead) =
                (&waiting.answer, waiting.kind, waiting.noting)
            {
                let word = note(waiting.packet_id, !answer.reason.is_error());
                waiting.noting = word.map_or(Noting::Safe, Noting::Waits);
            }
        }
    }

    /// A word was told.
    pub(super) fn noted(&mut self, word: Seq) {
        let waits = |waiting: &&mut Waiting| waiting.noting == Noting::Waits(word);
        if let Some(waiting) = self.waiting.iter_mut().find(waits) {
            waiting.noting = Noting::Safe;
        }
    }

    /// The next one that can be answered; one of QoS 2 that is `noted` when that is safe.
    pub(super) fn pop(&mut self, noted: bool) -> Option<Due> {
        let front = self.waiting.front()?;
        front.answer.as_ref()?;
        if noted && front.kind == AckKind::Pubrec && front.noting != Noting::Safe {
            return None;
        }
        let Waiting { packet_id, kind, answer, mute, .. } = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(Due { packet_id, kind, answer: answer?, mute })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    fn ready(receipts: &mut Receipts) -> Vec<u16> {
        std::iter::from_fn(|| receipts.pop(false)).map(|due| due.packet_id.get()).collect()
    }

    #[test]
    fn answers_go_out_in_the_order_of_the_publishes_mqtt_4_6_0_2() {
        let mut receipts = Receipts::default();
        for number in 0..6 {
            receipts.push(number, id(u16::try_from(number).unwrap() + 10), AckKind::Puback, None);
        }
        receipts.settle(3, 2, &Answer::SUCCESS);
        assert!(ready(&mut receipts).is_empty(), "10 is still waited for");
        receipts.settle(0, 2, &Answer::SUCCESS);
        assert_eq!(ready(&mut receipts), [10, 11]);
        receipts.settle(2, 1, &Answer::SUCCESS);
        assert_eq!(ready(&mut receipts), [12, 13, 14]);
        receipts.settle(5, 1, &Answer::SUCCESS);
        assert_eq!(ready(&mut receipts), [15]);
        assert!(receipts.is_empty());
    }

    #[test]
    fn what_was_answered_at_once_waits_for_those_before_it_and_keeps_its_answer() {
        let mut receipts = Receipts::default();
        let refused = Answer { reason: ReasonCode::PayloadFormatInvalid, text: None };
        receipts.push(7, id(1), AckKind::Puback, None);
        receipts.push(8, id(2), AckKind::Puback, Some(refused.clone()));
        receipts.push(8, id(3), AckKind::Pubrec, None);
        assert!(ready(&mut receipts).is_empty());
        receipts.settle(7, 2, &Answer::SUCCESS);
        let due = |packet_id, kind, answer| Due { packet_id, kind, answer, mute: false };
        assert_eq!(receipts.pop(false), Some(due(id(1), AckKind::Puback, Answer::SUCCESS)));
        assert_eq!(receipts.pop(false), Some(due(id(2), AckKind::Puback, refused)));
        assert_eq!(receipts.pop(false), Some(due(id(3), AckKind::Pubrec, Answer::SUCCESS)));
    }

    #[test]
    fn what_waits_when_its_connection_ends_is_answered_only_when_it_comes_again_at_qos_2() {
        let mut receipts = Receipts::default();
        receipts.push(0, id(1), AckKind::Puback, None);
        receipts.push(1, id(2), AckKind::Pubrec, None);
        receipts.push(2, id(3), AckKind::Pubrec, None);
        receipts.mute();
        assert!(receipts.holds(id(3)), "it came again");
        assert!(!receipts.holds(id(1)), "of QoS 1, so it is published again");
        receipts.settle(0, 3, &Answer::SUCCESS);
        let mute: Vec<bool> = std::iter::from_fn(|| receipts.pop(false)).map(|due| due.mute).collect();
        assert_eq!(mute, [true, true, false]);
    }

    #[test]
    fn where_it_is_noted_what_came_of_a_publish_of_qos_2_it_is_answered_when_that_is_safe() {
        let mut receipts = Receipts::default();
        receipts.push(0, id(1), AckKind::Pubrec, None);
        receipts.push(1, id(2), AckKind::Pubrec, None);
        receipts.push(2, id(3), AckKind::Puback, None);
        receipts.settle(0, 3, &Answer::SUCCESS);
        let mut asked = Vec::new();
        let mut note = |packet_id: NonZeroU16, taken| {
            asked.push((packet_id.get(), taken));
            (packet_id.get() == 1).then_some(70)
        };
        receipts.note(&mut note);
        receipts.note(&mut note);
        assert_eq!(asked, [(1, true), (2, true)], "each once");
        assert_eq!(receipts.pop(true), None);
        receipts.noted(71);
        assert_eq!(receipts.pop(true), None);
        receipts.noted(70);
        let told: Vec<u16> =
            std::iter::from_fn(|| receipts.pop(true)).map(|due| due.packet_id.get()).collect();
        assert_eq!(told, [1, 2, 3]);
    }
}
