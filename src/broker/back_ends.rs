//! From `[backends.*]` to back ends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use linkspan_amqp::{AmqpBackend, AmqpOptions};
use linkspan_contract::lease::SoleInstance;
use linkspan_contract::{Backend, Clock};
use linkspan_embedded::{Embedded, EmbeddedOptions};
use linkspan_mqtt::{MqttBackend, MqttOptions, TlsOptions, VersionChoice};

use super::StartError;
use crate::config::{self, Config, Limits, MqttVersion, Upstream};

/// Opens every back end. None is waited for.
///
/// # Errors
/// Which cannot be opened as it is configured.
pub fn open(
    config: &Config,
    instance: &str,
    clock: &Arc<dyn Clock>,
) -> Result<HashMap<Arc<str>, Arc<dyn Backend>>, StartError> {
    let mut opened = HashMap::new();
    for (name, backend) in &config.backends {
        let wrong = |why: String| StartError::Backend { name: Arc::clone(name), why };
        let backend: Arc<dyn Backend> = match backend {
            config::Backend::Embedded { .. } => {
                Embedded::open(name, embedded(&config.limits), Arc::clone(clock))
            }
            config::Backend::Amqp(upstream) => {
                let options = amqp(upstream).map_err(wrong)?;
                AmqpBackend::open(name, options, Arc::clone(clock))
                    .map_err(|error| wrong(error.to_string()))?
            }
            config::Backend::Mqtt { upstream, version } => {
                let options = mqtt(upstream, *version, config, instance);
                let leases = Arc::new(SoleInstance::default());
                MqttBackend::open(name, options, Arc::clone(clock), leases)
                    .map_err(|error| wrong(error.to_string()))?
            }
        };
        opened.insert(Arc::clone(name), backend);
    }
    Ok(opened)
}

/// Connects once to each back end that is a broker: what it said, or why it cannot be used.
pub async fn probe(config: &Config) -> Vec<(Arc<str>, Result<String, String>)> {
    let mut found = Vec::new();
    for (name, backend) in &config.backends {
        let said = match backend {
            config::Backend::Embedded { .. } => Ok("inside Linkspan".to_owned()),
            config::Backend::Amqp(upstream) => match amqp(upstream) {
                Ok(options) => {
                    let probe = linkspan_amqp::probe(&options).await;
                    probe.map(|it| it.to_string()).map_err(|why| why.to_string())
                }
                Err(why) => Err(why),
            },
            config::Backend::Mqtt { upstream, version } => {
                let probe = linkspan_mqtt::probe(&mqtt(upstream, *version, config, "check")).await;
                probe.map(|it| it.to_string()).map_err(|why| why.to_string())
            }
        };
        found.push((Arc::clone(name), said));
    }
    found
}

/// What this instance is called at brokers: the same after a restart, and no other one's.
pub fn instance(door: Option<SocketAddr>) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let door = door.map_or_else(String::new, |door| format!("-{}-{}", door.ip(), door.port()));
    format!("{}{door}", host.trim()).replace([':', '.', '/', '+', '#'], "-")
}

fn embedded(limits: &Limits) -> EmbeddedOptions {
    EmbeddedOptions {
        queue_high: limits.queue_high,
        queue_limit: limits.queue_limit,
        session_high: limits.session_high,
        session_limit: limits.session_limit,
        slow_after: u64::try_from(limits.slow_after.as_millis()).unwrap_or(u64::MAX),
        ..EmbeddedOptions::default()
    }
}

fn mqtt(upstream: &Upstream, version: MqttVersion, config: &Config, instance: &str) -> MqttOptions {
    let mut options = MqttOptions::new(upstream.url.expose(), instance);
    options.version = match version {
        MqttVersion::Auto => VersionChoice::Newest,
        MqttVersion::V311 => VersionChoice::V311,
        MqttVersion::V5 => VersionChoice::V5,
    };
    options.publishers = upstream.connections.get().into();
    options.connect_timeout = upstream.connect_timeout;
    options.tls = TlsOptions { ca: upstream.ca.clone(), client: upstream.identity.clone() };
    options.queues = embedded(&config.limits);
    options.max_packet_size = u32::try_from(config.doors.mqtt.max_packet_size).unwrap_or(u32::MAX);
    options
}

fn amqp(upstream: &Upstream) -> Result<AmqpOptions, String> {
    let mut options =
        AmqpOptions::from_url(upstream.url.expose()).map_err(|error| format!("url: {error}"))?;
    options.connections = upstream.connections.get().into();
    options.connect_timeout = upstream.connect_timeout;
    if let Some(tls) = &mut options.tls {
        if let Some(ca) = &upstream.ca {
            tls.authorities = Some(String::from_utf8_lossy(&read(ca)?).into_owned());
        }
        if let Some((certificate, key)) = &upstream.identity {
            tls.identity = Some((read(certificate)?, read(key)?));
        }
    }
    Ok(options)
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}
