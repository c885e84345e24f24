//! What a lease is called: nobody can guess it, and it tells by itself whether this server ever gave it out.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use argon2::password_hash::phc::Salt;
use blake2::Blake2bMac512;
use blake2::digest::{KeyInit, Mac};

/// Bytes of a seal: 128 bits that nobody can know without the key.
const SEAL: usize = 16;

/// Bytes of the number before it.
const NUMBER: usize = size_of::<u64>();

/// Names leases, and knows its own names again. Those of an earlier life of the server are strange to it.
pub(super) struct Namer {
    key: [u8; 64],
    next: AtomicU64,
}

/// A lease's name: its number and a seal over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    /// Counts up.
    pub(super) number: u64,
    seal: [u8; SEAL],
}

impl Namer {
    /// One with a key of its own.
    pub(super) fn new() -> Self {
        let mut key = [0; 64];
        for part in key.chunks_mut(Salt::RECOMMENDED_LENGTH) {
            part.copy_from_slice(Salt::generate().as_ref());
        }
        Self { key, next: AtomicU64::new(1) }
    }

    /// The name of another lease.
    pub(super) fn name(&self) -> Name {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut seal = [0; SEAL];
        for (to, from) in seal.iter_mut().zip(self.over(number).finalize().into_bytes()) {
            *to = from;
        }
        Name { number, seal }
    }

    /// The number in a name that was given out, whatever has become of the lease.
    pub(super) fn read(&self, text: &str) -> Option<u64> {
        let mut bytes = [0; NUMBER + SEAL];
        if text.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        let (number, seal) = bytes.split_first_chunk::<NUMBER>()?;
        let number = u64::from_be_bytes(*number);
        self.over(number).verify_truncated_left(seal).ok()?;
        Some(number)
    }

    fn over(&self, number: u64) -> Blake2bMac512 {
        let mut mac = Blake2bMac512::new(&self.key.into());
        mac.update(&number.to_be_bytes());
        mac
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.number)?;
        self.seal.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_again_by_who_gave_it_and_by_nobody_else() {
        let (namer, other) = (Namer::new(), Namer::new());
        let (one, two) = (namer.name(), namer.name());
        assert_ne!(one, two);
        assert_eq!(namer.read(&one.to_string()), Some(one.number));
        assert_eq!(other.read(&one.to_string()), None, "a restart ends all leases");
        assert_ne!(other.name().seal, one.seal, "the first of each server");
    }

    #[test]
    fn what_was_made_up_is_no_name() {
        let namer = Namer::new();
        let name = namer.name().to_string();
        let changed = |at: usize| {
            let other = if name.as_bytes()[at] == b'0' { "1" } else { "0" };
            format!("{}{other}{}", &name[..at], &name[at + 1..])
        };
        for text in [changed(0), changed(15), changed(16), changed(47), String::new(), name[1..].into()] {
            assert_eq!(namer.read(&text), None, "{text}");
        }
        assert_eq!(namer.read(&"+1".repeat(24)), None);
        assert_eq!(namer.read(&"é".repeat(24)), None);
    }
}
