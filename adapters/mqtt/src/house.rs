//! What all clients of one back end share.

use std::collections::hash_map::RandomState as Seeds;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::{Clock, Leases, Millis};
use linkspan_embedded::{BindingWatch, Embedded};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::{Semaphore, watch};

use crate::feed::Feeds;
use crate::options::{MqttOptions, OptionsError, Place, VersionChoice};
use crate::passage::farewell::Farewells;
use crate::status::Status;
use crate::upstream::connection::{Connection, Introduction, Sender};
use crate::upstream::failure::Failure;
use crate::upstream::filter;
use crate::upstream::packet::{Version, Welcome};
use crate::upstream::session::Session;
use crate::upstream::tls;

/// The back end's name, options, sessions and queues.
pub(crate) struct House {
    pub(crate) name: Arc<str>,
    pub(crate) options: MqttOptions,
    pub(crate) dial: Dial,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) leases: Arc<dyn Leases>,
    pub(crate) status: Status,
    /// All queues, and what subscribers here have.
    pub(crate) inner: Arc<Embedded>,
    pub(crate) publishers: Vec<Arc<Session>>,
    pub(crate) subscriber: Arc<Session>,
    pub(crate) feeds: Feeds,
    pub(crate) locals: Locals,
    /// Clients that are passed through, and what is owed for those that have left.
    pub(crate) farewells: Farewells,
    /// Clients that are passed through, subscribe, and are cut off from the broker.
    pub(crate) absent: watch::Sender<usize>,
    /// Who asks the broker for what it keeps: each has a connection for that long.
    pub(crate) asking: Semaphore,
    closed: AtomicBool,
    numbers: AtomicU64,
}

/// Questions for retained messages that are asked at the same time.
const ASKING: usize = 16;

impl House {
    #[allow(clippy::too_many_arguments, reason = "it is put together in one place")]
    pub(crate) fn new(
        name: Arc<str>,
        options: MqttOptions,
        dial: Dial,
        clock: Arc<dyn Clock>,
        leases: Arc<dyn Leases>,
        inner: Arc<Embedded>,
        publishers: Vec<Arc<Session>>,
        subscriber: Arc<Session>,
    ) -> Self {
        let status = Status::new(Arc::clone(&name), dial.place.to_string(), publishers.len() + 1);
        Self {
            name,
            options,
            dial,
            clock,
            leases,
            status,
            inner,
            publishers,
            subscriber,
            feeds: Feeds::default(),
            locals: Locals::default(),
            farewells: Farewells::default(),
            absent: watch::Sender::new(0),
            asking: Semaphore::new(ASKING),
            closed: AtomicBool::new(false),
            numbers: AtomicU64::new(0),
        }
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    /// A number that no other lane has.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// How a session of that client identifier introduces itself, but for what is its own.
    pub(crate) fn introduction(&self, identifier: String) -> Introduction {
        introduction(&self.dial, &self.options, identifier)
    }
}

/// How a session of that client identifier introduces itself, when it is one for a while.
pub(crate) fn introduction(dial: &Dial, options: &MqttOptions, identifier: String) -> Introduction {
    Introduction {
        place: dial.place.clone(),
        tls: dial.tls.clone(),
        identifier,
        fresh: true,
        session_expiry: 0,
        manual: false,
        receive_maximum: options.window,
        window: options.window,
        max_packet_size: options.max_packet_size,
        keep_alive: options.keep_alive,
        timeout: options.connect_timeout,
        will: None,
        begun: Vec::new(),
    }
}

/// A number that nobody foresees.
pub(crate) fn random() -> u64 {
    Seeds::new().build_hasher().finish()
}

/// How the broker is reached, and in which version of MQTT.
pub(crate) struct Dial {
    pub(crate) place: Place,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    choice: VersionChoice,
    known: Mutex<Option<Version>>,
}

impl Dial {
    /// By these options.
    ///
    /// # Errors
    /// Which of them is wrong.
    pub(crate) fn of(options: &MqttOptions) -> Result<Self, OptionsError> {
        options.check()?;
        let place = options.place()?;
        let tls = place.tls.then(|| tls::configuration(&options.tls)).transpose()?;
        Ok(Self::new(place, tls, options.version))
    }

    pub(crate) fn new(place: Place, tls: Option<Arc<ClientConfig>>, choice: VersionChoice) -> Self {
        let known = match choice {
            VersionChoice::Newest => None,
            VersionChoice::V5 => Some(Version::V5),
            VersionChoice::V311 => Some(Version::V311),
        };
        Self { place, tls, choice, known: Mutex::new(known) }
    }

    /// The version that is spoken, when that is known.
    pub(crate) fn version(&self) -> Option<Version> {
        *self.known.lock()
    }

    /// Connects in the version that the broker speaks, found out at first contact.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn open(&self, how: &Introduction) -> Result<(Connection, Sender, Welcome), Failure> {
        if let Some(version) = self.version() {
            return Self::open_as(how, version).await;
        }
        let opened = match Self::open_as(how, Version::V5).await {
            Err(why) if why.may_be_older() && self.choice == VersionChoice::Newest => {
                match Self::open_as(how, Version::V311).await {
                    // What closes instead of an answer may have been about to start: it is asked once more.
                    Ok(older) => Self::open_as(how, Version::V5).await.or(Ok(older)),
                    // What speaks neither is told by what it did first.
                    Err(Failure::Foreign { .. }) => Err(why),
                    Err(other) => Err(other),
                }
            }
            other => other,
        }?;
        *self.known.lock() = Some(opened.2.version);
        Ok(opened)
    }

    /// Connects to a session without a past, and without a clean start: one that was begun so Mosquitto does not write down
    /// when it is stopped, and what waits in it is lost.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn open_anew(
        &self,
        how: &Introduction,
    ) -> Result<(Connection, Sender, Welcome), Failure> {
        let opened = self.open(how).await?;
        if !opened.2.resumed {
            return Ok(opened);
        }
        opened.0.leave(&opened.1).await;
        let forgetful = Introduction { fresh: true, session_expiry: 0, ..how.clone() };
        let (connection, sender, _) = self.open(&forgetful).await?;
        connection.leave(&sender).await;
        self.open(how).await
    }

    async fn open_as(how: &Introduction, version: Version) -> Result<(Connection, Sender, Welcome), Failure> {
        if version == Version::V311 && how.fresh && how.session_expiry > 0 {
            // What the broker remembers of a former life is forgotten only by a session that leaves nothing behind.
            let forgetful = Introduction { session_expiry: 0, will: None, ..how.clone() };
            let (connection, sender, _) = Connection::open(&forgetful, version).await?;
            connection.leave(&sender).await;
            return Connection::open(&Introduction { fresh: false, ..how.clone() }, version).await;
        }
        Connection::open(how, version).await
    }
}

/// Clients with a subscription that must not give them what they published themselves.
#[derive(Default)]
pub(crate) struct Locals {
    clients: Mutex<HashMap<u64, (Arc<str>, usize), RandomState>>,
    vhosts: Mutex<Vec<Arc<str>>>,
    epoch: AtomicU64,
}

impl Locals {
    /// Counts the changes.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// A client of this vhost is here.
    pub(crate) fn see(&self, vhost: &Arc<str>) {
        let mut vhosts = self.vhosts.lock();
        if !vhosts.contains(vhost) {
            vhosts.push(Arc::clone(vhost));
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    pub(crate) fn vhosts(&self) -> Vec<Arc<str>> {
        self.vhosts.lock().clone()
    }

    /// The client has one such subscription more.
    pub(crate) fn add(&self, client: u64, vhost: &Arc<str>) {
        self.clients.lock().entry(client).or_insert_with(|| (Arc::clone(vhost), 0)).1 += 1;
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// So many fewer.
    pub(crate) fn remove(&self, client: u64, count: usize) {
        let mut clients = self.clients.lock();
        if let Some((_, left)) = clients.get_mut(&client) {
            *left = left.saturating_sub(count);
            if *left == 0 {
                clients.remove(&client);
                self.epoch.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// All such clients and their vhosts.
    pub(crate) fn clients(&self) -> Vec<(u64, Arc<str>)> {
        self.clients.lock().iter().map(|(client, (vhost, _))| (*client, Arc::clone(vhost))).collect()
    }

    /// The vhost of a client that has such subscriptions.
    pub(crate) fn vhost_of(&self, client: u64) -> Option<Arc<str>> {
        self.clients.lock().get(&client).map(|(vhost, _)| Arc::clone(vhost))
    }
}

/// Queues bound to addresses want what comes there.
pub(crate) struct Bindings(pub(crate) Arc<Session>);

impl BindingWatch for Bindings {
    fn bound(&self, key: &[u8]) {
        if let Some(filter) = filter::of_binding(key) {
            self.0.want(&filter);
        }
    }

    fn unbound(&self, key: &[u8]) {
        if let Some(filter) = filter::of_binding(key) {
            self.0.release(&filter);
        }
    }
}
