//! Who speaks which protocol: MQTT's types and AMQP's never meet but in a `translate.rs`, and nobody below a door asks
//! which door a message came through.

use crate::source::Source;

const PROTOCOLS: [&str; 3] = ["amqp", "http", "mqtt"];

/// Beginnings of names that ask for the door.
const QUESTIONS: [&str; 4] = ["by", "from", "is", "via"];

/// Where one protocol's file names another's types, or a file below the doors names any.
pub fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = vec![];
    for s in sources {
        let module = s.module();
        let own = match module.as_slice() {
            ["protocol" | "doors", p, ..] if PROTOCOLS.contains(p) => Some(*p),
            _ => None,
        };
        let mut spoken: Vec<&str> = own.into_iter().collect();
        for p in s.paths() {
            let [root, room, name, ..] = p.segments.as_slice() else { continue };
            let Some(name) = PROTOCOLS.iter().find(|n| *n == name) else { continue };
            if root == "crate" && (room == "protocol" || (room == "doors" && own.is_some())) {
                if !spoken.contains(name) {
                    spoken.push(name);
                }
                if spoken.len() > 1 && s.stem() != "translate" {
                    let (path, line) = (&s.path, p.line);
                    found.push(format!(
                        "{path}:{line}: `{p}`: only a translate.rs speaks {}",
                        spoken.join(" and ")
                    ));
                }
            }
        }
    }
    found
}

/// Names below the doors such as `is_mqtt`.
pub fn questions(sources: &[Source]) -> Vec<String> {
    let mut found = vec![];
    let above = |s: &Source| {
        s.path.starts_with("src/") && matches!(s.room(), "doors" | "protocol" | "config" | "broker")
    };
    for s in sources.iter().filter(|s| !above(s)) {
        for (line, name) in s.identifiers() {
            let lower = name.to_lowercase();
            let asks =
                lower.split_once('_').is_some_and(|(q, p)| QUESTIONS.contains(&q) && PROTOCOLS.contains(&p));
            if asks {
                found.push(format!("{}:{line}: `{name}`: nobody below a door asks which one it was", s.path));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, text: &str) -> bool {
        !violations(&[Source::new(path, text)]).is_empty()
    }

    #[test]
    fn one_protocol_does_not_name_the_other() {
        assert!(broken("src/protocol/mqtt/publish.rs", "use super::super::amqp::Table;"));
        assert!(broken("src/doors/amqp/channel.rs", "use crate::protocol::mqtt::Qos;"));
        assert!(broken("src/doors/http/publish.rs", "fn f() { crate::doors::mqtt::Session::new(); }"));
        assert!(!broken(
            "src/doors/amqp/channel.rs",
            "use crate::protocol::amqp::Method; use super::translate::to;"
        ));
    }

    #[test]
    fn only_a_translate_file_speaks_two() {
        let both = "use crate::protocol::{amqp::Table, mqtt::Property};";
        assert!(broken("src/hub.rs", both));
        assert!(!broken("src/doors/mqtt/translate.rs", both));
        assert!(!broken("src/doors/mod.rs", "pub mod amqp; pub mod mqtt;"));
        assert!(!broken("src/broker.rs", "use crate::doors::{amqp, mqtt};"));
    }

    #[test]
    fn nobody_below_a_door_asks_which_one_it_was() {
        let asks = |path: &str, text: &str| !questions(&[Source::new(path, text)]).is_empty();
        assert!(asks("src/hub.rs", "struct M { is_mqtt: bool }"));
        assert!(asks("adapters/embedded/src/broker.rs", "fn f(from_amqp: bool) {}"));
        assert!(!asks("src/doors/mqtt/mod.rs", "fn is_mqtt() {}"));
        assert!(!asks("src/hub.rs", "// is_mqtt\nfn plan() {}"));
    }
}
