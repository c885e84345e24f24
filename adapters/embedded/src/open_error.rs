//! Why a durable back end cannot be opened.

use std::path::PathBuf;

use linkspan_queues::log::LogError;
use thiserror::Error;

use crate::register::RegisterError;

/// Whose fault it is, the text says.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Its messages.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What is declared.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// Its directory.
    #[error("cannot make the directory {}: {source}", directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
