//! What a user of the configuration sees.

mod dead_letters;
mod fences;

use super::*;
use crate::routes::{Pattern, QueueType};
use std::time::Duration;

const HASH: &str = "argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$JrU8Tqtic8yGdZFcoZ0mt8EDW4ao54m3Pb1uL0p2ueY";

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(Some(("linkspan.toml", text)), [])
}

fn from_environment(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(Some(("linkspan.toml", text)), variables)
}

/// The lines that a user is shown.
fn errors(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

#[track_caller]
fn told(text: &str, expected: &[&str]) {
    assert_eq!(errors(text), expected, "\n--- of ---\n{text}");
}

const JOBS: &str = "[[route]]\nmatch = \"jobs\"\npattern = \"competing-consumers\"\nqueue = \"jobs\"\n";

mod defaults {
    use super::*;

    #[test]
    fn without_a_file_three_doors_on_loopback_lead_to_one_embedded_back_end() {
        let config = Config::parse(None, []).unwrap();
        let open: Vec<String> = config.doors.open().map(|(name, at)| format!("{name} {at}")).collect();
        assert_eq!(open, ["mqtt 127.0.0.1:1883", "amqp 127.0.0.1:5672", "http 127.0.0.1:8080"]);
        let local =
            Backend::Embedded { path: "linkspan-data".into(), sync: Sync::Group, segment_size: 64 << 20 };
        assert_eq!(config.backends, BTreeMap::from([("local".into(), local)]));
        assert_eq!(config.vhosts, BTreeMap::from([("/".into(), Vhost { backend: "local".into() })]));
        assert!(config.users.is_empty() && config.routes.is_empty());
        assert_eq!(config, parse("").unwrap(), "an empty file changes nothing");
    }

    #[test]
    fn a_door_is_turned_off_with_enabled_false() {
        let config = parse("[doors.amqp]\nenabled = false\n[doors.http]\nenabled = false").unwrap();
        assert_eq!(config.doors.open().map(|(name, _)| name).collect::<Vec<_>>(), ["mqtt"]);
        told(
            "[doors.amqp]\nlisten = \"\"",
            &[
                "linkspan.toml:2: doors.amqp.listen: \"\" is no address; to turn a door off, write `enabled = false`",
            ],
        );
    }
}

mod values {
    use super::*;

    #[test]
    fn the_environment_wins_against_the_file_and_the_file_against_the_defaults() {
        let file = "[doors.mqtt]\nlisten = \"127.0.0.1:2883\"\nmax-packet-size = \"2 MiB\"\n";
        let variables = [
            ("LINKSPAN_DOORS__MQTT__LISTEN", "[::1]:3883"),
            ("LINKSPAN_DOORS__MQTT__MAX_CONNECTIONS", "7"),
            ("LINKSPAN_DOORS__AMQP__ENABLED", "false"),
            ("LINKSPAN_DOORS__AMQP__HEARTBEAT", "5s"),
            ("LINKSPAN_LOG", "warn,linkspan::doors=debug"),
            ("PATH", "/usr/bin"),
        ];
        let config = from_environment(file, &variables).unwrap();
        assert_eq!(config.doors.mqtt.listen.to_string(), "[::1]:3883");
        assert_eq!(config.doors.mqtt.max_packet_size, 2 << 20);
        assert_eq!(config.doors.mqtt.max_connections.get(), 7);
        assert_eq!(config.doors.amqp.heartbeat, Duration::from_secs(5));
        assert!(!config.doors.amqp.enabled);
        assert!(!config.log.level.targets().would_enable("linkspan::hub", &tracing::Level::INFO));
    }

    #[test]
    fn an_instance_has_a_name_that_a_client_identifier_can_begin_with() {
        assert_eq!(parse("").unwrap().instance, None);
        assert_eq!(parse("instance = \"plant-7.a_b\"").unwrap().instance.as_deref(), Some("plant-7.a_b"));
        let named = from_environment("instance = \"a\"", &[("LINKSPAN_INSTANCE", "b")]).unwrap();
        assert_eq!(named.instance.as_deref(), Some("b"));
        for (name, told_of) in [
            ("", "has 0 characters; expected 1 to 64"),
            (
                "plant/7",
                "contains '/'; expected letters of ASCII, digits, `-`, `_` and `.`, as in a client identifier",
            ),
            (
                "linkspan.a",
                "`linkspan.a` would be mistaken for a work queue's session, `linkspan.<queue>`; choose another name",
            ),
        ] {
            let line = format!("linkspan.toml:2: instance: {told_of}");
            told(&format!("# x\ninstance = \"{name}\"\n"), &[&line]);
        }
        assert!(parse("instance = \"linkspan-7\"").is_ok());
        assert!(parse(&format!("instance = \"{}\"", "x".repeat(65))).is_err());
        let restart = parse("").unwrap().may_become(&named).unwrap_err().to_string();
        assert!(restart.starts_with("LINKSPAN_INSTANCE: instance: was changed"), "{restart}");
    }

    #[test]
    fn a_variable_means_the_key_of_the_file_whatever_its_letters() {
        let hash = format!("${HASH}");
        let file = format!("[users.My_Sensor]\npassword = \"{HASH}\"\n");
        let config = from_environment(&file, &[("LINKSPAN_USERS__MY_SENSOR__PASSWORD", &hash)]).unwrap();
        assert_eq!(config.users.keys().map(|name| &**name).collect::<Vec<_>>(), ["My_Sensor"]);
        let config = from_environment("", &[("LINKSPAN_USERS__MY_SENSOR__PASSWORD", HASH)]).unwrap();
        assert_eq!(config.users.keys().map(|name| &**name).collect::<Vec<_>>(), ["my-sensor"]);
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_called_linkspan_is_not_ours() {
        let variables = [
            ("LINKSPAN_SERVICE_HOST", "10.0.0.1"),
            ("LINKSPAN_SERVICE_PORT_MQTT", "1883"),
            ("LINKSPAN_PORT", "tcp://10.0.0.1:1883"),
            ("LINKSPAN_PORT_1883_TCP", "tcp://10.0.0.1:1883"),
            ("LINKSPAN_PORT_1883_TCP_PROTO", "tcp"),
        ];
        assert_eq!(from_environment("", &variables), parse(""));
    }

    #[test]
    fn a_route_names_its_queues_one_or_several() {
        let config = parse(&format!(
            "{JOBS}window = 5\n[[route]]\nmatch = \"orders/+\"\npattern = \"competing-consumers\"\n\
             queue = [\"inventory\", \"payment\"]\n[[route]]\nmatch = \"news/#\"\npattern = \"publish-subscribe\"\n"
        ))
        .unwrap();
        let [jobs, orders, news] = config.routes.as_slice() else { panic!("three routes") };
        assert_eq!(
            (jobs.queues.len(), jobs.window.get(), &*jobs.backend, &*jobs.vhost),
            (1, 5, "local", "/")
        );
        assert_eq!((orders.queues.len(), orders.window.get()), (2, 20));
        assert_eq!((news.queues.len(), news.pattern), (0, Pattern::PublishSubscribe));
        let routes = config.routes().unwrap();
        let orders = routes.vhost("/").unwrap().find(b"orders/placed").unwrap();
        assert_eq!(orders.filter.as_str(), "orders/+");
    }

    #[test]
    fn a_route_without_a_back_end_lies_on_the_home_of_its_vhost() {
        let config = parse(
            "[backends.one]\nkind = \"embedded\"\npath = \"1\"\n[backends.two]\nkind = \"embedded\"\npath = \"2\"\n\
             [vhosts.\"/\"]\nbackend = \"one\"\n[vhosts.lab]\nbackend = \"two\"\n\
             [[route]]\nmatch = \"a\"\npattern = \"publish-subscribe\"\nvhost = \"lab\"\n\
             [[route]]\nmatch = \"a\"\npattern = \"publish-subscribe\"\nbackend = \"two\"\n\
             [[route]]\nmatch = \"b\"\npattern = \"publish-subscribe\"\n",
        )
        .unwrap();
        let backends: Vec<&str> = config.routes.iter().map(|route| &*route.backend).collect();
        assert_eq!(backends, ["two", "two", "one"]);
    }
}

mod mistakes {
    use super::*;

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_what_was_meant() {
        told(
            "[[route]]\nmatch = \"a\"\npatern = \"publish-subscribe\"\n",
            &["linkspan.toml:3: route[0].patern: unknown key; did you mean `pattern`?"],
        );
        told("[door.mqtt]\n", &["linkspan.toml:1: door: unknown key; did you mean `doors`?"]);
        told("[log]\ncolour = 1", &["linkspan.toml:2: log.colour: unknown key; there is `level`"]);
    }

    #[test]
    fn all_mistakes_are_told_in_the_order_of_the_file() {
        told(
            "[doors.mqtt]\nlisten = 1883\nmax_connections = 5\nreceive-maximum = 70000\n\n[limits]\nqueue-limit = \"lots\"\n\
             \n[[route]]\nmatch = \"a/#/b\"\npattern = \"broadcast\"\n\n[[route]]\nvhost = \"lab\"\n",
            &[
                "linkspan.toml:2: doors.mqtt.listen: expected an IP address and a port such as \"127.0.0.1:1883\" or \
                 \"[::]:1883\", found a number",
                "linkspan.toml:3: doors.mqtt.max_connections: unknown key; did you mean `max-connections`?",
                "linkspan.toml:4: doors.mqtt.receive-maximum: 70000 is out of range; expected a whole number from 1 to 65535",
                "linkspan.toml:7: limits.queue-limit: \"lots\" is no size; expected a size such as \"256 KiB\" (B, kB, KiB, \
                 MB, MiB, GB, GiB)",
                "linkspan.toml:10: route[0].match: `#`: `#` stands for all that follows; write it alone, as the last level",
                "linkspan.toml:11: route[0].pattern: there is no pattern `broadcast`; there is `publish-subscribe`, \
                 `competing-consumers`, `exclusive-consumer`, `priority-queue`",
                "linkspan.toml:13: route[1].match: is missing; the addresses of the route, such as \"orders/placed\" or \
                 \"sensors/+/temperature\"",
                "linkspan.toml:13: route[1].pattern: is missing; publish-subscribe or competing-consumers or \
                 exclusive-consumer or priority-queue",
                "linkspan.toml:14: route[1].vhost: there is no vhost `lab`; there is `/`",
            ],
        );
    }

    #[test]
    fn a_wrong_type_says_what_is_needed() {
        told(
            "[doors]\nmqtt = true\n[doors.amqp]\nenabled = \"yes\"\nheartbeat = 60\nchannel-max = 0\n",
            &[
                "linkspan.toml:2: doors.mqtt: expected a table, found true or false",
                "linkspan.toml:4: doors.amqp.enabled: expected true or false, found a text",
                "linkspan.toml:5: doors.amqp.heartbeat: 60 has no unit; expected a duration such as \"30s\" (ms, s, m, h, d)",
                "linkspan.toml:6: doors.amqp.channel-max: 0 is out of range; expected a whole number from 1 to 65535",
            ],
        );
        told(
            "[route]\nmatch = \"a\"",
            &[
                "linkspan.toml:1: route: expected a list of routes: write [[route]] with two brackets, found a table",
            ],
        );
        told(
            "[[route]]\nmatch = \"a\"\npattern = \"competing-consumers\"\nqueue = [\"a\", 3]",
            &["linkspan.toml:4: route[0].queue[1]: expected a text in quotes, found a number"],
        );
    }

    #[test]
    fn a_mistake_in_the_environment_names_the_variable() {
        let told =
            |variables: &[(&str, &str)]| from_environment("[log]\n", variables).unwrap_err().to_string();
        assert_eq!(
            told(&[("LINKSPAN_DOORS__MQTT__LISTEN", "here"), ("LINKSPAN_LOG", "loud")]),
            "LINKSPAN_DOORS__MQTT__LISTEN: doors.mqtt.listen: \"here\" is no address; expected an IP address and a port \
             such as \"127.0.0.1:1883\" or \"[::]:1883\"\n\
             LINKSPAN_LOG: log.level: \"loud\" is no level; expected off, error, warn, info, debug or trace, or levels of \
             parts such as \"info,linkspan::doors=debug\""
        );
        assert_eq!(
            told(&[("LINKSPAN_DOORS__MQTT__LISTN", "127.0.0.1:1")]),
            "LINKSPAN_DOORS__MQTT__LISTN: doors.mqtt.listn: unknown key; did you mean `listen`?"
        );
        assert_eq!(
            told(&[("LINKSPAN_DOORS_MQTT_LISTEN", "127.0.0.1:1")]),
            "LINKSPAN_DOORS_MQTT_LISTEN: unknown variable; section and key are joined by two underscores, as in \
             LINKSPAN_DOORS__MQTT__LISTEN"
        );
        assert_eq!(
            told(&[("LINKSPAN_ROUTE__0__QUEUE", "jobs")]),
            "LINKSPAN_ROUTE__0__QUEUE: routes and workers can be given in the file only"
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = Config::load(Some(Path::new("no/such/file.toml")), []).unwrap_err().to_string();
        assert!(error.starts_with("no/such/file.toml: cannot be read: "), "{error}");
    }
}

mod routes {
    use super::*;

    #[test]
    fn two_equal_matches_name_each_other() {
        told(
            &format!("{JOBS}\n[[route]]\nmatch = \"jobs\"\npattern = \"publish-subscribe\"\n"),
            &[
                "linkspan.toml:7: route[1].match: `jobs` matches the same addresses as `jobs` of route[0] (line 2); keep one \
               of them",
            ],
        );
    }

    #[test]
    fn a_queue_has_one_route() {
        told(
            &format!(
                "{JOBS}\n[[route]]\nmatch = \"x\"\npattern = \"competing-consumers\"\nqueue = [\"a\", \"jobs\"]\n"
            ),
            &[
                "linkspan.toml:9: route[1].queue: queue `jobs` already belongs to route[0] (line 4); each queue has one route",
            ],
        );
        told(
            "[[route]]\nmatch = \"x\"\npattern = \"competing-consumers\"\nqueue = [\"a\", \"a\"]\n",
            &["linkspan.toml:4: route[0].queue[1]: `a` is named twice"],
        );
    }

    #[test]
    fn a_pattern_and_its_queue_go_together() {
        told(
            "[[route]]\nmatch = \"x\"\npattern = \"competing-consumers\"\n",
            &[
                "linkspan.toml:1: route[0].queue: is missing; pattern `competing-consumers` needs the name of a queue, or \
               several in a list",
            ],
        );
        told(
            "[[route]]\nmatch = \"x\"\npattern = \"publish-subscribe\"\nqueue = \"q\"\nwindow = 3\n",
            &[
                "linkspan.toml:4: route[0].queue: a publish-subscribe route has no queue; did you mean pattern \
                 `competing-consumers`?",
                "linkspan.toml:5: route[0].window: a publish-subscribe route has no window; it has no queue",
            ],
        );
    }

    #[test]
    fn a_queue_name_has_to_suit_all_protocols() {
        let route = |queue: &str| errors(&JOBS.replace("queue = \"jobs\"", &format!("queue = \"{queue}\"")));
        assert_eq!(route(""), ["linkspan.toml:4: route[0].queue: a queue's name has 1 to 255 bytes"]);
        assert_eq!(
            route("amq.x"),
            ["linkspan.toml:4: route[0].queue: `amq.x` begins with `amq.`, which is reserved"]
        );
        assert_eq!(
            route("a+b"),
            [
                "linkspan.toml:4: route[0].queue: \"a+b\" contains '+', which no MQTT client could subscribe to"
            ]
        );
        assert!(route("images/resize ü").is_empty());
    }

    #[test]
    fn an_unknown_back_end_is_named_with_the_one_that_was_meant() {
        told(
            "[backends.rabbit]\nkind = \"embedded\"\n[[route]]\nmatch = \"x\"\npattern = \"publish-subscribe\"\nbackend = \
             \"rabit\"\n",
            &["linkspan.toml:6: route[0].backend: there is no back end `rabit`; did you mean `rabbit`?"],
        );
    }
}

mod this_version {
    use super::*;

    #[test]
    fn patterns_of_later_versions_are_refused_with_those_there_are() {
        told(
            "[[route]]\nmatch = \"x\"\npattern = \"request-reply\"\nqueue = \"q\"\ntimeout = 10\n",
            &[
                "linkspan.toml:3: route[0].pattern: pattern `request-reply` is not available in this version; available: \
                 publish-subscribe, competing-consumers, exclusive-consumer, priority-queue",
                "linkspan.toml:5: route[0].timeout: this key is not available in this version; remove it",
            ],
        );
    }

    #[test]
    fn keys_of_later_versions_are_refused_not_ignored() {
        for key in ["claim-check", "timeout"] {
            told(
                &format!("{JOBS}{key} = 1\n"),
                &[&format!(
                    "linkspan.toml:5: route[0].{key}: this key is not available in this version; remove it"
                )],
            );
        }
        told(
            "[claims]\nstore = \"file://x\"",
            &["linkspan.toml:1: claims: this key is not available in this version; remove it"],
        );
    }
}

mod terms {
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
        let priorities = Priorities { highest: 4, weighted: true, from: None, otherwise: 2, apart: false };
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
}

mod upstreams {
    use super::*;
    use crate::config::{MqttVersion, Upstream};

    #[test]
    fn back_ends_of_other_kinds_have_a_url() {
        let config = parse(
            "[backends.rabbit]\nkind = \"amqp\"\nurl = \"amqps://one,two\"\nca = \"ca.pem\"\nconnections = 3\n\
             [backends.mosquitto]\nkind = \"mqtt\"\nurl = \"mqtt://h:1884\"\nversion = \"3.1.1\"\nconnect-timeout = \"2s\"\n\
             [vhosts.\"/\"]\nbackend = \"rabbit\"\n",
        )
        .unwrap();
        let Backend::Amqp(Upstream { url, ca, connections, connect_timeout, .. }) =
            &config.backends["rabbit"]
        else {
            panic!("{:?}", config.backends)
        };
        assert_eq!(
            (url.hosts().collect::<Vec<_>>(), ca.as_deref()),
            (vec!["one", "two"], Some(Path::new("ca.pem")))
        );
        assert_eq!((connections.get(), connect_timeout.as_secs()), (3, 10));
        let Backend::Mqtt { upstream, version } = &config.backends["mosquitto"] else {
            panic!("{:?}", config.backends)
        };
        assert_eq!((upstream.connect_timeout.as_secs(), *version), (2, MqttVersion::V311));
    }

    #[test]
    fn keys_of_another_kind_are_refused() {
        told(
            "[backends.m]\nkind = \"mqtt\"\nurl = \"http://127.0.0.1\"\nsync = \"group\"\nkey = \"k\"\n",
            &[
                "linkspan.toml:1: backends.m.certificate: is missing; the file that `key` belongs to",
                "linkspan.toml:3: backends.m.url: has the scheme `http`; expected `mqtt` or `mqtts`",
                "linkspan.toml:4: backends.m.sync: only a back end of kind `embedded` has a sync",
                "linkspan.toml:5: backends.m.key: is for TLS; write the url with the scheme `mqtts`, or remove this key",
            ],
        );
        told(
            "[backends.r]\nkind = \"amqp\"\nversion = \"5\"\nconnect-timeout = \"0s\"\nurl = \"amqp://h\"\n",
            &[
                "linkspan.toml:3: backends.r.version: only a back end of kind `mqtt` has a version",
                "linkspan.toml:4: backends.r.connect-timeout: 0s leaves no time to connect; expected \"1s\" or more",
            ],
        );
        told(
            "[backends.e]\nkind = \"embedded\"\nurl = \"amqp://h\"\n",
            &["linkspan.toml:3: backends.e.url: an embedded back end has no url; it has a `path`"],
        );
        told(
            "[backends.m]\nkind = \"mqtt\"\nurl = \"mqtt://a,b\"\n",
            &["linkspan.toml:3: backends.m.url: names several hosts; an MQTT broker has one"],
        );
    }

    #[test]
    fn the_files_of_a_log_have_a_size() {
        let sizes = |text: &str| -> Vec<u64> {
            let of = |backend: &Backend| match backend {
                Backend::Embedded { segment_size, .. } => *segment_size,
                Backend::Amqp(upstream) | Backend::Mqtt { upstream, .. } => upstream.segment_size,
            };
            parse(text).unwrap().backends.values().map(of).collect()
        };
        assert_eq!(sizes("[backends.e]\nkind = \"embedded\"\n"), [64 << 20]);
        assert_eq!(sizes("[backends.e]\nkind = \"embedded\"\nsegment-size = \"4 MiB\"\n"), [4 << 20]);
        assert_eq!(
            sizes("[backends.m]\nkind = \"mqtt\"\nurl = \"mqtt://h\"\nsegment-size = \"1 MiB\"\n"),
            [1 << 20]
        );
        told(
            "[backends.e]\nkind = \"embedded\"\nsegment-size = \"64 KiB\"\n",
            &["linkspan.toml:3: backends.e.segment-size: 64 KiB is not between \"1 MiB\" and \"1 GiB\""],
        );
    }

    const RABBIT: &str = "[backends.r]\nkind = \"amqp\"\nurl = \"amqp://h\"\n[[route]]\nmatch = \"a\"\n\
                          pattern = \"competing-consumers\"\nqueue = \"q\"\n";

    #[test]
    fn work_routes_have_a_queue_type_and_a_dead_letter_address() {
        let config =
            parse(&format!("{RABBIT}queue-type = \"quorum\"\ndead-letter = \"a/dead\"\nrequired = true\n"))
                .unwrap();
        let route = &config.routes[0];
        assert_eq!((route.queue_type, route.required, route.drain), (Some(QueueType::Quorum), true, false));
        assert_eq!(route.dead_letter.as_deref(), Some("a/dead"));
    }

    #[test]
    fn a_route_to_a_broker_may_have_a_spool() {
        let config = parse(&format!("{RABBIT}spool = \"1 GiB\"\n")).unwrap();
        assert_eq!(config.routes[0].spool.map(u64::from), Some(1 << 30));
        let spools = |config: &Config| config.backends["r"].directory().display().to_string();
        assert_eq!(spools(&config), "linkspan-data/brokers/r");
        let elsewhere = parse("[backends.r]\nkind = \"mqtt\"\nurl = \"mqtt://h\"\npath = \"/s\"\n").unwrap();
        assert_eq!(spools(&elsewhere), "/s");
        let named = parse("[backends.\"../a b\"]\nkind = \"mqtt\"\nurl = \"mqtt://h\"\n").unwrap();
        let folder = named.backends["../a b"].directory().display().to_string();
        assert_eq!(folder, "linkspan-data/brokers/%2e%2e%2fa%20b");
        told(
            &format!("{RABBIT}spool = \"0 B\"\n"),
            &[
                "linkspan.toml:8: route[0].spool: holds nothing; expected a size such as \"1 GiB\", or no spool at all",
            ],
        );
        told(
            &format!("{RABBIT}spool = \"much\"\n"),
            &[
                "linkspan.toml:8: route[0].spool: \"much\" is no size; expected a size such as \"256 KiB\" (B, kB, KiB, MB, MiB, \
               GB, GiB)",
            ],
        );
        told(
            &format!("{JOBS}spool = \"1 GiB\"\n"),
            &[
                "linkspan.toml:5: route[0].spool: a back end of kind `embedded` is never away; a spool is for one of kind \
               `amqp` or `mqtt`",
            ],
        );
    }

    #[test]
    fn queue_types_and_dead_letters_that_cannot_be_are_refused() {
        told(
            &format!("{RABBIT}queue-type = \"quorom\"\ndead-letter = \"a\"\n"),
            &[
                "linkspan.toml:8: route[0].queue-type: there is no queue type `quorom`; did you mean `quorum`?",
                "linkspan.toml:9: route[0].dead-letter: `a` is this route's own address: its dead letters would come back to \
                 it; name another one",
            ],
        );
        told(
            &format!("{JOBS}queue-type = \"classic\"\ndead-letter = \"x/#\"\n"),
            &[
                "linkspan.toml:5: route[0].queue-type: only a back end of kind `amqp` has queue types; this route's is of \
                 kind `embedded`",
                "linkspan.toml:6: route[0].dead-letter: `x/#` is a filter; dead letters go to one address",
            ],
        );
        told(
            "[[route]]\nmatch = \"x\"\npattern = \"publish-subscribe\"\ndrain = true\n",
            &[
                "linkspan.toml:4: route[0].drain: a publish-subscribe route has no queue that could be drained",
            ],
        );
    }
}

mod sections {
    use super::*;

    #[test]
    fn a_door_beyond_loopback_needs_users() {
        told(
            "[doors.mqtt]\nlisten = \"0.0.0.0:1883\"\n",
            &[
                "linkspan.toml:2: doors.mqtt.listen: 0.0.0.0:1883 can be reached from other machines, but there are no users; \
               add [users.NAME] with a password from `linkspan hash-password`, or listen on 127.0.0.1",
            ],
        );
        let users = format!("[users.a]\npassword = \"{HASH}\"\n");
        assert!(parse(&format!("[doors.mqtt]\nlisten = \"0.0.0.0:1883\"\n{users}")).is_ok());
        assert!(parse("[doors.mqtt]\nlisten = \"0.0.0.0:1883\"\nenabled = false\n").is_ok());
        assert!(parse("[doors.mqtt]\nlisten = \"[::1]:1883\"\n").is_ok());
    }

    #[test]
    fn two_doors_cannot_share_an_address() {
        told(
            "[doors.mqtt]\nlisten = \"127.0.0.1:5672\"\n",
            &["linkspan.toml:2: doors.mqtt.listen: 127.0.0.1:5672 is taken by doors.amqp.listen already"],
        );
        let free = "[doors.mqtt]\nlisten = \"127.0.0.1:0\"\n[doors.amqp]\nlisten = \"127.0.0.1:0\"\n";
        assert!(parse(free).is_ok(), "port 0 is another free port each time");
    }

    #[test]
    fn limits_that_a_standard_sets_are_held() {
        told(
            "[doors.mqtt]\nmax-packet-size = \"1 GiB\"\nmax-keep-alive = \"1d\"\nconnect-timeout = \"0s\"\n[doors.amqp]\n\
             max-frame-size = 1000\nheartbeat = \"1500ms\"\n",
            &[
                "linkspan.toml:2: doors.mqtt.max-packet-size: 1 GiB is out of range; expected 1 KiB to 268435460 B",
                "linkspan.toml:3: doors.mqtt.max-keep-alive: 1d is out of range; expected whole seconds, \"0s\" to \"65535s\"",
                "linkspan.toml:4: doors.mqtt.connect-timeout: 0s leaves no time to connect; expected \"1s\" or more",
                "linkspan.toml:6: doors.amqp.max-frame-size: 1000 B is out of range; expected 4 KiB to 1 GiB",
                "linkspan.toml:7: doors.amqp.heartbeat: 1500ms is out of range; expected whole seconds, \"0s\" to \"65535s\"",
            ],
        );
        told(
            "[limits]\noutbound-low = \"2 MiB\"\n",
            &[
                "linkspan.toml:2: limits.outbound-low: outbound-low (2 MiB) has to be less than outbound-high (1 MiB)",
            ],
        );
    }

    #[test]
    fn the_limits_of_memory_and_disk_are_sizes_or_shares() {
        let config = parse("[memory]\nlimit = \"2 GiB\"\n[disk]\nfree-limit = \"2.5%\"\n").unwrap();
        assert_eq!(config.memory.limit, Amount::Bytes(2 << 30));
        assert_eq!(config.disk.free_limit.of(10_000), 250);
        let variables = [("LINKSPAN_MEMORY__LIMIT", "40%"), ("LINKSPAN_DISK__FREE_LIMIT", "0")];
        let config = from_environment("", &variables).unwrap();
        assert_eq!((config.memory.limit, config.disk.free_limit), (Amount::percent(40), Amount::Bytes(0)));
        told(
            "[memory]\nlimit = \"0%\"\n[disk]\nfree-limit = \"100%\"\n",
            &[
                "linkspan.toml:2: memory.limit: would hold publishers for ever; expected a size such as \"2 GiB\", or \
                 a share such as \"60%\" (\"100%\" holds nobody)",
                "linkspan.toml:4: disk.free-limit: no volume is ever wholly free; expected a size such as \"1 GiB\", or \
                 a share such as \"5%\"",
            ],
        );
        told(
            "[memory]\nlimit = \"120%\"\n[disk]\nfree-limit = true\n",
            &[
                "linkspan.toml:2: memory.limit: \"120%\" is no size and no share; expected a size such as \"2 GiB\", or \
                 a share such as \"60%\"",
                "linkspan.toml:4: disk.free-limit: expected a size such as \"2 GiB\", or a share such as \"60%\", found \
                 true or false",
            ],
        );
        told(
            "[memory]\nlimits = 1\n",
            &["linkspan.toml:2: memory.limits: unknown key; did you mean `limit`?"],
        );
    }

    #[test]
    fn a_password_has_to_be_a_hash_and_is_never_shown() {
        told(
            "[users.a]\npassword = \"secret\"\n[users.b]\n[users.c]\npassword = 5\n",
            &[
                "linkspan.toml:2: users.a.password: is no argon2id hash; make one with `linkspan hash-password`",
                "linkspan.toml:3: users.b.password: is missing; make a hash with `linkspan hash-password`",
                "linkspan.toml:5: users.c.password: expected a text in quotes, found a number",
            ],
        );
        let config = parse(&format!("[users.a]\npassword = \"{HASH}\"\n")).unwrap();
        assert!(!format!("{config:?}").contains("c29tZXNhbHQ"));
    }

    #[test]
    fn users_and_doors_name_vhosts_that_exist() {
        told(
            &format!(
                "[users.a]\npassword = \"{HASH}\"\nvhosts = [\n  \"/\",\n  \"lab\"]\n[doors.http]\nvhost = \"lab\"\n"
            ),
            &[
                "linkspan.toml:5: users.a.vhosts[1]: there is no vhost `lab`; there is `/`",
                "linkspan.toml:7: doors.http.vhost: there is no vhost `lab`; there is `/`",
            ],
        );
    }

    #[test]
    fn with_several_back_ends_a_vhost_names_its_home() {
        let two = "[backends.a]\nkind = \"embedded\"\n[backends.b]\nkind = \"embedded\"\npath = \"b\"\n";
        told(two, &["linkspan.toml: vhosts.\"/\".backend: is missing; which of a, b is the home?"]);
        told(
            &format!("{two}[vhosts.\"/\"]\nbackend = \"c\""),
            &["linkspan.toml:7: vhosts.\"/\".backend: there is no back end `c`; there is `a`, `b`"],
        );
        told(
            "[backends.a]\nkind = \"embedded\"\n[backends.b]\nkind = \"embedded\"\n[vhosts.\"/\"]\nbackend = \"a\"\n",
            &["linkspan.toml:3: backends.b.path: \"linkspan-data\" belongs to back end `a` already"],
        );
    }
}

mod reload {
    use super::*;

    #[test]
    fn routes_users_and_the_limits_of_alarms_can_be_reloaded_all_else_is_named() {
        let old = parse(JOBS).unwrap();
        let users = format!("[users.a]\npassword = \"{HASH}\"\n");
        assert_eq!(old.may_become(&parse(&users).unwrap()), Ok(()));
        let alarms = "[memory]\nlimit = \"1 MiB\"\n[disk]\nfree-limit = \"5%\"\n";
        assert_eq!(old.may_become(&parse(alarms).unwrap()), Ok(()));
        let new = parse(
            "[doors.mqtt]\nlisten = \"127.0.0.1:2883\"\nmax-packet-size = \"1 MiB\"\n[backends.other]\nkind = \"embedded\"\n\
             [limits]\nslow-after = \"2s\"\n",
        )
        .unwrap();
        let told = old.may_become(&new).unwrap_err().to_string();
        let (keys, why): (Vec<&str>, Vec<&str>) =
            told.lines().map(|line| line.split_once(": was changed, ").unwrap()).unzip();
        assert_eq!(
            keys,
            [
                "linkspan.toml: vhosts.\"/\".backend",
                "linkspan.toml:2: doors.mqtt.listen",
                "linkspan.toml:3: doors.mqtt.max-packet-size",
                "linkspan.toml:4: backends.local",
                "linkspan.toml:4: backends.other",
                "linkspan.toml:7: limits.slow-after",
            ]
        );
        assert_eq!(
            why[0],
            "and that needs a restart; a reload swaps routes, workers, users, [memory] and [disk]"
        );
    }
}

mod examples {
    use super::*;

    fn examples() -> Vec<(String, String)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let read = |path: std::path::PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        };
        files.filter(|path| path.extension().is_some_and(|end| end == "toml")).map(read).collect()
    }

    #[test]
    fn every_file_in_config_is_a_correct_configuration() {
        let examples = examples();
        assert!(examples.len() >= 4, "the annotated file and three examples");
        for (name, text) in examples {
            let config = Config::parse(Some((&name, &text)), []).unwrap_or_else(|errors| panic!("{errors}"));
            config.routes().unwrap();
        }
    }

    #[test]
    fn the_annotated_file_gives_every_key_with_its_default() {
        let (_, text) = examples().into_iter().find(|(name, _)| name == "linkspan.toml").unwrap();
        assert_eq!(parse(&text).unwrap(), parse("").unwrap(), "what it sets are the defaults");
        for (section, value) in [
            ("doors", Value::serialize(Doors::default()).unwrap()),
            ("limits", Value::serialize(Limits::default()).unwrap()),
            ("log", Value::serialize(Log::default()).unwrap()),
        ] {
            let lines = lines::Lines::parse("linkspan.toml", &text).unwrap();
            for key in leaves(&KeyPath::of([section]), &value) {
                assert!(lines.has(&key), "{key} is not in config/linkspan.toml");
            }
        }
    }

    fn leaves(key: &KeyPath, value: &Value) -> Vec<KeyPath> {
        match value {
            Value::Dict(_, table) => {
                table.iter().flat_map(|(name, value)| leaves(&key.key(name), value)).collect()
            }
            _ => vec![key.clone()],
        }
    }
}

mod robustness {
    use super::*;
    use proptest::prelude::*;

    /// Lines that meet in ways that nobody thought of.
    fn line() -> impl Strategy<Value = String> {
        let key =
            "(listen|enabled|route|match|queue|kind|path|url|backend|vhost|users|password|doors\\.mqtt|x)";
        let value = "(1|true|\"\"|\"a/\\+/#\"|\"1 MiB\"|\"9s\"|\\[\\]|\\[1, \"a\"\\]|\\{ a = 1 \\}|1979-05-27|.{0,8})";
        let table =
            "\\[\\[?(route|doors|doors.mqtt|users.a|backends.b|vhosts.\"/\"|limits|log|.{0,8})\\]\\]?";
        prop_oneof![
            (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
            table.prop_map(|line| line)
        ]
    }

    proptest! {
        #[test]
        fn any_text_and_any_variable_is_read_or_refused_in_lines(
            lines in prop::collection::vec(line(), 0..12),
            name in "LINKSPAN_(DOORS|ROUTE|USERS|LOG|[A-Z_]{0,6})(__[A-Z_]{0,8}){0,3}",
            value in "(\\{a=1\\}|\\[1,2\\]|.{0,8})",
        ) {
            let text = lines.join("\n");
            if let Err(errors) = Config::parse(Some(("linkspan.toml", &text)), [(name.clone(), value)]) {
                for line in errors.to_string().lines() {
                    let named = line.starts_with("linkspan.toml") || line.starts_with(&name) || line.starts_with("default");
                    prop_assert!(named, "{}", line);
                }
            }
        }
    }
}

mod ledger {
    use super::*;

    #[test]
    fn it_is_a_file_or_a_postgresql_and_the_environment_wins() {
        assert_eq!(parse("").unwrap().ledger, Ledger::File("linkspan-data/ledger.redb".into()));
        assert_eq!(parse("ledger = \"x/y.redb\"").unwrap().ledger, Ledger::File("x/y.redb".into()));
        let url = "postgres://linkspan:secret@db:5432/linkspan?sslmode=require";
        let shared = from_environment("ledger = \"x\"", &[("LINKSPAN_LEDGER", url)]).unwrap().ledger;
        let Ledger::Postgres(it) = &shared else { panic!("{shared:?}") };
        assert_eq!(it.expose(), url);
        for shown in [format!("{shared}"), format!("{shared:?}")] {
            assert!(shown.contains("db:5432") && !shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn what_is_neither_is_told_with_what_would_be() {
        let at = "linkspan.toml:2: ledger:";
        for (ledger, wrong) in [
            ("", "\"\" is no file"),
            (
                "postgre://h/d",
                "has the scheme `postgre`; expected the path of a file, or postgres://USER:PASSWORD@HOST/DATABASE; did you \
                 mean `postgres`?",
            ),
            (
                "file:///x",
                "has the scheme `file`; expected the path of a file, or postgres://USER:PASSWORD@HOST/DATABASE",
            ),
            (
                "postgres://u:se/cret@h",
                "has `/`, `?`, `#` or `@` before its host; in a user and password write %2f, %3f, %23 and %40",
            ),
            ("postgres://u:secret@h:x", "has the port `x`; expected 1 to 65535"),
        ] {
            told(&format!("# x\nledger = \"{ledger}\"\n"), &[&format!("{at} {wrong}")]);
        }
        told("ledger = 7", &["linkspan.toml:1: ledger: expected a text in quotes, found a number"]);
    }

    #[test]
    fn another_one_needs_a_restart() {
        let url = |password: &str| format!("ledger = \"postgres://u:{password}@h/d\"");
        let (one, other) = (parse(&url("a")).unwrap(), parse(&url("b")).unwrap());
        let refused = one.may_become(&other).unwrap_err().to_string();
        assert!(refused.starts_with("linkspan.toml:1: ledger: was changed"), "{refused}");
        assert!(one.may_become(&one.clone()).is_ok());
    }
}
