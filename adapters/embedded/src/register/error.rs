//! What can go wrong with the register.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linkspan_contract::Refused;
use thiserror::Error;

/// Why what is declared could not be read or written.
#[derive(Debug, Clone, Error)]
pub enum RegisterError {
    /// Another process has the file.
    #[error("{file} is in use by another process: stop it, or give this server a directory of its own")]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// The file was written by another version.
    #[error("{file} has format {found}, this version reads {known}: open it with the version that wrote it")]
    Version {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// The file is not what was written.
    #[error("{file} is damaged: {why}; put a copy back, or move it away to begin with nothing declared")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was found.
        why: Arc<str>,
    },
    /// The system refused.
    #[error("cannot {doing} {file}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// What is declared is not written until the disk takes it again; try later.
    #[error("what is declared cannot be written to {file}: {why}; it can be as soon as that is over")]
    Failed {
        /// The file.
        file: PathBuf,
        /// What happened.
        why: Arc<str>,
    },
    /// The back end is being closed.
    #[error("the back end is being closed")]
    Closed,
}

impl RegisterError {
    pub(super) fn io(doing: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Io { doing, file, source: Arc::new(source) }
    }

    pub(super) fn damaged<E: Display>(file: &Path) -> impl FnOnce(E) -> Self {
        let file = file.to_owned();
        move |why| Self::Damaged { file, why: why.to_string().into() }
    }

    pub(super) fn failed<E: Display>(file: &Path) -> impl FnOnce(E) -> Self {
        let file = file.to_owned();
        move |why| Self::Failed { file, why: why.to_string().into() }
    }

    /// Who declares may try the same again later.
    pub(super) fn refused(self) -> Refused {
        Refused::Full(self.to_string())
    }
}
