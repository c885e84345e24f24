//! A cell: a pattern, two protocols and a back end.

use std::fmt;

use linkspan_integration_tests::Dialect;
use linkspan_integration_tests::upstreams::unique;

use crate::back_end::BackEnd;

use super::pattern::Pattern;

/// One of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cell {
    pub pattern: Pattern,
    /// The publisher's protocol.
    pub from: Dialect,
    /// The consumer's.
    pub to: Dialect,
    pub back_end: BackEnd,
}

/// Where the messages of a cell go; no other's do.
#[derive(Debug, Clone)]
pub struct Place {
    /// An address of two levels. The routes of some patterns have one below it.
    pub address: String,
    /// The queue, or what the names of queues begin with.
    pub queue: String,
}

impl Place {
    /// The place of the cell of that number.
    pub fn new(number: usize) -> Self {
        let name = unique(&format!("cell-{number}"));
        Self { address: format!("matrix/{name}"), queue: name }
    }

    /// One that is only spoken of.
    pub fn example() -> Self {
        Self { address: "matrix/example".to_owned(), queue: "example".to_owned() }
    }
}

impl Cell {
    /// All cells.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for pattern in Pattern::ALL {
            for back_end in BackEnd::ALL {
                for from in Dialect::ALL {
                    all.extend(Dialect::ALL.map(|to| Self { pattern, from, to, back_end }));
                }
            }
        }
        all
    }

    /// Whether its name holds all of these words, which commas divide.
    pub fn is_named(&self, words: &str) -> bool {
        let name = self.to_string();
        words.split(',').all(|word| name.contains(word.trim()))
    }

    /// Its route in a configuration file.
    pub fn route(&self, place: &Place) -> String {
        self.pattern.route(place, self.from, self.to)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {} on {}", self.pattern.name(), self.from, self.to, self.back_end)
    }
}
