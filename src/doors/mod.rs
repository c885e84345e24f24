//! Where clients come in: a door per protocol, one accept loop for all that own their sockets.
//!
//! [`listener`] makes one stream type of whatever is listened on, [`outbound`] is the way out that publishers of other
//! connections write through, [`buffer`] the memory that idle connections do not hold, `login` finds out who a client is.

pub mod amqp;
pub mod buffer;
pub mod http;
pub mod listener;
mod login;
pub mod mqtt;
pub mod outbound;
mod unsent;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use linkspan_contract::WireForm;
use linkspan_contract::neutral::NEUTRAL;
use tokio::sync::{Semaphore, mpsc, watch};

use self::listener::{Listener, Stream};

/// Pause after the system could not give a connection: file descriptors do not come back faster.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Ends the turn of a task that has had its fair share: it is polled again when others had theirs, those of the other
/// worker threads among them. A worker that never sleeps keeps its core until the kernel's next tick, some milliseconds
/// later, although another one waits for that core with what a small client has said.
fn give_way(cx: &Context<'_>) {
    cx.waker().wake_by_ref();
    std::thread::yield_now();
}

/// The forms in which messages come in, for who keeps them beyond this process.
pub fn forms() -> Vec<&'static dyn WireForm> {
    let mut forms: Vec<&'static dyn WireForm> = vec![&NEUTRAL, &amqp::AMQP_FORM];
    forms.extend(mqtt::forms());
    forms
}

/// A protocol server.
pub trait Door: Send + Sync + 'static {
    /// For logs and metrics.
    fn name(&self) -> &'static str;

    /// Serves one connection to its end; after `stop` it says farewell in its protocol's words and returns soon.
    fn serve(
        self: Arc<Self>,
        stream: Stream,
        peer: SocketAddr,
        stop: Stop,
    ) -> impl Future<Output = ()> + Send;
}

/// Tells connections and doors that Linkspan is going down.
#[derive(Debug, Clone)]
pub struct Stop {
    wanted: watch::Receiver<bool>,
}

/// The other end of [`Stop`].
#[derive(Debug)]
pub struct Stopper {
    wanted: watch::Sender<bool>,
}

impl Stop {
    /// A signal and who gives it. Dropping the [`Stopper`] gives it too.
    pub fn new() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(false);
        (Stopper { wanted: sender }, Self { wanted: receiver })
    }

    /// Returns when the signal was given.
    pub fn wanted(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut wanted = self.wanted.clone();
        Box::pin(async move {
            let _ = wanted.wait_for(|stop| *stop).await;
        })
    }

    /// Whether it was given.
    pub fn is_wanted(&self) -> bool {
        *self.wanted.borrow()
    }
}

impl Stopper {
    /// Gives the signal.
    pub fn stop(&self) {
        let _ = self.wanted.send(true);
    }
}

/// Accepts connections for `door` until `stop`, at most `max_connections` at a time, and returns when the last one has
/// ended. A connection beyond the limit is closed at once and counted.
pub async fn serve<D: Door>(listener: Listener, door: Arc<D>, max_connections: usize, stop: Stop) {
    let places = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
    let (alive, mut ended) = mpsc::channel::<()>(1);
    let refused = metrics::counter!("linkspan_connections_refused_total", "door" => door.name());
    let mut stopped = stop.wanted();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    refused.increment(1);
                    tracing::warn!(door = door.name(), %peer, max_connections, "connection refused: the limit is reached");
                    continue;
                };
                let serving = Arc::clone(&door).serve(stream, peer, stop.clone());
                let alive = alive.clone();
                tokio::spawn(async move {
                    serving.await;
                    drop((place, alive));
                });
            }
            Err(error) => {
                tracing::warn!(door = door.name(), %error, "a connection could not be accepted");
                if is_exhaustion(&error) {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop((listener, alive));
    let _ = ended.recv().await;
}

/// True when the system ran out of something, rather than one peer having gone away while it was accepted.
fn is_exhaustion(error: &std::io::Error) -> bool {
    !matches!(
        error.kind(),
        std::io::ErrorKind::ConnectionAborted
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::ConnectionRefused
            | std::io::ErrorKind::Interrupted
    )
}
