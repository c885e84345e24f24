//! One HTTP connection: hyper over the door's stream.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;

use super::{HttpDoor, Peer, credentials};
use crate::doors::listener::Stream;
use crate::doors::{Door, Stop};
use crate::identity::{Denied, Identity, Users};

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

/// Verifies a password that was not verified lately, on a thread that may take its time: the hash is slow on purpose.
pub(super) async fn verify(
    users: &Arc<Users>,
    given: Option<(String, String)>,
    peer: IpAddr,
) -> Result<Identity, Denied> {
    let _permit = users.verifying().acquire().await.map_err(|_| Denied::BadCredentials)?;
    let users = Arc::clone(users);
    let verified = tokio::task::spawn_blocking(move || users.verify(credentials(given.as_ref()), peer));
    verified.await.unwrap_or(Err(Denied::BadCredentials))
}
