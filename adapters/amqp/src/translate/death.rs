//! Which headers tell of a message's deaths.
//!
//! A broker or Linkspan's own queues write them; a message that is carried from one back end to another keeps them. They
//! are told from forged ones by their types: clients of MQTT and HTTP have texts only.

use std::borrow::Cow;

use linkspan_contract::Value;
use linkspan_contract::death::{DEATHS, Headers, PREFIX, entries};

use crate::levels::whole;

/// What stands before a fact of the first or the last of them.
const ONE: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// Whether a header among `headers` was written by who had the message dead.
pub(crate) fn is_of_death(name: &str, value: &Value<'_>, headers: &[(Cow<'_, str>, Value<'_>)]) -> bool {
    if name == DEATHS {
        return deaths(value).is_some();
    }
    if name.starts_with(PREFIX) {
        return entries(headers).is_some();
    }
    let Some(fact) = ONE.iter().find_map(|prefix| name.strip_prefix(prefix)) else { return false };
    let tells_it = |death: &Value<'_>| {
        let Value::Table(fields) = death else { return false };
        fields.iter().any(|(field, told)| *field == fact && told.as_str() == value.as_str())
    };
    let all = headers.iter().filter(|(name, _)| name == DEATHS).filter_map(|(_, value)| deaths(value));
    value.as_str().is_some() && all.flatten().any(tells_it)
}

/// What stands before the names of queues in which messages only waited for their time.
const WAITED: &str = "linkspan.delay.";

/// What stands before the names of what is told of deaths while a message waits for its time, or was replayed. The broker
/// drops what comes back to a queue in which it has died, when nobody has rejected it since; and RabbitMQ 4 forgets what a
/// message tells when that dies again. These it does not look at.
const ASIDE: &str = "linkspan-";

/// What of a list of deaths stands in headers of its own, too.
const FACTS: [&str; 3] = ["queue", "reason", "exchange"];

/// Whether a header tells of deaths in words that the broker looks at.
fn is_history(name: &str) -> bool {
    let fact = |name: &str| ONE.iter().find_map(|prefix| Some(FACTS.contains(&name.strip_prefix(prefix)?)));
    name == DEATHS || fact(name) == Some(true)
}

/// The name under which a header travels when the broker must not see what it tells.
pub(super) fn aside(name: &str) -> Option<String> {
    is_history(name).then(|| format!("{ASIDE}{name}"))
}

/// The name of a header that was put aside.
pub(super) fn put_aside(name: &str) -> Option<&str> {
    name.strip_prefix(ASIDE).filter(|name| is_history(name))
}

/// Has a message tell again what was put aside, behind the deaths that it has died since.
pub(super) fn remember<'a>(headers: &mut Headers<'a>, aside: Headers<'a>) {
    for (name, value) in aside {
        match (headers.iter_mut().find(|(other, _)| *other == name), value) {
            (None, value) => headers.push((name, value)),
            (Some((_, Value::Array(since))), Value::Array(before)) => join(since, before),
            (Some((_, since)), value) if name.starts_with(ONE[0]) => *since = value,
            (Some(_), _) => {}
        }
    }
}

/// Lengthens a list of deaths by those before them; those in the same queue for the same reason count as one entry.
fn join<'a>(since: &mut Vec<Value<'a>>, before: Vec<Value<'a>>) {
    for death in before {
        let is_it = |other: &&mut Value<'a>| {
            ["queue", "reason"].into_iter().all(|name| fact(other, name) == fact(&death, name))
        };
        let Some(Value::Table(fields)) = since.iter_mut().find(is_it) else {
            since.push(death);
            continue;
        };
        let Value::Table(before) = &death else { continue };
        for (name, value) in fields {
            match (&**name, before.iter().find(|(other, _)| other == name)) {
                ("count", Some((_, count))) => {
                    let (more, count) = (value.as_i64().unwrap_or(1), count.as_i64().unwrap_or(1));
                    *value = Value::I64(count.saturating_add(more));
                }
                ("time", Some((_, first))) => *value = first.clone(),
                _ => {}
            }
        }
    }
}

/// To wait is no death, though the broker takes it for one.
pub(super) fn forget_delays(headers: &mut Vec<(Cow<'_, str>, Value<'_>)>) {
    let Some((_, Value::Array(all))) = headers.iter_mut().find(|(name, _)| name == DEATHS) else { return };
    let before = all.len();
    all.retain(|death| !fact(death, "queue").is_some_and(|queue| queue.starts_with(WAITED)));
    if all.len() == before {
        return;
    }
    let first = all.last().cloned();
    let is_one = |name: &str| ONE.iter().any(|prefix| name.starts_with(prefix));
    let Some(first) = first else { return headers.retain(|(name, _)| name != DEATHS && !is_one(name)) };
    for (name, value) in headers {
        if let Some(told) = name.strip_prefix(ONE[0]).and_then(|name| fact(&first, name)) {
            *value = Value::Text(told.to_owned().into());
        }
    }
}

/// Where each level has a queue it is the work queue that a message has died in.
pub(super) fn forget_levels(headers: &mut [(Cow<'_, str>, Value<'_>)]) {
    for (name, value) in headers {
        match value {
            Value::Array(deaths) if name == DEATHS => deaths.iter_mut().for_each(forget_level),
            Value::Text(queue) if ONE.iter().any(|one| name.strip_prefix(one) == Some("queue")) => {
                *queue = whole(queue).map_or_else(|| std::mem::take(queue), Cow::Owned);
            }
            _ => {}
        }
    }
}

/// The same of one death.
fn forget_level(death: &mut Value<'_>) {
    let Value::Table(fields) = death else { return };
    for (name, value) in fields {
        let names = match value {
            Value::Array(keys) if name == "routing-keys" => &mut keys[..],
            queue if name == "queue" => std::slice::from_mut(queue),
            _ => continue,
        };
        for name in names {
            if let Some(queue) = name.as_str().and_then(whole) {
                *name = Value::Text(queue.into());
            }
        }
    }
}

/// A fact of a death, where it is a text.
fn fact<'v>(death: &'v Value<'_>, name: &str) -> Option<&'v str> {
    let Value::Table(fields) = death else { return None };
    fields.iter().find(|(field, _)| field == name)?.1.as_str()
}

/// The entries of a list of deaths; none when it is something else.
fn deaths<'v, 'a>(value: &'v Value<'a>) -> Option<&'v [Value<'a>]> {
    match value {
        Value::Array(deaths) if deaths.iter().all(|death| matches!(death, Value::Table(_))) => Some(deaths),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value<'_> {
        Value::Text(text.into())
    }

    #[test]
    fn to_have_waited_is_no_death() {
        let death = |queue: &'static str, reason: &'static str| {
            Value::Table(vec![("queue".into(), text(queue)), ("reason".into(), text(reason))])
        };
        let waited = death("linkspan.delay.jobs.1000", "expired");
        let told = |deaths: Vec<Value<'static>>| {
            let mut headers = vec![
                ("x-death".into(), Value::Array(deaths)),
                ("x-first-death-queue".into(), text("linkspan.delay.jobs.1000")),
                ("x-first-death-reason".into(), text("expired")),
                ("mine".into(), text("1")),
            ];
            forget_delays(&mut headers);
            headers
        };
        assert_eq!(told(vec![waited.clone()]), [("mine".into(), text("1"))]);
        let dead = told(vec![death("jobs", "rejected"), waited]);
        assert_eq!(dead[0].1, Value::Array(vec![death("jobs", "rejected")]));
        assert_eq!((&dead[1].1, &dead[2].1), (&text("jobs"), &text("rejected")));
    }

    #[test]
    fn who_died_in_a_levels_queue_died_in_its_work_queue() {
        let death = |queue: &'static str| {
            let keys = Value::Array(vec![text(queue), text("other")]);
            Value::Table(vec![("queue".into(), text(queue)), ("routing-keys".into(), keys)])
        };
        let told = |queue| {
            let mut headers = vec![
                ("x-death".into(), Value::Array(vec![death(queue), death("plain")])),
                ("x-first-death-queue".into(), text(queue)),
                ("mine".into(), text("linkspan.level.jobs.3")),
            ];
            forget_levels(&mut headers);
            headers
        };
        assert_eq!(told("linkspan.level.jobs.3"), {
            let mut expected = told("jobs");
            expected[2].1 = text("linkspan.level.jobs.3");
            expected
        });
    }

    #[test]
    fn what_was_put_aside_is_told_behind_what_was_died_since() {
        let death = |queue: &'static str, count, time| {
            let fields = [
                ("queue", text(queue)),
                ("reason", text("rejected")),
                ("count", Value::I64(count)),
                ("time", Value::Timestamp(time)),
            ];
            Value::Table(fields.map(|(name, value)| (name.into(), value)).into())
        };
        let list = |deaths: &[Value<'static>]| Value::Array(deaths.to_vec());
        let aside = || {
            vec![
                ("x-death".into(), list(&[death("jobs", 2, 10), death("other", 1, 5)])),
                ("x-first-death-queue".into(), text("other")),
                ("x-last-death-queue".into(), text("jobs")),
            ]
        };
        let mut headers = vec![("mine".into(), text("1"))];
        remember(&mut headers, aside());
        assert_eq!(headers[1..], aside());
        let mut headers = vec![
            ("x-death".into(), list(&[death("third", 1, 30), death("jobs", 1, 20)])),
            ("x-first-death-queue".into(), text("jobs")),
            ("x-last-death-queue".into(), text("third")),
        ];
        remember(&mut headers, aside());
        let all = [death("third", 1, 30), death("jobs", 3, 10), death("other", 1, 5)];
        assert_eq!(headers[0].1, list(&all));
        assert_eq!((&headers[1].1, &headers[2].1), (&text("other"), &text("third")));
        for name in ["x-death", "x-first-death-reason", "x-last-death-exchange"] {
            assert_eq!(put_aside(&aside_of(name)), Some(name));
        }
        assert_eq!((super::aside("x-delay"), put_aside("linkspan-at")), (None, None));
    }

    fn aside_of(name: &str) -> String {
        aside(name).unwrap()
    }

    #[test]
    fn what_is_told_of_a_death_is_known_by_its_type_and_by_what_else_is_told() {
        let death = Value::Table(vec![("queue".into(), text("jobs")), ("reason".into(), text("rejected"))]);
        let list = Value::Array(vec![death]);
        let headers = [("x-death".into(), list.clone())];
        assert!(is_of_death("x-death", &list, &headers));
        assert!(is_of_death("x-first-death-queue", &text("jobs"), &headers));
        assert!(is_of_death("x-last-death-reason", &text("rejected"), &headers));
        assert!(!is_of_death("x-first-death-queue", &text("other"), &headers), "none of these");
        assert!(!is_of_death("x-first-death-queue", &text("jobs"), &[]), "no death at all");
        assert!(!is_of_death("x-delay", &text("jobs"), &headers));
        assert!(is_of_death("linkspan-dead-queue", &text("jobs"), &headers));
        assert!(!is_of_death("linkspan-dead-queue", &text("jobs"), &[]), "no death at all");
        for forged in [text("jobs"), Value::Array(vec![text("jobs")])] {
            let headers = [("x-death".into(), forged.clone())];
            assert!(!is_of_death("x-death", &forged, &headers));
            assert!(!is_of_death("x-first-death-queue", &text("jobs"), &headers));
        }
    }
}
