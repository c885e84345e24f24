//! Assembly: from a configuration to back ends, hub and doors; reload; shutdown. The only place that names a concrete
//! back end.

mod abilities;
mod back_ends;
mod certificates;
mod ledger;
mod spools;
mod workers;

pub use back_ends::{delete_queue, queue_names};

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::{Backend, Clock, SystemClock};
use linkspan_embedded::Budget;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::alarms::{self, Alarms, Watch};
use crate::config::{Config, ConfigErrors, Culprit, Place};
use crate::doors::amqp::{AmqpDoor, AmqpLimits};
use crate::doors::http::{HttpDoor, HttpOptions, LeaseLimits};
use crate::doors::listener::Listener;
use crate::doors::mqtt::{Limits as MqttLimits, MqttDoor};
use crate::doors::outbound::Marks;
use crate::doors::{self, Door, Stop, Stopper};
use crate::hub::{Hub, RoutesError};
use crate::identity::Users;
use crate::ledger::Watched;
use crate::worker::Crew;

/// How long connections may take to say farewell when the server goes down.
const FAREWELL: Duration = Duration::from_secs(10);

/// How often figures that a scrape would have to sum up are summed up.
const UPKEEP: Duration = Duration::from_secs(5);

/// How often queues are tried to be made whose back end was away.
const MEND: Duration = Duration::from_millis(500);

/// How often it is looked how the ledger is.
const LOOK: Duration = Duration::from_secs(2);

/// How long a start waits for a ledger that is being reached.
const GRACE: Duration = Duration::from_secs(1);

/// Why Linkspan did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A door's address cannot be listened on: the configuration's or another program's fault.
    #[error("{place}: doors.{door}.listen: cannot listen on {address}: {}; {}", .why, advice(.why))]
    Listen {
        /// Which door.
        door: &'static str,
        /// Where its address was set.
        place: Place,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        why: io::Error,
    },
    /// A route or a back end cannot be as it is configured.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The routes contradict each other; a loaded configuration never has that.
    #[error(transparent)]
    Conflict(#[from] crate::routes::RouteConflict),
    /// A signal handler could not be installed.
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
}

fn advice(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there: stop it, or choose another port, or set `enabled = false` for this door"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher one",
        _ => "choose another address",
    }
}

/// Why a reload did not happen: what ran goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong, needs a restart, or cannot be put in force.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The routes contradict each other; a loaded configuration never has that.
    #[error(transparent)]
    Conflict(#[from] crate::routes::RouteConflict),
}

/// A running Linkspan.
pub struct Broker {
    hub: Arc<Hub>,
    users: Arc<Users>,
    config: Arc<Mutex<Config>>,
    limits: watch::Sender<alarms::Limits>,
    /// What queues may have in memory.
    budget: Arc<Budget>,
    open: Vec<(&'static str, SocketAddr)>,
    stopper: Stopper,
    serving: JoinSet<()>,
    ledger: Arc<Watched>,
    crew: Crew,
}

impl Broker {
    /// Starts everything that `config` names; the doors are open when it returns. `figures` renders `/metrics`.
    ///
    /// # Errors
    /// When an address is taken, the ledger's file cannot be used, or a back end refuses a route.
    pub async fn start(config: &Config, figures: PrometheusHandle) -> Result<Self, StartError> {
        let mut listeners = HashMap::new();
        let mut open = Vec::new();
        for (door, address) in config.doors.open() {
            let listen = |why| StartError::Listen { door, place: config.place_of_listen(door), address, why };
            let listener = Listener::bind(address).map_err(listen)?;
            open.push((door, listener.address().map_err(listen)?));
            listeners.insert(door, listener);
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        verify(config)?;
        let instance = back_ends::instance(config, open.first().map(|(_, address)| *address));
        let ledger = ledger::open(config, &instance, &clock)?;
        if timeout(GRACE, ledger.look()).await.is_err() {
            tracing::debug!("the ledger is not waited for");
        }
        let budget = Arc::new(Budget::new(back_ends::memory_of_queues(config)));
        let owner_at_brokers = ledger::owner_at_brokers(config, &instance)?;
        let backends =
            back_ends::open(config, &instance, &owner_at_brokers, &clock, ledger.ledger(), &budget)?;
        let retained = config.limits.retained.get() as usize;
        let memory = ledger::memory(config, &instance, &ledger);
        let spools = Arc::new(spools::Stores::of(config, Arc::clone(&clock), &budget));
        let hub = Hub::open(backends, config.routes()?, retained, Arc::clone(&clock), memory, spools).await;
        let hub = hub.map_err(|error| wrong(config, &error))?;
        let users = Arc::new(config.accounts());
        let alarms = Arc::new(Alarms::default());
        let (limits, of_alarms) = watch::channel(alarm_limits(config));
        let mut watch = Watch::new(&alarms, of_alarms, back_ends::directories(config));
        watch.look().await;
        let (stopper, stop) = Stop::new();
        let mut serving = JoinSet::new();
        serving.spawn(until(stop.clone(), watch.run()));
        let marks = Marks {
            high: usize::try_from(config.limits.outbound_high).unwrap_or(usize::MAX),
            low: usize::try_from(config.limits.outbound_low).unwrap_or(usize::MAX),
            slow_after: config.limits.slow_after,
        };
        let mut doors = Doors { listeners, serving: &mut serving, stop: &stop };
        let mqtt = &config.doors.mqtt;
        if let Some(retained) = hub.retained(&mqtt.vhost) {
            let (vhost, limits) = (mqtt.vhost.as_str().into(), mqtt_limits(config, marks));
            let door = MqttDoor::new(
                Arc::clone(&hub) as _,
                retained,
                Arc::clone(&users),
                Arc::clone(&alarms),
                vhost,
                limits,
            );
            let owner = ledger::owner(config, &instance).into();
            let door = Arc::new(door.with_ledger(Arc::clone(ledger.ledger()), owner, clock));
            if mqtt.enabled {
                door.take_up_sessions(&stop).await;
            }
            doors.open("mqtt", mqtt.max_connections.get(), || door);
        }
        let amqp = &config.doors.amqp;
        doors.open("amqp", amqp.max_connections.get(), || {
            Arc::new(AmqpDoor::new(
                Arc::clone(&hub) as _,
                Arc::clone(&users),
                Arc::clone(&alarms),
                amqp_limits(config, marks),
            ))
        });
        let http = &config.doors.http;
        doors.open("http", http.max_connections.get(), || {
            let options = HttpOptions {
                vhost: http.vhost.as_str().into(),
                max_body: usize::try_from(http.max_body_size).unwrap_or(usize::MAX),
                header_timeout: http.head_timeout,
                leases: LeaseLimits {
                    all: usize::try_from(http.max_leases.get()).unwrap_or(usize::MAX),
                    of_user: usize::try_from(http.max_leases_per_user.get()).unwrap_or(usize::MAX),
                    longest: http.max_lease,
                    longest_wait: http.max_wait,
                },
            };
            let (hub, users) = (Arc::clone(&hub), Arc::clone(&users));
            Arc::new(HttpDoor::new(hub, users, Arc::clone(&alarms), options, figures.clone(), stop.clone()))
        });
        let crew = Crew::new(Arc::clone(&hub));
        crew.follow(workers::targets(config)?);
        let config = Arc::new(Mutex::new(config.clone()));
        serving.spawn(until(stop.clone(), keep_looking(Arc::clone(&ledger))));
        serving.spawn(until(stop, mend(Arc::clone(&hub), Arc::clone(&config))));
        Ok(Self { hub, users, config, limits, budget, open, stopper, serving, ledger, crew })
    }

    /// The open doors and where they listen.
    pub fn doors(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        self.open.iter().copied()
    }

    /// The hub, to see routes and back ends.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Puts the routes, workers and users of `new`, and its limits of memory and disk, in force without dropping a connection.
    ///
    /// # Errors
    /// When more than these changed or the routes cannot be put in force; then nothing is.
    pub async fn reload(&self, new: Config) -> Result<(), ReloadError> {
        let mut config = self.config.lock().await;
        config.may_become(&new)?;
        ConfigErrors::none_of(abilities::refused(&new))?;
        let workers = workers::targets(&new)?;
        self.hub.reroute(new.routes()?).await.map_err(|error| wrong(&new, &error))?;
        self.crew.follow(workers);
        self.users.replace(&new.users);
        self.limits.send_replace(alarm_limits(&new));
        self.budget.set_limit(back_ends::memory_of_queues(&new));
        *config = new;
        Ok(())
    }

    /// Closes the doors, lets every connection say farewell, and makes safe what was taken.
    pub async fn stop(mut self) {
        self.stopper.stop();
        let ended = async { while self.serving.join_next().await.is_some() {} };
        let (ended, ()) = tokio::join!(timeout(FAREWELL, ended), self.crew.end(FAREWELL));
        if ended.is_err() {
            tracing::warn!("some connections did not end in {FAREWELL:?}; they are dropped");
        }
        self.serving.shutdown().await;
        self.hub.close().await;
        let Self { hub, ledger, crew, .. } = self;
        drop((hub, crew));
        // Whoever is started next in this directory needs the ledger's file.
        let unused = async {
            while Arc::strong_count(&ledger) > 1 || Arc::strong_count(ledger.ledger()) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if timeout(GRACE, unused).await.is_err() {
            tracing::debug!("the ledger is still used");
        }
    }
}

/// The doors while they are being opened.
struct Doors<'a> {
    listeners: HashMap<&'static str, Listener>,
    serving: &'a mut JoinSet<()>,
    stop: &'a Stop,
}

impl Doors<'_> {
    fn open<D: Door>(&mut self, name: &str, max_connections: u32, door: impl FnOnce() -> Arc<D>) {
        if let Some(listener) = self.listeners.remove(name) {
            let max_connections = usize::try_from(max_connections).unwrap_or(usize::MAX);
            self.serving.spawn(doors::serve(listener, door(), max_connections, self.stop.clone()));
        }
    }
}

fn alarm_limits(config: &Config) -> alarms::Limits {
    alarms::Limits { memory: config.memory.limit, free: config.disk.free_limit }
}

fn mqtt_limits(config: &Config, marks: Marks) -> MqttLimits {
    let door = &config.doors.mqtt;
    MqttLimits {
        packet: u32::try_from(door.max_packet_size).unwrap_or(u32::MAX),
        receive_maximum: door.receive_maximum,
        topic_aliases: door.topic_alias_maximum,
        keep_alive: u16::try_from(door.max_keep_alive.as_secs()).unwrap_or(u16::MAX),
        connect_timeout: door.connect_timeout,
        session_expiry: u32::try_from(door.max_session_expiry.as_secs()).unwrap_or(u32::MAX),
        sessions: usize::try_from(door.max_sessions.get()).unwrap_or(usize::MAX),
        marks,
        ..MqttLimits::default()
    }
}

fn amqp_limits(config: &Config, marks: Marks) -> AmqpLimits {
    let door = &config.doors.amqp;
    AmqpLimits {
        channel_max: door.channel_max.get(),
        frame_max: u32::try_from(door.max_frame_size).unwrap_or(u32::MAX),
        heartbeat: u16::try_from(door.heartbeat.as_secs()).unwrap_or(u16::MAX),
        body_max: door.max_body_size,
        handshake: door.connect_timeout,
        marks,
        ..AmqpLimits::default()
    }
}

/// Whether back ends and routes can be as configured, as far as that can be told without the brokers.
///
/// # Errors
/// All that cannot.
pub fn verify(config: &Config) -> Result<(), ConfigErrors> {
    let mut wrong = abilities::refused(config);
    wrong.extend(back_ends::refused(config));
    wrong.extend(ledger::refused(config));
    wrong.extend(workers::refused(config));
    ConfigErrors::none_of(wrong)
}

/// What the hub says, with the place of the key to change.
fn wrong(config: &Config, error: &RoutesError) -> ConfigErrors {
    config.wrong(error.culprit(), error.to_string()).into()
}

/// For people: what becomes of each route, and what clients can expect of each back end.
pub fn described(config: &Config) -> String {
    abilities::described(config)
}

/// Connects to the ledger and to each back end once. What is there, for people, and beside it
///
/// # Errors
/// which cannot be used.
pub async fn connect(config: &Config) -> (String, Result<(), ConfigErrors>) {
    let (mut text, mut away) = (String::from("\nconnecting\n"), Vec::new());
    for (name, found) in back_ends::probe(config).await {
        match found {
            Ok(what) => text.push_str(&format!("  {name}: {what}\n")),
            Err(why) => {
                text.push_str(&format!("  {name}: cannot be used\n"));
                away.push(config.wrong(Culprit::Backend(&name, Some("url")), why));
            }
        }
    }
    match ledger::probe(config).await {
        Ok(what) => text.push_str(&format!("  ledger: {what}\n")),
        Err(errors) => {
            text.push_str("  ledger: cannot be used\n");
            away.extend(errors.iter().cloned());
        }
    }
    (text, ConfigErrors::none_of(away))
}

/// Runs until SIGTERM or Ctrl-C; on SIGHUP what `read` gives takes the place of `config`.
///
/// # Errors
/// When it cannot start.
pub async fn run(
    config: Config,
    read: impl Fn() -> Result<Config, ConfigErrors>,
    figures: PrometheusHandle,
) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
    let broker = Broker::start(&config, figures.clone()).await?;
    for (door, address) in broker.doors() {
        tracing::info!(%address, "{door} door: listening");
    }
    say_routes(&broker);
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        let why = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "Ctrl-C",
            _ = hang_up.recv() => tokio::select! {
                () = reload(&broker, read()) => continue,
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "Ctrl-C",
            },
            _ = upkeep.tick() => {
                figures.run_upkeep();
                broker.hub().sweep();
                continue;
            }
        };
        tracing::info!("{why}: closing the doors");
        broker.stop().await;
        tracing::info!("stopped");
        return Ok(());
    }
}

/// Looks from time to time how the ledger is.
async fn keep_looking(ledger: Arc<Watched>) {
    let mut again = tokio::time::interval(LOOK);
    loop {
        again.tick().await;
        ledger.look().await;
    }
}

/// Makes queues that could not be made, as soon as their back ends are back.
async fn mend(hub: Arc<Hub>, config: Arc<Mutex<Config>>) {
    let mut again = tokio::time::interval(MEND);
    loop {
        again.tick().await;
        for error in hub.mend().await {
            let error = wrong(&*config.lock().await, &error);
            tracing::error!("a route does not work, and is tried again: {error}");
        }
    }
}

/// Does `work` until Linkspan goes down.
async fn until(stop: Stop, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = stop.wanted() => {}
    }
}

async fn reload(broker: &Broker, new: Result<Config, ConfigErrors>) {
    let reloaded = match new {
        Ok(config) => broker.reload(config).await,
        Err(errors) => Err(errors.into()),
    };
    match reloaded {
        Ok(()) => {
            tracing::info!("reloaded");
            say_routes(broker);
        }
        Err(error) => {
            for line in error.to_string().lines() {
                tracing::error!("not reloaded, all goes on as before: {line}");
            }
        }
    }
}

fn say_routes(broker: &Broker) {
    for line in broker.hub().routes().to_string().lines() {
        tracing::info!("{line}");
    }
}
