//! What back ends do for routes, without asking them: native, emulated or refused.

use std::fmt::Write as _;

use linkspan_contract::{Capabilities, Support};

use crate::config::{Backend, Config};
use crate::routes::{Pattern, Route};

/// What a back end of this kind can do.
fn of(backend: &Backend) -> &'static Capabilities {
    match backend {
        Backend::Embedded { .. } => &linkspan_embedded::CAPABILITIES,
        Backend::Amqp(_) => &linkspan_amqp::CAPABILITIES,
        Backend::Mqtt { .. } => &linkspan_mqtt::CAPABILITIES,
    }
}

/// The features that a route needs, with the key that asks for each.
fn needed(route: &Route, can: &Capabilities) -> Vec<(&'static str, &'static str, Support)> {
    let pattern = match route.pattern {
        Pattern::PublishSubscribe => can.publish_subscribe,
        Pattern::CompetingConsumers => can.competing_consumers,
    };
    let mut needed = vec![("pattern", route.pattern.name(), pattern)];
    if route.dead_letter.is_some() {
        needed.push(("dead-letter", "dead letters", can.dead_letter));
    }
    needed
}

/// The first route that its back end cannot carry: its match, the key, and why.
pub fn first_refused(config: &Config) -> Option<(String, &'static str, &'static str)> {
    config.routes.iter().find_map(|route| {
        let backend = config.backends.get(&route.backend)?;
        let refused = needed(route, of(backend)).into_iter().find_map(|(key, _, support)| match support {
            Support::Absent(why) => Some((key, why)),
            Support::Native | Support::Emulated(_) => None,
        });
        refused.map(|(key, why)| (route.filter.as_str().to_owned(), key, why))
    })
}

/// For people: what becomes of each route, and what clients can expect of each back end.
pub fn described(config: &Config) -> String {
    let mut text = String::from("routes on back ends\n");
    for route in &config.routes {
        let Some(backend) = config.backends.get(&route.backend) else { continue };
        let _ = write!(text, "  {} on {}:", route.filter, route.backend);
        for (at, (_, what, support)) in needed(route, of(backend)).into_iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let _ = write!(text, "{comma} {what} {support}");
        }
        text.push('\n');
    }
    if config.routes.is_empty() {
        text.push_str("  there are no routes: all is publish-subscribe on the home back ends\n");
    }
    text.push_str("\nback ends\n");
    for (name, backend) in &config.backends {
        let place = match backend {
            Backend::Embedded { path } => path.display().to_string(),
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
            ("outliving a crash", can.durable),
        ] {
            let _ = writeln!(text, "    {what:18} {support}");
        }
    }
    text
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
        assert_eq!(first_refused(&config), None);
        let text = described(&config);
        let jobs = "  jobs on m: competing-consumers emulated (in a queue of Linkspan's own, which the broker feeds), dead \
                    letters emulated (";
        assert!(text.contains(jobs), "{text}");
        assert!(text.contains("  rabbit: amqp, amqp://h\n"), "no password is shown: {text}");
        assert!(text.contains("    AMQP exchanges     refused ("), "{text}");
        assert!(text.contains("    AMQP transactions  native\n"), "{text}");
    }
}
