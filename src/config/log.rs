//! `[log]`: how much is said on standard error.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// `[log]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Log {
    /// What is said.
    pub level: Level,
}

/// A level, or levels of parts: `info`, `linkspan::doors=debug,warn`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Level(String);

/// Libraries that say the same as Linkspan, in other words.
const CLIENTS: [&str; 2] = ["lapin", "rumqttc"];

const EXPECTED: &str =
    "off, error, warn, info, debug or trace, or levels of parts such as \"info,linkspan::doors=debug\"";

impl Level {
    /// Reads a level; none when `text` is not one.
    fn parse(text: &str) -> Option<Self> {
        let is_level = |name: &str| {
            ["off", "error", "warn", "info", "debug", "trace"]
                .iter()
                .any(|level| level.eq_ignore_ascii_case(name))
        };
        // Targets takes a bare word that is no level for the name of a part.
        let parts = |part: &str| is_level(part.rsplit_once('=').map_or(part, |(_, level)| level).trim());
        let well_formed = text.split(',').all(parts) && text.parse::<Targets>().is_ok();
        well_formed.then(|| Self(text.to_owned()))
    }

    /// The filter of a subscriber. Clients of brokers are heard only when they are named: they take for an error what is
    /// a client's own mistake, and print messages of others.
    pub fn targets(&self) -> Targets {
        let mut targets: Targets = self.0.parse().unwrap_or_default();
        for client in CLIENTS.into_iter().filter(|client| !self.0.contains(client)) {
            targets = targets.with_target(client, LevelFilter::OFF);
        }
        targets
    }
}

impl Default for Level {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Level;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Level, E> {
                Level::parse(text)
                    .ok_or_else(|| E::custom(format_args!("{text:?} is no level; expected {EXPECTED}")))
            }
        }
        from.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level as Severity;

    #[test]
    fn levels_are_one_word_or_per_part() {
        for text in ["off", "info", "WARN", "linkspan::doors=debug,warn", "info, linkspan=trace"] {
            assert!(Level::parse(text).is_some(), "{text}");
        }
        for text in ["", "loud", "linkspan", "linkspan=loud", "info;debug"] {
            assert!(Level::parse(text).is_none(), "{text}");
        }
        let targets = Level::parse("warn,linkspan::doors=debug").unwrap().targets();
        assert!(targets.would_enable("linkspan::doors::mqtt", &Severity::DEBUG));
        assert!(!targets.would_enable("linkspan::hub", &Severity::INFO));
    }

    #[test]
    fn libraries_are_heard_when_they_are_named() {
        let heard = |level: &str| Level::parse(level).unwrap().targets();
        assert!(!heard("info").would_enable("lapin::channels", &Severity::ERROR));
        assert!(heard("info,lapin=debug").would_enable("lapin::channels", &Severity::DEBUG));
        assert!(heard("info").would_enable("linkspan_amqp::reporter", &Severity::INFO));
    }
}
