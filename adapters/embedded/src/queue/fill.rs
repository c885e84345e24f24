//! Brings in from the log what a queue gives out next.

use std::cell::Cell;
use std::sync::Arc;

use linkspan_contract::Millis;
use linkspan_queues::log::Window;
use linkspan_queues::{Absent, Gone, Journal, NEVER};

use super::State;
use crate::archive::NotTaken;
use crate::written::{self, Found};

/// Messages that are brought in at once,
const MESSAGES: usize = 2048;

/// and their bytes.
const BYTES: u64 = 1 << 20;

/// The same for a queue that nobody consumes.
const FEW: usize = 32;

const BYTES_OF_FEW: u64 = 32 << 10;

thread_local! {
    static WINDOW: Cell<Option<Box<Window>>> = const { Cell::new(None) };
}

impl State {
    /// Brings in what the engine wants; true when that was something. What was not written yet is written first, for it
    /// may be that.
    pub(super) fn fill(&mut self, now: Millis) -> bool {
        let mut any = false;
        while let Some(absent) = self.engine.wants() {
            let journal = self.engine.journal_mut();
            match journal.write() {
                Ok(lsn) => self.written = lsn.unwrap_or(self.written),
                // What it did not take stands behind what it has.
                Err((NotTaken, lsn)) if journal.is_stuck() => self.written = lsn.unwrap_or(self.written),
                Err(_) => break,
            }
            let mut window = WINDOW.take().unwrap_or_default();
            let brought = self.bring(absent, &mut window, now);
            WINDOW.set(Some(window));
            any |= brought;
            if !brought && self.engine.journal().is_stuck() {
                break;
            }
        }
        any
    }

    fn bring(&mut self, absent: Absent, window: &mut Window, now: Millis) -> bool {
        let Absent { priority, from } = absent;
        let Some(desk) = self.engine.journal_mut().desk() else { return false };
        let (archive, found_below) = (Arc::clone(&desk.archive), desk.found_below);
        let number = desk.diary.number().saturating_add(priority.into());
        // Who has no consumer needs no more than what may expire next; and what is beyond the window would go at once.
        let (messages, bytes) = if self.seats.is_empty() { (FEW, BYTES_OF_FEW) } else { (MESSAGES, BYTES) };
        let window_of_now = self.engine.limits().window;
        let (messages, bytes) = window_of_now.map_or((messages, bytes), |window| {
            (messages.min(usize::try_from(window.messages).unwrap_or(messages)), bytes.min(window.bytes))
        });
        archive.read(number, from, messages, bytes, window);
        let (mut brought, mut passed) = (false, false);
        written::read(window, &archive, |found| {
            passed = true;
            match found {
                Found::Message(message, _) if !message.durable && message.position < found_below => {
                    // It was only too much for the memory of a process that is gone.
                    let position = message.position;
                    self.engine.miss(priority, position);
                    let gone = position..position.saturating_add(1);
                    self.engine.journal_mut().gone(priority, gone, Gone::Purged);
                }
                Found::Message(mut message, not_before) => {
                    if self.is_inbox && message.attempts > 0 {
                        // Once it is on its way it does not expire any more [MQTT-4.3.3-7].
                        message.deadline = NEVER;
                    }
                    self.engine.bring(now, message, not_before);
                    brought = true;
                }
                Found::Damaged(position) => {
                    tracing::error!(queue = number, position, "a message in the log is damaged, and lost");
                    metrics::counter!("linkspan_messages_dropped_total", "reason" => "damaged").increment(1);
                    self.engine.miss(priority, position);
                }
            }
        });
        // What is not there may wait for the disk.
        if !passed && !self.engine.journal().is_stuck() {
            let missed = self.engine.miss_all(priority);
            tracing::error!(queue = number, missed, "messages that the log counted are not in it");
        }
        brought
    }
}
