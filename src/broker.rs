//! Assembly: from a configuration to back ends, hub and doors; reload; shutdown. The only place that names a concrete
//! back end.

mod abilities;
mod back_ends;
mod certificates;
mod spools;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::{Backend, Clock, SystemClock};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::config::{Config, ConfigErrors, Culprit, Place};
use crate::doors::amqp::{AmqpDoor, AmqpLimits};
use crate::doors::http::{HttpDoor, HttpOptions};
use crate::doors::listener::Listener;
use crate::doors::mqtt::{Limits as MqttLimits, MqttDoor};
use crate::doors::outbound::Marks;
use crate::doors::{self, Door, Stop, Stopper};
use crate::hub::{Hub, RoutesError};
use crate::identity::Users;

/// How long connections may take to say farewell when the server goes down.
const FAREWELL: Duration = Duration::from_secs(10);

/// How often figures that a scrape would have to sum up are summed up.
const UPKEEP: Duration = Duration::from_secs(5);

/// How often queues are tried to be made whose back end was away.
const MEND: Duration = Duration::from_millis(500);

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
    open: Vec<(&'static str, SocketAddr)>,
    stopper: Stopper,
    serving: JoinSet<()>,
}

impl Broker {
    /// Starts everything that `config` names; the doors are open when it returns. `figures` renders `/metrics`.
    ///
    /// # Errors
    /// When an address is taken or a back end refuses a route.
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
        let backends = back_ends::open(config, &instance, &clock)?;
        let retained = config.limits.retained.get() as usize;
        let spools = Arc::new(spools::Stores::of(config, Arc::clone(&clock)));
        let hub = Hub::open(backends, config.routes()?, retained, clock, spools).await;
        let hub = hub.map_err(|error| wrong(config, &error))?;
        let users = Arc::new(config.accounts());
        let (stopper, stop) = Stop::new();
        let mut serving = JoinSet::new();
        let marks = Marks {
            high: usize::try_from(config.limits.outbound_high).unwrap_or(usize::MAX),
            low: usize::try_from(config.limits.outbound_low).unwrap_or(usize::MAX),
            slow_after: config.limits.slow_after,
        };
        let mut doors = Doors { listeners, serving: &mut serving, stop: &stop };
        let mqtt = &config.doors.mqtt;
        if let Some(retained) = hub.retained(&mqtt.vhost) {
            doors.open("mqtt", mqtt.max_connections.get(), || {
                let vhost = mqtt.vhost.as_str().into();
                MqttDoor::new(
                    Arc::clone(&hub) as _,
                    retained,
                    Arc::clone(&users),
                    vhost,
                    mqtt_limits(config, marks),
                )
            });
        }
        let amqp = &config.doors.amqp;
        doors.open("amqp", amqp.max_connections.get(), || {
            AmqpDoor::new(Arc::clone(&hub) as _, Arc::clone(&users), amqp_limits(config, marks))
        });
        let http = &config.doors.http;
        doors.open("http", http.max_connections.get(), || {
            let options = HttpOptions {
                vhost: http.vhost.as_str().into(),
                max_body: usize::try_from(http.max_body_size).unwrap_or(usize::MAX),
                header_timeout: http.head_timeout,
            };
            HttpDoor::new(Arc::clone(&hub), Arc::clone(&users), options, figures.clone(), stop.clone())
        });
        let config = Arc::new(Mutex::new(config.clone()));
        serving.spawn(mend(Arc::clone(&hub), Arc::clone(&config), stop.clone()));
        Ok(Self { hub, users, config, open, stopper, serving })
    }

    /// The open doors and where they listen.
    pub fn doors(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        self.open.iter().copied()
    }

    /// The hub, to see routes and back ends.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Puts the routes and users of `new` in force without dropping a connection.
    ///
    /// # Errors
    /// When more than these changed or the routes cannot be put in force; then nothing is.
    pub async fn reload(&self, new: Config) -> Result<(), ReloadError> {
        let mut config = self.config.lock().await;
        config.may_become(&new)?;
        ConfigErrors::none_of(abilities::refused(&new))?;
        self.hub.reroute(new.routes()?).await.map_err(|error| wrong(&new, &error))?;
        self.users.replace(&new.users);
        *config = new;
        Ok(())
    }

    /// Closes the doors, lets every connection say farewell, and makes safe what was taken.
    pub async fn stop(mut self) {
        self.stopper.stop();
        let ended = async { while self.serving.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, ended).await.is_err() {
            tracing::warn!("some connections did not end in {FAREWELL:?}; they are dropped");
        }
        self.hub.close().await;
    }
}

/// The doors while they are being opened.
struct Doors<'a> {
    listeners: HashMap<&'static str, Listener>,
    serving: &'a mut JoinSet<()>,
    stop: &'a Stop,
}

impl Doors<'_> {
    fn open<D: Door>(&mut self, name: &str, max_connections: u32, door: impl FnOnce() -> D) {
        if let Some(listener) = self.listeners.remove(name) {
            let max_connections = usize::try_from(max_connections).unwrap_or(usize::MAX);
            self.serving.spawn(doors::serve(listener, Arc::new(door()), max_connections, self.stop.clone()));
        }
    }
}

fn mqtt_limits(config: &Config, marks: Marks) -> MqttLimits {
    let door = &config.doors.mqtt;
    MqttLimits {
        packet: u32::try_from(door.max_packet_size).unwrap_or(u32::MAX),
        receive_maximum: door.receive_maximum,
        topic_aliases: door.topic_alias_maximum,
        keep_alive: u16::try_from(door.max_keep_alive.as_secs()).unwrap_or(u16::MAX),
        connect_timeout: door.connect_timeout,
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

/// Connects to each back end once. What is there, for people, and beside it
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

/// Makes queues that could not be made, as soon as their back ends are back.
async fn mend(hub: Arc<Hub>, config: Arc<Mutex<Config>>, stop: Stop) {
    let mut again = tokio::time::interval(MEND);
    let mending = async {
        loop {
            again.tick().await;
            for error in hub.mend().await {
                let error = wrong(&*config.lock().await, &error);
                tracing::error!("a route does not work, and is tried again: {error}");
            }
        }
    };
    tokio::select! {
        () = mending => {}
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
