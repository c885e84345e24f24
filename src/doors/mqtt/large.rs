//! Messages so large that their payload has a buffer of its own, which all who get it keep by reference.

use std::num::NonZeroU16;

use bytes::Bytes;
use linkspan_contract::{Batch, Body, Message, Published, TargetId};

use super::ending::Ending;
use super::limits::LARGE;
use super::publishing::refuse_payload;
use super::session::Session;
use super::translate::{self, NotText};
use super::work::{Asked, Verdict, Work};
use crate::protocol::mqtt::{AckKind, Framing, PublishSpans, Sender};

impl Session {
    /// Publishes a message so large that all who get it had better keep its payload by reference.
    #[cold]
    pub(super) fn add_large(
        &mut self,
        bytes: &[u8],
        message: Message,
        asked: Option<(NonZeroU16, AckKind)>,
        work: &mut Work,
    ) {
        self.hand_over(bytes, work);
        if let Some((packet_id, kind)) = asked {
            work.asked.push(Asked { packet_id, kind, verdict: Verdict::At(0) });
        }
        let body = Body::Shared(Bytes::copy_from_slice(message.payload.of(bytes)));
        let message = translate::without_payload(message);
        self.publish_body(message.wire.of(bytes), &rebased(message), &body, work);
    }

    /// Deals with a packet that was read into a buffer of its own.
    pub(super) fn take_large(&mut self, packet: &Bytes, work: &mut Work) -> Result<(), Ending> {
        let version = self.agreement.version;
        let Framing::Complete(frame) = Framing::read(packet, self.limits.packet)? else { return Ok(()) };
        let publish = PublishSpans::of_frame(&frame, version, Sender::Client)?;
        if publish.topic_alias.is_some() || publish.payload.len as usize <= LARGE {
            self.publish(packet, 0, &publish, work)?;
            self.hand_over(packet, work);
            return Ok(());
        }
        let asked = match publish.packet_id {
            None => None,
            Some(packet_id) => match self.admit(packet_id, publish.qos, work)? {
                Some(kind) => Some((packet_id, kind)),
                None => {
                    self.heed(&Published::default(), work);
                    return Ok(());
                }
            },
        };
        let mut message = translate::message(&publish, 0, TargetId::default());
        message.target = self.publishing.state().targets.find(message.address.of(packet), &mut *self.lane);
        let (list, payload) = (message.properties.of(packet), message.payload.of(packet));
        match translate::priority(list, payload) {
            Ok(priority) => message = translate::prioritized(message, priority),
            Err(NotText) => {
                refuse_payload(asked, work)?;
                self.heed(&Published::default(), work);
                return Ok(());
            }
        }
        if let Some((packet_id, kind)) = asked {
            work.asked.push(Asked { packet_id, kind, verdict: Verdict::At(0) });
        }
        let body = Body::Shared(packet.slice_ref(payload));
        let message = translate::without_payload(message);
        self.publish_body(message.wire.of(packet), &message, &body, work);
        if let Some(state) = &mut self.publishing.state {
            state.targets.forget(&mut *self.lane);
        }
        Ok(())
    }

    /// Publishes one message whose payload has a buffer of its own.
    pub(super) fn publish_body(&mut self, head: &[u8], message: &Message, body: &Body, work: &mut Work) {
        let published = self.lane.publish(&Batch::with_body(
            head,
            message,
            body,
            translate::form::of(self.agreement.version),
        ));
        self.publishing.state().messages += 1;
        self.heed(&published, work);
    }
}

/// The message in a buffer of its own.
fn rebased(message: Message) -> Message {
    let origin = message.wire.start;
    Message {
        wire: message.wire.rebased(origin),
        address: message.address.rebased(origin),
        properties: message.properties.rebased(origin),
        payload: message.payload.rebased(origin),
        ..message
    }
}
