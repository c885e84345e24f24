//! A client's scope at the hub: its connections to the back ends that it has come to use.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use linkspan_contract::{
    BackendError, Binding, Client, Connection, DeliverySink, Ended, Lane, LaneEvents, Nobody, ReceiptSink,
    SessionState, SubscriptionKey,
};
use parking_lot::{Mutex as SyncMutex, RwLock};
use tokio::sync::{Mutex, MutexGuard};

use super::Hub;
use super::copies::Bound;
use super::lane::HubLane;
use super::part::{Numbers, Part};
use super::spool::SpoolStore;

type Connections = Vec<(Arc<str>, Box<dyn Connection>)>;

/// What [`Hub::connect`](linkspan_contract::Backend::connect) gives.
pub struct HubConnection {
    scope: Arc<Scope>,
}

/// What a client's lanes share.
pub struct Scope {
    pub hub: Arc<Hub>,
    pub client: Client,
    sink: RwLock<Arc<dyn DeliverySink>>,
    connections: Mutex<Connections>,
    /// The queues that the client has bound to the address space; most have none.
    #[allow(clippy::box_collection, reason = "idle clients hold one word instead of three")]
    bound: SyncMutex<Option<Box<BTreeSet<Arc<str>>>>>,
    /// Its exclusive queues, which end with it.
    #[allow(clippy::box_collection, reason = "idle clients hold one word instead of three")]
    own: SyncMutex<Option<Box<BTreeSet<Arc<str>>>>>,
    /// The home back end's session of it outlives the process.
    lasts: AtomicBool,
    /// What it publishes was taken before.
    pub carries: bool,
}

impl HubConnection {
    /// A scope that uses no back end yet.
    pub fn new(hub: Arc<Hub>, client: Client, sink: Arc<dyn DeliverySink>, carries: bool) -> Self {
        let scope = Scope {
            hub,
            client,
            sink: RwLock::new(sink),
            connections: Mutex::default(),
            bound: SyncMutex::default(),
            own: SyncMutex::default(),
            lasts: AtomicBool::new(false),
            carries,
        };
        Self { scope: Arc::new(scope) }
    }

    /// Connects to the home back end, where the client may have a session: elsewhere it has none.
    ///
    /// # Errors
    /// When it is away or denies access.
    pub async fn enter(&self, home: &Arc<str>, client: &Client) -> Result<(), BackendError> {
        self.scope.connect(&mut *self.scope.connections.lock().await, home, client).await.map(drop)
    }
}

impl Scope {
    /// The client's connections, with that to `backend` among them, and its place.
    async fn with_connection(
        &self,
        backend: &Arc<str>,
    ) -> Result<(MutexGuard<'_, Connections>, usize), BackendError> {
        let mut connections = self.connections.lock().await;
        if let Some(at) = connections.iter().position(|(name, _)| name == backend) {
            return Ok((connections, at));
        }
        let at = self.connect(&mut connections, backend, &self.client).await?;
        Ok((connections, at))
    }

    async fn connect(
        &self,
        connections: &mut Connections,
        backend: &Arc<str>,
        client: &Client,
    ) -> Result<usize, BackendError> {
        let sink = self.sink();
        let connection = self.hub.backend(backend)?.connect(client, sink).await?;
        if connections.is_empty() {
            self.lasts.store(connection.lasts(), Ordering::Relaxed);
        }
        // Most clients use one back end.
        connections.reserve_exact(1);
        connections.push((Arc::clone(backend), connection));
        Ok(connections.len().saturating_sub(1))
    }

    /// A lane through `backend`.
    ///
    /// # Errors
    /// When it is away or denies access.
    pub async fn part(
        &self,
        backend: &Arc<str>,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Result<Part, BackendError> {
        let (mut connections, at) = self.with_connection(backend).await?;
        let numbers = Arc::new(Numbers::same(receipts));
        let Some((_, connection)) = connections.get_mut(at) else {
            return Err(BackendError::Away {
                name: backend.to_string(),
                why: "its connection is gone".into(),
            });
        };
        let lane = connection.lane(Arc::clone(&numbers) as Arc<dyn ReceiptSink>, events).await?;
        Ok(Part { backend: Arc::clone(backend), lane, way: 0, next: 0, numbers, plain: false, spool: None })
    }

    /// A lane into the spools of a back end, through what keeps them.
    ///
    /// # Errors
    /// When it is closed.
    pub async fn spool_part(
        &self,
        backend: &Arc<str>,
        store: &dyn SpoolStore,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Result<Part, BackendError> {
        let mut connection = store.backend().connect(&self.client, Arc::new(Nobody)).await?;
        let numbers = Arc::new(Numbers::same(receipts));
        let lane = connection.lane(Arc::clone(&numbers) as Arc<dyn ReceiptSink>, events).await?;
        let backend = Arc::clone(backend);
        Ok(Part { backend, lane, way: 0, next: 0, numbers, plain: false, spool: Some(connection) })
    }

    /// The client has bound a queue to the address space.
    pub fn has_bound(&self, queue: &str) {
        let mut bound = self.bound.lock();
        let bound = bound.get_or_insert_default();
        if !bound.contains(queue) {
            bound.insert(queue.into());
        }
    }

    /// The client has made an exclusive queue.
    pub fn has_own(&self, queue: &str) {
        self.own.lock().get_or_insert_default().insert(queue.into());
    }

    /// A queue is gone.
    pub fn has_lost(&self, queue: &str) {
        if let Some(own) = &mut *self.own.lock() {
            own.remove(queue);
        }
    }

    /// The binding, if it leads from the address space to a queue.
    pub fn bound<'a>(&'a self, binding: &Binding<'a>) -> Option<Bound<'a>> {
        let own = self.own.lock();
        let ends = |queue: &str| own.as_ref().is_some_and(|own| own.contains(queue));
        Bound::of(&self.client.vhost, binding).map(|bound| Bound { lasts: !ends(bound.queue), ..bound })
    }

    /// The client's outbound side.
    pub fn sink(&self) -> Arc<dyn DeliverySink> {
        Arc::clone(&self.sink.read())
    }

    /// Tells the client that a subscription has ended.
    pub fn ended(&self, key: SubscriptionKey, why: Ended) {
        self.sink().ended(key, why);
    }

    /// A lane through `backend` in a scope of its own, which `sink` is given what it delivers.
    ///
    /// # Errors
    /// When it is away or denies access.
    pub async fn alone(
        &self,
        backend: &str,
        sink: Arc<dyn DeliverySink>,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Result<(Box<dyn Lane>, Box<dyn Connection>), BackendError> {
        let client = Client { session: None, ..self.client.clone() };
        let mut connection = self.hub.backend(backend)?.connect(&client, sink).await?;
        Ok((connection.lane(receipts, events).await?, connection))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if let Some(bound) = self.bound.get_mut().take() {
            self.hub.suspect(&self.client.vhost, *bound);
        }
    }
}

#[async_trait]
impl Connection for HubConnection {
    fn attach(&mut self, sink: Arc<dyn DeliverySink>) {
        if let Ok(mut connections) = self.scope.connections.try_lock() {
            for (_, connection) in connections.iter_mut() {
                connection.attach(Arc::clone(&sink));
            }
        }
        *self.scope.sink.write() = sink;
    }

    async fn lane(
        &mut self,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Result<Box<dyn Lane>, BackendError> {
        let home = match self.scope.hub.routes().vhost(&self.scope.client.vhost) {
            Some(table) => Arc::clone(table.home()),
            None => return Err(BackendError::UnknownVhost(self.scope.client.vhost.to_string())),
        };
        let part = self.scope.part(&home, Arc::clone(&receipts), Arc::clone(&events)).await?;
        self.scope.hub.listen(&events);
        Ok(Box::new(HubLane::new(Arc::clone(&self.scope), part, receipts, events)))
    }

    fn session(&self) -> Option<SessionState> {
        // The home back end's is the first.
        self.scope.connections.try_lock().ok()?.first()?.1.session()
    }

    fn lasts(&self) -> bool {
        self.scope.lasts.load(Ordering::Relaxed)
    }

    fn keep_session(&mut self, seconds: u32) {
        if let Ok(mut connections) = self.scope.connections.try_lock()
            && let Some((_, home)) = connections.first_mut()
        {
            home.keep_session(seconds);
        }
    }

    async fn close(self: Box<Self>) {
        let connections = std::mem::take(&mut *self.scope.connections.lock().await);
        for (_, connection) in connections {
            connection.close().await;
        }
    }
}
