//! Which headers tell of a message's deaths.
//!
//! A broker or Linkspan's own queues write them; a message that is carried from one back end to another keeps them. They
//! are told from forged ones by their types: clients of MQTT and HTTP have texts only.

use std::borrow::Cow;

use linkspan_contract::Value;
use linkspan_contract::death::{DEATHS, PREFIX, entries};

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
