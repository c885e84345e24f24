//! One HTTP connection: hyper over the door's stream.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, BodyDataStream, Bytes, HttpBody as _};
use futures_core::Stream as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use linkspan_contract::{BodyWriter, StoredPayload};
use tokio::time::{Instant, timeout, timeout_at};

use super::translate::Problem;
use super::{HttpDoor, Peer};
use crate::doors::listener::Stream;
use crate::doors::{Door, Stop};

impl Door for HttpDoor {
    fn name(&self) -> &'static str {
        "http"
    }

    async fn serve(self: Arc<Self>, stream: Stream, peer: SocketAddr, stop: Stop) {
        let service = TowerToHyperService::new(self.router.clone().layer(Extension(Peer::from(peer))));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .serve_connection(TokioIo::new(stream.into_tcp()), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.wanted() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "an HTTP connection ended early");
        }
    }
}

/// Bytes of a body that a client has to send in a second, all in all, once its patience is used up.
const SLOWEST: u64 = 1000;

/// How long a publisher waits at most for those that its message goes to: its answer must not come too late for it.
const CONGESTED: Duration = Duration::from_secs(1);

/// A body of at most `most` bytes on its way in. A client that sends nothing for as long as `patience` is not waited for, nor
/// is one that makes a long body last by sending little at a time.
pub(super) struct Incoming {
    pieces: BodyDataStream,
    /// Bytes that it is said to have, if that is said.
    size: Option<u64>,
    most: usize,
    patience: Duration,
    /// What the client is given in all, but for what it waited for others.
    until: Instant,
    /// Bytes that have come.
    got: usize,
}

impl Incoming {
    /// Reads nothing yet.
    ///
    /// # Errors
    /// When it is said to be too much (`Content-Length`): who waits to be told so (`Expect: 100-continue`) sends none of it.
    pub(super) fn new(body: Body, most: usize, patience: Duration) -> Result<Self, Problem> {
        let size = body.size_hint().exact();
        if size.is_some_and(|size| size > most as u64) {
            return Err(Problem::too_large(most));
        }
        let until = Instant::now() + patience;
        Ok(Self { pieces: body.into_data_stream(), size, most, patience, until, got: 0 })
    }

    /// Bytes that it is said to have, if that is said.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// When it is too much, too slow or broken off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let earned = Duration::from_secs(self.got as u64 / SLOWEST);
        let until = (Instant::now() + self.patience).min(self.until + earned);
        let pieces = &mut self.pieces;
        match timeout_at(until, poll_fn(|cx| Pin::new(&mut *pieces).poll_next(cx))).await {
            Ok(Some(Ok(piece))) if self.got.saturating_add(piece.len()) > self.most => {
                Err(Problem::too_large(self.most))
            }
            Ok(Some(Ok(piece))) => {
                self.got += piece.len();
                Ok(Some(piece))
            }
            Ok(Some(Err(error))) => Err(Problem::bad(format!("the body could not be read: {error}"))),
            Ok(None) => Ok(None),
            Err(_) => Err(Problem::slow()),
        }
    }

    /// Adds to `whole` what comes, until that has `enough` bytes; true when there is no more.
    ///
    /// # Errors
    /// As [`Incoming::next`].
    pub(super) async fn gather(&mut self, whole: &mut Vec<u8>, enough: usize) -> Result<bool, Problem> {
        while whole.len() < enough {
            match self.next().await? {
                Some(piece) => whole.extend_from_slice(&piece),
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Writes the rest to its place, as fast as that takes it, and completes it there.
    ///
    /// # Errors
    /// As [`Incoming::next`], when the place does not take it, and when `may` says so before a piece is read.
    pub(super) async fn write_to(
        &mut self,
        place: &mut dyn BodyWriter,
        may: impl Fn() -> Result<(), Problem>,
    ) -> Result<Arc<dyn StoredPayload>, Problem> {
        loop {
            may()?;
            let begin = Instant::now();
            poll_fn(|cx| place.poll_ready(cx)).await;
            self.until += begin.elapsed();
            match self.next().await? {
                Some(piece) => place.write(&piece)?,
                None => return Ok(poll_fn(|cx| place.poll_finish(cx)).await?),
            }
        }
    }
}

/// Waits for `ready`, but not for long.
pub(super) async fn for_a_while<F: Future>(ready: F) -> Option<F::Output> {
    timeout(CONGESTED, ready).await.ok()
}
