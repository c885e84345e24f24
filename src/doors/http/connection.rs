//! One HTTP connection: hyper over the door's stream.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use futures_core::Stream as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
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

/// Reads a body of at most `most` bytes. A client that sends nothing for as long as `patience` is not waited for, nor is
/// one that makes a long body last by sending little at a time.
pub(super) async fn body(body: Body, most: usize, patience: Duration) -> Result<Bytes, Problem> {
    let begin = Instant::now();
    let mut pieces = body.into_data_stream();
    let mut whole = Vec::new();
    loop {
        let earned = Duration::from_secs(whole.len() as u64 / SLOWEST);
        let until = (Instant::now() + patience).min(begin + patience + earned);
        let piece = timeout_at(until, poll_fn(|cx| Pin::new(&mut pieces).poll_next(cx)));
        match piece.await {
            Ok(Some(Ok(piece))) if whole.len().saturating_add(piece.len()) > most => {
                drop(piece);
                return Err(Problem::too_large(most));
            }
            Ok(Some(Ok(piece))) => whole.extend_from_slice(&piece),
            Ok(Some(Err(error))) => return Err(Problem::bad(format!("the body could not be read: {error}"))),
            Ok(None) => return Ok(whole.into()),
            Err(_) => return Err(Problem::slow()),
        }
    }
}

/// Waits for `ready`, but not for long.
pub(super) async fn for_a_while<F: Future>(ready: F) -> Option<F::Output> {
    timeout(CONGESTED, ready).await.ok()
}
