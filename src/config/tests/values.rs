//! Where values come from, and what they become.

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
    assert_eq!((jobs.queues.len(), jobs.window.get(), &*jobs.backend, &*jobs.vhost), (1, 5, "local", "/"));
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
