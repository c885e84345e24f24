//! A log seen from outside, and brought down to what is live in it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use linkspan_queues::log::{
    Commit, Directory, Kind, Log, LogError, Mark, Options, Owned, SyncMode, Takes, Turn, Writer, compact,
    inspect, survey,
};

use crate::crash::options;
use crate::plain::seen;
use linkspan_queues::conformance::disk::{Disk, Fault};

fn open(disk: &Disk) -> (Log, Writer) {
    let (log, writer, _) =
        Log::without_thread(Arc::new(disk.clone()), options(SyncMode::Group), Arc::new(())).unwrap();
    (log, writer)
}

/// A disk with a record of each kind in it, some of which count no more.
fn of_all_kinds() -> Disk {
    let disk = Disk::default();
    let (log, mut writer) = open(&disk);
    let mut commit = Commit::new();
    let body = log.body();
    commit.chunk(body, 0, &[7; 200]).unwrap();
    commit.chunk(body, 200, &[8; 200]).unwrap();
    commit.stored(2, 5, (body, 400), b"head").unwrap();
    log.commit(&mut commit).unwrap();
    log.release_body(body);
    for sequence in 0..10 {
        commit.message(1, sequence, &[1; 100]).unwrap();
        log.commit(&mut commit).unwrap();
        while writer.turn() == Turn::Worked {}
    }
    commit.gone(1, 0..3);
    commit.given(1, 4..6);
    commit.mark(1, 7..8, Mark { attempts: Some(1), not_before: 9, ..Mark::default() });
    commit.put(5, b"key", b"value").unwrap();
    commit.put(5, b"away", b"value").unwrap();
    commit.delete(5, b"away").unwrap();
    log.commit(&mut commit).unwrap();
    while writer.turn() == Turn::Worked {}
    disk.after_kill()
}

#[test]
fn a_survey_says_what_a_log_comes_to() {
    let disk = of_all_kinds();
    let (mut done, mut all) = (0, 0);
    let found = survey(&disk, &mut |of, total| (done, all) = (of, total)).unwrap();
    assert!(done == all && all > 0, "{done} of {all} bytes are read");
    let queues: Vec<_> =
        found.queues.iter().map(|queue| (queue.queue, queue.messages, queue.bytes)).collect();
    assert_eq!(queues, [(1, 7, 700), (2, 1, 20)]);
    let oldest = found.queues[0].oldest.clone().unwrap();
    assert_eq!((oldest.sequence, oldest.payload), (3, vec![1; 100]));
    let oldest = found.queues[1].oldest.clone().unwrap();
    assert_eq!((oldest.sequence, &oldest.payload[..]), (5, &b"head"[..]));
    assert_eq!(found.owners, [Owned { owner: 5, keys: 1, bytes: 8 }]);
    assert_eq!((found.bodies, found.body_bytes), (1, 400));
    assert_eq!((found.damage.len(), found.lost.len(), found.torn.clone()), (0, 0, None));
    let (log, _) = open(&disk);
    let live: u64 = found.segments.iter().map(|segment| segment.live).sum();
    assert_eq!(live, log.usage().live);
    let mut records = BTreeMap::<String, u64>::new();
    inspect(&of_all_kinds(), &mut |entry| *records.entry(entry.file.into()).or_default() += 1).unwrap();
    let told = found.segments.iter().map(|segment| (segment.file.clone(), segment.records)).collect();
    assert_eq!(records, told);
}

#[test]
fn of_each_damage_it_says_what_it_takes_with_it() {
    let disk = of_all_kinds();
    let mut all = vec![];
    inspect(&disk, &mut |entry| {
        all.push((entry.file.to_owned(), entry.offset, entry.kind, entry.queue, entry.sequence));
    })
    .unwrap();
    // The last two are notes of the log itself; of the very last it cannot be known that it was there.
    all.pop();
    let mut seen = BTreeMap::<&str, u32>::new();
    for (file, offset, kind, queue, sequence) in &all {
        let (queue, sequence) = (*queue, *sequence);
        let gone = queue == 1 && sequence < 3;
        let (name, expected) = match kind {
            // They have no payload that could be damaged.
            Kind::Group | Kind::Seal => continue,
            Kind::Message if gone => ("a dead message", Takes::Nothing),
            Kind::Message | Kind::Stored => ("a message", Takes::Message { queue, sequence }),
            Kind::Chunk => ("a chunk", Takes::Body { messages: vec![(2, 5)] }),
            Kind::Put => ("a value", Takes::Value { owner: 5 }),
            Kind::Delete => ("a deletion", Takes::Deletion { owner: 5 }),
            Kind::Gone => ("gone", Takes::Gone { queue: 1 }),
            Kind::Given | Kind::Mark => ("marks", Takes::Marks { queue: 1 }),
        };
        *seen.entry(name).or_default() += 1;
        let other = disk.after_kill();
        other.flip(file, offset + 34);
        let found = survey(&other, &mut |_, _| {}).unwrap();
        let [harm] = &found.damage[..] else { panic!("{kind:?}: {:?}", found.damage) };
        assert_eq!((&harm.damage.file, harm.damage.offset), (file, *offset));
        assert_eq!(harm.takes, expected, "{kind:?} {queue} {sequence}");
        if *kind == Kind::Chunk {
            assert_eq!((&found.lost[..], found.bodies), (&[(2, 5)][..], 0));
        }
        let (log, _) = open(&other);
        let messages: u64 = found.queues.iter().map(|queue| queue.messages).sum();
        assert_eq!(messages, log.queues().iter().map(|queue| queue.len).sum::<u64>(), "as a start finds it");
        // A header that is damaged says nothing.
        let other = disk.after_kill();
        other.flip(file, offset + 9);
        let found = survey(&other, &mut |_, _| {}).unwrap();
        assert_eq!(found.damage.iter().map(|harm| &harm.takes).collect::<Vec<_>>(), [&Takes::Unknown]);
    }
    assert_eq!(seen.len(), 7, "{seen:?}");
    let name = &all[0].0;
    disk.flip(name, 17);
    let found = survey(&disk, &mut |_, _| {}).unwrap();
    assert_eq!(
        found.damage.iter().map(|harm| &harm.takes).collect::<Vec<_>>(),
        [&Takes::Nothing],
        "its name says it"
    );
}

#[test]
fn what_was_not_complete_is_torn_and_no_damage() {
    let disk = of_all_kinds();
    let mut last = (String::new(), 0);
    inspect(&disk, &mut |entry| last = (entry.file.to_owned(), entry.offset)).unwrap();
    disk.flip(&last.0, last.1 + 9);
    let found = survey(&disk, &mut |_, _| {}).unwrap();
    assert_eq!(found.damage, []);
    assert!(found.torn.is_none(), "it ends where nothing sound follows: {:?}", found.torn);
    assert_eq!(found.queues.len(), 2);
}

#[test]
fn a_log_is_compacted_to_what_is_live_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(dir.path(), Options::default(), Arc::new(())).unwrap();
    let mut commit = Commit::new();
    for sequence in 0..100_000 {
        commit.message(1, sequence, &[1; 1000]).unwrap();
        if sequence % 100 != 0 {
            commit.gone(1, sequence..sequence + 1);
        }
        if commit.size() > 1 << 20 {
            let lsn = log.commit(&mut commit).unwrap();
            log.wait(lsn).unwrap();
        }
    }
    log.commit(&mut commit).unwrap();
    let before = seen(&log);
    assert_eq!(before.0.len(), 1000);
    let open = || Directory::open(dir.path()).map(|store| Arc::new(store) as _);
    let Err(LogError::InUse { pid, .. }) = open() else { panic!("it is in use") };
    assert_eq!(Directory::holder(dir.path()), Some(pid));
    drop(log);
    assert_eq!(Directory::holder(dir.path()), None);
    let (mut done, mut all) = (0, 0);
    let told = compact(open().unwrap(), &mut |of, total| (done, all) = (of, total)).unwrap();
    assert!(done == all && all > 90 << 20, "{done} of {all}");
    assert!(told.before.bytes > 100 << 20 && told.after.bytes < 1200 << 10, "{told:?}");
    let files = || -> Vec<(String, u64)> {
        let all = fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
        all.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())).collect()
    };
    let on_disk: u64 = files().iter().map(|(_, bytes)| bytes).sum();
    assert!(on_disk < 1200 << 10, "{:?}", files());
    let again = compact(open().unwrap(), &mut |_, _| {}).unwrap();
    assert!(again.after.bytes < 1200 << 10);
    let (log, recovery) = Log::open(dir.path(), Options::default(), Arc::new(())).unwrap();
    assert_eq!((recovery.damage, recovery.cut), (vec![], None));
    assert!(seen(&log) == before);
}

#[test]
fn a_compaction_that_the_disk_refuses_loses_nothing() {
    let disk = of_all_kinds();
    let before = seen(&open(&disk).0);
    for call in 0..40 {
        for fault in [Fault::Full, Fault::Broken, Fault::HalfThenFull] {
            let other = disk.after_kill();
            other.fail_at(call, fault);
            let done = compact(Arc::new(other.clone()), &mut |_, _| {});
            let (log, _) = open(&other.after_power_loss(|| false));
            assert!(seen(&log) == before, "{fault:?} at call {call}: {done:?}");
        }
    }
}

#[test]
fn many_starts_leave_few_files() {
    let disk = Disk::default();
    for start in 0..60_u8 {
        let (log, mut writer) = open(&disk);
        let mut commit = Commit::new();
        commit.put(1, &[start], b"stays").unwrap();
        log.commit(&mut commit).unwrap();
        while writer.turn() == Turn::Worked {}
    }
    let (log, mut writer) = open(&disk);
    assert_eq!(log.keys(1).len(), 60);
    while writer.turn() == Turn::Worked {}
    let files = survey(&disk, &mut |_, _| {}).unwrap().segments;
    assert!(files.len() < 25, "{}", files.len());
}
