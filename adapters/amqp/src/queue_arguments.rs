//! The arguments that a queue is declared with at the broker: its client's, and what its route says of it.

use std::num::NonZeroU32;

use lapin::types::FieldTable;
use linkspan_contract::{Millis, Overflow, QueueSpec, Refused, Terms, Value};

use crate::desk::counts;
use crate::levels;
use crate::translate::table;
use crate::work_queue::Kind;

/// The argument that asks for a limit of deliveries, which only a quorum queue knows.
const DELIVERY_LIMIT: &str = "linkspan-delivery-limit";

/// What the broker is asked for that,
const BROKERS_LIMIT: &str = "x-delivery-limit";

/// and as good as none. With none at all (`-1`) RabbitMQ 4 puts what comes back behind all others, and RabbitMQ 3 knows no such
/// thing.
const UNLIMITED: i64 = 1_000_000_000;

/// RabbitMQ's greatest time to live, in milliseconds.
const LONGEST: u64 = u32::MAX as u64;

/// How long a message may wait for its next attempt, in milliseconds,
const LONGEST_WAIT: Millis = 900_000;

/// and for all of them, where they are counted.
const LONGEST_WAITS: Millis = 1_200_000;

/// All of them.
pub(crate) struct QueueArguments {
    pub(crate) wanted: FieldTable,
    /// Those to be tried next, when the broker has declared the queue with another limit of deliveries.
    pub(crate) limited: Option<FieldTable>,
}

/// All of them.
///
/// # Errors
/// When the broker has no such queue.
pub(crate) fn queue_arguments(spec: &QueueSpec<'_>) -> Result<QueueArguments, Refused> {
    let mut arguments = Vec::from(spec.arguments);
    if let Some(place) = arguments.iter().position(|(name, _)| *name == DELIVERY_LIMIT) {
        let (_, limit) = arguments.remove(place);
        limit_deliveries(spec, limit, &mut arguments)?;
    }
    let of = |arguments: &[(&str, Value<'_>)]| table(arguments.iter().map(|(name, value)| (*name, value)));
    let Some(terms) = spec.terms else {
        return Ok(QueueArguments { wanted: of(&arguments)?, limited: None });
    };
    add_terms(spec.name, terms, is_quorum(spec), &mut arguments)?;
    if kind(spec).has_levels {
        arguments.retain(|(name, _)| *name != "x-max-priority");
    }
    let names_limit = arguments.iter().any(|(name, _)| *name == BROKERS_LIMIT);
    if !is_quorum(spec) || names_limit {
        return Ok(QueueArguments { wanted: of(&arguments)?, limited: None });
    }
    let limit = terms.max_deliveries.map(|most| whole(u64::from(most.get()).saturating_sub(1)));
    let mut limited = arguments.clone();
    limited.extend(limit.clone().map(|limit| (BROKERS_LIMIT, limit)));
    if limit.is_some() && !counts(terms, kind(spec)) {
        return Ok(QueueArguments { wanted: of(&limited)?, limited: None });
    }
    // RabbitMQ counts what came back from a desk where nobody was given it, and has a limit of its own for who names none.
    arguments.push((BROKERS_LIMIT, Value::I64(UNLIMITED)));
    Ok(QueueArguments { wanted: of(&arguments)?, limited: Some(of(&limited)?) })
}

/// Whether a broker that said so has a queue with another limit of deliveries.
pub(crate) fn is_of_limit(why: &Refused) -> bool {
    matches!(why, Refused::Inequivalent { argument, .. } if argument == BROKERS_LIMIT)
}

/// How it is declared.
pub(crate) fn kind(spec: &QueueSpec<'_>) -> Kind {
    let single_active = spec.arguments.iter().find(|(name, _)| *name == "x-single-active-consumer");
    let priorities = spec.terms.and_then(|terms| terms.priorities.as_ref());
    Kind {
        is_quorum: is_quorum(spec),
        single_active: single_active.is_some_and(|(_, is_it)| *is_it == Value::Bool(true)),
        has_levels: priorities.is_some_and(|priorities| levels::are_apart(priorities, is_quorum(spec))),
    }
}

/// Whether the queue is to be a quorum queue.
pub(crate) fn is_quorum(spec: &QueueSpec<'_>) -> bool {
    let kind = spec.arguments.iter().find(|(name, _)| *name == "x-queue-type");
    kind.is_some_and(|(_, kind)| kind.as_str() == Some("quorum"))
}

/// A limit of deliveries that Linkspan asks for makes a quorum queue of one that names no type: a classic queue does not
/// count them.
fn limit_deliveries<'a>(
    spec: &QueueSpec<'a>,
    limit: Value<'a>,
    arguments: &mut Vec<(&'a str, Value<'a>)>,
) -> Result<(), Refused> {
    let has = |wanted: &str| spec.arguments.iter().any(|(name, _)| *name == wanted);
    let may_be = is_quorum(spec) || !has("x-queue-type");
    if !may_be || has("x-max-priority") || !spec.durable || spec.exclusive || spec.auto_delete {
        return Err(Refused::Precondition(format!(
            "queue '{}' asks for a limit of deliveries, which the broker knows for durable quorum queues only, and those \
             have no `x-max-priority`",
            spec.name
        )));
    }
    arguments.retain(|(name, _)| *name != "x-queue-type");
    arguments.push(("x-queue-type", Value::Text("quorum".into())));
    arguments.push((BROKERS_LIMIT, limit));
    Ok(())
}

/// What of a route's terms the broker sees to itself.
fn add_terms<'a>(
    queue: &str,
    terms: &Terms,
    is_quorum: bool,
    arguments: &mut Vec<(&'a str, Value<'a>)>,
) -> Result<(), Refused> {
    check_priorities(queue, terms, is_quorum)?;
    if let Some(retry) = terms.retry {
        let deliveries = terms.max_deliveries.map_or(1, NonZeroU32::get);
        let waits = (1..deliveries).try_fold(0, |all: Millis, attempt| {
            Some(all.saturating_add(retry.after(attempt))).filter(|all| *all <= LONGEST_WAITS)
        });
        if retry.max > LONGEST_WAIT || waits.is_none() {
            return Err(Refused::Precondition(format!(
                "messages of queue '{queue}' would wait too long for their next attempts: RabbitMQ gives what is not \
                 acknowledged for 30 minutes to others, who would count anew. The `max` of its route's `retry` may be 15 \
                 minutes, and with `max-deliveries` all waits of a message together 20"
            )));
        }
    }
    if let Some(expiry) = terms.expiry {
        arguments.push(("x-message-ttl", whole(expiry.min(LONGEST))));
    }
    if let Some(most) = terms.max_length {
        let overflow = match terms.overflow {
            Overflow::Reject => "reject-publish",
            Overflow::DropHead => "drop-head",
            Overflow::DeadLetter if is_quorum => {
                return Err(Refused::Precondition(format!(
                    "queue '{queue}' is a quorum queue, and RabbitMQ makes dead letters of what comes to a full queue \
                     (`reject-publish-dlx`) for classic queues only: give its route `overflow = \"reject\"`, `overflow = \
                     \"drop-head\"` or `queue-type = \"classic\"`"
                )));
            }
            Overflow::DeadLetter => "reject-publish-dlx",
        };
        if terms.delay.is_some() && terms.overflow != Overflow::DropHead {
            return Err(Refused::Precondition(format!(
                "queue '{queue}' is to refuse what comes when it is full, and what was held back by `delay` comes from a \
                 queue of RabbitMQ's, which would lose it: give its route `overflow = \"drop-head\"`"
            )));
        }
        arguments.push(("x-max-length", whole(most.get())));
        arguments.push(("x-overflow", Value::Text(overflow.into())));
    }
    let has = |wanted: &str| arguments.iter().any(|(name, _)| *name == wanted);
    if terms.ordering_key.is_some() && !has("x-single-active-consumer") {
        // One Linkspan at a time hands them out, by their keys.
        arguments.push(("x-single-active-consumer", Value::Bool(true)));
    }
    Ok(())
}

/// What the levels of a queue need.
fn check_priorities(queue: &str, terms: &Terms, is_quorum: bool) -> Result<(), Refused> {
    let Some(priorities) = &terms.priorities else { return Ok(()) };
    let is_one = priorities.apart == Some(false);
    let why = if is_one && is_quorum {
        "is a quorum queue, and RabbitMQ's quorum queues have no such priorities: leave `as = \"native\"` out of its \
         route, which has a queue for each level then, or write `queue-type = \"classic\"`"
    } else if is_one && priorities.weighted {
        "is to be one queue, and one queue of RabbitMQ's always gives its highest level first: leave `as = \"native\"` \
         out of its route, which has a queue for each level then, or write `order = \"strict\"`"
    } else if terms.ordering_key.is_some() && levels::are_apart(priorities, is_quorum) {
        "has a queue for each level, and its route an `ordering-key`: of each queue RabbitMQ makes one Linkspan the only \
         consumer, which may be another one for each, so that messages of one key would go to several consumers"
    } else {
        return Ok(());
    };
    Err(Refused::Precondition(format!("queue '{queue}' {why}")))
}

fn whole(number: u64) -> Value<'static> {
    Value::I64(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroU64};
    use std::sync::Arc;

    use linkspan_contract::{Attribute, Priorities, Retry, What};

    use super::*;

    /// What a durable queue of that type is declared with, as text.
    fn declared(kind: Option<&str>, terms: &Terms) -> Result<Vec<String>, Refused> {
        let mut arguments: Vec<_> =
            kind.map(|kind| ("x-queue-type", Value::Text(kind.into()))).into_iter().collect();
        arguments.extend(terms.priorities.iter().map(|it| ("x-max-priority", Value::U8(it.highest))));
        let terms = Arc::new(terms.clone());
        let spec =
            QueueSpec { durable: true, arguments: &arguments, terms: Some(&terms), ..QueueSpec::new("jobs") };
        let table = queue_arguments(&spec)?.wanted;
        Ok(table.inner().iter().map(|(name, value)| format!("{name}={value:?}")).collect())
    }

    fn has(declared: &[String], argument: &str, value: &str) -> bool {
        declared.iter().any(|it| it.starts_with(argument) && it.contains(value))
    }

    #[test]
    fn what_the_broker_does_itself_is_asked_of_it() {
        let terms = Terms {
            expiry: Some(u64::MAX),
            max_length: NonZeroU64::new(7),
            overflow: Overflow::DropHead,
            max_deliveries: NonZeroU32::new(5),
            ..Terms::default()
        };
        let quorum = declared(Some("quorum"), &terms).unwrap();
        assert!(has(&quorum, "x-message-ttl", "4294967295"), "{quorum:?}");
        assert!(has(&quorum, "x-max-length", "7"), "{quorum:?}");
        assert!(has(&quorum, "x-delivery-limit", "(4)"), "{quorum:?}");
        assert_eq!(quorum.len(), 5, "{quorum:?}");
        let classic = declared(None, &terms).unwrap();
        assert_eq!(classic.len(), 3, "a classic queue counts no deliveries: {classic:?}");
    }

    #[test]
    fn a_quorum_queue_whose_deliveries_nobody_or_linkspan_counts_has_no_limit_of_the_brokers_where_that_may_be()
     {
        let arguments = [("x-queue-type", Value::Text("quorum".into()))];
        let max_deliveries = NonZeroU32::new(3);
        let ordering_key = Some(Attribute::MessageId);
        let retry = Some(Retry { delay: 1, factor: 100, max: 1 });
        for (terms, limited) in [
            (Terms::default(), None),
            (Terms { ordering_key: ordering_key.clone(), ..Terms::default() }, None),
            (Terms { ordering_key, max_deliveries, ..Terms::default() }, Some("(2)")),
            (Terms { retry, max_deliveries, ..Terms::default() }, Some("(2)")),
        ] {
            let terms = Arc::new(terms);
            let spec = QueueSpec {
                durable: true,
                arguments: &arguments,
                terms: Some(&terms),
                ..QueueSpec::new("q")
            };
            let all = queue_arguments(&spec).unwrap();
            let limit_of =
                |table: &FieldTable| table.inner().get(BROKERS_LIMIT).map(|value| format!("{value:?}"));
            assert!(limit_of(&all.wanted).is_some_and(|it| it.contains("(1000000000)")), "{terms:?}");
            let then = limit_of(&all.limited.expect("an older queue"));
            assert_eq!(then.is_some(), limited.is_some(), "{terms:?}");
            assert!(then.is_none_or(|it| limited.is_some_and(|limit| it.contains(limit))), "{terms:?}");
        }
        let max_deliveries = Arc::new(Terms { max_deliveries, ..Terms::default() });
        let spec = QueueSpec { arguments: &arguments, terms: Some(&max_deliveries), ..QueueSpec::new("q") };
        assert!(queue_arguments(&spec).unwrap().limited.is_none(), "the broker counts");
    }

    #[test]
    fn the_brokers_word_about_a_limit_of_deliveries_is_told_from_others() {
        let other = |argument: &str| Refused::Inequivalent {
            what: What::Queue,
            name: "q".into(),
            argument: argument.into(),
            received: "the value '1000000000' of type 'signedint'".into(),
            current: "none".into(),
        };
        assert!(is_of_limit(&other("x-delivery-limit")) && !is_of_limit(&other("durable")));
        assert!(!is_of_limit(&Refused::Away("rabbit".into())));
    }

    #[test]
    fn what_a_quorum_queue_does_not_know_is_refused_with_what_to_write_instead() {
        let dead =
            Terms { max_length: NonZeroU64::new(7), overflow: Overflow::DeadLetter, ..Terms::default() };
        for terms in [&dead, &levels(false, Some(false))] {
            let Err(Refused::Precondition(why)) = declared(Some("quorum"), terms) else {
                panic!("RabbitMQ would refuse it");
            };
            assert!(why.contains("queue-type = \"classic\""), "{why}");
            assert!(declared(None, terms).is_ok());
        }
    }

    fn levels(weighted: bool, apart: Option<bool>) -> Terms {
        let priorities = Priorities { highest: 9, weighted, from: None, otherwise: 0, apart };
        Terms { priorities: Some(priorities), ..Terms::default() }
    }

    #[test]
    fn one_queue_has_no_shares_and_several_have_no_keys() {
        assert!(declared(None, &levels(true, Some(false))).is_err());
        for (kind, weighted) in [(None, true), (Some("quorum"), false)] {
            let apart = levels(weighted, None);
            let table = declared(kind, &apart).unwrap();
            assert!(!has(&table, "x-max-priority", ""), "each level is a queue: {table:?}");
            let keyed = Terms { ordering_key: Some(Attribute::MessageId), ..apart };
            let Err(Refused::Precondition(why)) = declared(kind, &keyed) else {
                panic!("keys would be shared")
            };
            assert!(why.contains("`ordering-key`"), "{why}");
        }
        assert!(has(&declared(None, &levels(false, None)).unwrap(), "x-max-priority", "9"));
    }

    #[test]
    fn what_would_wait_longer_than_the_broker_lets_it_is_refused() {
        let is_taken = |delay, max, deliveries| {
            let retry = Some(Retry { delay, factor: 200, max });
            let max_deliveries = NonZeroU32::new(deliveries);
            declared(None, &Terms { retry, max_deliveries, ..Terms::default() }).is_ok()
        };
        assert!(is_taken(1000, 60_000, 5) && is_taken(1000, 900_000, 0));
        assert!(!is_taken(1000, 900_001, 0), "one wait is too long");
        assert!(is_taken(60_000, 900_000, 5) && !is_taken(60_000, 900_000, 6), "together they are");
        assert!(!is_taken(1000, 60_000, u32::MAX));
    }

    #[test]
    fn a_limit_of_deliveries_that_linkspan_asks_for_makes_a_quorum_queue() {
        let arguments = [(DELIVERY_LIMIT, Value::I64(3))];
        let spec = QueueSpec { durable: true, arguments: &arguments, ..QueueSpec::new("q") };
        let table = queue_arguments(&spec).unwrap().wanted;
        let names: Vec<_> = table.inner().keys().map(ToString::to_string).collect();
        assert_eq!(names, ["x-delivery-limit", "x-queue-type"]);
        assert!(queue_arguments(&QueueSpec { exclusive: true, ..spec }).is_err());
    }
}
