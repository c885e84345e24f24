//! What can go wrong with a log.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::log::Lsn;

/// Why the log did not do what it was asked.
#[derive(Debug, Clone, Error)]
pub enum LogError {
    /// Another process has the directory.
    #[error("{dir} is in use by process {pid}: stop it, or give this server a directory of its own")]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// What the other process wrote; "unknown" when it wrote nothing yet.
        pid: String,
    },
    /// A file was written by another version.
    #[error("{file} has format {found}, this version reads {known}: open it with the version that wrote it")]
    Version {
        /// The file.
        file: String,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The system refused; nobody asks again by himself.
    #[error("{doing} {file}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        file: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The log takes nothing that needs room until the disk takes it again; try later.
    #[error("the log cannot be written: {why}; it goes on as soon as that is over")]
    Failed {
        /// What happened.
        why: Arc<str>,
    },
    /// The caller's: a record must fit into memory.
    #[error(
        "a record of {bytes} bytes is larger than the {} that a record may have",
        crate::log::MAX_PAYLOAD
    )]
    TooLarge {
        /// How large.
        bytes: u64,
    },
    /// The disk gave back something else than was written to it.
    #[error("{file} is damaged at offset {offset}: the record at {lsn} is not what was written")]
    Damaged {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// The record.
        lsn: Lsn,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    pub(crate) fn io(doing: &'static str, file: impl Into<String>, source: io::Error) -> Self {
        Self::Io { doing, file: file.into(), source: Arc::new(source) }
    }
}
