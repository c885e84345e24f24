//! Brings in from the log what a queue gives out next.

use std::cell::Cell;
use std::sync::Arc;

use linkspan_contract::Millis;
use linkspan_queues::log::Window;
use linkspan_queues::{Absent, Due, Gone, Journal, NEVER};

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
        while let Some(due) = self.engine.due() {
            if !self.tell_journal() {
                break;
            }
            let mut window = WINDOW.take().unwrap_or_default();
            let brought = self.bring_due(&due, &mut window);
            WINDOW.set(Some(window));
            any |= brought;
            if !brought && self.engine.journal().is_stuck() {
                break;
            }
        }
        while let Some(absent) = self.engine.wants() {
            if !self.tell_journal() {
                break;
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

    /// False when nothing can be read any more.
    fn tell_journal(&mut self) -> bool {
        let journal = self.engine.journal_mut();
        match journal.write() {
            Ok(lsn) => self.written = lsn.unwrap_or(self.written),
            // What it did not take stands behind what it has.
            Err((NotTaken, lsn)) if journal.is_stuck() => self.written = lsn.unwrap_or(self.written),
            Err(_) => return false,
        }
        true
    }

    /// Brings in what has waited for its time.
    fn bring_due(&mut self, due: &Due, window: &mut Window) -> bool {
        let Due { priority, positions } = due;
        let Some(desk) = self.engine.journal_mut().desk() else { return false };
        let (archive, found_below) = (Arc::clone(&desk.archive), desk.found_below);
        let number = desk.diary.number().saturating_add((*priority).into());
        let most = usize::try_from(positions.end.saturating_sub(positions.start)).unwrap_or(MESSAGES);
        archive.read(number, positions.start, most.min(MESSAGES), BYTES, window);
        let (mut brought, mut passed) = (false, false);
        written::read(window, &archive, |found| {
            let (position, message) = match found {
                Found::Message(message, _) => (message.position, Some(message)),
                Found::Damaged(position) => (position, None),
            };
            if !positions.contains(&position) {
                return;
            }
            passed = true;
            let one = position..position.saturating_add(1);
            match message {
                Some(mut message) if message.durable || position >= found_below => {
                    message.key = self.key_of(&message.body);
                    self.engine.come_in(message);
                    brought = true;
                }
                // It was only too much for the memory of a process that is gone.
                Some(_) => {
                    self.engine.stay_out(&Due { priority: *priority, positions: one.clone() });
                    self.engine.journal_mut().gone(*priority, one, Gone::Purged);
                }
                None => {
                    damaged(number, position);
                    self.engine.stay_out(&Due { priority: *priority, positions: one });
                }
            }
        });
        if !passed && !self.engine.journal().is_stuck() {
            let missed = self.engine.stay_out(due);
            tracing::error!(queue = number, missed, "messages that waited for their time are not in the log");
        }
        brought
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
                Found::Message(message, not_before)
                    if !message.durable
                        && message.position < found_below
                        && !self.engine.awaits(&message, not_before) =>
                {
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
                    message.key = self.key_of(&message.body);
                    self.engine.bring(now, message, not_before);
                    brought = true;
                }
                Found::Damaged(position) => {
                    damaged(number, position);
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

fn damaged(queue: u64, position: u64) {
    tracing::error!(queue, position, "a message in the log is damaged, and lost");
    metrics::counter!("linkspan_messages_dropped_total", "reason" => "damaged").increment(1);
}
