//! What a client is told about what it has published: PUBACK, PUBREC, or an end.

use std::num::NonZeroU16;

use linkspan_contract::Published;

use super::handshake::Agreement;
use super::notes::Due;
use super::publishing::State;
use super::receipts::{self, Answer};
use super::session::{Session, acknowledge};
use super::translate;
use super::work::{Asked, Verdict, Work};
use crate::protocol::mqtt::{Ack, AckKind, ReasonCode, Version};

impl State {
    /// Answers a PUBLISH: it is over, or (QoS 2) received.
    #[inline]
    pub(super) fn answer(
        &mut self,
        packet_id: NonZeroU16,
        kind: AckKind,
        answer: Answer,
        agreement: &Agreement,
        replies: &mut Vec<u8>,
    ) {
        let failed = answer.reason.is_error();
        let over = match kind {
            AckKind::Pubrec => failed && self.received.remove(&packet_id),
            _ => true,
        };
        self.open -= u32::from(over && self.open > 0);
        if self.refused.is_some() {
            // The connection ends with the first one that cannot be answered.
        } else if answer.reason == ReasonCode::Success {
            replies.extend_from_slice(&kind.success(packet_id));
        } else if failed && agreement.version == Version::V311 {
            // An acknowledgement would be a lie, and silence would stop the client for ever [MQTT-3.3.5-2].
            self.refused = Some(answer.text.unwrap_or_default());
        } else {
            let text = answer.text.as_deref().filter(|_| agreement.problem_information);
            let ack = Ack { reason_string: text, ..Ack::new(packet_id, answer.reason) };
            acknowledge(kind, ack, agreement.maximum, agreement.version, replies);
        }
    }
}

impl State {
    /// What became of a PUBLISH whose connection is over: nobody is told, but one that failed may come again.
    pub(super) fn forgo(&mut self, due: &receipts::Due) {
        if due.kind == AckKind::Pubrec && due.answer.reason.is_error() {
            self.received.remove(&due.packet_id);
        }
    }
}

impl Session {
    /// Answers what was just published, or notes what is still to be answered.
    pub(super) fn heed(&mut self, published: &Published, work: &mut Work) {
        self.congested |= published.congested;
        let asks_for_notes =
            self.notes().is_some() && work.asked.iter().any(|asked| asked.kind == AckKind::Pubrec);
        let at_once = self.publishing.state().receipts.is_empty()
            && published.done == published.wanting
            && !asks_for_notes;
        let mut told = published.exceptions.iter().peekable();
        let mut seq = published.first;
        let known_below = published.first + u64::from(published.done);
        for Asked { packet_id, kind, verdict } in work.asked.drain(..) {
            let (number, answer) = match verdict {
                Verdict::Known(answer) => (seq, Some(answer)),
                Verdict::At(place) => {
                    while told.next_if(|(at, _)| *at < place).is_some() {}
                    let number = seq;
                    let answer = match told.next_if(|(at, _)| *at == place) {
                        Some((_, outcome)) => Some(translate::answer(outcome)),
                        None if place >= published.taken => Some(Answer::UNKNOWN),
                        None => (number < known_below).then_some(Answer::SUCCESS),
                    };
                    seq += u64::from(place < published.taken);
                    (number, answer)
                }
            };
            match answer {
                Some(answer) if at_once => {
                    self.publishing.state().answer(
                        packet_id,
                        kind,
                        answer,
                        &self.agreement,
                        &mut work.replies,
                    );
                }
                answer => self.publishing.state().receipts.push(number, packet_id, kind, answer),
            }
        }
        if !at_once {
            self.answer_waiting(work);
        }
    }

    /// Has it written down which messages of QoS 2 were taken, where the session is kept so; whether it is.
    fn note_answers(&mut self) -> bool {
        let Self { tenure, publishing, lane, .. } = self;
        let Some(notes) = tenure.as_mut().and_then(|tenure| tenure.notes.as_mut()) else { return false };
        publishing.state().receipts.note(|packet_id, taken| {
            let word = notes.word();
            let safe = if taken { lane.note(packet_id, word) } else { lane.unnote(packet_id, word) };
            if !safe {
                notes.wait(word, Due::Answer);
            }
            (!safe).then_some(word)
        });
        true
    }

    /// Writes the answers that are due, in the order of the PUBLISHes.
    pub(super) fn answer_waiting(&mut self, work: &mut Work) {
        let noted = self.note_answers();
        let state = self.publishing.state();
        while let Some(due) = state.receipts.pop(noted) {
            if due.mute {
                state.forgo(&due);
            } else {
                let receipts::Due { packet_id, kind, answer, .. } = due;
                state.answer(packet_id, kind, answer, &self.agreement, &mut work.replies);
            }
        }
    }
}
