//! Messages so large that their payload has a buffer of its own, which all who get it keep by reference.

use std::num::NonZeroU16;

use bytes::Bytes;
use linkspan_contract::{Batch, Body, Message, Outcome, Published, Refused, TargetId};

use super::ending::Ending;
use super::limits::LARGE;
use super::publishing::{Admitted, refuse_payload};
use super::session::Session;
use super::translate::{self, NotText};
use super::work::{Asked, Verdict, Work};
use crate::protocol::mqtt::{AckKind, Framing, PublishSpans, Sender};

/// Why the payload of a large message is not published.
pub(super) enum Unfit {
    /// It is not the text that it is said to be.
    NotText,
    /// It could not be written where it is kept.
    Unwritten(Refused),
}

impl From<NotText> for Unfit {
    fn from(_: NotText) -> Self {
        Self::NotText
    }
}

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
        let body = Body::Shared(Bytes::copy_from_slice(message.payload.of(bytes)));
        let message = translate::without_payload(message);
        self.publish_body(message.wire.of(bytes), &rebased(message), &body, asked, work);
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
        let message = translate::message(&publish, 0, TargetId::default());
        let payload = message.payload.of(packet);
        let fit = translate::priority(message.properties.of(packet), payload);
        let body = fit.map(|_| Body::Shared(packet.slice_ref(payload))).map_err(Unfit::from);
        let message = translate::without_payload(message);
        self.publish_large(message.wire.of(packet), &publish, message, body, work)
    }

    /// Publishes a large message, of which `head` is all but the payload, and answers it.
    ///
    /// # Errors
    /// When the client may not send it.
    pub(super) fn publish_large(
        &mut self,
        head: &[u8],
        publish: &PublishSpans,
        mut message: Message,
        body: Result<Body, Unfit>,
        work: &mut Work,
    ) -> Result<(), Ending> {
        match (self.admit(publish, work)?, body) {
            (Admitted::New(asked), Ok(body)) => {
                // The payload is known to be what it is said to be.
                if let Ok(priority) = translate::priority(message.properties.of(head), &[]) {
                    message = translate::prioritized(message, priority);
                }
                let address = message.address.of(head);
                message.target = self.publishing.state().targets.find(address, &mut *self.lane);
                self.publish_body(head, &message, &body, asked, work);
            }
            (Admitted::New(asked), Err(unfit)) => {
                refuse(unfit, asked, work)?;
                self.heed(&Published::default(), work);
            }
            (Admitted::Repeated, _) => self.heed(&Published::default(), work),
        }
        self.publishing.state().targets.forget(&mut *self.lane);
        Ok(())
    }

    /// Publishes one message whose payload has a buffer of its own.
    fn publish_body(
        &mut self,
        head: &[u8],
        message: &Message,
        body: &Body,
        asked: Option<(NonZeroU16, AckKind)>,
        work: &mut Work,
    ) {
        if let Some((packet_id, kind)) = asked {
            work.asked.push(Asked { packet_id, kind, verdict: Verdict::At(0) });
        }
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

/// Answers a large message that is not published, or drops it where nobody waits for an answer.
fn refuse(unfit: Unfit, asked: Option<(NonZeroU16, AckKind)>, work: &mut Work) -> Result<(), Ending> {
    let Unfit::Unwritten(why) = unfit else { return refuse_payload(asked, work) };
    tracing::debug!(%why, "a large message was not taken");
    let Some((packet_id, kind)) = asked else {
        metrics::counter!("linkspan_messages_dropped_total", "reason" => "unwritable").increment(1);
        return Ok(());
    };
    let outcome = if why.may_retry() { Outcome::Failed(why) } else { Outcome::Refused(why) };
    work.asked.push(Asked { packet_id, kind, verdict: Verdict::Known(translate::answer(&outcome)) });
    Ok(())
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
