//! What a route says of how its queues treat their messages.

use linkspan_contract::{Attribute, Deduplicate, Overflow, Priorities, Retry};

use super::*;
use crate::routes::{NegativePuback, Others};

#[test]
fn a_route_says_how_its_queues_treat_their_messages() {
    let config = parse(&format!(
        "{JOBS}ack-timeout = \"30s\"\nmax-deliveries = 5\nretry = {{ delay = \"1s\", factor = 1.5 }}\n\
         deduplicate = {{ by = \"property:order\", window = \"10m\" }}\nordering-key = \"level:2\"\n\
         delay = \"0s\"\nexpiry = \"1h\"\nmax-length = 100\noverflow = \"dead-letter\"\n\
         negative-puback = \"redeliver\"\n"
    ))
    .unwrap();
    let terms = &config.routes[0].terms;
    assert_eq!((terms.ack_timeout, terms.max_deliveries.unwrap().get()), (Some(30_000), 5));
    assert_eq!(terms.retry, Some(Retry { delay: 1000, factor: 150, max: 60_000 }));
    let by = Attribute::Property("order".into());
    assert_eq!(terms.deduplicate, Some(Deduplicate { by, window: 600_000 }));
    assert_eq!(terms.ordering_key.as_ref().unwrap().to_string(), "level:2");
    assert_eq!((terms.delay, terms.expiry), (Some(0), Some(3_600_000)));
    assert_eq!((terms.max_length.unwrap().get(), terms.overflow), (100, Overflow::DeadLetter));
    assert_eq!(config.routes[0].negative_puback, NegativePuback::Redeliver);
}

#[test]
fn a_priority_queue_has_levels() {
    let config = parse(
        "[[route]]\nmatch = \"tickets/+\"\npattern = \"priority-queue\"\nqueue = \"tickets\"\nlevels = 5\n\
         order = \"weighted\"\npriority-from = \"default:2\"\n",
    )
    .unwrap();
    let priorities = Priorities { highest: 4, weighted: true, from: None, otherwise: 2, apart: None };
    assert_eq!(config.routes[0].terms.priorities, Some(priorities));
    assert_eq!(config.routes[0].window.get(), 4, "few are in hand, so that the next one is seldom late");
}

#[test]
fn an_exclusive_consumer_has_others() {
    let config = parse(
        "[[route]]\nmatch = \"bids\"\npattern = \"exclusive-consumer\"\nqueue = \"bids\"\nothers = \"standby\"\n\
         holder-timeout = \"5s\"\n",
    )
    .unwrap();
    let exclusive = config.routes[0].exclusive.unwrap();
    assert_eq!((exclusive.others, exclusive.holder_timeout.unwrap().as_secs()), (Others::StandBy, 5));
}

#[test]
fn what_a_key_cannot_mean_is_refused_with_what_would_be_right() {
    told(
        &format!(
            "{JOBS}ack-timeout = \"0s\"\nmax-deliveries = 0\nretry = {{ delay = \"2m\", factor = 0.5, max = \"1m\" }}\n\
             deduplicate = {{ by = \"level:1\", window = \"10m\" }}\nordering-key = \"payload\"\noverflow = \"drop-hed\"\n\
             levels = 3\nothers = \"standby\"\nnegative-puback = \"retry\"\n"
        ),
        &[
            "linkspan.toml:5: route[0].ack-timeout: takes no time at all; expected a duration such as \"30s\"",
            "linkspan.toml:6: route[0].max-deliveries: 0 would give no message to anybody; expected 1 or more",
            "linkspan.toml:7: route[0].retry.factor: 0.5 makes no wait; expected a number from 1 to 100",
            "linkspan.toml:7: route[0].retry.max: is shorter than `delay`",
            "linkspan.toml:8: route[0].deduplicate.by: `level:1` does not tell messages apart; expected \"message-id\", \
             \"property:NAME\" or \"payload\"",
            "linkspan.toml:9: route[0].ordering-key: `payload` says no key; expected \"property:NAME\" or \"level:NUMBER\"",
            "linkspan.toml:10: route[0].overflow: means nothing without `max-length`",
            "linkspan.toml:10: route[0].overflow: there is no overflow `drop-hed`; did you mean `drop-head`?",
            "linkspan.toml:11: route[0].levels: only a route of pattern `priority-queue` has levels",
            "linkspan.toml:12: route[0].others: only a route of pattern `exclusive-consumer` has one holder",
            "linkspan.toml:13: route[0].negative-puback: there is no answer to a negative PUBACK `retry`; there is \
             `dead-letter`, `redeliver`, `ignore`",
        ],
    );
    told(
        "[[route]]\nmatch = \"a\"\npattern = \"publish-subscribe\"\nexpiry = \"1s\"\n",
        &[
            "linkspan.toml:4: route[0].expiry: a publish-subscribe route has no queue that this could be said of",
        ],
    );
    told(
        &format!("{JOBS}delay = \"50d\"\nexpiry = \"1177h\"\n"),
        &[
            "linkspan.toml:5: route[0].delay: 50d is too long; expected \"49d\" at most",
            "linkspan.toml:6: route[0].expiry: 1177h is too long; expected \"49d\" at most",
        ],
    );
    assert!(parse(&format!("{JOBS}delay = \"49d\"\nexpiry = \"1176h\"\n")).is_ok());
}
