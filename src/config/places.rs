//! Where keys stand, for what shows to be wrong only when the configuration is put to work.

use std::fmt;
use std::sync::Arc;

use super::route_key::RouteKey;
use super::source::Sources;
use super::{Config, ConfigError, KeyPath, Place, Problem};
use crate::routes::Relation;

/// The file and the environment that a configuration was read from. They are no part of what it says: all are equal.
#[derive(Clone)]
pub(super) struct Places {
    pub(super) sources: Arc<Sources>,
    /// Where each route stands, in the order of [`Config::routes`]: a route that is implied by another has no number of
    /// its own in the file.
    pub(super) routes: Vec<RouteKey>,
}

/// What of a configuration cannot be put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Culprit<'a> {
    /// The ledger.
    Ledger,
    /// A back end, and the key of it that has to change when it is one.
    Backend(&'a str, Option<&'a str>),
    /// A vhost.
    Vhost(&'a str),
    /// A route of a vhost, by its match, and the key of it that has to change.
    Route(&'a str, &'a str, &'a str),
    /// A queue of a vhost, and the match of the route that owns or owned it.
    Queue(&'a str, &'a str, &'a str),
    /// A worker, by its place in the file, and the key of it that has to change.
    Worker(usize, &'a str),
}

impl Config {
    /// What is wrong with `culprit`, with the place of the key to change.
    pub fn wrong(&self, culprit: Culprit<'_>, text: impl Into<Box<str>>) -> ConfigError {
        self.wrong_key(self.key_of(culprit), text)
    }

    pub(super) fn wrong_key(&self, key: KeyPath, text: impl Into<Box<str>>) -> ConfigError {
        ConfigError { place: self.places.sources.place(&key), key, problem: Problem::BadValue(text.into()) }
    }

    /// Where the address of a door was set, for errors that show when it is listened on.
    pub fn place_of_listen(&self, door: &str) -> Place {
        let key = KeyPath::of(["doors", door, "listen"]);
        let sources = &self.places.sources;
        if sources.is_set(&key) { sources.place(&key) } else { Place::Default }
    }

    fn key_of(&self, culprit: Culprit<'_>) -> KeyPath {
        match culprit {
            Culprit::Ledger => KeyPath::of(["ledger"]),
            Culprit::Backend(name, None) => KeyPath::of(["backends", name]),
            Culprit::Backend(name, Some(key)) => KeyPath::of(["backends", name, key]),
            Culprit::Vhost(name) => KeyPath::of(["vhosts", name]),
            Culprit::Route(vhost, filter, key) => {
                self.route(vhost, filter).map_or_else(KeyPath::default, |route| route.key(key))
            }
            Culprit::Queue(vhost, queue, filter) => self.queue(vhost, queue, filter),
            Culprit::Worker(at, key) => KeyPath::of(["worker"]).index(at).key(key),
        }
    }

    /// The route for the same addresses, if there is one.
    fn route(&self, vhost: &str, filter: &str) -> Option<&RouteKey> {
        let is_it =
            |route: &super::Route| *route.vhost == *vhost && route.filter.relation(filter) == Relation::Equal;
        self.places.routes.get(self.routes.iter().position(|route| is_it(route))?)
    }

    /// The queue where it is named, or else its route, or else the file.
    fn queue(&self, vhost: &str, queue: &str, filter: &str) -> KeyPath {
        let named = self.routes.iter().zip(&self.places.routes).find_map(|(route, key)| {
            let place = route.queues.iter().position(|name| **name == *queue)?;
            (*route.vhost == *vhost).then_some((key, place))
        });
        let Some((key, place)) = named else {
            return self.route(vhost, filter).map_or_else(KeyPath::default, |route| route.table().clone());
        };
        let key = key.key("queue");
        let of_list = key.index(place);
        if self.places.sources.is_set(&of_list) { of_list } else { key }
    }
}

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Without the texts, which hold passwords.
impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[backends.rabbit]\nkind = \"amqp\"\nurl = \"amqp://h\"\n\n[[route]]\nmatch = \"a/+\"\n\
                        pattern = \"competing-consumers\"\nqueue = \"a\"\n\
                        dead-letter = { address = \"dead\", queue = \"dead\" }\n[[route]]\nmatch = \"b\"\n\
                        pattern = \"competing-consumers\"\nrequired = true\nqueue = [\"b\",\n  \"c\"]\n";

    #[test]
    fn what_cannot_be_put_in_force_is_told_with_the_line_of_the_key_to_change() {
        let variables = [("LINKSPAN_BACKENDS__RABBIT__CA".to_owned(), "ca.pem".to_owned())];
        let secure = TEXT.replace("amqp://", "amqps://");
        let config = Config::parse(Some(("x.toml", &secure)), variables).unwrap();
        for (culprit, told) in [
            (Culprit::Backend("rabbit", Some("url")), "x.toml:3: backends.rabbit.url: no"),
            (Culprit::Backend("rabbit", Some("key")), "x.toml:1: backends.rabbit.key: no"),
            (Culprit::Backend("rabbit", Some("ca")), "LINKSPAN_BACKENDS__RABBIT__CA: backends.rabbit.ca: no"),
            (Culprit::Backend("rabbit", None), "x.toml:1: backends.rabbit: no"),
            (Culprit::Ledger, "x.toml: ledger: no"),
            (Culprit::Vhost("/"), "x.toml: vhosts.\"/\": no"),
            (Culprit::Route("/", "b", "required"), "x.toml:13: route[1].required: no"),
            (Culprit::Route("/", "a/+", "dead-letter"), "x.toml:9: route[0].dead-letter: no"),
            (Culprit::Route("/", "a/+", "spool"), "x.toml:5: route[0].spool: no"),
            (Culprit::Route("/", "dead", "match"), "x.toml:9: route[0].dead-letter.address: no"),
            (Culprit::Route("/", "dead", "pattern"), "x.toml:9: route[0].dead-letter: no"),
            (Culprit::Queue("/", "dead", "dead"), "x.toml:9: route[0].dead-letter.queue: no"),
            (Culprit::Queue("/", "gone", "dead"), "x.toml:9: route[0].dead-letter: no"),
            (Culprit::Queue("/", "a", "a/+"), "x.toml:8: route[0].queue: no"),
            (Culprit::Queue("/", "c", "b"), "x.toml:15: route[1].queue[1]: no"),
            (Culprit::Queue("/", "gone", "b"), "x.toml:10: route[1]: no"),
            (Culprit::Queue("/", "gone", "gone"), "x.toml: no"),
        ] {
            assert_eq!(config.wrong(culprit, "no").to_string(), told);
        }
        assert_eq!(format!("{:?}", config.places), "Places", "the text of the file may hold passwords");
    }
}
