//! Which room of `src/` may know which.

use crate::source::Source;

/// What each room may name of the others; itself always. A room that is missing here is a decision still to be made:
/// add it, with what it needs and no more.
const MAY_KNOW: [(&str, &[&str]); 16] = [
    ("alarms", &["config"]),
    (
        "broker",
        &[
            "alarms", "claims", "config", "doors", "hub", "identity", "ledger", "mover", "patterns",
            "retained", "routes", "worker",
        ],
    ),
    ("claims", &["config"]),
    ("cli", &["config", "identity"]),
    ("config", &["identity", "routes"]),
    ("doors", &["alarms", "config", "hub", "identity", "protocol", "retained"]),
    ("hub", &["claims", "config", "identity", "ledger", "mover", "patterns", "retained", "routes"]),
    ("identity", &[]),
    ("ledger", &["config"]),
    ("main", &["broker", "cli", "config", "identity"]),
    ("mover", &[]),
    ("patterns", &["claims", "config", "ledger", "routes"]),
    ("protocol", &[]),
    ("retained", &[]),
    ("routes", &[]),
    ("worker", &["config", "doors"]),
];

/// Crates without I/O, clocks or tasks: all that `protocol` may use besides the standard library.
const PURE_CRATES: [&str; 6] = ["bytes", "foldhash", "hashbrown", "memchr", "smallvec", "thiserror"];

/// Crates that are back ends, or parts of one: only `broker.rs` assembles them. The durable log is a library besides, which
/// the command line looks at where no back end runs.
const ADAPTERS: [&str; 4] = ["linkspan_amqp", "linkspan_embedded", "linkspan_mqtt", "linkspan_queues"];

/// Where the sources of the root package break the directions. `crates` are the root package's dependencies.
pub fn violations(sources: &[Source], crates: &[String]) -> Vec<String> {
    let mut found = vec![];
    for s in sources {
        let from = if s.path == "src/main.rs" { "main" } else { s.room() };
        if from.is_empty() {
            continue;
        }
        let Some((_, known)) = MAY_KNOW.iter().find(|(room, _)| *room == from) else {
            found.push(format!("{}: the room `{from}` has no line in MAY_KNOW of direction.rs", s.path));
            continue;
        };
        for p in s.paths() {
            let place = format!("{}:{}: `{p}`", s.path, p.line);
            let first = p.segments[0].as_str();
            let to = p.segments[1].as_str();
            let room = first == "crate" && MAY_KNOW.iter().any(|(room, _)| *room == to);
            // what coordinates is a client of the hub, as doors are
            let client = s.stem() == "coordinator" && to == "hub";
            if room && to != from && !known.contains(&to) && !client {
                found.push(format!("{place}: {from} must know nothing of {to}"));
            }
            let looks_on = first == "linkspan_queues" && s.path.starts_with("src/cli/store");
            if ADAPTERS.contains(&first) && from != "broker" && !looks_on {
                found.push(format!("{place}: only broker.rs names a concrete adapter"));
            }
            let foreign = first == "tokio" || crates.iter().any(|c| c == first);
            if from == "protocol" && foreign && !PURE_CRATES.contains(&first) {
                found.push(format!("{place}: protocol is bytes and packets only, without {first}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, text: &str) -> bool {
        let crates = ["linkspan_contract", "axum", "bytes"].map(String::from);
        !violations(&[Source::new(path, text)], &crates).is_empty()
    }

    #[test]
    fn protocol_knows_nothing() {
        assert!(broken("src/protocol/mqtt/connect.rs", "use crate::config::Limits;"));
        assert!(broken("src/protocol/mqtt/connect.rs", "use tokio::io::AsyncRead;"));
        assert!(broken("src/protocol/mqtt/connect.rs", "fn f(m: &linkspan_contract::Message) {}"));
        assert!(!broken(
            "src/protocol/mqtt/connect.rs",
            "use crate::protocol::mqtt::Error; use bytes::Bytes;"
        ));
    }

    #[test]
    fn patterns_know_no_doors() {
        assert!(broken("src/patterns/saga/machine.rs", "fn f() { super::super::super::doors::mqtt::go() }"));
        assert!(broken("src/patterns/priority_queue.rs", "use crate::{claims::Ticket, doors::Door};"));
        assert!(broken("src/patterns/priority_queue.rs", "use crate::hub::Hub;"));
        assert!(!broken("src/patterns/saga/coordinator.rs", "use crate::hub::Hub;"));
    }

    #[test]
    fn routes_know_no_patterns() {
        assert!(broken("src/routes/tree.rs", "use crate::patterns::Pattern;"));
        assert!(!broken("src/routes/tree.rs", "use super::filter::Filter;"));
    }

    #[test]
    fn only_the_broker_names_an_adapter() {
        assert!(broken("src/doors/amqp/channel.rs", "use linkspan_embedded::Embedded;"));
        assert!(broken("src/hub.rs", "fn f() { linkspan_queues::Queue::new(); }"));
        assert!(!broken("src/broker.rs", "use linkspan_embedded::Embedded;"));
        assert!(!broken("src/cli/store.rs", "use linkspan_queues::log::survey;"));
        assert!(broken("src/cli.rs", "use linkspan_queues::log::survey;"));
        assert!(broken("src/cli/store.rs", "use linkspan_embedded::Embedded;"));
    }

    #[test]
    fn doors_reach_routes_and_patterns_through_the_hub() {
        assert!(broken("src/doors/mqtt/session.rs", "use crate::routes::Routes;"));
        assert!(broken("src/doors/mqtt/session.rs", "use crate::patterns::Plan;"));
        assert!(!broken("src/doors/mqtt/session.rs", "use crate::hub::Hub;"));
    }

    #[test]
    fn a_new_room_is_a_decision() {
        assert!(broken("src/gadgets/x.rs", "fn f() {}"));
    }

    #[test]
    fn what_tests_use_is_free() {
        assert!(!broken("src/routes/tree.rs", "#[cfg(test)]\nmod tests { use crate::patterns::Pattern; }"));
    }
}
