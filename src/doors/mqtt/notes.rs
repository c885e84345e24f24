//! What of a kept session's exchanges at QoS 2 is on its way to the disk, and what the client is told when it is there.
//!
//! A packet that ends a state of the other side goes out when what follows that state is safe: PUBREC and PUBCOMP to who
//! publishes, PUBREL to who is given something. Else, after a crash, the one side would go on with what the other has
//! forgotten: a message twice, or one taken for another (MQTT 5 §4.3.3).

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use linkspan_contract::receipt::WORDS;
use linkspan_contract::{Receipt, Seq};

use super::deliveries::Deliveries;
use super::publishing::Publishing;
use crate::protocol::mqtt::{Ack, Packet, ReasonCode};

/// What waits for the disk, by the word that says it is there.
#[derive(Debug, Default)]
pub(super) struct Notes {
    given: Seq,
    waiting: BTreeMap<Seq, Due>,
}

/// What follows when something is safe.
#[derive(Debug)]
pub(super) enum Due {
    /// The client has these deliveries: they are released.
    Pubrel(Vec<NonZeroU16>),
    /// The client has released this message; how often it has asked on this connection to be told that it is over.
    Pubcomp { packet_id: NonZeroU16, asked: u32 },
    /// The answer to a PUBLISH may go out.
    Answer,
}

impl Notes {
    /// Whether a receipt is a word of this kind.
    pub(super) const fn is_word(receipt: &Receipt) -> bool {
        receipt.first >= WORDS
    }

    /// A word.
    pub(super) fn word(&mut self) -> Seq {
        self.given += 1;
        WORDS + self.given
    }

    /// What follows when the word is told.
    pub(super) fn wait(&mut self, word: Seq, due: Due) {
        self.waiting.insert(word, due);
    }

    /// The client asks, perhaps once more, to be told that its message is over: true when that waits already.
    pub(super) fn is_ending(&mut self, identifier: NonZeroU16) -> bool {
        let same = self.waiting.values_mut().find_map(|due| match due {
            Due::Pubcomp { packet_id, asked } if *packet_id == identifier => Some(asked),
            _ => None,
        });
        same.map(|asked| *asked += 1).is_some()
    }

    /// The connection is over: what the client has asked for it asks for again on the next one.
    pub(super) fn rest(&mut self) {
        for due in self.waiting.values_mut() {
            if let Due::Pubcomp { asked, .. } = due {
                *asked = 0;
            }
        }
    }

    /// Words were told: what that comes to for the session. Packets for the client are appended to `replies`, if it is there.
    pub(super) fn hear(
        &mut self,
        words: &[Receipt],
        deliveries: &mut Deliveries,
        publishing: &mut Publishing,
        mut replies: Option<&mut Vec<u8>>,
    ) {
        let version = deliveries.receiver.version;
        let mut reply = |packet: &Packet<'_>| {
            if let Some(replies) = replies.as_deref_mut() {
                // Acknowledgements without diagnostics fit into every packet.
                let _ = packet.encode(version, replies);
            }
        };
        for word in words.iter().flat_map(|run| (run.first..).take(run.count as usize)) {
            match self.waiting.remove(&word) {
                Some(Due::Pubrel(received)) => {
                    for packet_id in received.into_iter().filter(|packet_id| deliveries.release(*packet_id)) {
                        reply(&Packet::Pubrel(Ack::new(packet_id, ReasonCode::Success)));
                    }
                }
                Some(Due::Pubcomp { packet_id, asked }) => {
                    publishing.release(packet_id);
                    (0..asked)
                        .for_each(|_| reply(&Packet::Pubcomp(Ack::new(packet_id, ReasonCode::Success))));
                }
                Some(Due::Answer) => publishing.noted(word),
                None => {}
            }
        }
    }
}
