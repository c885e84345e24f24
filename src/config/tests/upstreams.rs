//! Back ends that are brokers.

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
    let Backend::Amqp(Upstream { url, ca, connections, connect_timeout, .. }) = &config.backends["rabbit"]
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
        &["linkspan.toml:4: route[0].drain: a publish-subscribe route has no queue that could be drained"],
    );
}
