//! Gathers what is wrong while a configuration is checked, so that all of it is said at once.

use figment::error::{Actual, Kind};

use super::error::{ConfigError, ConfigErrors, Hint, OtherLine, Place, Problem};
use super::key::{KeyPath, Segment};
use super::nearest::nearest;
use super::source::Sources;

/// Keys of later versions, by the section they stand in. A key that has no effect is refused, never ignored.
const UNAVAILABLE_ROUTE_KEYS: [&str; 2] = ["claim-check", "timeout"];
const UNAVAILABLE_SECTIONS: [&str; 1] = ["claims"];

/// What is wrong so far.
pub(super) struct Report<'s> {
    sources: &'s Sources,
    errors: Vec<ConfigError>,
    /// Keys about which something was said, or that were meant by a misspelt one: not said to be missing as well.
    named: Vec<KeyPath>,
}

impl<'s> Report<'s> {
    pub(super) fn new(sources: &'s Sources, errors: Vec<ConfigError>) -> Self {
        Self { sources, errors, named: Vec::new() }
    }

    /// Something is wrong with the value of `key`.
    pub(super) fn wrong(&mut self, key: &KeyPath, problem: Problem) {
        let place = self.sources.place(key);
        self.named.push(key.clone());
        self.errors.push(ConfigError { place, key: key.clone(), problem });
    }

    /// The value of `key` does not do; `text` says what would.
    pub(super) fn bad_value(&mut self, key: &KeyPath, text: impl Into<Box<str>>) {
        self.wrong(key, Problem::BadValue(text.into()));
    }

    /// `key` has no value and needs one; said only when nothing was said about its value.
    pub(super) fn missing(&mut self, key: &KeyPath, needed: impl Into<Box<str>>) {
        if !self.named.iter().any(|named| named.is_at_or_below(key)) {
            self.wrong(key, Problem::Missing(needed.into()));
        }
    }

    /// `key` names a `what` that does not exist.
    pub(super) fn unknown<'a>(
        &mut self,
        key: &KeyPath,
        what: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        let hint = hint(name, known);
        self.wrong(key, Problem::Unknown { what, name: name.into(), hint });
    }

    /// A value that serde did not take.
    pub(super) fn refused(&mut self, key: &KeyPath, kind: Kind) {
        let problem = match kind {
            Kind::UnknownField(..) if is_unavailable(key) => Problem::KeyUnavailable,
            Kind::UnknownField(name, known) => {
                let hint = hint(&name, known.iter().copied());
                if let Some(meant) = &hint.nearest {
                    self.named.push(key.parent().key(meant));
                }
                Problem::UnknownKey(hint)
            }
            Kind::InvalidType(found, expected) => wrong_type(key, &found, &expected),
            Kind::InvalidValue(Actual::Signed(number), expected) => out_of_range(number, &expected),
            Kind::InvalidValue(Actual::Unsigned(number), expected) => out_of_range(number, &expected),
            Kind::Message(text) => Problem::BadValue(text.into()),
            other => Problem::BadValue(other.to_string().into()),
        };
        self.wrong(key, problem);
    }

    /// Whether the user set this key.
    pub(super) fn is_set(&self, key: &KeyPath) -> bool {
        self.sources.is_set(key)
    }

    /// The line of a key of the file, to be named beside another.
    pub(super) fn line(&self, key: &KeyPath) -> OtherLine {
        match self.sources.place(key) {
            Place::File { line, .. } => OtherLine(line),
            _ => OtherLine(None),
        }
    }

    /// Errors if any were reported.
    pub(super) fn finish(self) -> Result<(), ConfigErrors> {
        ConfigErrors::none_of(self.errors)
    }
}

fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Hint {
    let known: Vec<&str> = known.into_iter().collect();
    let nearest = nearest(name, known.iter().copied()).map(Box::from);
    Hint { nearest, known: known.into_iter().map(Box::from).collect() }
}

fn is_unavailable(key: &KeyPath) -> bool {
    match key.segments() {
        [Segment::Key(section)] => UNAVAILABLE_SECTIONS.contains(&section.as_str()),
        [Segment::Key(section), Segment::Index(_), Segment::Key(key)] => {
            section == "route" && UNAVAILABLE_ROUTE_KEYS.contains(&key.as_str())
        }
        _ => false,
    }
}

/// The values themselves are not repeated: one may be a password.
fn wrong_type(key: &KeyPath, found: &Actual, expected: &str) -> Problem {
    let found = match found {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) | Actual::Bytes(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    };
    let tables = match key.segments() {
        [Segment::Key(name)] if name == "route" || name == "worker" => Some(name),
        _ => None,
    };
    let expected = match expected {
        "a sequence" if tables.is_some() => {
            let name = tables.map_or("table", String::as_str);
            format!("a list of {name}s: write [[{name}]] with two brackets")
        }
        "a boolean" => "true or false".to_owned(),
        "a string" | "path string" => "a text in quotes".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        expected if expected.starts_with("struct ") => "a table".to_owned(),
        expected => range(expected).unwrap_or_else(|| expected.to_owned()),
    };
    Problem::WrongType { expected: expected.into(), found }
}

fn out_of_range(number: impl std::fmt::Display, expected: &str) -> Problem {
    let expected = range(expected).unwrap_or_else(|| expected.to_owned());
    Problem::BadValue(format!("{number} is out of range; expected {expected}").into())
}

/// What serde calls a Rust integer type, for people.
fn range(expected: &str) -> Option<String> {
    let (least, name) = match expected.strip_prefix("a nonzero ") {
        Some(name) => (1, name),
        None => (0, expected),
    };
    let most = match name {
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        _ => return None,
    };
    Some(format!("a whole number from {least} to {most}"))
}
