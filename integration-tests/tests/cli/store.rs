//! `linkspan store` on logs that the library made and that are damaged on purpose, also while a process has them.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use linkspan_integration_tests::process::{Folder, binary, run};
use linkspan_queues::log::{Directory, Kind, Log, Options, inspect};
use linkspan_queues::{Diary, Encode, Journal, Queued};
use serde_json::Value;

struct Text;

impl Encode<&str> for Text {
    fn encode(&self, body: &&str, out: &mut Vec<u8>) -> Option<(u64, u64)> {
        out.extend_from_slice(body.as_bytes());
        None
    }
}

/// What a command says, and its exit code.
fn said(folder: &Folder, arguments: &[&str]) -> (String, String, Option<i32>) {
    let output = run(folder.path(), arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

fn json(folder: &Folder, arguments: &[&str]) -> Value {
    let (out, err, _) = said(folder, arguments);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"))
}

/// A back end's directory with a log: a queue that a diary kept, values, and messages that are gone.
fn filled(path: &Path) -> Log {
    let options = Options { segment_size: 64 << 10, ..Options::default() };
    let (log, _) = Log::open(&path.join("log"), options, Arc::new(())).unwrap();
    let mut diary = Diary::new(1, Text);
    for position in 0..3 {
        let message = Queued {
            body: "a job",
            position,
            key: 0,
            size: 5,
            // 2001: a while ago.
            since: 1_000_000_000_000 + position,
            deadline: u64::MAX,
            attempts: 0,
            priority: 0,
            durable: true,
            logged: false,
            apart: false,
            received: false,
        };
        assert!(diary.queued(&message, false));
    }
    let mut commit = diary.commit;
    commit.put(7, b"topic", b"value").unwrap();
    log.commit(&mut commit).unwrap();
    for sequence in 0..3000 {
        commit.message(2, sequence, &[7; 100]).unwrap();
        if sequence % 10 != 0 {
            commit.gone(2, sequence..sequence + 1);
        }
        log.commit(&mut commit).unwrap();
    }
    commit.put(7, b"last", b"value").unwrap();
    log.wait(log.commit(&mut commit).unwrap()).unwrap();
    log
}

/// Flips a bit of the payload of a message; says in which file and at which offset its record lies.
fn damage(path: &Path, queue: u64, sequence: u64) -> (String, u64) {
    let log = path.join("log");
    let mut place = None;
    inspect(&Directory::look(&log), &mut |entry| {
        if (entry.kind, entry.queue, entry.sequence) == (Kind::Message, queue, sequence) {
            place = Some((entry.file.to_owned(), entry.offset));
        }
    })
    .unwrap();
    let (file, offset) = place.expect("the message is there");
    let damaged = fs::OpenOptions::new().read(true).write(true).open(log.join(&file)).unwrap();
    let mut byte = [0];
    damaged.read_exact_at(&mut byte, offset + 40).unwrap();
    damaged.write_all_at(&[byte[0] ^ 1], offset + 40).unwrap();
    (file, offset)
}

#[test]
fn inspect_tells_what_is_there_also_beside_the_process_that_has_it() {
    let folder = Folder::new();
    let log = filled(&folder.path().join("data"));
    let pid = std::process::id().to_string();
    for dir in ["data", "data/log"] {
        let (out, err, code) = said(&folder, &["store", "inspect", dir]);
        assert_eq!((err.as_str(), code), ("", Some(0)), "no bar where standard error is no terminal: {out}");
        assert!(out.contains(&format!("Process {pid} has it open")), "{out}");
        for line in ["  1  3 messages", "  2  300 messages", "  owner 7  2 keys", "Every checksum is right."]
        {
            assert!(out.contains(line), "{line} is not in\n{out}");
        }
        assert!(out.lines().any(|line| line.contains("3 messages") && line.contains("years ago")), "{out}");
    }
    let found = json(&folder, &["store", "inspect", "--json", "data"]);
    assert_eq!(found["held_by"], pid.as_str());
    let queue = &found["queues"][0];
    assert_eq!(
        (&queue["queue"], &queue["messages"], &queue["oldest_sequence"]),
        (&1.into(), &3.into(), &0.into())
    );
    assert!(queue["oldest_age_ms"].as_u64().unwrap() > 20 * 365 * 86_400_000);
    let files = found["files"].as_array().unwrap();
    assert!(files.len() > 5 && files.iter().all(|file| file["records"].as_u64() > Some(0)), "{found}");
    assert_eq!(found["damage"], serde_json::json!([]));
    drop(log);
    assert!(json(&folder, &["store", "inspect", "--json", "data"])["held_by"].is_null());
}

#[test]
fn verify_names_file_and_offset_of_each_damage_and_what_it_takes_with_it() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    let log = filled(&data);
    let (out, _, code) = said(&folder, &["store", "verify", "data"]);
    assert_eq!(code, Some(0), "{out}");
    let (file, offset) = damage(&data, 2, 1000);
    let (other, dead) = damage(&data, 2, 1001);
    for held in [Some(log), None] {
        let (out, err, code) = said(&folder, &["store", "verify", "data"]);
        assert_eq!((err.as_str(), code), ("", Some(1)), "{out}");
        for line in [
            format!("  {file} at {offset}, 136 bytes  takes message 1000 of queue 2\n"),
            format!("  {other} at {dead}, 136 bytes  takes nothing with it\n"),
        ] {
            assert!(out.contains(&line), "{line} is not in\n{out}");
        }
        assert!(!out.contains("Every checksum"), "{out}");
        let found = json(&folder, &["store", "verify", "--json", "data"]);
        assert_eq!(found["damage"][0]["offset"], offset);
        assert_eq!(found["damage"][0]["consequence"], "takes message 1000 of queue 2");
        drop(held);
    }
    let (out, _, code) = said(&folder, &["store", "inspect", "data"]);
    assert_eq!(code, Some(0), "inspect has done what it was asked for");
    assert!(out.contains("takes message 1000 of queue 2") && out.contains("299 messages"), "{out}");
}

#[test]
fn compact_waits_for_nobody_and_leaves_what_is_live() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    let log = filled(&data);
    let pid = std::process::id();
    let (out, err, code) = said(&folder, &["store", "compact", "data"]);
    assert_eq!((out.as_str(), code), ("", Some(2)));
    assert!(err.contains(&format!("data/log is in use by process {pid}: stop that first")), "{err}");
    drop(log);
    let (file, offset) = damage(&data, 2, 1000);
    let before = json(&folder, &["store", "inspect", "--json", "data"]);
    let (out, err, code) = said(&folder, &["store", "compact", "data"]);
    assert_eq!((err.as_str(), code), ("", Some(0)), "{out}");
    assert!(out.contains("  before  ") && out.contains("  now     "), "{out}");
    let set_aside = format!("{file}.{offset:x}.corrupt");
    assert!(out.contains(&format!("  {file} at {offset}, 136 bytes  set aside in {set_aside}\n")), "{out}");
    assert_eq!(fs::metadata(data.join("log").join(set_aside)).unwrap().len(), 136);
    let after = json(&folder, &["store", "inspect", "--json", "data"]);
    // The age has grown meanwhile.
    let queues = |mut found: Value| {
        let queues = found["queues"].as_array_mut().unwrap();
        queues.iter_mut().for_each(|queue| drop(queue.as_object_mut().unwrap().remove("oldest_age_ms")));
        found["queues"].take()
    };
    assert_eq!(queues(after.clone()), queues(before.clone()));
    assert_eq!(after["owners"], before["owners"]);
    assert_eq!(after["damage"], serde_json::json!([]), "what was set aside is damage no more");
    let bytes = |found: &Value, what: &str| -> u64 {
        found["files"].as_array().unwrap().iter().map(|file| file[what].as_u64().unwrap()).sum()
    };
    assert!(bytes(&before, "bytes") > 8 * bytes(&before, "live_bytes"));
    assert!(bytes(&after, "bytes") * 10 < bytes(&after, "live_bytes") * 11, "{after}");
    let again = json(&folder, &["store", "compact", "--json", "data"]);
    assert!(again["after"]["disk_bytes"].as_u64() <= Some(64 << 10), "{again}");
    let (log, recovery) = Log::open(&data.join("log"), Options::default(), Arc::new(())).unwrap();
    assert_eq!(recovery.damage, []);
    assert_eq!(log.queues().iter().map(|queue| queue.len).sum::<u64>(), 302);
}

#[test]
fn what_is_no_store_is_refused_with_what_to_do() {
    let folder = Folder::new();
    folder.write("notes.txt", "no log");
    fs::create_dir(folder.path().join("other")).unwrap();
    let log = filled(&folder.path().join("data"));
    drop(log);
    let name = json(&folder, &["store", "inspect", "--json", "data"])["files"][0]["file"].clone();
    let newer = folder.path().join("newer");
    fs::create_dir(&newer).unwrap();
    let mut bytes = fs::read(folder.path().join("data/log").join(name.as_str().unwrap())).unwrap();
    bytes[8] = 9;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..64]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    fs::write(newer.join(name.as_str().unwrap()), bytes).unwrap();
    for command in ["inspect", "verify", "compact"] {
        for (dir, expected) in [
            ("nowhere", "nowhere: there is no such directory"),
            ("notes.txt", "notes.txt: there is no such directory"),
            ("other", "other holds no log of Linkspan: neither it nor a folder `log` in it"),
            ("newer", "has format 9, this version reads 1: open it with the version that wrote it"),
        ] {
            let (out, err, code) = said(&folder, &["store", command, dir]);
            assert_eq!((out.as_str(), code), ("", Some(2)), "{command} {dir}");
            assert!(err.contains(expected) && err.lines().count() == 1, "{command} {dir}: {err}");
        }
    }
}

#[test]
fn who_may_not_read_it_is_told_whose_it_is_for() {
    let folder = Folder::new();
    drop(filled(&folder.path().join("data")));
    let log = folder.path().join("data/log");
    // Nothing is closed to root; so it is asked by somebody else, who cannot reach where the binary was built.
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = if is_root {
        let reachable = folder.path().join("linkspan");
        if fs::hard_link(binary(), &reachable).is_err() {
            fs::copy(binary(), &reachable).unwrap();
        }
        let mut command = Command::new(reachable);
        command.uid(65534).gid(65534);
        command
    } else {
        Command::new(binary())
    };
    fs::set_permissions(&log, fs::Permissions::from_mode(0o000)).unwrap();
    let output = command.current_dir(folder.path()).args(["store", "inspect", "data"]).output().unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o755)).unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert_eq!(err, "data/log may not be used by this user: run this as the user that the server runs as\n");
}
