//! What holds the messages.

use std::fmt;

use linkspan_integration_tests::{Mosquitto, RabbitMq};

/// A back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackEnd {
    /// Linkspan's own.
    Embedded,
    /// RabbitMQ.
    RabbitMq,
    /// Mosquitto.
    Mosquitto,
}

impl BackEnd {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Embedded, Self::RabbitMq, Self::Mosquitto];

    /// Its table in a configuration file, with the broker that tests share.
    pub async fn table(self) -> String {
        match self {
            Self::Embedded => self.table_at(""),
            Self::RabbitMq => self.table_at(RabbitMq::shared().await.url()),
            Self::Mosquitto => self.table_at(Mosquitto::shared().await.url()),
        }
    }

    /// Its table with a broker that nobody asks.
    pub fn table_of_nobody(self) -> String {
        match self {
            Self::Embedded => self.table_at(""),
            Self::RabbitMq => self.table_at("amqp://guest:guest@127.0.0.1:1/%2f"),
            Self::Mosquitto => self.table_at("mqtt://127.0.0.1:1"),
        }
    }

    fn table_at(self, url: &str) -> String {
        match self {
            Self::Embedded => "[backends.it]\nkind = \"embedded\"\n".to_owned(),
            Self::RabbitMq => format!("[backends.it]\nkind = \"amqp\"\nurl = \"{url}\"\n"),
            Self::Mosquitto => format!("[backends.it]\nkind = \"mqtt\"\nurl = \"{url}\"\n"),
        }
    }
}

impl fmt::Display for BackEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Embedded => "embedded",
            Self::RabbitMq => "RabbitMQ",
            Self::Mosquitto => "Mosquitto",
        })
    }
}
