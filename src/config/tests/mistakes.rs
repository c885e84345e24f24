//! How mistakes are told: all of them, with file, line and key.

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
    let told = |variables: &[(&str, &str)]| from_environment("[log]\n", variables).unwrap_err().to_string();
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
