//! What a `[[route]]` says of how its queues treat their messages.

use std::num::{NonZeroU8, NonZeroU32, NonZeroU64};
use std::time::Duration;

use linkspan_contract::{Attribute, Deduplicate, LONGEST_DELAY, Millis, Overflow, Priorities, Retry, Terms};
use serde::Deserialize;

use super::duration;
use super::key::KeyPath;
use super::report::Report;
use crate::routes::Pattern;

/// The keys as written. [`RouteTable`](super::route::RouteTable) has them among its own: they stand beside the others.
#[derive(Default)]
pub(super) struct Written<'a> {
    pub ack_timeout: Option<Duration>,
    pub max_deliveries: Option<u32>,
    pub retry: Option<&'a RetryTable>,
    pub deduplicate: Option<&'a DeduplicateTable>,
    pub ordering_key: Option<&'a str>,
    pub delay: Option<Duration>,
    pub expiry: Option<Duration>,
    pub max_length: Option<u64>,
    pub overflow: Option<&'a str>,
    pub levels: Option<u16>,
    pub order: Option<&'a str>,
    pub priority_from: Option<&'a str>,
    pub r#as: Option<&'a str>,
}

/// `retry = { delay = "1s", factor = 2, max = "1m" }`.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RetryTable {
    #[serde(with = "duration")]
    delay: Duration,
    #[serde(default = "doubled")]
    factor: f64,
    #[serde(default, deserialize_with = "duration::optional::deserialize")]
    max: Option<Duration>,
}

/// `deduplicate = { by = "message-id", window = "10m" }`.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct DeduplicateTable {
    by: String,
    #[serde(with = "duration")]
    window: Duration,
}

/// Each time twice as long as before.
const fn doubled() -> f64 {
    2.0
}

/// The longest wait before a message is given out again, when no other is said.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What grows faster than this is beyond every bound at once.
const STEEPEST: f64 = 100.0;

/// Times beyond this are taken for a slip; the brokers that have a bound have it above this one.
const LONGEST: Duration = Duration::from_millis(LONGEST_DELAY);

/// Levels that a queue may have.
const LEVELS: std::ops::RangeInclusive<u16> = 2..=255;

/// Levels of a priority queue that says none: RabbitMQ's documentation advises one digit.
const USUAL_LEVELS: u16 = 10;

impl Written<'_> {
    /// The terms that they come to; what is wrong is reported.
    pub(super) fn check(&self, key: &KeyPath, pattern: Option<Pattern>, report: &mut Report<'_>) -> Terms {
        if pattern == Some(Pattern::PublishSubscribe) {
            for name in self.named() {
                report.bad_value(
                    &key.key(name),
                    "a publish-subscribe route has no queue that this could be said of",
                );
            }
        }
        Terms {
            ack_timeout: time(key, "ack-timeout", self.ack_timeout, report),
            max_deliveries: self.max_deliveries.and_then(|most| {
                let counted = NonZeroU32::new(most);
                if counted.is_none() {
                    report.bad_value(
                        &key.key("max-deliveries"),
                        "0 would give no message to anybody; expected 1 or more",
                    );
                }
                counted
            }),
            retry: self.retry.and_then(|retry| retry.check(&key.key("retry"), report)),
            deduplicate: self.deduplicate.and_then(|it| it.check(&key.key("deduplicate"), report)),
            ordering_key: self.check_ordering_key(key, report),
            delay: bounded(key, "delay", self.delay, report),
            expiry: time(key, "expiry", self.expiry, report),
            max_length: self.max_length.and_then(|most| {
                let counted = NonZeroU64::new(most);
                if counted.is_none() {
                    report.bad_value(&key.key("max-length"), "0 would take no message; expected 1 or more");
                }
                counted
            }),
            overflow: self.check_overflow(key, report),
            priorities: self.check_priorities(key, pattern, report),
        }
    }

    /// Which keys are written.
    fn named(&self) -> Vec<&'static str> {
        let all = [
            ("ack-timeout", self.ack_timeout.is_some()),
            ("max-deliveries", self.max_deliveries.is_some()),
            ("retry", self.retry.is_some()),
            ("deduplicate", self.deduplicate.is_some()),
            ("ordering-key", self.ordering_key.is_some()),
            ("delay", self.delay.is_some()),
            ("expiry", self.expiry.is_some()),
            ("max-length", self.max_length.is_some()),
            ("overflow", self.overflow.is_some()),
        ];
        all.into_iter().filter_map(|(name, is_written)| is_written.then_some(name)).collect()
    }

    fn check_ordering_key(&self, key: &KeyPath, report: &mut Report<'_>) -> Option<Attribute> {
        let (key, text) = (key.key("ordering-key"), self.ordering_key?);
        match attribute(text) {
            Some(found @ (Attribute::Property(_) | Attribute::Level(_))) => Some(found),
            _ => {
                let text = format!("`{text}` says no key; expected \"property:NAME\" or \"level:NUMBER\"");
                report.bad_value(&key, text);
                None
            }
        }
    }

    fn check_overflow(&self, key: &KeyPath, report: &mut Report<'_>) -> Overflow {
        let key = key.key("overflow");
        let Some(name) = self.overflow else { return Overflow::default() };
        if self.max_length.is_none() {
            report.bad_value(&key, "means nothing without `max-length`");
        }
        let all = [
            ("reject", Overflow::Reject),
            ("drop-head", Overflow::DropHead),
            ("dead-letter", Overflow::DeadLetter),
        ];
        match all.iter().find(|(known, _)| *known == name) {
            Some((_, overflow)) => *overflow,
            None => {
                report.unknown(&key, "overflow", name, all.map(|(known, _)| known));
                Overflow::default()
            }
        }
    }

    fn check_priorities(
        &self,
        key: &KeyPath,
        pattern: Option<Pattern>,
        report: &mut Report<'_>,
    ) -> Option<Priorities> {
        if pattern? != Pattern::PriorityQueue {
            let all = [
                ("levels", self.levels.is_some()),
                ("order", self.order.is_some()),
                ("priority-from", self.priority_from.is_some()),
                ("as", self.r#as.is_some()),
            ];
            for (name, _) in all.into_iter().filter(|(_, is_written)| *is_written) {
                report.bad_value(&key.key(name), "only a route of pattern `priority-queue` has levels");
            }
            return None;
        }
        let levels = self.levels.unwrap_or(USUAL_LEVELS);
        if !LEVELS.contains(&levels) {
            let (least, most) = (LEVELS.start(), LEVELS.end());
            report.bad_value(&key.key("levels"), format!("{levels} levels; a queue has {least} to {most}"));
        }
        let highest = u8::try_from(levels.saturating_sub(1)).unwrap_or(u8::MAX);
        let orders = ["strict", "weighted"];
        let weighted = self.one_of(&key.key("order"), "order", self.order, orders, report).unwrap_or(false);
        let apart = self.one_of(&key.key("as"), "way", self.r#as, ["native", "queue-per-level"], report);
        let (from, otherwise) = self.check_priority_from(&key.key("priority-from"), highest, report);
        Some(Priorities { highest, weighted, from, otherwise, apart })
    }

    /// Whether the second of two names is given, or the first.
    fn one_of(
        &self,
        key: &KeyPath,
        what: &'static str,
        name: Option<&str>,
        known: [&'static str; 2],
        report: &mut Report<'_>,
    ) -> Option<bool> {
        let name = name?;
        if !known.contains(&name) {
            report.unknown(key, what, name, known);
        }
        Some(name == known[1])
    }

    /// What says a message's level, and the level of what says none.
    fn check_priority_from(
        &self,
        key: &KeyPath,
        highest: u8,
        report: &mut Report<'_>,
    ) -> (Option<Attribute>, u8) {
        let Some(text) = self.priority_from else { return (None, 0) };
        if let Some(level) = text.strip_prefix("default:") {
            return match level.trim().parse::<u8>().ok().filter(|level| *level <= highest) {
                Some(level) => (None, level),
                None => {
                    let text = format!(
                        "`{text}` names no level; expected one from \"default:0\" to \"default:{highest}\""
                    );
                    report.bad_value(key, text);
                    (None, 0)
                }
            };
        }
        match attribute(text) {
            Some(found @ (Attribute::Property(_) | Attribute::Level(_))) => (Some(found), 0),
            _ => {
                let text = format!(
                    "`{text}` says no level; expected \"property:NAME\", \"level:NUMBER\" or \"default:LEVEL\""
                );
                report.bad_value(key, text);
                (None, 0)
            }
        }
    }
}

impl RetryTable {
    pub(super) fn check(&self, key: &KeyPath, report: &mut Report<'_>) -> Option<Retry> {
        let delay = time(key, "delay", Some(self.delay), report)?;
        let max = time(key, "max", Some(self.max.unwrap_or(LONGEST_RETRY.max(self.delay))), report)?;
        if max < delay {
            report.bad_value(&key.key("max"), "is shorter than `delay`");
        }
        if !(1.0..=STEEPEST).contains(&self.factor) {
            let text = format!("{} makes no wait; expected a number from 1 to {STEEPEST}", self.factor);
            report.bad_value(&key.key("factor"), text);
            return None;
        }
        // Within 100 and 10,000.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        let factor = (self.factor * 100.0).round() as u32;
        Some(Retry { delay, factor, max })
    }
}

impl DeduplicateTable {
    fn check(&self, key: &KeyPath, report: &mut Report<'_>) -> Option<Deduplicate> {
        let window = time(key, "window", Some(self.window), report);
        let by = attribute(&self.by).filter(|by| !matches!(by, Attribute::Level(_)));
        if by.is_none() {
            let text = format!(
                "`{}` does not tell messages apart; expected \"message-id\", \"property:NAME\" or \"payload\"",
                self.by
            );
            report.bad_value(&key.key("by"), text);
        }
        Some(Deduplicate { by: by?, window: window? })
    }
}

/// Reads what messages are to be asked for.
fn attribute(text: &str) -> Option<Attribute> {
    match text {
        "message-id" => return Some(Attribute::MessageId),
        "payload" => return Some(Attribute::Payload),
        _ => {}
    }
    match text.split_once(':')? {
        ("property", name) if !name.is_empty() => Some(Attribute::Property(name.into())),
        ("level", number) => number.trim().parse::<NonZeroU8>().ok().map(Attribute::Level),
        _ => None,
    }
}

/// Milliseconds, at least one, and no more than anybody can mean.
fn time(key: &KeyPath, name: &str, time: Option<Duration>, report: &mut Report<'_>) -> Option<Millis> {
    if time?.is_zero() {
        report.bad_value(&key.key(name), "takes no time at all; expected a duration such as \"30s\"");
        return None;
    }
    bounded(key, name, time, report)
}

/// Milliseconds, no more than anybody can mean.
fn bounded(key: &KeyPath, name: &str, time: Option<Duration>, report: &mut Report<'_>) -> Option<Millis> {
    let time = time?;
    if time > LONGEST {
        let (time, longest) = (duration::show(time), duration::show(LONGEST));
        report.bad_value(&key.key(name), format!("{time} is too long; expected \"{longest}\" at most"));
        return None;
    }
    Some(millis(time))
}

fn millis(time: Duration) -> Millis {
    u64::try_from(time.as_millis()).unwrap_or(Millis::MAX)
}
