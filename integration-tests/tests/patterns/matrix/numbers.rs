//! Messages that are numbers: which have come, and which have not.

use std::collections::BTreeSet;
use std::ops::Range;

use linkspan_integration_tests::Outgoing;

/// Messages with the numbers of a range.
pub fn numbered(range: Range<u32>) -> impl Iterator<Item = Outgoing> {
    range.map(Outgoing::text)
}

/// Which of the numbers below an end have come.
#[derive(Debug)]
pub struct Numbers {
    missing: BTreeSet<u32>,
    /// How often nothing came.
    idle: u32,
}

/// How often nothing may come in vain.
const PATIENCE: u32 = 600;

impl Numbers {
    /// Waits for those below `end`.
    pub fn below(end: u32) -> Self {
        Self::of(0..end)
    }

    /// Waits for these.
    pub fn of(numbers: impl IntoIterator<Item = u32>) -> Self {
        Self { missing: numbers.into_iter().collect(), idle: 0 }
    }

    /// It has come; false when it was not waited for any more, or never.
    pub fn came(&mut self, number: u32) -> bool {
        self.idle = 0;
        self.missing.remove(&number)
    }

    /// Whether all have come.
    pub fn all(&self) -> bool {
        self.missing.is_empty()
    }

    /// Nothing came just now.
    pub fn nothing(&mut self, whom: &str) {
        self.idle += 1;
        assert!(self.idle < PATIENCE, "these messages reach {whom} never: {:?}", self.missing);
    }
}
