//! A message's payload as the body of a request or an answer: in one piece, or read from where it lies while it is sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use futures_core::Stream;
use linkspan_contract::{Body, Kept, StoredPayload};

/// Bytes that are read at a time.
const PIECE: usize = 256 * 1024;

/// The payload of a message on its way out.
pub(crate) struct Payload<F> {
    message: Kept,
    sent: u64,
    reading: Option<Reading>,
    /// Is called when all of it was taken.
    done: Option<F>,
}

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

impl<F: FnOnce()> Payload<F> {
    /// `done` is called when the last byte was taken, and dropped when that does not happen.
    pub(crate) fn new(message: Kept, done: F) -> Self {
        let mut payload = Self { message, sent: 0, reading: None, done: Some(done) };
        payload.look();
        payload
    }

    fn look(&mut self) {
        if self.sent >= self.message.payload_len()
            && let Some(done) = self.done.take()
        {
            done();
        }
    }

    /// What lies in memory.
    fn whole(&self) -> Option<Bytes> {
        match self.message.body() {
            None => self.message.payload().map(Bytes::copy_from_slice),
            Some(Body::Shared(bytes)) => Some(bytes.clone()),
            Some(Body::Stored(_)) => None,
        }
    }
}

impl<F: FnOnce() + Unpin> Stream for Payload<F> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.sent >= self.message.payload_len() {
            return Poll::Ready(None);
        }
        if let Some(whole) = self.whole() {
            self.sent = whole.len() as u64;
            self.look();
            return Poll::Ready(Some(Ok(whole)));
        }
        let offset = self.sent;
        let Some(Body::Stored(stored)) = self.message.body() else { return Poll::Ready(None) };
        let stored = Arc::clone(stored);
        let reading = self.reading.get_or_insert_with(|| Box::pin(read(stored, offset)));
        let piece = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        if let Ok(piece) = &piece {
            self.sent += piece.len() as u64;
            self.look();
        }
        Poll::Ready(Some(piece))
    }
}

async fn read(stored: Arc<dyn StoredPayload>, offset: u64) -> io::Result<Bytes> {
    let piece = stored.read(offset, PIECE).await?;
    if piece.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use async_trait::async_trait;
    use linkspan_contract::neutral::Draft;
    use linkspan_contract::{Message, Properties};

    use super::*;

    struct OnDisk(Vec<u8>);

    #[async_trait]
    impl StoredPayload for OnDisk {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        async fn read(&self, offset: u64, max: usize) -> io::Result<Bytes> {
            let rest = &self.0[usize::try_from(offset).unwrap()..];
            Ok(Bytes::copy_from_slice(&rest[..rest.len().min(max)]))
        }
    }

    fn message(payload: Body) -> Kept {
        let (properties, head) = (Properties::default(), Message::default());
        let draft = Draft { exchange: None, topic: b"a", properties: &properties, payload, head };
        draft.build().kept(0).unwrap()
    }

    async fn next<F: FnOnce() + Unpin>(payload: &mut Payload<F>) -> Option<Bytes> {
        poll_fn(|cx| Pin::new(&mut *payload).poll_next(cx)).await.map(Result::unwrap)
    }

    #[tokio::test]
    async fn a_payload_is_sent_whole_and_its_end_is_told_once_with_the_last_byte() {
        for body in [Body::Shared(Bytes::from_static(b"small")), Body::Shared(vec![7; 100_000].into())] {
            let (size, done) = (body.len(), std::cell::Cell::new(0));
            let mut payload = Payload::new(message(body), || done.set(done.get() + 1));
            assert_eq!(done.get(), 0);
            assert_eq!(next(&mut payload).await.map(|all| all.len() as u64), Some(size));
            assert_eq!(done.get(), 1);
            assert!(next(&mut payload).await.is_none());
            assert_eq!(done.get(), 1);
        }
        let done = std::cell::Cell::new(false);
        let mut payload = Payload::new(message(Body::Shared(Bytes::new())), || done.set(true));
        assert!(done.get(), "of nothing nothing has to be sent");
        assert!(next(&mut payload).await.is_none());
    }

    #[tokio::test]
    async fn what_lies_on_a_disk_passes_in_pieces() {
        let all: Vec<u8> = (0..600_000_u32).map(|at| (at % 251) as u8).collect();
        let done = std::cell::Cell::new(false);
        let stored = Body::Stored(Arc::new(OnDisk(all.clone())));
        let mut payload = Payload::new(message(stored), || done.set(true));
        let mut got = Vec::new();
        while let Some(piece) = next(&mut payload).await {
            assert!(piece.len() <= PIECE);
            got.extend_from_slice(&piece);
            assert_eq!(done.get(), got.len() == all.len());
        }
        assert!(got == all);
    }
}
