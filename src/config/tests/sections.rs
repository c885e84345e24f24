//! Doors, users, vhosts and limits.

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
    told("[memory]\nlimits = 1\n", &["linkspan.toml:2: memory.limits: unknown key; did you mean `limit`?"]);
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
