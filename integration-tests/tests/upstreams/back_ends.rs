//! Back ends as configuration files have them.

use linkspan_integration_tests::{Mosquitto, RabbitMq};

/// The embedded one, `local`.
pub const LOCAL: &str = "[backends.local]\nkind = \"embedded\"\n";

/// `rabbit`, at a URL.
pub fn rabbit_at(url: &str) -> String {
    format!("[backends.rabbit]\nkind = \"amqp\"\nurl = \"{url}\"\n")
}

/// `mosquitto`, at a URL.
pub fn mosquitto_at(url: &str) -> String {
    format!("[backends.mosquitto]\nkind = \"mqtt\"\nurl = \"{url}\"\n")
}

/// `local`, `rabbit` and `mosquitto`, of which one is the home.
pub fn all(rabbitmq: &RabbitMq, mosquitto: &Mosquitto, home: &str) -> String {
    let (rabbit, mosquitto) = (rabbit_at(rabbitmq.url()), mosquitto_at(mosquitto.url()));
    format!("{LOCAL}{rabbit}{mosquitto}{}", home_is(home))
}

/// Which one is the home.
pub fn home_is(name: &str) -> String {
    format!("[vhosts.\"/\"]\nbackend = \"{name}\"\n")
}

/// A publish-subscribe route.
pub fn news(address: &str, backend: &str) -> String {
    format!("[[route]]\nmatch = \"{address}\"\npattern = \"publish-subscribe\"\nbackend = \"{backend}\"\n")
}

/// A work route.
pub fn work(address: &str, queue: &str, backend: &str) -> String {
    format!(
        "[[route]]\nmatch = \"{address}\"\npattern = \"competing-consumers\"\nqueue = \"{queue}\"\n\
         backend = \"{backend}\"\n"
    )
}
