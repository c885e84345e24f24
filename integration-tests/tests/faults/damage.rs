//! A file of the log is damaged while the server is down.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::process::{Folder, Process};

/// Files below the log's folder whose names end so.
fn files(folder: &Folder, end: &str) -> Vec<PathBuf> {
    let log = folder.path().join("linkspan-data").join("log");
    let all = fs::read_dir(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    let mut found: Vec<PathBuf> = all.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.to_string_lossy().ends_with(end));
    found.sort();
    found
}

#[tokio::test]
async fn a_damaged_message_is_told_with_file_and_offset_and_set_aside_and_everything_else_is_served() {
    let folder = Folder::new();
    let mut process = Process::start(folder.path(), &[]);
    let amqp = Amqp::confirming(process.door("amqp")).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    for queue in ["one", "other"] {
        amqp.channel.queue_declare(queue.into(), durable, FieldTable::default()).await.unwrap();
        for number in 0..10 {
            let persistent = BasicProperties::default().with_delivery_mode(2);
            amqp.publish_as("", queue, &format!("{queue} number {number}."), persistent).await;
        }
    }
    process.signal("TERM");
    assert!(process.exit().0.success());

    let segments = files(&folder, ".log");
    let text = b"one number 4.";
    let found = segments.iter().find_map(|path| {
        let bytes = fs::read(path).unwrap();
        bytes.windows(text.len()).position(|window| window == text).map(|at| (path.clone(), at as u64))
    });
    let (path, at) = found.expect("the message is in the log");
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(b"ONE").unwrap();
    drop(file);

    let mut process = Process::start(folder.path(), &[]);
    let door = process.door("amqp");
    let line = process.line_with(&["the log is damaged", "offset="]);
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(line.contains(&name), "the file is {name}: {line}");
    let offset = line.split_whitespace().find_map(|word| word.strip_prefix("offset=")?.parse::<u64>().ok());
    let offset = offset.unwrap_or_else(|| panic!("no offset in: {line}"));
    assert!(offset < at && at - offset < 512, "the record of {at} does not begin at {offset}: {line}");
    let copies = files(&folder, ".corrupt");
    assert_eq!(copies.len(), 1, "what was damaged is set aside once: {copies:?}");
    assert!(fs::read(&copies[0]).unwrap().windows(3).any(|window| window == b"ONE"), "as it was found");

    let amqp = Amqp::connect(door).await;
    let all = |queue: &str| (0..10).map(|number| format!("{queue} number {number}.")).collect::<Vec<_>>();
    let mut rest = all("one");
    rest.remove(4);
    assert_eq!(amqp.drain("one").await, rest);
    assert_eq!(amqp.drain("other").await, all("other"));
    let panics: Vec<_> =
        process.listen(Duration::ZERO).iter().filter(|line| line.contains("panicked")).cloned().collect();
    assert!(panics.is_empty(), "{panics:?}");
}
