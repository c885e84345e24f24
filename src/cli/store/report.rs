//! What was found in a store, for people and as JSON.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration};
use linkspan_queues::log::{Compacted, Damage, Mark, Read, Survey};
use linkspan_queues::remembered;
use serde::Serialize;

use super::Names;

/// A store as it is.
#[derive(Debug, Serialize)]
pub struct Report {
    directory: String,
    /// The process that has it.
    held_by: Option<String>,
    files: Vec<File>,
    queues: Vec<Queue>,
    owners: Vec<Owner>,
    bodies: Bodies,
    damage: Vec<Damaged>,
    lost_messages: Vec<Lost>,
    /// What was written last and is not complete.
    incomplete: Option<Part>,
}

#[derive(Debug, Serialize)]
struct File {
    file: String,
    id: u64,
    /// Place in the stream of its first record.
    base: u64,
    bytes: u64,
    live_bytes: u64,
    records: u64,
    ended: bool,
}

#[derive(Debug, Serialize)]
struct Queue {
    queue: u64,
    name: Option<String>,
    messages: u64,
    bytes: u64,
    oldest_sequence: Option<u64>,
    /// Milliseconds since it came.
    oldest_age_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Owner {
    owner: u64,
    keys: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Bodies {
    count: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Part {
    file: String,
    offset: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Damaged {
    #[serde(flatten)]
    part: Part,
    consequence: String,
}

#[derive(Debug, Serialize)]
struct Lost {
    queue: u64,
    sequence: u64,
}

impl Report {
    /// Of what a survey found, at a time in milliseconds.
    pub fn new(dir: &Path, held_by: Option<String>, found: &Survey, names: &Names, now: u64) -> Self {
        let files = found.segments.iter().map(|segment| File {
            file: segment.file.clone(),
            id: segment.id,
            base: segment.base,
            bytes: segment.bytes,
            live_bytes: segment.live,
            records: segment.records,
            ended: segment.ended,
        });
        let queues = found.queues.iter().map(|queue| {
            let since = queue.oldest.as_ref().and_then(|oldest| {
                let (sequence, payload) = (oldest.sequence, oldest.payload.as_slice());
                let read = Read { sequence, mark: Mark::default(), body: None, payload };
                remembered(&read).map(|(message, _)| message.since)
            });
            Queue {
                queue: queue.queue,
                name: names(queue.queue),
                messages: queue.messages,
                bytes: queue.bytes,
                oldest_sequence: queue.oldest.as_ref().map(|oldest| oldest.sequence),
                // Others may keep something else in a log.
                oldest_age_ms: since.and_then(|since| now.checked_sub(since)),
            }
        });
        let owners = found.owners.iter();
        let damage = found
            .damage
            .iter()
            .map(|harm| Damaged { part: Part::of(&harm.damage), consequence: harm.takes.to_string() });
        Self {
            directory: dir.display().to_string(),
            held_by,
            files: files.collect(),
            queues: queues.collect(),
            owners: owners.map(|o| Owner { owner: o.owner, keys: o.keys, bytes: o.bytes }).collect(),
            bodies: Bodies { count: found.bodies, bytes: found.body_bytes },
            damage: damage.collect(),
            lost_messages: lost(&found.lost),
            incomplete: found.torn.as_ref().map(Part::of),
        }
    }

    /// True when nothing is damaged.
    pub const fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.lost_messages.is_empty()
    }

    /// For people who want to know what is there.
    pub fn inspected(&self) -> String {
        let mut text = self.headed();
        let rows = self.files.iter().map(|file| {
            let share = (file.live_bytes * 100).checked_div(file.bytes).unwrap_or(0);
            [
                file.file.clone(),
                size(file.bytes),
                counted(file.records, "record"),
                format!("{share} % live"),
                if file.ended { String::new() } else { "open".into() },
            ]
        });
        section(&mut text, "files", rows);
        let rows = self.queues.iter().map(|queue| {
            let name = queue.name.as_ref().map(|name| format!("{name} ({})", queue.queue));
            let age = queue.oldest_age_ms.map(|age| format!("oldest {}", since(age)));
            [
                name.unwrap_or_else(|| queue.queue.to_string()),
                counted(queue.messages, "message"),
                size(queue.bytes),
                age.unwrap_or_default(),
            ]
        });
        section(&mut text, "queues", rows);
        let rows = self
            .owners
            .iter()
            .map(|owner| [format!("owner {}", owner.owner), counted(owner.keys, "key"), size(owner.bytes)]);
        section(&mut text, "values under keys", rows);
        let bodies = [[counted(self.bodies.count, "body"), size(self.bodies.bytes)]];
        section(&mut text, "large bodies", bodies.into_iter().filter(|_| self.bodies.count > 0));
        self.tell_damage(&mut text);
        text
    }

    /// For people who want to know whether it is as it was written.
    pub fn verified(&self) -> String {
        let mut text = self.headed();
        self.tell_damage(&mut text);
        text
    }

    fn headed(&self) -> String {
        let sum = |of: fn(&File) -> u64| self.files.iter().map(of).sum::<u64>();
        let mut text = format!(
            "{}: {} in {}, {} of {} live\n",
            self.directory,
            counted(sum(|file| file.records), "record"),
            counted(self.files.len() as u64, "file"),
            size(sum(|file| file.live_bytes)),
            size(sum(|file| file.bytes)),
        );
        if let Some(pid) = &self.held_by {
            let _ = writeln!(
                text,
                "Process {pid} has it open; this is how it was a moment ago, read beside it without a lock."
            );
        }
        text
    }

    fn tell_damage(&self, text: &mut String) {
        let rows = self.damage.iter().map(|damaged| [damaged.part.told(), damaged.consequence.clone()]);
        section(text, "damage", rows);
        let rows = self.lost_messages.iter();
        let rows = rows.map(|lost| [format!("message {} of queue {}", lost.sequence, lost.queue)]);
        section(text, "messages with a damaged body, lost", rows);
        if let Some(part) = &self.incomplete {
            section(text, "not complete", [[part.told(), "what was being written; it never counted".into()]]);
        }
        if self.is_sound() {
            text.push_str("\nEvery checksum is right.\n");
        }
    }
}

impl Part {
    fn of(damage: &Damage) -> Self {
        Self { file: damage.file.clone(), offset: damage.offset, bytes: damage.bytes }
    }

    fn told(&self) -> String {
        format!("{} at {}, {} bytes", self.file, self.offset, self.bytes)
    }
}

/// What a compaction came to.
#[derive(Debug, Serialize)]
pub struct Compaction {
    directory: String,
    before: Taken,
    after: Taken,
    damage: Vec<Damaged>,
    lost_messages: Vec<Lost>,
}

#[derive(Debug, Serialize)]
struct Taken {
    files: u64,
    disk_bytes: u64,
    record_bytes: u64,
    live_bytes: u64,
}

impl Compaction {
    /// Of what was done, with files and bytes on the disk before and after.
    pub fn new(dir: &Path, done: &Compacted, before: (u64, u64), after: (u64, u64)) -> Self {
        let taken = |usage: &linkspan_queues::log::Usage, (files, disk_bytes): (u64, u64)| Taken {
            files,
            disk_bytes,
            record_bytes: usage.bytes,
            live_bytes: usage.live,
        };
        let damage = done.recovery.damage.iter().chain(&done.recovery.cut).map(|damage| Damaged {
            part: Part::of(damage),
            consequence: match &damage.copy {
                Some(copy) => format!("set aside in {copy}"),
                None => "not set aside".into(),
            },
        });
        Self {
            directory: dir.display().to_string(),
            before: taken(&done.before, before),
            after: taken(&done.after, after),
            damage: damage.collect(),
            lost_messages: lost(&done.recovery.lost),
        }
    }

    /// True when nothing was damaged.
    pub const fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.lost_messages.is_empty()
    }

    /// For people.
    pub fn told(&self) -> String {
        let mut text = format!("{}: compacted\n", self.directory);
        let rows = [("before", &self.before), ("now", &self.after)].map(|(when, taken)| {
            [
                when.into(),
                format!("{} on the disk", size(taken.disk_bytes)),
                counted(taken.files, "file"),
                format!("{} of {} live", size(taken.live_bytes), size(taken.record_bytes)),
            ]
        });
        table(&mut text, rows);
        section(
            &mut text,
            "damage",
            self.damage.iter().map(|damaged| [damaged.part.told(), damaged.consequence.clone()]),
        );
        let rows = self.lost_messages.iter();
        let rows = rows.map(|lost| [format!("message {} of queue {}", lost.sequence, lost.queue)]);
        section(&mut text, "messages with a damaged body, taken out", rows);
        text
    }
}

fn lost(all: &[(u64, u64)]) -> Vec<Lost> {
    all.iter().map(|(queue, sequence)| Lost { queue: *queue, sequence: *sequence }).collect()
}

fn size(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

fn since(millis: u64) -> String {
    if millis < 1000 {
        "just now".into()
    } else {
        format!("{} ago", HumanDuration(Duration::from_millis(millis)))
    }
}

fn counted(count: u64, what: &str) -> String {
    let many = if count == 1 { what.to_owned() } else { plural(what) };
    format!("{} {many}", HumanCount(count))
}

fn plural(what: &str) -> String {
    what.strip_suffix('y')
        .filter(|_| what == "body")
        .map_or_else(|| format!("{what}s"), |stem| format!("{stem}ies"))
}

/// Appends rows under a heading; nothing when there are none.
fn section<const N: usize>(text: &mut String, heading: &str, rows: impl IntoIterator<Item = [String; N]>) {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_some() {
        let _ = writeln!(text, "\n{heading}");
        table(text, rows);
    }
}

/// Appends rows with their columns below each other.
fn table<const N: usize>(text: &mut String, rows: impl IntoIterator<Item = [String; N]>) {
    let rows: Vec<[String; N]> = rows.into_iter().collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "  {cell:<width$}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_below_each_other() {
        let mut text = String::new();
        section(&mut text, "queues", [["jobs", "1"], ["b", "20"]].map(|row| row.map(String::from)));
        section(&mut text, "nothing", std::iter::empty::<[String; 1]>());
        assert_eq!(text, "\nqueues\n  jobs  1\n  b     20\n");
    }

    #[test]
    fn what_is_counted_is_named_as_many_as_there_are() {
        assert_eq!(
            [counted(1, "body"), counted(2000, "body"), counted(2, "key")],
            ["1 body", "2,000 bodies", "2 keys"]
        );
    }
}
