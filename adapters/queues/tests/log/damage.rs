//! A disk that gives back something else than was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use linkspan_queues::log::{Commit, Kind, Log, LogError, Options, Recovery, Turn, Window, inspect, verify};

use crate::crash::options;
use linkspan_queues::conformance::disk::Disk;
use linkspan_queues::log::SyncMode;

fn open(disk: &Disk) -> (Log, linkspan_queues::log::Writer, Recovery) {
    Log::without_thread(Arc::new(disk.clone()), options(SyncMode::Group), Arc::new(())).unwrap()
}

fn work(writer: &mut linkspan_queues::log::Writer) {
    while writer.turn() != Turn::Idle {}
}

/// A disk with thirty messages in a few files, each in a commit of its own.
fn thirty() -> Disk {
    let disk = Disk::default();
    let (log, mut writer, _) = open(&disk);
    for sequence in 0..30_u8 {
        let mut commit = Commit::new();
        commit.message(1, sequence.into(), &[sequence; 100]).unwrap();
        log.commit(&mut commit).unwrap();
        work(&mut writer);
    }
    disk.after_kill()
}

fn messages(log: &Log) -> BTreeMap<u64, Vec<u8>> {
    let mut window = Window::new();
    log.read(1, 0, 1000, 1 << 20, &mut window);
    assert!(window.damaged.is_empty());
    window.messages().map(|read| (read.sequence, read.payload.to_vec())).collect()
}

/// Every record, by file and offset.
fn records(disk: &Disk) -> Vec<(String, u64, Kind, u64, usize)> {
    let mut all = vec![];
    inspect(disk, &mut |entry| {
        let length = 32 + entry.payload.len().next_multiple_of(8);
        all.push((entry.file.to_owned(), entry.offset, entry.kind, entry.sequence, length));
    })
    .unwrap();
    all
}

#[test]
fn a_damaged_record_is_named_set_aside_and_takes_nothing_with_it() {
    let disk = thirty();
    let all = records(&disk);
    assert!(all.iter().filter(|(.., kind, _, _)| *kind == Kind::Seal).count() > 2, "there are some files");
    for (file, offset, kind, sequence, length) in &all {
        // Each field of a header, and some of the payload.
        for byte in [0, 5, 9, 12, 13, 17, 25].into_iter().chain((32..*length).step_by(50)) {
            let disk = disk.after_kill();
            disk.flip(file, offset + byte as u64);
            let is_padding = *kind == Kind::Message && byte >= 132;
            let (log, _, recovery) = open(&disk);
            let found = messages(&log);
            let gone: Vec<u64> = (0..30).filter(|sequence| !found.contains_key(sequence)).collect();
            let place = format!("byte {byte} of the {kind:?} at {offset:#x} of {file}");
            if *kind == Kind::Message && !is_padding {
                assert_eq!(gone, [*sequence], "{place}");
            } else {
                assert!(gone.is_empty(), "{place}: {gone:?}");
            }
            // The last record says what is safe; when it is damaged, so is nothing else.
            let is_last = all.last().is_some_and(|last| (&last.0, last.1) == (file, *offset));
            if !is_padding && !is_last {
                let [damage] = &recovery.damage[..] else { panic!("{place}: {recovery:?}") };
                assert_eq!(
                    (&damage.file, damage.offset, damage.bytes),
                    (file, *offset, *length as u64),
                    "{place}"
                );
                let copy = disk.bytes(damage.copy.as_ref().unwrap());
                let from = usize::try_from(*offset).unwrap();
                assert_eq!(copy, disk.bytes(file)[from..from + length], "{place}");
            }
            drop(log);
            let (log, _, _) = open(&disk);
            assert_eq!(messages(&log), found, "{place}: the second time is as the first");
        }
    }
}

#[test]
fn a_damaged_file_header_takes_nothing_with_it() {
    let disk = thirty();
    let files: Vec<String> = verify(&disk).unwrap().segments.into_iter().map(|s| s.file).collect();
    for file in files {
        for byte in [0, 9, 13, 17, 25] {
            let disk = disk.after_kill();
            disk.flip(&file, byte);
            let (log, _, recovery) = open(&disk);
            assert_eq!(messages(&log).len(), 30);
            assert_eq!(recovery.damage.len(), 1, "{file}: {recovery:?}");
            assert_eq!((&recovery.damage[0].file, recovery.damage[0].offset), (&file, 0));
        }
    }
}

#[test]
fn what_is_damaged_while_the_server_runs_is_an_error_of_that_message_alone() {
    let disk = thirty();
    let (log, _, _) = open(&disk);
    let all = records(&disk);
    let (file, offset, ..) =
        all.iter().find(|(_, _, kind, sequence, _)| *kind == Kind::Message && *sequence == 11).unwrap();
    disk.flip(file, offset + 40);
    let mut window = Window::new();
    log.read(1, 0, 1000, 1 << 20, &mut window);
    assert_eq!(window.messages().len(), 29);
    let [(11, LogError::Damaged { file: named, offset: at, .. })] = &window.damaged[..] else {
        panic!("{:?}", window.damaged)
    };
    assert_eq!((named, at), (file, offset));
    assert_eq!(verify(&disk).unwrap().damage.len(), 1);
}

#[test]
fn a_message_whose_body_is_damaged_is_named_and_taken_out() {
    let disk = Disk::default();
    let (log, mut writer, _) = open(&disk);
    let body = log.body();
    let mut commit = Commit::new();
    for part in 0..5_u64 {
        commit.chunk(body, part * 300, &[7; 300]).unwrap();
        log.commit(&mut commit).unwrap();
        work(&mut writer);
    }
    commit.stored(1, 0, (body, 1500), b"head").unwrap();
    commit.message(1, 1, b"other").unwrap();
    log.commit(&mut commit).unwrap();
    log.release_body(body);
    work(&mut writer);
    let disk = disk.after_kill();
    let all = records(&disk);
    let (file, offset, ..) =
        all.iter().find(|(_, _, kind, offset, _)| *kind == Kind::Chunk && *offset == 600).unwrap();
    disk.flip(file, offset + 100);
    let (log, mut writer, recovery) = open(&disk);
    assert_eq!(recovery.lost, [(1, 0)]);
    assert_eq!(messages(&log).into_keys().collect::<Vec<_>>(), [1]);
    work(&mut writer);
    let (log, _, recovery) = open(&disk.after_kill());
    assert_eq!(recovery.lost, [], "it was taken out for good");
    assert_eq!(messages(&log).len(), 1);
}

#[test]
fn files_of_another_version_are_refused() {
    let disk = thirty();
    let name = verify(&disk).unwrap().segments[0].file.clone();
    let mut bytes = disk.bytes(&name);
    bytes[8] = 9;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..64]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    disk.put(&name, &bytes);
    let refused = Log::without_thread(Arc::new(disk), Options::default(), Arc::new(()));
    let error = refused.err().unwrap();
    assert!(matches!(&error, LogError::Version { file, found: 9, known: 1 } if *file == name), "{error}");
}

#[test]
fn zeros_in_place_of_a_safe_page_are_damage_and_not_the_end() {
    let disk = thirty();
    let all = records(&disk);
    let last = &all.last().unwrap().0;
    let in_last: Vec<_> = all.iter().filter(|(file, ..)| file == last).collect();
    let (first, behind) = (in_last[1].1, in_last[in_last.len() - 2].1);
    let mut bytes = disk.bytes(last);
    bytes[usize::try_from(first).unwrap()..usize::try_from(behind).unwrap()].fill(0);
    disk.put(last, &bytes);
    let (_, _, recovery) = open(&disk);
    assert_eq!(recovery.damage.len(), 1, "{recovery:?}");
    assert_eq!((recovery.damage[0].offset, recovery.damage[0].bytes), (first, behind - first));
}
