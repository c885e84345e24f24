//! The queues of shared subscriptions: one for each group and filter, made for its first member and gone with its last.

use std::fmt::Write;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

/// How many members each has in this process.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    members: Mutex<HashMap<String, usize, RandomState>>,
}

impl Groups {
    pub(crate) fn join(&self, queue: &str) {
        *self.members.lock().entry_ref(queue).or_insert(0) += 1;
    }

    /// True when that was the last member here.
    pub(crate) fn leave(&self, queue: &str) -> bool {
        let mut members = self.members.lock();
        let Some(count) = members.get_mut(queue) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            members.remove(queue);
        }
        last
    }
}

/// The longest queue name that RabbitMQ takes.
const LONGEST: usize = 255;

/// The name of a group's queue: the same in every Linkspan, readable as long as it is short enough.
pub(crate) fn queue_name(group: &str, filter: &str) -> String {
    let name = format!("linkspan.share.{}.{}", escaped(group), escaped(filter));
    if name.len() <= LONGEST {
        return name;
    }
    let mut end = LONGEST - 33;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let (one, other) = (digest(&name, 0xcbf2_9ce4_8422_2325), digest(&name, 0x9ae1_6a3b_2f90_404f));
    format!("{}~{one:016x}{other:016x}", name.get(..end).unwrap_or_default())
}

/// Dots and what may stand for them written as bytes, so that no two pairs of names have one queue.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '.' | '%' | '~' => _ = write!(out, "%{:02x}", letter as u32),
            other => out.push(other),
        }
    }
    out
}

/// FNV-1a, which is the same everywhere and for ever.
fn digest(text: &str, seed: u64) -> u64 {
    text.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_groups_have_one_queue() {
        assert_eq!(queue_name("g", "a/+/#"), "linkspan.share.g.a/+/#");
        assert_ne!(queue_name("a.b", "c"), queue_name("a", "b.c"));
        let long = "x".repeat(300);
        let (one, other) = (queue_name("g", &format!("{long}1")), queue_name("g", &format!("{long}2")));
        assert!(one.len() <= 255 && other.len() <= 255 && one != other);
    }

    #[test]
    fn a_group_is_there_as_long_as_it_has_members() {
        let groups = Groups::default();
        groups.join("q");
        groups.join("q");
        assert!(!groups.leave("q") && groups.leave("q") && !groups.leave("q"));
    }
}
