//! The protocols that clients speak.

use std::fmt;

/// A protocol, and with it a third party's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// MQTT 3.1.1, by `rumqttc`.
    Mqtt3,
    /// MQTT 5, by `rumqttc`.
    Mqtt5,
    /// AMQP 0-9-1, by `lapin`.
    Amqp,
    /// HTTP, by `ureq`.
    Http,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mqtt3, Self::Mqtt5, Self::Amqp, Self::Http];
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mqtt3 => "MQTT 3.1.1",
            Self::Mqtt5 => "MQTT 5",
            Self::Amqp => "AMQP",
            Self::Http => "HTTP",
        })
    }
}
