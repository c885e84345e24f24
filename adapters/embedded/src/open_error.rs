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
    /// There are messages, and nothing says of which queues.
    #[error("the log in {} has messages of {queues} queues, but `topology.redb`, which says what is declared, is not there: bring it back, or remove the directory to begin with nothing", directory.display())]
    RegisterLost {
        /// Where.
        directory: PathBuf,
        /// How many.
        queues: usize,
    },
    /// Its directory.
    #[error("cannot make the directory {}: {source}", directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
