//! From `[[worker]]` to workers that can be started.

use super::certificates::certificates;
use crate::config::{Config, ConfigError, ConfigErrors, Culprit, Worker};
use crate::worker::{Target, Unusable};

/// The workers of a configuration, with what their files hold.
///
/// # Errors
/// All that cannot be used.
pub fn targets(config: &Config) -> Result<Vec<Target>, ConfigErrors> {
    let (targets, wrong) = made(config);
    ConfigErrors::none_of(wrong)?;
    Ok(targets)
}

/// What is wrong with workers as they are configured.
pub fn refused(config: &Config) -> Vec<ConfigError> {
    made(config).1
}

fn made(config: &Config) -> (Vec<Target>, Vec<ConfigError>) {
    let (mut targets, mut wrong) = (Vec::new(), Vec::new());
    for (at, worker) in config.workers.iter().enumerate() {
        match target(worker) {
            Ok(target) => targets.push(target),
            Err(Unusable { key, why }) => wrong.push(config.wrong(Culprit::Worker(at, key), why)),
        }
    }
    (targets, wrong)
}

fn target(worker: &Worker) -> Result<Target, Unusable> {
    let authorities = match &worker.ca {
        None => Vec::new(),
        Some(file) => certificates("ca", file).map_err(|(_, why)| Unusable { key: "ca", why })?,
    };
    Target::new(worker, authorities)
}
