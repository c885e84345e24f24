//! A PUBLISH whose payload is written where it is kept, while it comes in.

use std::task::{Context, Poll, ready};

use linkspan_contract::{Body, BodyWriter, Message, Refused, TargetId};

use super::ending::Ending;
use super::large::Unfit;
use super::limits::LARGE;
use super::session::Session;
use super::translate;
use super::work::Work;
use crate::protocol::mqtt::{PublishSpans, Sender};

/// The packet, but for its payload, and where that goes.
pub(super) struct Arriving {
    head: Vec<u8>,
    publish: PublishSpans,
    message: Message,
    /// Bytes of the payload that are still to come.
    left: usize,
    /// Why the rest is not written any more, if it is not.
    place: Result<Box<dyn BodyWriter>, Refused>,
    text: Option<Text>,
}

/// What the beginning of a large PUBLISH leads to.
pub(super) enum Beginning {
    /// More of it has to be there.
    Short,
    /// It is read into memory as a whole.
    Memory,
    /// Its payload is written where it is kept.
    Arriving(Box<Arriving>),
}

impl Arriving {
    /// How many bytes are still to be read.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// More of the payload has come.
    pub(super) fn write(&mut self, part: &[u8]) {
        self.left = self.left.saturating_sub(part.len());
        if let Some(text) = &mut self.text {
            text.read(part);
        }
        if let Ok(place) = &mut self.place
            && let Err(why) = place.write(part)
        {
            // The client sends the rest all the same.
            self.place = Err(why);
        }
    }

    /// Pending while no more should be read.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.place.as_mut().map_or(Poll::Ready(()), |place| place.poll_ready(cx))
    }

    /// The payload, once all of it has come.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<Body, Refused>> {
        match &mut self.place {
            Err(why) => Poll::Ready(Err(why.clone())),
            Ok(place) => Poll::Ready(ready!(place.poll_finish(cx)).map(Body::Stored)),
        }
    }
}

impl Session {
    /// Says what becomes of a large PUBLISH, of whose `needed` bytes the first are there.
    ///
    /// # Errors
    /// When they are no PUBLISH that this client may send.
    pub(super) fn begin_large(&mut self, bytes: &[u8], needed: usize) -> Result<Beginning, Ending> {
        let Some(publish) = PublishSpans::of_beginning(bytes, self.agreement.version, Sender::Client)? else {
            return Ok(if bytes.len() < LARGE { Beginning::Short } else { Beginning::Memory });
        };
        if publish.topic_alias.is_some() {
            return Ok(Beginning::Memory);
        }
        let head = publish.wire.of(bytes);
        let mut message = translate::message(&publish, 0, TargetId::default());
        message.target = self.publishing.state().targets.find(message.address.of(head), &mut *self.lane);
        let size = needed.saturating_sub(head.len());
        let place = match self.lane.body(message.target, Some(size as u64)) {
            Ok(None) => return Ok(Beginning::Memory),
            Ok(Some(place)) => Ok(place),
            Err(why) => Err(why),
        };
        let text = translate::says_text(message.properties.of(head)).then(Text::default);
        let head = head.to_vec();
        let mut arriving = Box::new(Arriving { head, publish, message, left: size, place, text });
        arriving.write(bytes.get(arriving.head.len()..).unwrap_or_default());
        Ok(Beginning::Arriving(arriving))
    }

    /// Publishes a message whose payload has come.
    ///
    /// # Errors
    /// When the client may not send it.
    pub(super) fn take_arrived(
        &mut self,
        arrived: Arriving,
        body: Result<Body, Refused>,
        work: &mut Work,
    ) -> Result<(), Ending> {
        let Arriving { head, publish, message, text, .. } = arrived;
        let body = match text {
            Some(text) if !text.is_whole() => Err(Unfit::NotText),
            _ => body.map_err(Unfit::Unwritten),
        };
        self.publish_large(&head, &publish, message, body, work)
    }
}

/// Whether what was read so far is UTF-8, however it was cut.
#[derive(Debug, Default)]
struct Text {
    /// A character whose end is still to come.
    begun: Vec<u8>,
    wrong: bool,
}

impl Text {
    fn read(&mut self, mut part: &[u8]) {
        while let (false, false, Some((byte, rest))) = (self.wrong, self.begun.is_empty(), part.split_first())
        {
            self.begun.push(*byte);
            part = rest;
            match std::str::from_utf8(&self.begun) {
                Ok(_) => self.begun.clear(),
                Err(error) => self.wrong = error.error_len().is_some(),
            }
        }
        if let Err(error) = std::str::from_utf8(part) {
            self.wrong |= error.error_len().is_some();
            self.begun.extend_from_slice(part.get(error.valid_up_to()..).unwrap_or_default());
            self.begun.truncate(4);
        }
    }

    fn is_whole(&self) -> bool {
        !self.wrong && self.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_known_for_text_however_it_is_cut() {
        let is_text = |bytes: &[u8], by: usize| {
            let mut text = Text::default();
            bytes.chunks(by).for_each(|part| text.read(part));
            text.is_whole()
        };
        for bytes in [
            &b"plain"[..],
            "füß €uro 😀 end".as_bytes(),
            b"\xff",
            b"a\xc3",
            b"\xe2\x82x",
            b"\xed\xa0\x80",
            b"",
        ] {
            for by in 1..7 {
                assert_eq!(is_text(bytes, by), std::str::from_utf8(bytes).is_ok(), "{bytes:x?} by {by}");
            }
        }
    }
}
