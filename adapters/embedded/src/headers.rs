//! How a headers exchange matches (AMQP 0-9-1 §3.1.3.3, with RabbitMQ's `any-with-x` and `all-with-x`).

use linkspan_contract::topology::Argument;
use linkspan_contract::{Properties, Refused, Value};

use crate::arguments::{Owned, same, type_name};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    All,
    Any,
}

/// Reads `x-match`, and whether headers that begin with `x-` count.
fn mode(value: Option<&Value<'_>>) -> Result<(Match, bool), Refused> {
    let Some(value) = value else { return Ok((Match::All, false)) };
    match value.as_str() {
        Some("all") => Ok((Match::All, false)),
        Some("any") => Ok((Match::Any, false)),
        Some("all-with-x") => Ok((Match::All, true)),
        Some("any-with-x") => Ok((Match::Any, true)),
        Some(other) => Err(Refused::Precondition(format!(
            "Invalid x-match field value \"{other}\"; expected all, any, all-with-x, or any-with-x"
        ))),
        None => Err(Refused::Precondition(format!(
            "Invalid x-match field type {} (value {value:?}); expected longstr",
            type_name(value)
        ))),
    }
}

/// Refuses arguments that no headers exchange understands.
pub(crate) fn check(arguments: &[Argument<'_>]) -> Result<(), Refused> {
    mode(arguments.iter().find(|(name, _)| *name == "x-match").map(|(_, value)| value)).map(|_| ())
}

/// True when a message with these properties is matched by a binding with these arguments.
pub(crate) fn matches(arguments: &Owned, properties: &Properties<'_>) -> bool {
    let asked = arguments.iter().find(|(name, _)| **name == *"x-match").map(|(_, value)| value);
    let Ok((how, with_x)) = mode(asked) else { return false };
    let mut wanted = arguments
        .iter()
        .filter(|(name, _)| **name != *"x-match" && (with_x || !name.starts_with("x-")))
        .map(|(name, value)| match (properties.header(name), value) {
            (None, _) => false,
            (Some(_), Value::Void) => true,
            (Some(header), value) => same(header, value),
        });
    match how {
        Match::All => wanted.all(|is| is),
        Match::Any => wanted.any(|is| is),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::owned;

    fn message(headers: &[(&'static str, Value<'static>)]) -> Properties<'static> {
        Properties {
            headers: headers.iter().map(|(name, value)| ((*name).into(), value.clone())).collect(),
            ..Properties::default()
        }
    }

    #[test]
    fn all_wants_each_and_any_wants_one_and_x_headers_count_only_when_asked() {
        let a = || ("a", Value::I32(1));
        let b = || ("b", Value::Text("x".into()));
        let x = || ("x-y", Value::Bool(true));
        let mode = |mode: &'static str| ("x-match", Value::Text(mode.into()));
        for (binding, headers, yes) in [
            (vec![a(), b()], vec![a(), b()], true),
            (vec![a(), b()], vec![a()], false),
            (vec![mode("any"), a(), b()], vec![b()], true),
            (vec![mode("any"), a()], vec![], false),
            (vec![mode("all")], vec![], true),
            (vec![mode("any")], vec![a()], false),
            (vec![a(), x()], vec![a()], true),
            (vec![mode("all-with-x"), a(), x()], vec![a()], false),
            (vec![mode("any-with-x"), x()], vec![x()], true),
            (vec![("a", Value::Void)], vec![a()], true),
            (vec![("a", Value::I64(1))], vec![a()], true),
            (vec![("a", Value::Text("1".into()))], vec![a()], false),
        ] {
            let found = matches(&owned(&binding), &message(&headers));
            assert_eq!(found, yes, "{binding:?} against {headers:?}");
        }
        assert!(check(&[mode("some")]).is_err());
    }
}
