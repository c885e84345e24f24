//! What addresses retain, on the disk: the hub keeps it in memory, and finds it here after a restart. The broker knows
//! nothing of it.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::address::Syntax;
use linkspan_contract::{
    Backend, Batch, Client, Clock, Connection, Destination, Flags, Lane, Message, Nobody, Outcome, Receipt,
    ReceiptSink, Refused, Seq, backend, client_number,
};
use linkspan_embedded::{Embedded, EmbeddedOptions, OnDisk};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::amqp::OpenError;
use crate::now::at_once;

/// Tells when a message that is retained is on the disk, or that it is not.
pub(crate) type Safe = watch::Receiver<Option<Outcome>>;

/// An embedded back end in a directory, of which only the addresses are used.
pub(crate) struct Retained {
    store: Arc<Embedded>,
    /// One for each vhost of Linkspan's: what is written by one is in the order in which it was published.
    ways: Mutex<HashMap<Arc<str>, Way, RandomState>>,
}

struct Way {
    lane: Box<dyn Lane>,
    _connection: Box<dyn Connection>,
    waiting: Arc<Waiting>,
    /// The number of the next message.
    next: Seq,
}

/// Who waits for which message.
#[derive(Default)]
struct Waiting(Mutex<HashMap<Seq, watch::Sender<Option<Outcome>>, RandomState>>);

impl ReceiptSink for Waiting {
    fn receipts(&self, runs: &[Receipt]) {
        let mut waiting = self.0.lock();
        for run in runs {
            for seq in run.first..run.first.saturating_add(run.count.into()) {
                if let Some(teller) = waiting.remove(&seq) {
                    teller.send_replace(Some(run.outcome.clone()));
                }
            }
        }
    }
}

impl Retained {
    /// What the back end of that name retains, in that directory.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(crate) fn of(backend: &str, on_disk: &OnDisk, clock: &Arc<dyn Clock>) -> Result<Self, OpenError> {
        let (name, options) = (format!("retained of {backend}"), EmbeddedOptions::default());
        let store = Embedded::durable(&name, options, Arc::clone(clock), on_disk)
            .map_err(|error| OpenError::Disk(error.to_string()))?;
        Ok(Self { store, ways: Mutex::default() })
    }

    /// Writes down that `message` of `batch` is the retained one of its address from now on, or that there is none any more
    /// when it has no payload.
    pub(crate) fn note(&self, vhost: &Arc<str>, batch: &Batch<'_>, message: &Message) -> Safe {
        let mut ways = self.ways.lock();
        if !ways.contains_key(vhost) {
            match self.way(vhost) {
                Ok(way) => _ = ways.insert(Arc::clone(vhost), way),
                Err(why) => return untold(&why),
            }
        }
        let Some(way) = ways.get_mut(vhost) else { return untold(CLOSED) };
        let path = batch.address(message).topic();
        let to = Destination::Address { path: &path, syntax: Syntax::Topic, more: &[], queues: &[] };
        let target = way.lane.target(&to);
        let flags = message.flags | Flags::RECEIPT | Flags::DURABLE;
        let message = Message { target, flags, ..*message };
        let (teller, safe) = watch::channel(None);
        let seq = way.next;
        way.next += 1;
        way.waiting.0.lock().insert(seq, teller);
        let one = Batch { messages: std::slice::from_ref(&message), any: flags, ..*batch };
        let published = way.lane.publish(&one);
        if published.done > 0 || published.wanting == 0 {
            let outcome = published.exceptions.into_iter().next().map_or(Outcome::Accepted, |(_, it)| it);
            way.waiting.receipts(&[Receipt { first: seq, count: 1, outcome }]);
        }
        way.lane.forget(&[target]);
        safe
    }

    fn way(&self, vhost: &Arc<str>) -> Result<Way, String> {
        let client = Client {
            number: client_number(),
            identifier: "linkspan".into(),
            user: "linkspan".into(),
            vhost: Arc::clone(vhost),
            session: None,
        };
        let connected = at_once(self.store.connect(&client, Arc::new(Nobody))).and_then(Result::ok);
        let mut connection = connected.ok_or(CLOSED)?;
        let waiting = Arc::new(Waiting::default());
        let lane = at_once(connection.lane(Arc::clone(&waiting) as _, Arc::new(Nobody))).and_then(Result::ok);
        Ok(Way { lane: lane.ok_or(CLOSED)?, _connection: connection, waiting, next: 0 })
    }

    /// What the addresses of a vhost retained in an earlier life.
    pub(crate) async fn found(&self, vhost: &str) -> Vec<backend::Retained> {
        self.store.retained(vhost).await
    }

    /// Returns when what was taken is safe.
    pub(crate) async fn close(&self) {
        self.store.close().await;
    }
}

/// Why nothing is written any more.
const CLOSED: &str = "it is closed";

/// What is said when nothing can be written.
fn untold(why: &str) -> Safe {
    tracing::error!(why, "a retained message is not written down: it is gone after a restart");
    let why = format!("what addresses retain cannot be written down: {why}");
    watch::channel(Some(Outcome::Failed(Refused::Away(why)))).1
}

/// What stands for a message that is on the disk, or whose publisher does not wait for that.
pub(crate) async fn is_safe(safe: Option<Safe>) -> Outcome {
    let Some(mut safe) = safe else { return Outcome::Accepted };
    match safe.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(Outcome::Unroutable)) => Outcome::Accepted,
        Ok(Some(outcome)) => outcome.clone(),
        Ok(None) | Err(_) => {
            Outcome::Failed(Refused::Away("what addresses retain was not written down".into()))
        }
    }
}
