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
