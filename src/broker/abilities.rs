//! What back ends do for routes, without asking them: native, emulated or refused.

use std::fmt::Write as _;
use std::sync::Arc;

use linkspan_contract::{Capabilities, Support};

use crate::config::{Backend, Config, ConfigError, Culprit};
use crate::routes::{Pattern, QueueType, Route};

/// What a back end of this kind can do.
fn of(backend: &Backend) -> &'static Capabilities {
    match backend {
        Backend::Embedded { .. } => &linkspan_embedded::DURABLE,
        Backend::Amqp(_) => &linkspan_amqp::CAPABILITIES,
        Backend::Mqtt { .. } => &linkspan_mqtt::CAPABILITIES,
    }
}

/// No broker's own way of letting one consumer alone has a fence, and standing by, and refusal.
const BY_LEASE: Support = Support::Emulated("one consumer at a time by a lease in Linkspan's ledger");

/// One queue of RabbitMQ's does not do what its route asks for.
const IN_ONE: Support = Support::Absent(
    "a quorum queue of RabbitMQ's has no levels, and a classic one always gives its highest level first; without this key \
     each level is a queue there",
);

/// Several queues of RabbitMQ's do not either.
const IN_SEVERAL: Support = Support::Absent(
    "of each queue RabbitMQ makes one Linkspan the only consumer, which may be another one for each level, and messages of \
     one key would go to several consumers",
);

/// The features that a route needs, with the key that asks for each.
fn needed(route: &Route, backend: &Backend) -> Vec<(&'static str, &'static str, Support)> {
    let can = of(backend);
    let pattern = match route.pattern {
        Pattern::PublishSubscribe => can.publish_subscribe,
        Pattern::CompetingConsumers => can.competing_consumers,
        Pattern::ExclusiveConsumer => BY_LEASE,
        Pattern::PriorityQueue => can.priority_queue,
    };
    let mut needed = vec![("pattern", route.pattern.name(), pattern)];
    if route.pattern == Pattern::ExclusiveConsumer {
        needed.push(("pattern", "its queue", can.competing_consumers));
    }
    if route.dead_letter.is_some() {
        needed.push(("dead-letter", "dead letters", can.dead_letter));
    }
    let terms = &*route.terms;
    let is_weighted = terms.priorities.as_ref().is_some_and(|priorities| priorities.weighted);
    let stands_apart = terms.priorities.as_ref().is_some_and(|priorities| priorities.apart == Some(true));
    let is_quorum = route.queue_type == Some(QueueType::Quorum);
    let at_rabbitmq = terms.priorities.as_ref().filter(|_| matches!(backend, Backend::Amqp(_)));
    let is_beyond_one = at_rabbitmq.is_some_and(|it| it.apart == Some(false) && (it.weighted || is_quorum));
    let has_levels = at_rabbitmq.is_some_and(|it| linkspan_amqp::are_apart(it, is_quorum));
    let has_keys = terms.ordering_key.is_some();
    let said = [
        (is_beyond_one, "as", "such levels in one queue", IN_ONE),
        (has_levels && has_keys, "ordering-key", "order by keys with a queue for each level", IN_SEVERAL),
        (terms.ack_timeout.is_some(), "ack-timeout", "deadlines", can.ack_timeout),
        (terms.max_deliveries.is_some(), "max-deliveries", "limit of deliveries", can.max_deliveries),
        (terms.retry.is_some(), "retry", "waits between deliveries", can.retry),
        (terms.deduplicate.is_some(), "deduplicate", "deduplication", can.deduplicate),
        (has_keys, "ordering-key", "order by keys", can.ordering_key),
        (terms.delay.is_some(), "delay", "delayed messages", can.delay),
        (terms.expiry.is_some(), "expiry", "expiry", can.expiry),
        (terms.max_length.is_some(), "max-length", "bounded queues", can.max_length),
        (is_weighted, "order", "weighted order", can.weighted_order),
        (stands_apart, "as", "queue per level", can.queue_per_level),
    ];
    needed.extend(said.into_iter().filter(|it| it.0).map(|(_, key, what, support)| (key, what, support)));
    needed
}

/// The routes that their back ends cannot carry, and which key asks for that.
pub fn refused(config: &Config) -> Vec<ConfigError> {
    let of_route = |route: &Arc<Route>| {
        let backend = config.backends.get(&route.backend);
        let needed = backend.map_or_else(Vec::new, |backend| needed(route, backend));
        let refused = needed.into_iter().filter_map(|(key, what, support)| match support {
            Support::Absent(why) => {
                let culprit = Culprit::Route(&route.vhost, route.filter.as_str(), key);
                let text = format!("back end `{}` has no {what}: {why}", route.backend);
                Some(config.wrong(culprit, text))
            }
            Support::Native | Support::Emulated(_) => None,
        });
        refused.collect::<Vec<_>>()
    };
    config.routes.iter().flat_map(of_route).collect()
}

/// For people: what becomes of each route, and what clients can expect of each back end.
pub fn described(config: &Config) -> String {
    let mut text = String::from(
        "native: the back end does it; emulated: Linkspan does, and how; refused: who asks for it is told no, and why\n\n\
         routes on back ends\n",
    );
    for route in &config.routes {
        let Some(backend) = config.backends.get(&route.backend) else { continue };
        let _ = writeln!(text, "  {} on {}", route.filter, route.backend);
        for (_, what, support) in needed(route, backend) {
            line(&mut text, what, &support);
        }
    }
    for (name, vhost) in &config.vhosts {
        let Some(backend) = config.backends.get(&vhost.backend) else { continue };
        let _ = writeln!(text, "  all else of vhost {name} on {}", vhost.backend);
        line(&mut text, Pattern::PublishSubscribe.name(), &of(backend).publish_subscribe);
    }
    text.push_str("\nback ends\n");
    for (name, backend) in &config.backends {
        let place = match backend {
            Backend::Embedded { path, .. } => path.display().to_string(),
            Backend::Amqp(upstream) | Backend::Mqtt { upstream, .. } => upstream.url.to_string(),
        };
        let _ = writeln!(text, "  {name}: {}, {place}", backend.kind());
        let can = of(backend);
        for (what, support) in [
            ("publish-subscribe", can.publish_subscribe),
            ("work queues", can.competing_consumers),
            ("priorities", can.priority_queue),
            ("expiry", can.expiry),
            ("dead letters", can.dead_letter),
            ("retained messages", can.retained),
            ("AMQP exchanges", can.exchanges),
            ("AMQP transactions", can.transactions),
        ] {
            line(&mut text, what, &support);
        }
        match can.durable {
            Support::Native => line(&mut text, "outlives a crash", &"yes"),
            Support::Emulated(how) => line(&mut text, "outlives a crash", &format_args!("yes ({how})")),
            Support::Absent(why) => line(&mut text, "outlives a crash", &format_args!("no ({why})")),
        }
    }
    text
}

fn line(text: &mut String, what: &str, how: &dyn std::fmt::Display) {
    let _ = writeln!(text, "    {what:19}  {how}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_of_each_route_and_back_end_what_is_native_emulated_and_refused() {
        let toml = "[backends.rabbit]\nkind = \"amqp\"\nurl = \"amqp://u:secret@h\"\n[backends.m]\nkind = \"mqtt\"\n\
                    url = \"mqtt://b\"\n[vhosts.\"/\"]\nbackend = \"rabbit\"\n[[route]]\nmatch = \"jobs\"\n\
                    pattern = \"competing-consumers\"\nqueue = \"jobs\"\nbackend = \"m\"\ndead-letter = \"failed\"\n";
        let config = Config::parse(Some(("x.toml", toml)), []).unwrap();
        assert_eq!(refused(&config), []);
        let text = described(&config);
        let own = "emulated (in a queue of Linkspan's own, which the broker feeds)";
        let jobs = format!("  jobs on m\n    competing-consumers  {own}\n    dead letters         {own}\n");
        assert!(text.contains(&jobs), "{text}");
        let home = "  all else of vhost / on rabbit\n    publish-subscribe    native\n";
        assert!(text.contains(home), "{text}");
        assert!(text.contains("  rabbit: amqp, amqp://h\n"), "no password is shown: {text}");
        assert!(text.contains("    AMQP exchanges       refused ("), "{text}");
        assert!(text.contains("    AMQP transactions    native\n"), "{text}");
    }

    #[test]
    fn one_queue_of_rabbitmqs_does_not_do_for_all_levels_and_several_not_for_keys() {
        for (more, refused_key) in [
            ("order = \"weighted\"", None),
            ("queue-type = \"quorum\"", None),
            ("as = \"queue-per-level\"", None),
            ("ordering-key = \"level:1\"", None),
            ("as = \"native\"\norder = \"weighted\"", Some("as")),
            ("as = \"native\"\nqueue-type = \"quorum\"", Some("as")),
            ("order = \"weighted\"\nordering-key = \"level:1\"", Some("ordering-key")),
        ] {
            let toml = format!(
                "[backends.rabbit]\nkind = \"amqp\"\nurl = \"amqp://h\"\n[vhosts.\"/\"]\nbackend = \"rabbit\"\n[[route]]\n\
                 match = \"tickets\"\npattern = \"priority-queue\"\nqueue = \"tickets\"\n{more}\n"
            );
            let config = Config::parse(Some(("x.toml", &toml)), []).unwrap();
            let refused: Vec<_> = refused(&config).iter().map(ToString::to_string).collect();
            match refused_key {
                None => assert_eq!(refused, [""; 0], "{more}"),
                Some(key) => assert!(
                    refused.len() == 1
                        && refused[0].contains(&format!("route[0].{key}: back end `rabbit` has no ")),
                    "{more}: {refused:?}"
                ),
            }
        }
    }

    #[test]
    fn a_queue_of_one_consumer_at_a_time_is_the_back_ends_and_that_there_is_one_is_linkspans() {
        let toml = "[backends.m]\nkind = \"mqtt\"\nurl = \"mqtt://b\"\n[backends.e]\nkind = \"embedded\"\n[vhosts.\"/\"]\n\
                    backend = \"e\"\n[[route]]\nmatch = \"bids\"\npattern = \"exclusive-consumer\"\nqueue = \"bids\"\n\
                    [[route]]\nmatch = \"far\"\npattern = \"exclusive-consumer\"\nqueue = \"far\"\nbackend = \"m\"\n";
        let config = Config::parse(Some(("x.toml", toml)), []).unwrap();
        assert_eq!(refused(&config), []);
        let text = described(&config);
        let lease =
            "    exclusive-consumer   emulated (one consumer at a time by a lease in Linkspan's ledger)\n";
        assert!(text.contains(&format!("  bids on e\n{lease}    its queue            native\n")), "{text}");
        let fed = "emulated (in a queue of Linkspan's own, which the broker feeds)";
        assert!(text.contains(&format!("  far on m\n{lease}    its queue            {fed}\n")), "{text}");
    }
}
