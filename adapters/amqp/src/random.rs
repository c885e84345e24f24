//! What nobody can guess, or need not.

use std::hash::{BuildHasher, RandomState};

/// A random number, from the keys that the standard library draws for its hash maps.
pub(crate) fn number() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// A random name part of 16 hexadecimal digits.
pub(crate) fn name() -> String {
    format!("{:016x}", number())
}
