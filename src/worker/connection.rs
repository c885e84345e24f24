//! Connections to a worker's server: made when they are needed, kept for the next push.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::target::Target;

/// Bytes of an answer's body that are read and thrown away, so that the connection can be used again.
const READ: usize = 64 * 1024;

/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PushError {
    /// There is no connection to the server.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// There was one, until it broke: what it has of the message is not known.
    #[error("broke off: {0}")]
    Broken(String),
    /// It took too long.
    #[error("has not answered within {0:?}")]
    Slow(Duration),
}

/// The connections of one worker.
pub(super) struct Links {
    target: Arc<Target>,
    idle: Mutex<Vec<SendRequest<Body>>>,
}

impl Links {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self { target, idle: Mutex::default() }
    }

    /// Sends a request; what its answer's head says.
    ///
    /// # Errors
    /// When there is none in time.
    pub(super) async fn push(&self, request: Request<Body>) -> Result<(StatusCode, HeaderMap), PushError> {
        let (answer, mut link) = self.exchange(request).await?;
        let (head, body) = answer.into_parts();
        let again = async { skip(body).await && link.ready().await.is_ok() };
        if timeout(PATIENCE, again).await.unwrap_or(false) {
            self.idle.lock().push(link);
        }
        Ok((head.status, head.headers))
    }

    /// Has a connection ready for the next push.
    ///
    /// # Errors
    /// When the server is not to be had in time.
    pub(super) async fn reach(&self) -> Result<(), PushError> {
        let link = self.connect(Instant::now() + self.target.worker.timeout).await?;
        self.idle.lock().push(link);
        Ok(())
    }

    async fn exchange(
        &self,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, SendRequest<Body>), PushError> {
        let limit = self.target.worker.timeout;
        let until = Instant::now() + limit;
        loop {
            let kept = self.kept();
            let is_kept = kept.is_some();
            let mut link = match kept {
                Some(link) => link,
                None => self.connect(until).await?,
            };
            let answered = timeout_at(until, link.try_send_request(request)).await;
            match answered.map_err(|_| PushError::Slow(limit))? {
                Ok(answer) => return Ok((answer, link)),
                Err(mut error) => match error.take_message().filter(|_| is_kept) {
                    // It was closed while nobody used it, and has seen nothing of the request.
                    Some(unsent) => request = unsent,
                    None => return Err(PushError::Broken(told(&error.into_error()))),
                },
            }
        }
    }

    fn kept(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock();
        idle.retain(|link| !link.is_closed());
        let at = idle.iter().position(SendRequest::is_ready)?;
        Some(idle.swap_remove(at))
    }

    async fn connect(&self, until: Instant) -> Result<SendRequest<Body>, PushError> {
        let connected = timeout_at(until, self.begin()).await;
        connected.unwrap_or_else(|_| Err(PushError::Unreachable("there is no connection in time".into())))
    }

    async fn begin(&self) -> Result<SendRequest<Body>, PushError> {
        let Target { host, port, tls, .. } = &*self.target;
        let unreachable = |error: std::io::Error| PushError::Unreachable(error.to_string());
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        match tls {
            None => introduced(stream).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                introduced(connector.connect(name.clone(), stream).await.map_err(unreachable)?).await
            }
        }
    }
}

async fn introduced<S>(stream: S) -> Result<SendRequest<Body>, PushError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = handshake(TokioIo::new(stream)).await;
    let (mut link, connection) = begun.map_err(|error| PushError::Unreachable(told(&error)))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a worker's server ended early");
        }
    });
    link.ready().await.map_err(|error| PushError::Unreachable(told(&error)))?;
    Ok(link)
}

/// Reads a body that nobody wants; true when that was all of it.
async fn skip(mut body: Incoming) -> bool {
    let mut read = 0;
    while read <= READ {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return true,
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, |data| data.len()),
            Some(Err(_)) => return false,
        }
    }
    false
}

/// An error with what caused it, which its own text leaves out.
fn told(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
