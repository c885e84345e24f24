//! What holds where nothing is said.

use super::*;

#[test]
fn without_a_file_three_doors_on_loopback_lead_to_one_embedded_back_end() {
    let config = Config::parse(None, []).unwrap();
    let open: Vec<String> = config.doors.open().map(|(name, at)| format!("{name} {at}")).collect();
    assert_eq!(open, ["mqtt 127.0.0.1:1883", "amqp 127.0.0.1:5672", "http 127.0.0.1:8080"]);
    let local = Backend::Embedded { path: "linkspan-data".into(), sync: Sync::Group, segment_size: 64 << 20 };
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
