//! What the log takes on the disk, and a disk that is full.

use std::sync::Arc;

use linkspan_queues::log::{
    Commit, Log, LogError, Mark, Options, Store, SyncMode, Turn, Window, Writer, verify,
};

use crate::crash::options;
use crate::heard::Heard;
use crate::plain::seen;
use linkspan_queues::conformance::disk::{Disk, Fault};

fn open(disk: &Disk) -> (Log, Writer, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let options = options(SyncMode::Group);
    let (log, writer, recovery) =
        Log::without_thread(Arc::new(disk.clone()), options, Arc::clone(&heard) as _).unwrap();
    assert_eq!(recovery.damage, []);
    (log, writer, heard)
}

fn work(writer: &mut Writer) {
    while writer.turn() == Turn::Worked {}
}

fn message(log: &Log, queue: u64, sequence: u64) -> Result<u64, LogError> {
    let mut commit = Commit::new();
    commit.message(queue, sequence, &[1; 100])?;
    log.commit(&mut commit)
}

fn gone(log: &Log, queue: u64, sequence: u64) {
    let mut commit = Commit::new();
    commit.gone(queue, sequence..sequence + 1);
    log.commit(&mut commit).unwrap();
}

#[test]
fn a_queue_that_is_worked_off_leaves_next_to_nothing() {
    let disk = Disk::default();
    let (log, mut writer, heard) = open(&disk);
    for sequence in 0..500 {
        message(&log, 1, sequence).unwrap();
        work(&mut writer);
        gone(&log, 1, sequence);
        work(&mut writer);
        assert!(log.usage().segments <= 3, "{:?}", log.usage());
    }
    assert!(disk.list().unwrap().len() <= 4, "files are written again: {:?}", disk.list());
    assert_eq!(heard.trouble(), Vec::<String>::new());
}

#[test]
fn old_messages_do_not_keep_what_came_after_them() {
    let disk = Disk::default();
    let (log, mut writer, _) = open(&disk);
    for parked in 0..20 {
        message(&log, 7, parked).unwrap();
        let mut commit = Commit::new();
        commit.put(9, &[u8::try_from(parked).unwrap()], b"a value that stays").unwrap();
        commit.given(7, parked..parked + 1);
        log.commit(&mut commit).unwrap();
    }
    for sequence in 0..1000 {
        message(&log, 1, sequence).unwrap();
        let mut commit = Commit::new();
        commit.put(9, b"one", &sequence.to_le_bytes()).unwrap();
        commit.put(9, &sequence.to_le_bytes(), b"short-lived").unwrap();
        log.commit(&mut commit).unwrap();
        gone(&log, 1, sequence);
        commit.delete(9, &sequence.to_le_bytes()).unwrap();
        log.commit(&mut commit).unwrap();
        work(&mut writer);
    }
    let usage = log.usage();
    assert!(usage.bytes <= 2 * usage.live + 2000 + 2 * 1500, "{usage:?}");
    let before = seen(&log);
    assert_eq!((before.0.len(), before.1.len()), (20, 21));
    assert!(before.0.values().all(|message| message.mark == Mark { given: 1, ..Mark::default() }));
    work(&mut writer);
    drop((log, writer));
    let (log, _, _) = open(&disk.after_power_loss(|| false));
    assert_eq!(seen(&log), before, "nothing that is gone comes back");
}

#[test]
fn a_full_disk_fails_what_was_not_safe_and_the_log_goes_on_when_there_is_room() {
    let disk = Disk::default();
    let (log, mut writer, heard) = open(&disk);
    let first = message(&log, 1, 0).unwrap();
    work(&mut writer);
    assert!(heard.is_safe(first));
    disk.fail_always(Some(Fault::Full));
    let second = message(&log, 1, 1).unwrap();
    assert_eq!(writer.turn(), Turn::Failed);
    assert!(heard.has_failed(second) && !heard.is_safe(second));
    assert!(matches!(log.wait(second), Err(LogError::Failed { .. })));
    assert!(log.wait(first).is_ok());
    let Err(LogError::Failed { why }) = message(&log, 1, 2) else {
        panic!("nothing is taken that needs room")
    };
    assert!(why.contains("cannot write"), "{why}");
    gone(&log, 1, 0);
    for _ in 0..3 {
        assert_eq!(writer.turn(), Turn::Failed);
    }
    assert_eq!(heard.resumed(), 0);
    disk.fail_always(None);
    work(&mut writer);
    assert_eq!((heard.resumed(), log.failed()), (1, None));
    let third = message(&log, 1, 2).unwrap();
    work(&mut writer);
    assert!(heard.is_safe(third));
    assert!(!heard.is_safe(second), "what was told to have failed is never told to be safe");
    let (log, _, _) = open(&disk.after_power_loss(|| false));
    let mut window = Window::new();
    log.read(1, 0, 10, 1 << 20, &mut window);
    let there: Vec<u64> = window.messages().map(|read| read.sequence).collect();
    assert_eq!(there, [1, 2], "it is written all the same, and what went meanwhile is gone");
}

#[test]
fn after_a_sync_that_failed_the_file_is_not_trusted_any_more() {
    let disk = Disk::default();
    let (log, mut writer, heard) = open(&disk);
    let first = message(&log, 1, 0).unwrap();
    work(&mut writer);
    let second = message(&log, 1, 1).unwrap();
    // One write, then the sync.
    disk.fail_at(disk.calls() + 1, Fault::Broken);
    assert_eq!(writer.turn(), Turn::Failed);
    assert!(heard.is_safe(first) && heard.has_failed(second));
    let third = message(&log, 1, 2);
    assert!(matches!(third, Err(LogError::Failed { .. })));
    work(&mut writer);
    let third = message(&log, 1, 2).unwrap();
    work(&mut writer);
    assert!(heard.is_safe(third));
    assert_eq!(disk.list().unwrap().iter().filter(|name| name.ends_with(".log")).count(), 2);
    let (log, _, _) = open(&disk.after_power_loss(|| false));
    assert_eq!(seen(&log).0.len(), 3);
}

#[test]
fn one_sync_is_for_all_who_wait_and_always_is_one_for_each() {
    for (sync, most) in [(SyncMode::Group, 2), (SyncMode::Always, 101), (SyncMode::Never, 0)] {
        let disk = Disk::default();
        let options = Options { sync, ..Options::default() };
        let heard = Arc::new(Heard::default());
        let (log, mut writer, _) =
            Log::without_thread(Arc::new(disk.clone()), options, Arc::clone(&heard) as _).unwrap();
        let mut last = 0;
        for sequence in 0..100 {
            last = message(&log, 1, sequence).unwrap();
        }
        writer.turn();
        assert!(heard.is_safe(last), "{sync:?}");
        assert!(
            disk.syncs() <= most && (sync != SyncMode::Always || disk.syncs() >= 100),
            "{sync:?}: {}",
            disk.syncs()
        );
    }
}

#[test]
fn a_body_nobody_holds_is_gone() {
    let disk = Disk::default();
    let (log, mut writer, _) = open(&disk);
    let body = log.body();
    let mut commit = Commit::new();
    commit.chunk(body, 0, &[1; 500]).unwrap();
    log.commit(&mut commit).unwrap();
    assert!(log.usage().live > 500);
    commit.stored(1, 0, (body, 500), b"").unwrap();
    commit.stored(2, 0, (body, 500), b"").unwrap();
    log.commit(&mut commit).unwrap();
    log.release_body(body);
    gone(&log, 1, 0);
    assert_eq!(log.read_body(body, 200).unwrap(), [1; 300]);
    log.hold_body(body);
    gone(&log, 2, 0);
    assert_eq!(log.read_body(body, 0).unwrap().len(), 500, "who reads it goes on");
    log.release_body(body);
    assert_eq!(log.read_body(body, 0).unwrap(), [0_u8; 0]);
    assert_eq!(log.usage().live, 0);
    work(&mut writer);
}

#[test]
fn a_body_that_a_second_message_got_when_the_first_had_gone_is_whole_in_the_next_life() {
    let disk = Disk::default();
    let (log, mut writer, _) = open(&disk);
    let body = log.body();
    let mut commit = Commit::new();
    commit.chunk(body, 0, &[1; 500]).unwrap();
    commit.stored(1, 0, (body, 500), b"").unwrap();
    log.commit(&mut commit).unwrap();
    gone(&log, 1, 0);
    commit.stored(2, 0, (body, 500), b"late").unwrap();
    log.commit(&mut commit).unwrap();
    log.release_body(body);
    work(&mut writer);
    drop((log, writer));
    let (log, _, _) = open(&disk.after_kill());
    assert_eq!(log.read_body(body, 0).unwrap(), [1; 500]);
    assert_eq!(seen(&log).0.len(), 1);
    gone(&log, 2, 0);
    assert_eq!(log.usage().live, 0);
}

#[test]
fn what_was_written_of_a_body_before_its_message_is_gone_in_the_next_life() {
    let disk = Disk::default();
    let (log, mut writer, _) = open(&disk);
    let body = log.body();
    let mut commit = Commit::new();
    for part in 0..20 {
        commit.chunk(body, part * 300, &[1; 300]).unwrap();
        log.commit(&mut commit).unwrap();
    }
    message(&log, 1, 0).unwrap();
    work(&mut writer);
    drop((log, writer));
    let (log, mut writer, _) = open(&disk.after_kill());
    assert_eq!(log.read_body(body, 0).unwrap(), [0_u8; 0]);
    work(&mut writer);
    assert!(log.usage().live < 300, "only the message counts: {:?}", log.usage());
}

#[test]
fn what_went_stays_away_while_its_own_file_is_kept_and_the_one_that_says_so_is_not() {
    let disk = Disk::default();
    let (log, mut writer, _) = open(&disk);
    let mut commit = Commit::new();
    commit.message(7, 0, &[1; 900]).unwrap();
    commit.message(1, 0, b"goes later").unwrap();
    commit.put(9, b"key", b"goes later").unwrap();
    commit.message(1, 1, b"goes with its queue").unwrap();
    commit.message(2, 0, b"goes with its queue").unwrap();
    log.commit(&mut commit).unwrap();
    work(&mut writer);
    let first = verify(&disk).unwrap().segments[0].file.clone();
    // The next file says what is gone, and has nothing else that stays.
    commit.message(3, 0, &[2; 1400]).unwrap();
    log.commit(&mut commit).unwrap();
    commit.gone(1, 0..1);
    commit.gone(1, 1..2);
    commit.delete(9, b"key").unwrap();
    commit.drop_queue(2);
    log.commit(&mut commit).unwrap();
    work(&mut writer);
    let said_in = verify(&disk).unwrap().segments.last().unwrap().file.clone();
    for sequence in 1..10 {
        commit.message(3, sequence, &[2; 1400]).unwrap();
        commit.gone(3, sequence - 1..sequence);
        log.commit(&mut commit).unwrap();
        work(&mut writer);
    }
    let files: Vec<String> =
        verify(&disk).unwrap().segments.into_iter().map(|segment| segment.file).collect();
    assert!(files.contains(&first) && !files.contains(&said_in), "{first} {said_in} {files:?}");
    let before = seen(&log);
    assert_eq!(before.0.keys().copied().collect::<Vec<_>>(), [(3, 9), (7, 0)]);
    assert!(before.1.is_empty());
    drop((log, writer));
    let (log, _, _) = open(&disk.after_kill());
    assert_eq!(seen(&log), before);
}

#[test]
fn making_room_comes_to_an_end_where_none_can_be_made() {
    let disk = Disk::default();
    let (log, mut writer, _) = open(&disk);
    let mut commit = Commit::new();
    commit.message(2, 0, b"stays").unwrap();
    for sequence in 0..200_u32 {
        // What is noted of it takes more than the message.
        let at = u64::from(sequence);
        commit.message(1, at, b"small").unwrap();
        commit.mark(1, at..at + 1, Mark { attempts: Some(sequence), not_before: 0, ..Mark::default() });
        // And what is gone has to be said as long as the first file is there.
        commit.gone(2, 2 * at + 1..2 * at + 2);
        log.commit(&mut commit).unwrap();
    }
    let turns = (0..5000).take_while(|_| writer.turn() == Turn::Worked).count();
    assert!(turns < 5000, "{:?} {:?}", log.usage(), log.figures());
    let before = seen(&log);
    assert_eq!(before.0.len(), 201);
    drop((log, writer));
    assert_eq!(seen(&open(&disk.after_kill()).0), before);
}
