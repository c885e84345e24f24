//! `ledger`: where the small state lies that has to outlive this process.

use std::fmt;
use std::path::PathBuf;

use super::key::KeyPath;
use super::nearest::nearest;
use super::report::Report;
use super::upstream::Url;

/// Where the ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ledger {
    /// A file of this instance's own; relative to where Linkspan was started.
    File(PathBuf),
    /// A PostgreSQL that instances may share.
    Postgres(Url),
}

/// The file when nothing is said.
const DEFAULT: &str = "linkspan-data/ledger.redb";

const SCHEMES: [&str; 2] = ["postgres", "postgresql"];

impl Ledger {
    /// As it is written, with the password.
    pub(super) fn expose(&self) -> String {
        match self {
            Self::File(file) => file.display().to_string(),
            Self::Postgres(url) => url.expose().to_owned(),
        }
    }
}

/// Without account and parameters.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "file {}", file.display()),
            Self::Postgres(url) => write!(f, "PostgreSQL {url}"),
        }
    }
}

/// The ledger, from the file's name or the url.
pub(super) fn check(ledger: Option<&str>, report: &mut Report<'_>) -> Ledger {
    let written = ledger.unwrap_or(DEFAULT);
    let Some((scheme, _)) = written.split_once(':').filter(|(_, rest)| rest.starts_with("//")) else {
        if written.is_empty() {
            report.bad_value(&KeyPath::of(["ledger"]), "\"\" is no file");
        }
        return Ledger::File(written.into());
    };
    let url = Url::new(written);
    let wrong = if SCHEMES.contains(&scheme) {
        url.check(SCHEMES).err()
    } else {
        let meant = nearest(scheme, SCHEMES).map(|near| format!("; did you mean `{near}`?"));
        let meant = meant.unwrap_or_default();
        Some(format!(
            "has the scheme `{scheme}`; expected the path of a file, or postgres://USER:PASSWORD@HOST/DATABASE{meant}"
        ))
    };
    if let Some(text) = wrong {
        report.bad_value(&KeyPath::of(["ledger"]), text);
    }
    Ledger::Postgres(url)
}
