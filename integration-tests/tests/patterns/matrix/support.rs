//! What the program says of how a back end does a pattern.

use std::collections::HashMap;

use linkspan_integration_tests::process::{Folder, run};

use super::cell::{Cell, Place};

/// How a pattern is done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Support {
    /// By the broker.
    Native,
    /// By Linkspan; says how.
    Emulated(String),
    /// Not at all; says why.
    Refused(String),
}

impl Support {
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// Reads `native`, `emulated (…)` or `refused (…)`.
    fn parse(text: &str) -> Self {
        let reason = |kind| text.strip_prefix(kind)?.strip_prefix(" (")?.strip_suffix(')');
        match (text, reason("emulated"), reason("refused")) {
            ("native", ..) => Self::Native,
            (_, Some(how), _) => Self::Emulated(how.to_owned()),
            (_, _, Some(why)) => Self::Refused(why.to_owned()),
            _ => panic!("`{text}` is neither native nor emulated nor refused"),
        }
    }

    /// How far it is from the broker's own doing.
    fn distance(&self) -> u8 {
        match self {
            Self::Native => 0,
            Self::Emulated(_) => 1,
            Self::Refused(_) => 2,
        }
    }
}

/// What `linkspan check` says of routes.
pub struct Supports {
    folder: Folder,
    known: HashMap<String, Support>,
}

impl Supports {
    pub fn new() -> Self {
        Self { folder: Folder::new(), known: HashMap::new() }
    }

    /// What it says of the features that the cell is about; of several, of the one that is farthest from the broker.
    pub fn of(&mut self, cell: &Cell) -> Support {
        let features = cell.pattern.features(cell.to);
        let toml = format!("{}{}", cell.back_end.table_of_nobody(), cell.route(&Place::example()));
        let key = format!("{features:?}\n{toml}");
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let file = self.folder.write("linkspan.toml", &toml);
        let output = run(self.folder.path(), &["check", &file]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = features.iter().map(|feature| {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(feature)?.strip_prefix("  "));
            Support::parse(
                line.unwrap_or_else(|| panic!("nothing of `{feature}` is said in:\n{said}")).trim(),
            )
        });
        let support = found.max_by_key(Support::distance).expect("a feature");
        let is_fine = output.status.success();
        let why = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            is_fine,
            !support.is_refused(),
            "{cell}: `linkspan check` says {support:?} and: {why}\n{toml}"
        );
        self.known.insert(key, support.clone());
        support
    }
}
