//! `[[route]]`: which pattern an address follows, and which back end holds it.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Problem;
use super::backends::Backend;
use super::conflicts;
use super::dead_letter::DeadLetter;
use super::duration;
use super::key::KeyPath;
use super::report::Report;
use super::route_key::RouteKey;
use super::size;
use super::terms::{DeduplicateTable, RetryTable, Written};
use super::vhosts::{self, Vhost};
use crate::routes::{Exclusive, Filter, NegativePuback, Others, Pattern, QueueType, Route};

/// `[[route]]` as written.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct RouteTable {
    /// The addresses, in MQTT topic form, with `+` and `#`.
    r#match: Option<String>,
    /// The pattern's name.
    pattern: Option<String>,
    /// The back end; the home of the vhost when not given.
    backend: Option<String>,
    /// The vhost; `/` when not given.
    vhost: Option<String>,
    /// The queue or queues that the route owns.
    queue: Option<Queues>,
    /// Messages that one MQTT consumer has unsettled at most.
    window: Option<NonZeroU16>,
    /// How long a consumer may take to settle.
    #[serde(deserialize_with = "duration::optional::deserialize")]
    ack_timeout: Option<Duration>,
    /// How often a message is given out.
    max_deliveries: Option<u32>,
    /// How long a message that came back waits.
    retry: Option<RetryTable>,
    /// Which messages are the same.
    deduplicate: Option<DeduplicateTable>,
    /// `property:NAME` or `level:NUMBER`.
    ordering_key: Option<String>,
    /// How long a message is held back that says nothing of that.
    #[serde(deserialize_with = "duration::optional::deserialize")]
    delay: Option<Duration>,
    /// How long a message may wait.
    #[serde(deserialize_with = "duration::optional::deserialize")]
    expiry: Option<Duration>,
    /// Messages that are ready at most.
    max_length: Option<u64>,
    /// `reject`, `drop-head` or `dead-letter`.
    overflow: Option<String>,
    /// How many levels a priority queue has.
    levels: Option<u16>,
    /// `strict` or `weighted`.
    order: Option<String>,
    /// `property:NAME`, `level:NUMBER` or `default:LEVEL`.
    priority_from: Option<String>,
    /// `native` or `queue-per-level`.
    r#as: Option<String>,
    /// `reject` or `standby`: what becomes of those who would consume beside the one who does.
    others: Option<String>,
    /// How long the one who consumes may hold something without a word.
    #[serde(deserialize_with = "duration::optional::deserialize")]
    holder_timeout: Option<Duration>,
    /// The queue whose holder alone may publish.
    fence: Option<String>,
    /// `dead-letter`, `redeliver` or `ignore`.
    negative_puback: Option<String>,
    /// `classic` or `quorum`, on back ends of kind `amqp`.
    queue_type: Option<String>,
    /// The address of what no consumer can work.
    dead_letter: Option<DeadLetter>,
    /// Linkspan starts only while the back end can be reached.
    required: bool,
    /// A reload may move queues that are not empty.
    drain: Option<bool>,
    /// Bytes of messages that are kept here while the back end is away, on back ends of kind `amqp` and `mqtt`.
    #[serde(deserialize_with = "size::optional::deserialize")]
    spool: Option<u64>,
}

/// The back ends that routes may name: all names, and those that could be built.
pub(super) struct Backends<'a> {
    /// All, also those with errors of their own.
    pub names: Vec<&'a str>,
    /// Those without.
    pub built: &'a BTreeMap<Arc<str>, Backend>,
}

impl Backends<'_> {
    fn kind_of(&self, name: Option<&str>) -> Option<&'static str> {
        self.built.get(name?).map(Backend::kind)
    }
}

/// `"jobs"` or `["inventory", "payment"]`.
enum Queues {
    One(String),
    Several(Vec<String>),
}

/// Patterns of later versions.
const LATER_PATTERNS: [&str; 1] = ["request-reply"];

/// Queue names that the back ends use themselves.
const RESERVED: [&str; 2] = ["amq.", "linkspan."];

/// A queue's name is a short string (AMQP 0-9-1 §1.7.2.1).
const MAX_QUEUE_NAME: usize = 255;

/// The routes, each correct and no two at odds, with where they stand: behind each the one of its dead letters, if it
/// names a queue for them.
pub(super) fn check(
    tables: &[RouteTable],
    vhosts: &BTreeMap<Arc<str>, Vhost>,
    backends: &Backends<'_>,
    report: &mut Report<'_>,
) -> Vec<(RouteKey, Arc<Route>)> {
    let mut routes: Vec<(RouteKey, Arc<Route>)> = Vec::with_capacity(tables.len());
    for (at, table) in tables.iter().enumerate() {
        let key = KeyPath::of(["route"]).index(at);
        let Some(route) = table.check(&key, vhosts, backends, report) else { continue };
        let kept = table.dead_letter.as_ref();
        let of_dead_letters = kept.and_then(|it| it.route(&key, &route, report));
        routes.push((RouteKey::Own(key), Arc::new(route)));
        routes.extend(of_dead_letters.map(|(key, route)| (RouteKey::DeadLetter(key), Arc::new(route))));
    }
    conflicts::report(&routes, report);
    routes
}

impl RouteTable {
    fn check(
        &self,
        key: &KeyPath,
        vhosts: &BTreeMap<Arc<str>, Vhost>,
        backends: &Backends<'_>,
        report: &mut Report<'_>,
    ) -> Option<Route> {
        let filter = self.check_match(key, report);
        let pattern = self.check_pattern(key, report);
        let queues = self.check_queues(key, pattern, report);
        if self.window.is_some() && pattern == Some(Pattern::PublishSubscribe) {
            report.bad_value(&key.key("window"), "a publish-subscribe route has no window; it has no queue");
        }
        let vhost = self.vhost.as_deref().unwrap_or(vhosts::DEFAULT_NAME);
        let home = match vhosts.get(vhost) {
            Some(vhost) => Some(vhost.backend.clone()),
            None => {
                report.unknown(&key.key("vhost"), "vhost", vhost, vhosts.keys().map(|name| &**name));
                None
            }
        };
        let backend: Option<Arc<str>> = match self.backend.as_deref() {
            Some(backend) if !backends.names.contains(&backend) => {
                report.unknown(&key.key("backend"), "back end", backend, backends.names.iter().copied());
                None
            }
            Some(backend) => Some(backend.into()),
            None => home,
        };
        let kind = backends.kind_of(backend.as_deref());
        let queue_type = self.check_queue_type(key, pattern, kind, report);
        let spool = self.check_spool(key, kind, report);
        let dead_letter = self.dead_letter.as_ref();
        let dead_letter = dead_letter.and_then(|it| it.check(key, pattern, report));
        let terms = Arc::new(self.written().check(key, pattern, report));
        let exclusive = self.check_exclusive(key, pattern, report);
        let negative_puback = self.check_negative_puback(key, pattern, report);
        if self.drain.is_some() && pattern == Some(Pattern::PublishSubscribe) {
            report
                .bad_value(&key.key("drain"), "a publish-subscribe route has no queue that could be drained");
        }
        Some(Route {
            vhost: vhost.into(),
            filter: filter?,
            pattern: pattern?,
            backend: backend?,
            queues,
            window: self.window.unwrap_or_else(|| pattern.map_or(Route::WINDOW, Route::usual_window)),
            terms,
            exclusive,
            fence: self.fence.as_deref().map(Arc::from),
            negative_puback,
            queue_type,
            dead_letter,
            required: self.required,
            drain: self.drain.unwrap_or(false),
            spool,
        })
    }

    fn written(&self) -> Written<'_> {
        Written {
            ack_timeout: self.ack_timeout,
            max_deliveries: self.max_deliveries,
            retry: self.retry.as_ref(),
            deduplicate: self.deduplicate.as_ref(),
            ordering_key: self.ordering_key.as_deref(),
            delay: self.delay,
            expiry: self.expiry,
            max_length: self.max_length,
            overflow: self.overflow.as_deref(),
            levels: self.levels,
            order: self.order.as_deref(),
            priority_from: self.priority_from.as_deref(),
            r#as: self.r#as.as_deref(),
        }
    }

    fn check_exclusive(
        &self,
        key: &KeyPath,
        pattern: Option<Pattern>,
        report: &mut Report<'_>,
    ) -> Option<Exclusive> {
        if pattern? != Pattern::ExclusiveConsumer {
            let all = [("others", self.others.is_some()), ("holder-timeout", self.holder_timeout.is_some())];
            for (name, _) in all.into_iter().filter(|(_, is_written)| *is_written) {
                report
                    .bad_value(&key.key(name), "only a route of pattern `exclusive-consumer` has one holder");
            }
            return None;
        }
        if self
            .queue
            .as_ref()
            .is_some_and(|queues| matches!(queues, Queues::Several(names) if names.len() > 1))
        {
            report.bad_value(&key.key("queue"), "an exclusive consumer has one queue");
        }
        let others = match self.others.as_deref() {
            None | Some("reject") => Others::Reject,
            Some("standby") => Others::StandBy,
            Some(name) => {
                report.unknown(&key.key("others"), "way with others", name, ["reject", "standby"]);
                Others::Reject
            }
        };
        if self.holder_timeout.is_some_and(|time| time.is_zero()) {
            report.bad_value(
                &key.key("holder-timeout"),
                "takes no time at all; expected a duration such as \"30s\"",
            );
        }
        Some(Exclusive { others, holder_timeout: self.holder_timeout })
    }

    fn check_negative_puback(
        &self,
        key: &KeyPath,
        pattern: Option<Pattern>,
        report: &mut Report<'_>,
    ) -> NegativePuback {
        let key = key.key("negative-puback");
        let Some(name) = self.negative_puback.as_deref() else { return NegativePuback::default() };
        if pattern == Some(Pattern::PublishSubscribe) {
            report.bad_value(&key, "a publish-subscribe route has no queue that a message could go back to");
        }
        let found = NegativePuback::ALL.into_iter().find(|it| it.name() == name);
        if found.is_none() {
            report.unknown(
                &key,
                "answer to a negative PUBACK",
                name,
                NegativePuback::ALL.map(NegativePuback::name),
            );
        }
        found.unwrap_or_default()
    }

    fn check_spool(&self, key: &KeyPath, kind: Option<&str>, report: &mut Report<'_>) -> Option<NonZeroU64> {
        let key = key.key("spool");
        let bytes = self.spool?;
        if kind == Some("embedded") {
            report.bad_value(
                &key,
                "a back end of kind `embedded` is never away; a spool is for one of kind `amqp` or `mqtt`",
            );
        } else if bytes == 0 {
            report.bad_value(&key, "holds nothing; expected a size such as \"1 GiB\", or no spool at all");
        }
        NonZeroU64::new(bytes)
    }

    fn check_queue_type(
        &self,
        key: &KeyPath,
        pattern: Option<Pattern>,
        kind: Option<&str>,
        report: &mut Report<'_>,
    ) -> Option<QueueType> {
        let key = key.key("queue-type");
        let name = self.queue_type.as_deref()?;
        if pattern == Some(Pattern::PublishSubscribe) {
            report.bad_value(&key, "a publish-subscribe route has no queue");
        } else if let Some(kind) = kind.filter(|kind| *kind != "amqp") {
            let text =
                format!("only a back end of kind `amqp` has queue types; this route's is of kind `{kind}`");
            report.bad_value(&key, text);
        }
        let types = [QueueType::Classic, QueueType::Quorum];
        let found = types.into_iter().find(|queue_type| queue_type.name() == name);
        if found.is_none() {
            report.unknown(&key, "queue type", name, types.map(QueueType::name));
        }
        found
    }

    fn check_match(&self, key: &KeyPath, report: &mut Report<'_>) -> Option<Filter> {
        let key = key.key("match");
        let Some(text) = self.r#match.as_deref() else {
            report.missing(
                &key,
                "the addresses of the route, such as \"orders/placed\" or \"sensors/+/temperature\"",
            );
            return None;
        };
        Filter::parse(text).map_err(|error| report.bad_value(&key, error.to_string())).ok()
    }

    fn check_pattern(&self, key: &KeyPath, report: &mut Report<'_>) -> Option<Pattern> {
        let key = key.key("pattern");
        let names = || Pattern::ALL.iter().map(|pattern| pattern.name());
        let Some(name) = self.pattern.as_deref() else {
            report.missing(&key, names().collect::<Vec<_>>().join(" or "));
            return None;
        };
        let pattern = Pattern::ALL.into_iter().find(|pattern| pattern.name() == name);
        if pattern.is_none() && LATER_PATTERNS.contains(&name) {
            let available = names().collect::<Vec<_>>().join(", ").into();
            report.wrong(&key, Problem::PatternUnavailable { pattern: name.into(), available });
        } else if pattern.is_none() {
            report.unknown(&key, "pattern", name, names());
        }
        pattern
    }

    fn check_queues(
        &self,
        key: &KeyPath,
        pattern: Option<Pattern>,
        report: &mut Report<'_>,
    ) -> Vec<Arc<str>> {
        let list_key = key.key("queue");
        let names: &[String] = match &self.queue {
            Some(Queues::One(name)) => std::slice::from_ref(name),
            Some(Queues::Several(names)) => names,
            None => &[],
        };
        match pattern {
            Some(Pattern::PublishSubscribe) if self.queue.is_some() => {
                report.bad_value(
                    &list_key,
                    "a publish-subscribe route has no queue; did you mean pattern `competing-consumers`?",
                );
            }
            Some(pattern) if pattern.is_work() && names.is_empty() => {
                report.missing(
                    &list_key,
                    format!("pattern `{pattern}` needs the name of a queue, or several in a list"),
                );
            }
            _ => {}
        }
        let mut queues: Vec<Arc<str>> = Vec::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            let key = match &self.queue {
                Some(Queues::Several(_)) => list_key.index(at),
                _ => list_key.clone(),
            };
            if let Err(text) = check_queue_name(name) {
                report.bad_value(&key, text);
            } else if queues.iter().any(|earlier| **earlier == **name) {
                report.bad_value(&key, format!("`{name}` is named twice"));
            } else {
                queues.push(name.as_str().into());
            }
        }
        queues
    }
}

/// A queue is `$queue/NAME` for MQTT clients, and a name of AMQP.
pub(super) fn check_queue_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_QUEUE_NAME {
        return Err("a queue's name has 1 to 255 bytes".to_owned());
    }
    if let Some(prefix) = RESERVED.iter().find(|prefix| name.starts_with(**prefix)) {
        return Err(format!("`{name}` begins with `{prefix}`, which is reserved"));
    }
    match name.chars().find(|c| matches!(c, '+' | '#') || c.is_control()) {
        Some(c) => Err(format!("{name:?} contains {c:?}, which no MQTT client could subscribe to")),
        None => Ok(()),
    }
}

impl<'de> Deserialize<'de> for Queues {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Queues;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a queue, or a list of names")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Queues, E> {
                Ok(Queues::One(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Queues, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(Queues::Several(names))
            }
        }
        from.deserialize_any(Names)
    }
}
