//! One HTTP connection: hyper over the door's stream.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;

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
