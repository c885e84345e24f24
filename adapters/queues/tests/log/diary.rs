//! A queue whose journal is in the log is the same after the process ended.

use std::sync::Arc;

use linkspan_contract::{Credit, Settle, Settlement};
use linkspan_queues::log::{Log, SyncMode, Turn, Window};
use linkspan_queues::{Consumer, Diary, Encode, Limits, NEVER, Offer, Queue, Queued, remembered};

use crate::crash::options;
use linkspan_queues::conformance::disk::Disk;

struct Text;

impl Encode<String> for Text {
    fn encode(&self, body: &String, out: &mut Vec<u8>) -> Option<(u64, u64)> {
        out.extend_from_slice(body.as_bytes());
        None
    }
}

fn offer(body: &str, priority: u8, durable: bool) -> Offer<String> {
    Offer {
        body: body.into(),
        size: body.len() as u64,
        priority,
        expiry: Some(5000),
        key: 0,
        delay: 0,
        durable,
        apart: false,
    }
}

#[test]
fn messages_attempts_and_delays_survive() {
    let disk = Disk::default();
    let open =
        || Log::without_thread(Arc::new(disk.clone()), options(SyncMode::Group), Arc::new(())).unwrap();
    let (log, mut writer, _) = open();
    let limits = Limits { max_priority: 5, ..Limits::default() };
    let mut queue = Queue::with_journal(1000, limits, Diary::new(4, Text));
    let mut out = Vec::new();
    for (body, priority, durable) in [
        ("done", 5, true),
        ("back", 4, true),
        ("late", 3, true),
        ("held", 2, true),
        ("gone with the process", 1, false),
        ("new", 0, true),
    ] {
        queue.push(1000, offer(body, priority, durable), &mut out);
    }
    let mut consumer = Consumer::new(1, 1, Settle::ByConsumer);
    consumer.credit = Some(Arc::new(Credit::new(4)));
    queue.add_consumer(consumer).unwrap();
    queue.set_paused(1, false);
    queue.dispatch(1000, &mut out);
    let tags: Vec<u64> = out.iter().map(|assignment| assignment.tag).collect();
    assert_eq!(tags.len(), 4, "{out:?}");
    queue.settle(1100, 1, tags[0], 1, &Settlement::Accept);
    queue.set_paused(1, true);
    queue.settle(1100, 1, tags[1], 1, &Settlement::Release { delay: 0 });
    queue.settle(1100, 1, tags[2], 1, &Settlement::Release { delay: 300 });
    log.commit(&mut queue.journal_mut().commit).unwrap();
    assert!(queue.journal().refused.is_none());
    while writer.turn() == Turn::Worked {}
    drop((log, writer));

    let (log, _, _) = open();
    let mut windows: Vec<Window> = Vec::new();
    for queue in (4..=9).rev() {
        let mut window = Window::new();
        log.read(queue, 0, 100, 1 << 20, &mut window);
        windows.push(window);
    }
    let read = windows.iter().flat_map(Window::messages);
    let found: Vec<(Queued<&[u8]>, u64)> = read.map(|read| remembered(&read).unwrap()).collect();
    let told: Vec<_> = found
        .iter()
        .map(|(m, not_before)| (std::str::from_utf8(m.body).unwrap(), m.priority, m.attempts, *not_before))
        .collect();
    assert_eq!(told, [("back", 4, 1, 1100), ("late", 3, 1, 1400), ("held", 2, 1, 0), ("new", 0, 0, 0)]);
    assert!(
        found.iter().all(|(m, _)| m.since == 1000 && m.deadline == 6000 && m.deadline != NEVER && m.durable)
    );
    assert!(found.iter().all(|(m, _)| m.size == m.body.len() as u64));
    assert_eq!(found.iter().map(|(m, _)| m.position).collect::<Vec<_>>(), [1, 2, 3, 5]);
}
