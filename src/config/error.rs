//! What is wrong with a configuration, one line each: where, which key, what would be right.

use std::fmt;

use super::key::KeyPath;

/// Everything that is wrong with a configuration, in the order of the file; never empty. The fault is the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file and line, or the environment variable, that has to change.
    pub place: Place,
    /// The key; root when the whole source is meant.
    pub key: KeyPath,
    /// What is wrong with it.
    pub problem: Problem,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The configuration file.
    File {
        /// The path as given.
        file: Box<str>,
        /// The line, counted from 1; none when the key does not stand in the file.
        line: Option<usize>,
    },
    /// An environment variable.
    Variable(Box<str>),
    /// Neither: the value is a default.
    Default,
}

/// What is wrong with a value, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file is not there, may not be read, or is not UTF-8.
    #[error("cannot be read: {0}")]
    Unreadable(Box<str>),
    /// The file is not TOML.
    #[error("this is not TOML: {0}")]
    Syntax(Box<str>),
    /// Nothing has this name.
    #[error("unknown key; {0}")]
    UnknownKey(Hint),
    /// The key belongs to a later version; it would have no effect.
    #[error("this key is not available in this version; remove it")]
    KeyUnavailable,
    /// An environment variable that begins as ours do but names no section and key.
    #[error(
        "unknown variable; section and key are joined by two underscores, as in LINKSPAN_DOORS__MQTT__LISTEN"
    )]
    UnknownVariable,
    /// Routes and workers are lists, which no variable can name.
    #[error("routes and workers can be given in the file only")]
    ListVariable,
    /// A text where a number is needed, and the like.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What is needed.
        expected: Box<str>,
        /// What was there.
        found: &'static str,
    },
    /// A value that does not do; the text says what would.
    #[error("{0}")]
    BadValue(Box<str>),
    /// A key that has no default.
    #[error("is missing; {0}")]
    Missing(Box<str>),
    /// A pattern of a later version.
    #[error("pattern `{pattern}` is not available in this version; available: {available}")]
    PatternUnavailable {
        /// The pattern asked for.
        pattern: Box<str>,
        /// Those that this version has.
        available: Box<str>,
    },
    /// No such pattern, kind, vhost or back end.
    #[error("there is no {what} `{name}`; {hint}")]
    Unknown {
        /// What the key names.
        what: &'static str,
        /// The name given.
        name: Box<str>,
        /// The names that exist.
        hint: Hint,
    },
    /// Two routes of a vhost for the same addresses.
    #[error(
        "`{filter}` matches the same addresses as `{other}` of {other_key}{other_place}; keep one of them"
    )]
    EqualMatch {
        /// This route's match.
        filter: Box<str>,
        /// The other route's match.
        other: Box<str>,
        /// Where the other route stands.
        other_key: KeyPath,
        /// Its line.
        other_place: OtherLine,
    },
    /// A queue that another route of the vhost owns.
    #[error("queue `{queue}` already belongs to {other_key}{other_place}; each queue has one route")]
    SharedQueue {
        /// The queue's name.
        queue: Box<str>,
        /// The route that owns it.
        other_key: KeyPath,
        /// Its line.
        other_place: OtherLine,
    },
    /// Two doors on one address.
    #[error("{address} is taken by {other_key} already")]
    AddressTaken {
        /// The address.
        address: std::net::SocketAddr,
        /// The other door.
        other_key: KeyPath,
    },
    /// A door that others than this machine can reach, without any account.
    #[error(
        "{0} can be reached from other machines, but there are no users; add [users.NAME] with a password from \
         `linkspan hash-password`, or listen on 127.0.0.1"
    )]
    OpenDoor(std::net::SocketAddr),
}

/// " (line 7)", or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherLine(pub Option<usize>);

/// The name that was meant, or all names there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The nearest name, when one is near.
    pub nearest: Option<Box<str>>,
    /// All names.
    pub known: Vec<Box<str>>,
}

impl ConfigErrors {
    /// Orders the errors by their place.
    ///
    /// # Errors
    /// The errors, when there are any.
    pub fn none_of(mut errors: Vec<ConfigError>) -> Result<(), Self> {
        errors.sort_by(|a, b| (&a.place, &a.key).cmp(&(&b.place, &b.key)));
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// The errors, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            let line_break = if at > 0 { "\n" } else { "" };
            write!(f, "{line_break}{error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_root() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.problem)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { file, line: Some(line) } => write!(f, "{file}:{line}"),
            Place::File { file, line: None } => f.write_str(file),
            Place::Variable(name) => f.write_str(name),
            Place::Default => f.write_str("default"),
        }
    }
}

impl fmt::Display for OtherLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, " (line {line})"))
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(nearest) = &self.nearest {
            return write!(f, "did you mean `{nearest}`?");
        }
        if self.known.is_empty() {
            return f.write_str("none exists");
        }
        f.write_str("there is ")?;
        for (at, name) in self.known.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}`{name}`")?;
        }
        Ok(())
    }
}
