//! From `[backends.*]` to back ends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use linkspan_amqp::{AmqpBackend, AmqpOptions, OpenError};
use linkspan_contract::{Backend, Clock, Ledger, SystemClock};
use linkspan_embedded::{Budget, Embedded, EmbeddedOptions, OnDisk, QueueName, SyncMode};
use linkspan_mqtt::{MqttBackend, MqttOptions, OptionsError, TlsOptions, VersionChoice};

use super::certificates;
use crate::alarms::{self, Directory};
use crate::config::{self, Config, ConfigError, ConfigErrors, Culprit, Limits, MqttVersion, Upstream};
use crate::doors;
use crate::hub::OwnLane;

/// How much longer than any session its queue at a broker is kept there: Linkspan ends sessions itself, where it can.
const BEYOND: Duration = Duration::from_secs(24 * 60 * 60);

/// From here on a session that is kept so long does not expire.
const FOREVER: Duration = Duration::from_secs(linkspan_contract::session::FOREVER as u64);

/// What is wrong with back ends as they are configured, whether or not their brokers are there.
pub fn refused(config: &Config) -> Vec<ConfigError> {
    let mut wrong = Vec::new();
    for (name, backend) in &config.backends {
        let (upstream, usable) = match backend {
            config::Backend::Embedded { .. } => continue,
            config::Backend::Amqp(upstream) => (upstream, from_url(upstream).map(|_| ())),
            config::Backend::Mqtt { upstream, version } => {
                let usable = linkspan_mqtt::verify(&mqtt(upstream, *version, config, "check"));
                (upstream, usable.or_else(of_mqtt))
            }
        };
        let found = [usable, certificates::check(upstream)].into_iter().filter_map(Result::err);
        wrong.extend(found.map(|(key, text)| config.wrong(Culprit::Backend(name, key), text)));
    }
    wrong
}

/// What is wrong with a back end: its key, if it is one, and what would be right.
type Wrong = (Option<&'static str>, String);

fn of_mqtt(error: OptionsError) -> Result<(), Wrong> {
    match error {
        OptionsError::Url { why, .. } => Err((Some("url"), why)),
        OptionsError::Tls { file, why } if file == "ca" => Err((Some("ca"), why)),
        // Files are looked at key by key.
        OptionsError::Tls { .. } => Ok(()),
        other => Err((None, other.to_string())),
    }
}

/// Where back ends write.
pub fn directories(config: &Config) -> Vec<Directory> {
    let writes = |(name, backend): (&Arc<str>, &config::Backend)| match backend {
        config::Backend::Embedded { path, .. } => {
            Some(Directory { backend: Arc::clone(name), path: path.clone() })
        }
        config::Backend::Amqp(_) | config::Backend::Mqtt { .. } => {
            Some(Directory { backend: Arc::clone(name), path: backend.directory().to_owned() })
        }
    };
    config.backends.iter().filter_map(writes).collect()
}

/// What queues of an embedded back end's log are called, as far as its directory, or that of the log in it, tells.
pub fn queue_names(directory: &Path) -> Box<dyn Fn(u64) -> Option<String>> {
    let of = |directory: &Path| linkspan_embedded::queue_names(directory).unwrap_or_default();
    let mut known = of(directory);
    if let Some(parent) = directory.parent().filter(|_| known.is_empty()) {
        known = of(parent);
    }
    Box::new(move |number| {
        if number == linkspan_embedded::RETAINED {
            return Some("retained messages".into());
        }
        let (queue, priority) = linkspan_embedded::of_log(number);
        let QueueName { vhost, name } = known.get(&queue)?;
        let name = if **vhost == *"/" { name.to_string() } else { format!("{name} in vhost {vhost}") };
        Some(match priority {
            _ if linkspan_embedded::is_seen(number) => format!("{name}, what it knows as published"),
            0 => name,
            _ => format!("{name}, priority {priority}"),
        })
    })
}

/// Bytes that queues may have in memory.
pub fn memory_of_queues(config: &Config) -> u64 {
    match alarms::allowed() {
        Ok(allowed) => config.memory.of_queues(allowed),
        Err(error) => {
            tracing::warn!(%error, "what memory there is cannot be read: queues may have 16 MiB each");
            u64::MAX
        }
    }
}

/// Deletes a queue in the directory of an embedded back end that no server has, with all that is in it; says how many
/// messages waited.
///
/// # Errors
/// What is in the way, for people.
pub fn delete_queue(directory: &Path, vhost: &str, queue: &str) -> Result<u64, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let on_disk = OnDisk {
            directory: directory.to_owned(),
            sync: SyncMode::Group,
            segment_size: config::SEGMENT_SIZE,
            forms: doors::forms(),
            budget: Arc::default(),
        };
        let clock = Arc::new(SystemClock);
        let backend = Embedded::durable("store", EmbeddedOptions::default(), clock, &on_disk)
            .map_err(|error| error.to_string())?;
        let deleted = match OwnLane::open(&*backend, &vhost.into()).await {
            Ok(_) if backend.depth(vhost, queue).is_none() => {
                Err(format!("there is no such queue in vhost `{vhost}`"))
            }
            Ok(mut own) => own.lane.delete_queue(queue, false, false).await.map_err(|why| why.to_string()),
            Err(why) => Err(why.to_string()),
        };
        backend.close().await;
        deleted
    })
}

/// Opens every back end. None is waited for. `owner` is whose the queues of sessions are at brokers, `ledger` says what this
/// instance alone may do; `budget` is for the queues of all.
///
/// # Errors
/// Which cannot be opened as it is configured.
pub fn open(
    config: &Config,
    instance: &str,
    owner: &str,
    clock: &Arc<dyn Clock>,
    ledger: &Arc<dyn Ledger>,
    budget: &Arc<Budget>,
) -> Result<HashMap<Arc<str>, Arc<dyn Backend>>, ConfigErrors> {
    let mut opened = HashMap::new();
    for (name, backend) in &config.backends {
        let wrong = |key: Option<&str>, text: String| config.wrong(Culprit::Backend(name, key), text);
        let backend: Arc<dyn Backend> = match backend {
            config::Backend::Embedded { path, sync, segment_size } => {
                if *sync == config::Sync::Never {
                    tracing::warn!(
                        backend = %name,
                        "sync = \"never\": what is acknowledged is lost when the machine goes off before the system has written it"
                    );
                }
                let on_disk = OnDisk {
                    directory: path.clone(),
                    sync: match sync {
                        config::Sync::Group => SyncMode::Group,
                        config::Sync::Always => SyncMode::Always,
                        config::Sync::Never => SyncMode::Never,
                    },
                    segment_size: *segment_size,
                    forms: doors::forms(),
                    budget: Arc::clone(budget),
                };
                Embedded::durable(name, embedded(&config.limits), Arc::clone(clock), &on_disk)
                    .map_err(|error| wrong(Some("path"), error.to_string()))?
            }
            config::Backend::Amqp(upstream) => {
                let mut options = amqp(upstream).map_err(|(key, text)| wrong(key, text))?;
                owner.clone_into(&mut options.owner);
                options.session_expires =
                    config.doors.mqtt.max_session_expiry.checked_add(BEYOND).filter(|it| *it < FOREVER);
                options.on_disk = Some(OnDisk {
                    directory: upstream.path.join("retained"),
                    sync: SyncMode::Group,
                    segment_size: upstream.segment_size,
                    forms: doors::forms(),
                    budget: Arc::clone(budget),
                });
                AmqpBackend::open(name, options, Arc::clone(clock), Arc::clone(ledger)).map_err(|error| {
                    wrong(matches!(error, OpenError::Disk(_)).then_some("path"), error.to_string())
                })?
            }
            config::Backend::Mqtt { upstream, version } => {
                let mut options = mqtt(upstream, *version, config, instance);
                options.on_disk = Some(OnDisk {
                    directory: upstream.path.join("queues"),
                    sync: SyncMode::Group,
                    segment_size: upstream.segment_size,
                    forms: doors::forms(),
                    budget: Arc::clone(budget),
                });
                let leases = Arc::clone(ledger);
                MqttBackend::open(name, options, Arc::clone(clock), leases).map_err(|error| {
                    let key = matches!(error, OptionsError::Disk { .. }).then_some("path");
                    wrong(key, error.to_string())
                })?
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
                Err((_, why)) => Err(why),
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

/// What this instance is called at brokers: as the configuration says, or after the machine and its first door.
pub fn instance(config: &Config, door: Option<SocketAddr>) -> String {
    if let Some(name) = &config.instance {
        return name.to_string();
    }
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
        large_body: limits.large_body,
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

fn amqp(upstream: &Upstream) -> Result<AmqpOptions, Wrong> {
    let mut options = from_url(upstream)?;
    options.connections = upstream.connections.get().into();
    options.connect_timeout = upstream.connect_timeout;
    if let Some(tls) = &mut options.tls {
        if let Some(ca) = &upstream.ca {
            let pem = certificates::read("ca", ca)?;
            tls.authorities = Some(String::from_utf8_lossy(&pem).into_owned());
        }
        if let Some((certificate, key)) = &upstream.identity {
            let chain = certificates::read("certificate", certificate)?;
            tls.identity = Some((chain, certificates::read("key", key)?));
        }
    }
    Ok(options)
}

fn from_url(upstream: &Upstream) -> Result<AmqpOptions, Wrong> {
    AmqpOptions::from_url(upstream.url.expose()).map_err(|error| (Some("url"), error.to_string()))
}
