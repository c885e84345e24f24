//! A client's scope: its sink, its lanes, and the queues that are its own.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use linkspan_contract::{BackendError, Client, Connection, DeliverySink, Lane, LaneEvents, ReceiptSink};
use parking_lot::Mutex;

use crate::lane::EmbeddedLane;
use crate::queue::Queue;
use crate::session::Session;
use crate::vhost::Vhost;

/// One client of the back end.
pub(crate) struct EmbeddedConnection {
    vhost: Arc<Vhost>,
    /// The client's number.
    client: u64,
    keeps: bool,
    /// The client's identifier and the queue of its session, when that outlives the process; most do not.
    inbox: Option<Box<(Arc<str>, Arc<Queue>)>>,
    sink: Arc<dyn DeliverySink>,
    sessions: Vec<Weak<Session>>,
    own: Arc<Own>,
}

/// The queues that are exclusive to a connection.
#[derive(Debug, Default)]
pub(crate) struct Own {
    queues: Mutex<Vec<Weak<Queue>>>,
}

impl Own {
    pub(crate) fn add(&self, queue: &Arc<Queue>) {
        let mut queues = self.queues.lock();
        if queues.len() == queues.capacity() {
            queues.retain(|queue| queue.strong_count() > 0);
        }
        queues.push(Arc::downgrade(queue));
    }
}

impl EmbeddedConnection {
    pub(crate) fn new(
        vhost: Arc<Vhost>,
        client: &Client,
        inbox: Option<Arc<Queue>>,
        sink: Arc<dyn DeliverySink>,
    ) -> Self {
        let inbox = inbox.map(|inbox| Box::new((Arc::clone(&client.identifier), inbox)));
        let (client, keeps) = (client.number, client.keeps_session());
        Self { vhost, client, keeps, inbox, sink, sessions: Vec::new(), own: Arc::default() }
    }
}

#[async_trait]
impl Connection for EmbeddedConnection {
    fn attach(&mut self, sink: Arc<dyn DeliverySink>) {
        self.sessions.retain(|session| session.strong_count() > 0);
        for session in self.sessions.iter().filter_map(Weak::upgrade) {
            session.attach(Arc::clone(&sink));
        }
        self.sink = sink;
    }

    async fn lane(
        &mut self,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Result<Box<dyn Lane>, BackendError> {
        let session = Arc::new(Session::new(
            self.client,
            self.keeps,
            self.inbox.as_ref().map(|inbox| Arc::clone(&inbox.1)),
            Arc::clone(&self.sink),
            &self.vhost.house.options,
        ));
        self.sessions.retain(|session| session.strong_count() > 0);
        if self.sessions.is_empty() {
            self.sessions.reserve_exact(1);
        }
        self.sessions.push(Arc::downgrade(&session));
        let vhost = Arc::clone(&self.vhost);
        let own = Arc::clone(&self.own);
        Ok(Box::new(EmbeddedLane::new(vhost, self.client, session, own, receipts, events)))
    }

    fn lasts(&self) -> bool {
        self.inbox.is_some()
    }

    async fn close(self: Box<Self>) {
        if let Some((identifier, _)) = self.inbox.as_deref()
            && let Err(why) = self.vhost.end_inbox(identifier).await
        {
            tracing::warn!(client = %identifier, %why, "a session that is over was not forgotten");
        }
    }
}

impl Drop for EmbeddedConnection {
    fn drop(&mut self) {
        let queues = std::mem::take(&mut *self.own.queues.lock());
        for queue in queues.iter().filter_map(Weak::upgrade) {
            self.vhost.remove(&queue);
        }
    }
}
