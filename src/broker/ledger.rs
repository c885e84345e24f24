//! From the key `ledger` to a ledger.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use linkspan_contract::{Clock, Ledger};

use crate::config::{self, Config, ConfigError, ConfigErrors, Culprit};
use crate::hub::Memory;
use crate::ledger::{EmbeddedLedger, Found, PostgresLedger, Watched};

/// What the owner of a ledger is called that nobody shares: whatever name the instance has today, it is its own.
const OWN: &str = "own";

/// What is wrong with the ledger as it is configured, whether or not its server is there.
pub fn refused(config: &Config) -> Option<ConfigError> {
    let config::Ledger::Postgres(url) = &config.ledger else { return None };
    let unfit = PostgresLedger::verify(url.expose()).err()?;
    Some(config.wrong(Culprit::Ledger, unfit.to_string()))
}

/// Opens the ledger for this instance. A server is not waited for.
///
/// # Errors
/// Why a file cannot be it.
pub fn open(config: &Config, instance: &str, clock: &Arc<dyn Clock>) -> Result<Arc<Watched>, ConfigErrors> {
    let ledger: Arc<dyn Ledger> = match &config.ledger {
        config::Ledger::File(file) => {
            let opened = EmbeddedLedger::open(file, instance, Arc::clone(clock));
            Arc::new(opened.map_err(|error| wrong(config, error.to_string()))?)
        }
        config::Ledger::Postgres(url) => {
            let opened = PostgresLedger::open(url.expose(), instance);
            Arc::new(opened.map_err(|error| wrong(config, error.to_string()))?)
        }
    };
    Ok(Arc::new(Watched::new(ledger, config.ledger.to_string())))
}

/// What the hub remembers there.
pub fn memory(config: &Config, instance: &str, ledger: &Arc<Watched>) -> Memory {
    Memory::new(Arc::clone(ledger), owner(config, instance))
}

/// Under which name it is written down whose something is.
pub fn owner<'a>(config: &Config, instance: &'a str) -> &'a str {
    match config.ledger {
        config::Ledger::File(_) => OWN,
        config::Ledger::Postgres(_) => instance,
    }
}

/// The same for brokers, which Linkspans that know nothing of each other may share: a file that nobody shares has a name of its
/// own, which is written beside it.
///
/// # Errors
/// When that cannot be read or written.
pub fn owner_at_brokers(config: &Config, instance: &str) -> Result<String, ConfigErrors> {
    match &config.ledger {
        config::Ledger::File(file) => {
            let file = file.with_extension("name");
            name_in(&file).map_err(|error| wrong(config, format!("{}: {error}", file.display())))
        }
        config::Ledger::Postgres(_) => Ok(instance.to_owned()),
    }
}

/// The name in that file, which is made when there is none.
fn name_in(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let name = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
    let fresh = file.with_extension("name-new");
    let mut made = fs::File::create(&fresh)?;
    made.write_all(name.as_bytes())?;
    made.sync_all()?;
    fs::rename(&fresh, file)?;
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(name)
}

/// Looks once, and makes nothing: what is there, for people, or why it cannot be used.
pub async fn probe(config: &Config) -> Result<String, ConfigErrors> {
    let found = match &config.ledger {
        config::Ledger::File(file) => of_file(file),
        config::Ledger::Postgres(url) => {
            PostgresLedger::probe(url.expose()).await.map_err(|error| error.to_string())
        }
    };
    found.map_err(|why| wrong(config, why))
}

fn of_file(file: &Path) -> Result<String, String> {
    let found = EmbeddedLedger::probe(file).map_err(|error| error.to_string())?;
    let file = file.display();
    Ok(match found {
        Found::Nothing => format!("{file} is made at the start"),
        Found::Free => format!("{file}, which nobody has open"),
        Found::InUse(Some(id)) => {
            format!("{file}, in use by process {id}: one Linkspan at a time can have it")
        }
        Found::InUse(None) => {
            format!("{file}, in use by another process: one Linkspan at a time can have it")
        }
    })
}

fn wrong(config: &Config, why: String) -> ConfigErrors {
    config.wrong(Culprit::Ledger, why).into()
}
