//! `docs/matrix.md`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use linkspan_integration_tests::Dialect;

use crate::back_end::BackEnd;

use super::cell::Cell;
use super::pattern::Pattern;
use super::support::Support;

/// When set, the page is written.
const WRITE: &str = "LINKSPAN_WRITE_MATRIX";

const HEAD: &str = "# Patterns, protocols and back ends

Which pattern works from which protocol to which other one, on which back end. Each cell is a test that has passed, by clients of
third parties (`rumqttc`, `lapin`, `ureq`) against Linkspan with RabbitMQ or Mosquitto behind it, or nothing. This page is
written by these tests, and they fail when it is not right any more.

What stands in a cell is what `linkspan check` says of its route: **native**, the back end does it; **emulated**, Linkspan
does, and how; **refused**, such a route does not start, and why. Rows are the protocol of who publishes, columns that of who
consumes.
";

/// The page's text.
pub struct Page(String);

impl Page {
    /// The page that says this of each cell.
    pub fn of(said: &HashMap<Cell, Support>) -> Self {
        let mut text = HEAD.to_owned();
        for pattern in Pattern::ALL {
            section(&mut text, pattern, said);
        }
        Self(text)
    }

    /// Writes the page when that is asked for; else it has to be there already, or what is wrong is said.
    pub fn write_or_compare(self) -> Result<(), String> {
        let path = path();
        if std::env::var_os(WRITE).is_some() {
            std::fs::write(&path, self.0).expect("docs/matrix.md is written");
            return Ok(());
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        if there == self.0 {
            return Ok(());
        }
        let changed = self.0.lines().filter(|line| !there.lines().any(|known| known == *line));
        Err(format!(
            "docs/matrix.md is not what the run says; with {WRITE}=1 it is written anew:\n{}",
            changed.collect::<Vec<_>>().join("\n")
        ))
    }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/matrix.md")
}

fn section(text: &mut String, pattern: Pattern, said: &HashMap<Cell, Support>) {
    let mut name = pattern.name().to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let _ = write!(text, "\n## {name}\n\n{}\n\n| back end | from, to |", wrapped(pattern.course()));
    for to in Dialect::ALL {
        let _ = write!(text, " {to} |");
    }
    text.push_str("\n| --- | --- | --- | --- | --- | --- |\n");
    let mut notes: Vec<&str> = Vec::new();
    for back_end in BackEnd::ALL {
        for from in Dialect::ALL {
            let _ = write!(text, "| {back_end} | {from} |");
            for to in Dialect::ALL {
                let (word, reason) = match &said[&Cell { pattern, from, to, back_end }] {
                    Support::Native => ("native", None),
                    Support::Emulated(how) => ("emulated", Some(how.as_str())),
                    Support::Refused(why) => ("refused", Some(why.as_str())),
                };
                let _ = write!(text, " {word}");
                if let Some(reason) = reason {
                    let at = notes.iter().position(|note| *note == reason).unwrap_or_else(|| {
                        notes.push(reason);
                        notes.len() - 1
                    });
                    let _ = write!(text, " ({})", at + 1);
                }
                text.push_str(" |");
            }
            text.push('\n');
        }
    }
    if !notes.is_empty() {
        text.push('\n');
    }
    for (at, note) in notes.iter().enumerate() {
        let _ = writeln!(text, "{}. {note}", at + 1);
    }
}

/// Lines of 120 characters at most.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("a line");
        if !line.is_empty() && line.len() + 1 + word.len() > 120 {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}
