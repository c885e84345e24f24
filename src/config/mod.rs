//! The configuration: defaults, overlaid by one TOML file, overlaid by the environment.
//!
//! Keys are kebab-case. An environment variable names a key with `__` between levels and `_` for `-`:
//! `LINKSPAN_DOORS__MQTT__LISTEN`, `LINKSPAN_INSTANCE`, `LINKSPAN_LEDGER`; `LINKSPAN_LOG` is short for `LINKSPAN_LOG__LEVEL`. Nothing is silently ignored:
//! [`Config::load`] reports everything that is wrong at once, one line each, with file, line and key (or the
//! variable), and says what would be right.

mod amount;
mod backends;
mod conflicts;
mod dead_letter;
mod disk;
mod doors;
mod duration;
mod error;
mod instance;
mod key;
mod ledger;
mod limits;
mod lines;
mod listen;
mod log;
mod memory;
mod nearest;
mod places;
mod reload;
mod report;
mod route;
mod route_key;
mod size;
mod source;
mod terms;
mod upstream;
mod users;
mod vhosts;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use figment::value::Value;
use serde::Deserialize;

pub use amount::Amount;
pub use backends::{Backend, SEGMENT_SIZE, Sync};
pub use disk::Disk;
pub use doors::{AmqpDoor, Doors, HttpDoor, MqttDoor};
pub use error::{ConfigError, ConfigErrors, Hint, OtherLine, Place, Problem};
pub use key::KeyPath;
pub use ledger::Ledger;
pub use limits::Limits;
pub use log::{Level, Log};
pub use memory::Memory;
pub use nearest::nearest;
pub use places::Culprit;
pub use upstream::{MqttVersion, Upstream, Url};
pub use vhosts::Vhost;
pub use worker::Worker;

use crate::identity::{Account, Users};
use crate::routes::{Route, RouteConflict, Routes};
use places::Places;
use report::Report;
use source::Sources;

/// A complete configuration without contradictions.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What this Linkspan is called at brokers, where it is given: the same after a restart, and no other one's.
    pub instance: Option<Arc<str>>,
    /// Where the small state lies that has to outlive this process.
    pub ledger: Ledger,
    /// Where clients come in.
    pub doors: Doors,
    /// Who may come in; empty: whoever is on this machine.
    pub users: BTreeMap<Arc<str>, Account>,
    /// What holds the messages, by name.
    pub backends: BTreeMap<Arc<str>, Backend>,
    /// The namespaces, by name.
    pub vhosts: BTreeMap<Arc<str>, Vhost>,
    /// Which pattern an address follows, in the order of the file.
    pub routes: Vec<Arc<Route>>,
    /// Where the messages of queues are pushed to, in the order of the file.
    pub workers: Vec<Worker>,
    /// Marks for memory and slow clients.
    pub limits: Limits,
    /// How much memory may be taken before publishers are held.
    pub memory: Memory,
    /// How much room on disk has to be left, or else publishers are held.
    pub disk: Disk,
    /// How much is said on standard error.
    pub log: Log,
    places: Places,
}

/// The file as written: all there is to know of a key is in its section's type.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct ConfigTable {
    instance: Option<String>,
    ledger: Option<String>,
    doors: Doors,
    users: BTreeMap<String, users::UserTable>,
    backends: BTreeMap<String, backends::BackendTable>,
    vhosts: BTreeMap<String, vhosts::VhostTable>,
    route: Vec<route::RouteTable>,
    worker: Vec<worker::WorkerTable>,
    limits: Limits,
    memory: Memory,
    disk: Disk,
    log: Log,
}

impl Config {
    /// Reads `file`, if there is one, and the `LINKSPAN_…` variables of `environment`, which win.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let Some(path) = file else {
            return Self::parse(None, environment);
        };
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(Some((&name, &text)), environment),
            Err(error) => Err(ConfigErrors::from(ConfigError {
                place: Place::File { file: name.into(), line: None },
                key: KeyPath::default(),
                problem: Problem::Unreadable(error.to_string().into()),
            })),
        }
    }

    /// As [`Config::load`], with the file's name and text.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(
        file: Option<(&str, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let (sources, errors) = Sources::new(file, environment)?;
        let sources = Arc::new(sources);
        let mut report = Report::new(&sources, errors);
        let tables = ConfigTable::read(sources.value().clone(), &mut report);
        let config = tables.check(&sources, &mut report);
        report.finish()?;
        Ok(config)
    }

    /// The routes as tables to look addresses up in.
    ///
    /// # Errors
    /// Two routes at odds, which a loaded configuration never has.
    pub fn routes(&self) -> Result<Routes, RouteConflict> {
        let vhosts = self.vhosts.iter().map(|(name, vhost)| (name.clone(), vhost.backend.clone()));
        Routes::new(vhosts, self.routes.iter().cloned())
    }

    /// The accounts as doors ask for them.
    pub fn accounts(&self) -> Users {
        Users::new(&self.users)
    }
}

impl ConfigTable {
    /// Reads all values. One that does not do is reported and taken out, and the reading starts again: so all are
    /// reported, not only the first.
    fn read(mut values: Value, report: &mut Report<'_>) -> Self {
        loop {
            let error = match Self::deserialize(&values) {
                Ok(tables) => return tables,
                Err(error) => error,
            };
            let key = KeyPath::within(&values, &error.path);
            report.refused(&key, error.kind);
            if !key.take_out_of(&mut values) {
                return Self::default();
            }
        }
    }

    /// Checks what no type can say.
    fn check(self, sources: &Arc<Sources>, report: &mut Report<'_>) -> Config {
        let instance = instance::check(self.instance.as_deref(), report);
        let ledger = ledger::check(self.ledger.as_deref(), report);
        let backends = backends::check(&self.backends, report);
        // Those that could not be built have their own error; what names them has none.
        let backend_names: Vec<&str> = match self.backends.is_empty() {
            true => backends.keys().map(|name| &**name).collect(),
            false => self.backends.keys().map(String::as_str).collect(),
        };
        let vhosts = vhosts::check(&self.vhosts, &backend_names, report);
        let vhost_names = vhosts.keys().map(|name| &**name);
        let users = users::check(&self.users, vhost_names.clone(), report);
        let workers = worker::check(&self.worker, vhost_names.clone(), report);
        self.doors.check(!self.users.is_empty(), vhost_names, report);
        self.limits.check(report);
        self.memory.check(report);
        self.disk.check(report);
        let of_routes = route::Backends { names: backend_names, built: &backends };
        let (route_keys, routes) = route::check(&self.route, &vhosts, &of_routes, report).into_iter().unzip();
        let places = Places { sources: Arc::clone(sources), routes: route_keys };
        Config {
            instance,
            ledger,
            doors: self.doors,
            users,
            backends,
            vhosts,
            routes,
            workers,
            limits: self.limits,
            memory: self.memory,
            disk: self.disk,
            log: self.log,
            places,
        }
    }
}
