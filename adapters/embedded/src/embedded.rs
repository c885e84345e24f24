//! The back end itself.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::backend::Retained;
use linkspan_contract::{
    Backend, BackendError, Capabilities, Client, Clock, Connection, DeliverySink, Health, Support,
};
use linkspan_queues::log::{Damage, Options, Recovery};
use parking_lot::RwLock;

use crate::archive::Archive;
use crate::connection::EmbeddedConnection;
use crate::coordinator;
use crate::house::House;
use crate::open_error::OpenError;
use crate::options::{EmbeddedOptions, OnDisk};
use crate::queue::Queue;
use crate::register::Register;
use crate::retained;
use crate::vhost::Vhost;

/// An in-process broker; several vhosts may live in it, each with its own exchanges, queues and addresses.
pub struct Embedded {
    house: Arc<House>,
    vhosts: RwLock<HashMap<Arc<str>, Arc<Vhost>, RandomState>>,
    watch: Option<Arc<dyn BindingWatch>>,
    /// Keeps what is declared durable; none where all is in memory.
    register: Option<Arc<Register>>,
    capabilities: &'static Capabilities,
}

/// Is told which addresses the queues of any vhost are bound to, one word for each binding that comes or goes, for
/// whatever reason. It is called under a lock: it notes what it is told and calls nobody.
pub trait BindingWatch: Send + Sync {
    /// A queue was bound to the address space by this pattern, in AMQP's spelling.
    fn bound(&self, key: &[u8]);

    /// Such a binding is gone.
    fn unbound(&self, key: &[u8]);
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("house", &self.house).finish_non_exhaustive()
    }
}

/// What is known of a queue, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDepth {
    /// Its namespace.
    pub vhost: Arc<str>,
    /// Its name; for a shared subscription `$share/<group>/<filter>`, for a session `$session/<client identifier>`.
    pub name: Arc<str>,
    /// Messages that wait, delayed ones included.
    pub ready: u64,
    /// Messages given out and not settled.
    pub unsettled: u64,
    /// Bytes that wait.
    pub bytes: u64,
    /// Consumers.
    pub consumers: u64,
}

impl QueueDepth {
    fn of(vhost: &Vhost, queue: &Queue) -> Self {
        let (ready, unsettled, bytes, consumers) = queue.depth();
        let (vhost, name) = (Arc::clone(&vhost.name), Arc::clone(&queue.name));
        Self { vhost, name, ready, unsettled, bytes, consumers: consumers as u64 }
    }
}

/// What a back end of this kind can do that keeps everything in memory.
pub static CAPABILITIES: Capabilities = Capabilities {
    publish_subscribe: Support::Native,
    competing_consumers: Support::Native,
    exclusive_consumer: Support::Native,
    priority_queue: Support::Native,
    expiry: Support::Native,
    dead_letter: Support::Native,
    ack_timeout: Support::Native,
    max_deliveries: Support::Native,
    retry: Support::Native,
    deduplicate: Support::Native,
    ordering_key: Support::Native,
    delay: Support::Native,
    max_length: Support::Native,
    weighted_order: Support::Native,
    queue_per_level: Support::Emulated("levels are kept apart in one queue, whatever their number"),
    shares_queues: false,
    exchanges: Support::Native,
    transactions: Support::Native,
    durable: Support::Absent("messages are kept in memory: they are lost when Linkspan stops"),
    retained: Support::Emulated("Linkspan keeps them, in memory"),
    holds_publishers: Support::Native,
    sessions: Support::Absent("a session ends with its connection"),
};

/// What one with a directory can do.
pub static DURABLE: Capabilities = Capabilities {
    durable: Support::Native,
    retained: Support::Emulated("Linkspan keeps them, and writes them down"),
    ..CAPABILITIES
};

impl Embedded {
    /// Opens a back end whose durable things live in a directory: what an earlier one has left there is there again.
    /// `clock` tells the time for expiry and deadlines, and is to go on where that one's stood.
    ///
    /// # Errors
    /// When another process has the directory, or it cannot be read or written.
    pub fn durable(
        name: &str,
        options: EmbeddedOptions,
        clock: Arc<dyn Clock>,
        on_disk: &OnDisk,
    ) -> Result<Arc<Self>, OpenError> {
        Self::open_in(name, options, clock, on_disk, None)
    }

    /// The same inside another back end, which brings messages from elsewhere and wants to know which. It is told of the
    /// bindings that are there from an earlier life.
    ///
    /// # Errors
    /// As [`durable`](Self::durable).
    pub fn durable_within(
        name: &str,
        options: EmbeddedOptions,
        clock: Arc<dyn Clock>,
        on_disk: &OnDisk,
        watch: Arc<dyn BindingWatch>,
    ) -> Result<Arc<Self>, OpenError> {
        Self::open_in(name, options, clock, on_disk, Some(watch))
    }

    fn open_in(
        name: &str,
        options: EmbeddedOptions,
        clock: Arc<dyn Clock>,
        on_disk: &OnDisk,
        watch: Option<Arc<dyn BindingWatch>>,
    ) -> Result<Arc<Self>, OpenError> {
        let directory = &on_disk.directory;
        let unmade = |source| OpenError::Directory { directory: directory.clone(), source };
        std::fs::create_dir_all(directory).map_err(unmade)?;
        let segment_size = on_disk.segment_size;
        // As much as is live may be dead beside, and four files more.
        let slack = segment_size.saturating_mul(4);
        let log = Options { sync: on_disk.sync, segment_size, slack, ..Options::default() };
        let (archive, recovery) = Archive::open(&directory.join(LOG), log, &on_disk.forms, &on_disk.budget)?;
        report(name, &recovery);
        Self::over_log(name, options, clock, directory, archive, watch)
    }

    /// With what a log has; the register is in the directory.
    pub(crate) fn over_log(
        name: &str,
        options: EmbeddedOptions,
        clock: Arc<dyn Clock>,
        directory: &Path,
        archive: Arc<Archive>,
        watch: Option<Arc<dyn BindingWatch>>,
    ) -> Result<Arc<Self>, OpenError> {
        // Before there is a new one, which the next start would take for that of the log.
        if archive.kept() > 0 && !Register::is_in(directory) {
            return Err(OpenError::RegisterLost { directory: directory.to_owned(), queues: archive.kept() });
        }
        let (register, known) = Register::open(directory)?;
        let register = Arc::new(register);
        let house = Arc::new(House::new(name, options, clock, Some(Arc::clone(&archive))));
        let restored = known.restore(&house, watch.as_ref(), &register);
        let now = house.now();
        let mut vhosts = HashMap::default();
        for vhost in restored.vhosts {
            let queues: Vec<_> = {
                let topology = vhost.look();
                topology.queues().chain(topology.groups()).chain(topology.inboxes()).cloned().collect()
            };
            queues.iter().for_each(|queue| queue.begin(now));
            vhosts.insert(Arc::clone(&vhost.name), vhost);
        }
        archive.forget_rest(restored.whole);
        let vhosts = RwLock::new(vhosts);
        Ok(Arc::new(Self { house, vhosts, watch, register: Some(register), capabilities: &DURABLE }))
    }

    /// Opens a back end of that name in memory, which holds nothing yet. `clock` tells the time for expiry and deadlines.
    pub fn open(name: &str, options: EmbeddedOptions, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::over(House::new(name, options, clock, None), None)
    }

    /// The same inside another back end, which brings messages from elsewhere and wants to know which.
    pub fn within(
        name: &str,
        options: EmbeddedOptions,
        clock: Arc<dyn Clock>,
        watch: Arc<dyn BindingWatch>,
    ) -> Arc<Self> {
        Self::over(House::new(name, options, clock, None), Some(watch))
    }

    fn over(house: House, watch: Option<Arc<dyn BindingWatch>>) -> Arc<Self> {
        let (house, vhosts) = (Arc::new(house), RwLock::default());
        Arc::new(Self { house, vhosts, watch, register: None, capabilities: &CAPABILITIES })
    }

    /// All queues as they are now, shared subscriptions included.
    pub fn queues(&self) -> Vec<QueueDepth> {
        let vhosts: Vec<Arc<Vhost>> = self.vhosts.read().values().cloned().collect();
        let mut depths = Vec::new();
        for vhost in vhosts {
            let queues: Vec<_> = {
                let topology = vhost.look();
                topology.queues().chain(topology.groups()).chain(topology.inboxes()).cloned().collect()
            };
            depths.extend(queues.iter().map(|queue| QueueDepth::of(&vhost, queue)));
        }
        depths
    }

    /// What waits in one queue, and what of it is given out; none when there is no such queue.
    pub fn depth(&self, vhost: &str, queue: &str) -> Option<QueueDepth> {
        let vhost = Arc::clone(self.vhosts.read().get(vhost)?);
        let queue = Arc::clone(vhost.look().queue(queue)?);
        Some(QueueDepth::of(&vhost, &queue))
    }

    fn vhost(&self, name: &Arc<str>) -> Arc<Vhost> {
        if let Some(vhost) = self.vhosts.read().get(name) {
            return Arc::clone(vhost);
        }
        let mut vhosts = self.vhosts.write();
        let made = || {
            let (name, house, watch) = (Arc::clone(name), Arc::clone(&self.house), self.watch.clone());
            Arc::new(match &self.register {
                Some(register) => Vhost::kept(name, house, watch, Arc::clone(register)),
                None => Vhost::new(name, house, watch),
            })
        };
        Arc::clone(vhosts.entry(Arc::clone(name)).or_insert_with(made))
    }
}

#[async_trait]
impl Backend for Embedded {
    fn capabilities(&self) -> &Capabilities {
        self.capabilities
    }

    async fn connect(
        &self,
        client: &Client,
        sink: Arc<dyn DeliverySink>,
    ) -> Result<Box<dyn Connection>, BackendError> {
        if self.house.is_closed() {
            let name = self.house.name.to_string();
            return Err(BackendError::Away { name, why: "it is being closed".into() });
        }
        let vhost = self.vhost(&client.vhost);
        let inbox = match &client.session {
            None => Ok(None),
            Some(terms) if terms.keep > 0 => vhost.inbox(&client.identifier, terms.fresh).await,
            Some(_) => vhost.end_inbox(&client.identifier).await.map(|()| None),
        };
        let inbox = inbox
            .map_err(|why| BackendError::Away { name: self.house.name.to_string(), why: why.to_string() })?;
        Ok(Box::new(EmbeddedConnection::new(vhost, client, inbox, sink)))
    }

    async fn retained(&self, vhost: &str) -> Vec<Retained> {
        let Some(archive) = &self.house.archive else { return Vec::new() };
        retained::found(archive, vhost, self.house.now())
    }

    async fn queues(&self, vhost: &str) -> Option<Vec<Arc<str>>> {
        let vhost = self.vhosts.read().get(vhost).cloned();
        let names = |vhost: Arc<Vhost>| vhost.look().queues().map(|queue| Arc::clone(&queue.name)).collect();
        Some(vhost.map(names).unwrap_or_default())
    }

    fn sweep(&self) {
        if let Some(archive) = &self.house.archive {
            retained::sweep(archive, self.house.now());
        }
    }

    async fn recall_sessions(
        &self,
        vhost: &str,
        owner: &str,
        goes_on: &(dyn for<'a> Fn(&'a str) -> bool + Send + Sync),
    ) {
        self.house.belong_to(owner);
        let Some(vhost) = self.vhosts.read().get(vhost).cloned() else { return };
        let clients = vhost.clients_with_inbox();
        // A list that knows none of them may have been emptied by mistake.
        let knows_some = clients.iter().any(|(client, _)| goes_on(client));
        let mut strange = 0;
        for (client, is_ours) in clients {
            if goes_on(&client) {
                continue;
            }
            if !is_ours || !knows_some {
                strange += 1;
                continue;
            }
            match vhost.end_inbox(&client).await {
                Ok(()) => {
                    tracing::info!(%client, "what was left of a session that nobody knows of was removed")
                }
                Err(why) => tracing::warn!(%client, %why, "a session that is over was not forgotten"),
            }
        }
        if strange > 0 {
            tracing::warn!(
                backend = %self.house.name,
                sessions = strange,
                "messages of sessions stay that the ledger does not know: begun with another ledger or `instance`, or it has lost all; they are there again with the right one, and go when their clients begin anew"
            );
        }
    }

    async fn health(&self) -> Health {
        if self.house.is_closed() { Health::Away("it is being closed".into()) } else { Health::Up }
    }

    async fn close(&self) {
        self.house.close();
        let (archive, register) = (self.house.archive.clone(), self.register.clone());
        if archive.is_none() && register.is_none() {
            return;
        }
        if !coordinator::close(register, archive).await {
            tracing::error!(backend = %self.house.name, "what was written last may not be on the disk: closing failed");
        }
    }
}

/// The folder of the log in the directory.
const LOG: &str = "log";

/// Tells what was found on the disk.
fn report(name: &str, recovery: &Recovery) {
    let Recovery { segments, records, bytes, damage, cut, lost } = recovery;
    if *records > 0 {
        tracing::info!(backend = name, segments, records, bytes, "what an earlier process has left was read");
    }
    if let Some(Damage { file, offset, bytes, copy }) = cut {
        tracing::warn!(
            backend = name,
            file,
            offset,
            bytes,
            copy = copy.as_deref().unwrap_or("none"),
            "the log ended in the middle of a write: nobody was told that it was safe"
        );
    }
    for Damage { file, offset, bytes, copy } in damage {
        tracing::error!(
            backend = name,
            file,
            offset,
            bytes,
            copy = copy.as_deref().unwrap_or("none"),
            "the log is damaged: what lay there is lost and set aside, everything else is served"
        );
    }
    for (queue, message) in lost {
        tracing::error!(backend = name, queue, message, "a part of a message is damaged: it is lost");
    }
}
