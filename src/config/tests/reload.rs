//! What a reload can change.

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
