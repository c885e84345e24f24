//! Lanes for HTTP publishes: a few, kept for the next request, so that none opens one of its own.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use linkspan_contract::{
    Backend, Batch, BodyWriter, Client, Connection, Delivered, DeliverySink, Destination, Ended, Flags, Lane,
    LaneEvent, LaneEvents, Message, Outcome, OwnedBatch, Pick, Receipt, ReceiptSink, Refused, Seq,
    SubscriptionKey, Syntax, TargetId,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::translate::Problem;
use crate::hub::Hub;

/// Idle lanes that are kept.
const KEPT: usize = 16;

/// HTTP's lanes to one vhost.
pub(super) struct Publishers {
    hub: Arc<Hub>,
    vhost: Arc<str>,
    idle: Mutex<Vec<Publisher>>,
    opened: AtomicU64,
}

impl Publishers {
    /// None yet.
    pub(super) fn new(hub: Arc<Hub>, vhost: Arc<str>) -> Self {
        Self { hub, vhost, idle: Mutex::default(), opened: AtomicU64::new(0) }
    }

    /// A lane for one message.
    pub(super) async fn get(&self) -> Result<Publisher, Problem> {
        match self.idle() {
            Some(publisher) => Ok(publisher),
            None => self.open().await,
        }
    }

    /// Publishes one message and returns when it is where it has to be. False: nobody takes it.
    pub(super) async fn publish(
        &self,
        mut publisher: Publisher,
        address: &str,
        message: &OwnedBatch,
    ) -> Result<bool, Problem> {
        let outcome = publisher.publish(address, message).await?;
        let mut idle = self.idle.lock();
        if idle.len() < KEPT {
            idle.push(publisher);
        }
        drop(idle);
        match outcome {
            Outcome::Accepted => Ok(true),
            Outcome::Unroutable => Ok(false),
            Outcome::Refused(why) | Outcome::Failed(why) => Err(why.into()),
        }
    }

    /// A kept publisher whose lane is still good.
    fn idle(&self) -> Option<Publisher> {
        let mut idle = self.idle.lock();
        idle.retain(|publisher| !publisher.ear.0.lock().over);
        idle.pop()
    }

    async fn open(&self) -> Result<Publisher, Problem> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let client = Client {
            number: linkspan_contract::client_number(),
            identifier: format!("http-publisher-{number}").into(),
            user: "http".into(),
            vhost: Arc::clone(&self.vhost),
            session: None,
        };
        let ear = Arc::new(Ear::default());
        let mut connection = self.hub.connect(&client, Arc::clone(&ear) as Arc<dyn DeliverySink>).await?;
        let lane = connection.lane(Arc::clone(&ear) as _, Arc::clone(&ear) as _).await?;
        Ok(Publisher { lane, _connection: connection, ear, next: 0 })
    }
}

/// One lane that publishes one message at a time.
pub(super) struct Publisher {
    lane: Box<dyn Lane>,
    _connection: Box<dyn Connection>,
    ear: Arc<Ear>,
    next: Seq,
}

impl Publisher {
    fn target(&mut self, address: &str) -> TargetId {
        self.lane.target(&Destination::Address {
            path: address.as_bytes(),
            syntax: Syntax::Topic,
            more: &[],
            queues: &[],
        })
    }

    /// Where a large body is written while it comes in; none when it is held in memory.
    pub(super) fn place(
        &mut self,
        address: &str,
        size: Option<u64>,
    ) -> Result<Option<Box<dyn BodyWriter>>, Problem> {
        let target = self.target(address);
        let place = self.lane.body(target, size);
        self.lane.forget(&[target]);
        Ok(place?)
    }

    async fn publish(&mut self, address: &str, message: &OwnedBatch) -> Result<Outcome, Problem> {
        let target = self.target(address);
        let (told, outcome) = oneshot::channel();
        {
            let mut waiting = self.ear.0.lock();
            if waiting.over {
                return Err(lost());
            }
            waiting.told.insert(self.next, told);
        }
        let lent = message.batch();
        let Some(first) = lent.message(0) else { return Err(Problem::bad("nothing to publish")) };
        let head = Message { target, flags: first.flags | Flags::RECEIPT, ..*first };
        let batch = Batch { messages: std::slice::from_ref(&head), any: head.flags, ..lent };
        let published = self.lane.publish(&batch);
        if published.done > 0 {
            let known =
                published.exceptions.into_iter().next().map_or(Outcome::Accepted, |(_, outcome)| outcome);
            self.ear.tell(self.next, known);
        }
        self.next += 1;
        self.lane.flush();
        self.lane.forget(&[target]);
        let outcome = outcome.await.map_err(|_| lost())?;
        if published.congested {
            // Who floods by HTTP waits as everybody does. The message is where it has to be all the same: a lane that is
            // lost meanwhile tells the next.
            let _ = super::connection::for_a_while(poll_fn(|cx| self.lane.poll_ready(cx))).await;
        }
        Ok(outcome)
    }
}

/// The lane was over before the receipt came.
fn lost() -> Problem {
    Refused::Away("unknown".into()).into()
}

/// Hears receipts; is never given a message.
#[derive(Default)]
struct Ear(Mutex<Waiting>);

/// Who waits for receipts.
#[derive(Default)]
struct Waiting {
    told: HashMap<Seq, oneshot::Sender<Outcome>>,
    /// The lane is over: there will be no receipts.
    over: bool,
}

impl Ear {
    fn tell(&self, seq: Seq, outcome: Outcome) {
        let waiting = self.0.lock().told.remove(&seq);
        if let Some(waiting) = waiting {
            let _ = waiting.send(outcome);
        }
    }
}

impl ReceiptSink for Ear {
    fn receipts(&self, runs: &[Receipt]) {
        for run in runs {
            for seq in run.first..run.first.saturating_add(run.count.into()) {
                self.tell(seq, run.outcome.clone());
            }
        }
    }
}

impl LaneEvents for Ear {
    fn event(&self, event: LaneEvent) {
        if let LaneEvent::Closed { .. } = event {
            // Dropping the senders tells who waits.
            *self.0.lock() = Waiting { over: true, ..Waiting::default() };
        }
    }
}

impl DeliverySink for Ear {
    fn deliver(&self, _: &Batch<'_>, _: &[Pick]) -> Delivered {
        Delivered::Closed
    }

    fn flush(&self) {}

    fn poll_drained(&self, _: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        std::task::Poll::Ready(())
    }

    fn ended(&self, _: SubscriptionKey, _: Ended) {}
}
