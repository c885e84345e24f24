//! A client's scope: its lanes, and what is its own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use linkspan_contract::{
    Backend, BackendError, Client, Connection, DeliverySink, Lane, LaneEvents, ReceiptSink, Refused,
};
use linkspan_queues::LaneId;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::clerk::{Clerk, delete_left};
use crate::consumers::{Command, Consumers};
use crate::coordinator::afterwards;
use crate::declared::Declared;
use crate::desk::Desk;
use crate::fate::Fate;
use crate::fleet::Fleet;
use crate::inbox::Inbox;
use crate::lane::AmqpLane;
use crate::now::at_once;
use crate::publisher::Publisher;
use crate::upstream::Upstream;

/// One client of the back end.
pub(crate) struct AmqpConnection {
    scope: Arc<Scope>,
}

/// What a client's lanes share.
pub(crate) struct Scope {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) client: Client,
    pub(crate) consuming: Arc<Upstream>,
    pub(crate) publishing: Arc<Upstream>,
    pub(crate) publisher: Publisher,
    pub(crate) clerk: Clerk,
    sink: RwLock<Arc<dyn DeliverySink>>,
    /// The client at the embedded back end, once it has a topic filter.
    inner: Mutex<Option<Box<dyn Connection>>>,
    /// Consuming channels of its lanes.
    channels: Mutex<Vec<Weak<Consumers>>>,
    /// Desks at which its lanes work, and the lanes' numbers there.
    desks: Mutex<Vec<(Weak<Desk>, LaneId)>>,
    /// Subscriptions that want nothing that it published itself.
    no_local: AtomicU32,
    /// `<instance>:<client>`, and the queue of its session where that is kept.
    from: Arc<str>,
    /// The queue of its session, where that is kept.
    pub(crate) inbox: Option<Arc<Inbox>>,
    fate: watch::Sender<Fate>,
}

impl AmqpConnection {
    pub(crate) fn new(
        fleet: Arc<Fleet>,
        consuming: Arc<Upstream>,
        publishing: Arc<Upstream>,
        publisher: Publisher,
        client: &Client,
        sink: Arc<dyn DeliverySink>,
    ) -> Result<Self, Refused> {
        let inbox = Inbox::of(client, &fleet.name, &fleet.options)?;
        let declared = Arc::new(Declared::default());
        consuming.join(&declared);
        let clerk = Clerk {
            upstream: Arc::clone(&consuming),
            declared,
            owners: Arc::clone(&fleet.owners),
            work_queues: Arc::clone(&fleet.work_queues),
            client: client.number,
        };
        let mut from = format!("{}:{}", fleet.instance, client.number);
        if let Some(inbox) = &inbox {
            from.push(':');
            from.push_str(inbox.name.as_str());
        }
        let scope = Scope {
            fleet,
            client: client.clone(),
            consuming,
            publishing,
            publisher,
            clerk,
            sink: RwLock::new(sink),
            inner: Mutex::default(),
            channels: Mutex::default(),
            desks: Mutex::default(),
            no_local: AtomicU32::new(0),
            from: from.into(),
            inbox,
            fate: watch::Sender::new(Fate::Open),
        };
        Ok(Self { scope: Arc::new(scope) })
    }
}

impl Scope {
    pub(crate) fn sink(&self) -> Arc<dyn DeliverySink> {
        Arc::clone(&self.sink.read())
    }

    /// A lane through the embedded back end, for topic filters; nothing when that is closed.
    pub(crate) fn inner_lane(
        &self,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Option<Box<dyn Lane>> {
        let mut inner = self.inner.lock();
        if inner.is_none() {
            let client = Client { vhost: Arc::clone(&self.fleet.vhost), ..self.client.clone() };
            *inner = at_once(self.fleet.inner.connect(&client, self.sink()))?.ok();
        }
        at_once(inner.as_mut()?.lane(receipts, events))?.ok()
    }

    /// Tells what becomes of the session.
    pub(crate) fn fate(&self) -> watch::Receiver<Fate> {
        self.fate.subscribe()
    }

    /// Notes a consuming channel, to be told of another sink.
    pub(crate) fn note(&self, consumers: &Arc<Consumers>) {
        let mut channels = self.channels.lock();
        channels.retain(|other| other.strong_count() > 0);
        channels.push(Arc::downgrade(consumers));
    }

    /// The desk of a queue, where it has one, or who asks is `several`.
    ///
    /// # Errors
    /// When the queue is another client's alone.
    pub(crate) async fn desk(&self, queue: &str, several: bool) -> Result<Option<Arc<Desk>>, Refused> {
        self.fleet.owners.check(queue, self.client.number)?;
        Ok(self.fleet.desk(queue, several).await)
    }

    /// Notes that a lane works at a desk, to be told of another sink; or that it does no more.
    pub(crate) fn note_desk(&self, desk: &Arc<Desk>, lane: LaneId, works: bool) {
        let mut desks = self.desks.lock();
        let is_it = |other: &Weak<Desk>| std::ptr::eq(other.as_ptr(), Arc::as_ptr(desk));
        desks.retain(|(other, of)| other.strong_count() > 0 && !(*of == lane && is_it(other)));
        if works {
            desks.push((Arc::downgrade(desk), lane));
        }
    }

    pub(crate) fn add_no_local(&self) {
        self.no_local.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn remove_no_local(&self) {
        self.no_local.fetch_sub(1, Ordering::SeqCst);
    }

    /// What is noted on its messages, when it wants nothing of its own back.
    pub(crate) fn from(&self) -> Option<Arc<str>> {
        (self.no_local.load(Ordering::SeqCst) > 0).then(|| Arc::clone(&self.from))
    }
}

#[async_trait]
impl Connection for AmqpConnection {
    fn attach(&mut self, sink: Arc<dyn DeliverySink>) {
        *self.scope.sink.write() = Arc::clone(&sink);
        if let Some(inner) = &mut *self.scope.inner.lock() {
            inner.attach(Arc::clone(&sink));
        }
        for channel in self.scope.channels.lock().iter().filter_map(Weak::upgrade) {
            channel.tell(Command::Attach(Arc::clone(&sink)));
        }
        let desks = self.scope.desks.lock().clone();
        for (desk, lane) in desks.iter().filter_map(|(desk, lane)| Some((desk.upgrade()?, *lane))) {
            desk.attach(lane, &sink);
        }
    }

    async fn lane(
        &mut self,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Result<Box<dyn Lane>, BackendError> {
        Ok(Box::new(AmqpLane::new(Arc::clone(&self.scope), receipts, events)))
    }

    async fn close(self: Box<Self>) {
        let queues = self.scope.clerk.declared.exclusive();
        let work_queues = Arc::clone(&self.scope.clerk.work_queues);
        delete_left(Arc::clone(&self.scope.consuming), work_queues, queues).await;
        let Some(inbox) = &self.scope.inbox else { return };
        self.scope.fate.send_replace(Fate::Over);
        // Its lanes let go of what they share with others first.
        let limit = self.scope.fleet.options.connect_timeout;
        if timeout(limit, self.scope.fate.closed()).await.is_err() {
            tracing::debug!(queue = %inbox.name, "a session ends before its lanes do");
        }
        if let Err(why) = inbox.delete(&self.scope.consuming).await {
            tracing::debug!(queue = %inbox.name, %why, "a session's queue stays until it expires");
        }
    }
}

impl Drop for AmqpConnection {
    fn drop(&mut self) {
        let Scope { clerk, consuming, fate, .. } = &*self.scope;
        fate.send_if_modified(|fate| {
            let is_open = *fate == Fate::Open;
            if is_open {
                *fate = Fate::Stays;
            }
            is_open
        });
        let queues = clerk.declared.exclusive();
        consuming.leave();
        if queues.is_empty() {
            return;
        }
        let (upstream, owners, client) = (Arc::clone(consuming), Arc::clone(&clerk.owners), clerk.client);
        let work_queues = Arc::clone(&clerk.work_queues);
        for queue in &queues {
            clerk.declared.remove_queue(queue.as_str());
        }
        afterwards(async move {
            delete_left(upstream, work_queues, queues).await;
            owners.leave(client);
        });
    }
}
