//! Why a file cannot be the ledger.

use std::path::PathBuf;

/// Why a file cannot be the ledger, and what to do: the fault of who runs it, or of the disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its folder is not there and cannot be made.
    #[error(
        "{}: the folder cannot be made: {why}; name a file in a folder that this user may write in, or make the folder",
        .folder.display()
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// The system does not let it be read and written.
    #[error("{}: {why}; name a file that this user may read and write", .file.display())]
    Denied {
        /// The file.
        file: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// Another process has it open.
    #[error("{}: in use by {}; stop that, or give each Linkspan a ledger of its own", .file.display(), process(*.by))]
    InUse {
        /// The file.
        file: PathBuf,
        /// Its process id, where that can be known.
        by: Option<u32>,
    },
    /// It is another program's, or damaged.
    #[error(
        "{}: no ledger of Linkspan's, or damaged: {why}; name another file, or move this one away and lose what it holds",
        .file.display()
    )]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A later version wrote it.
    #[error(
        "{}: its format is {format}, which this version of Linkspan does not know: start the one that wrote it",
        .file.display()
    )]
    Format {
        /// The file.
        file: PathBuf,
        /// Its format.
        format: u64,
    },
    /// There is no thread to write it.
    #[error("the ledger's thread cannot be started: {0}; the machine has no room for one more")]
    Thread(std::io::Error),
}

fn process(id: Option<u32>) -> String {
    id.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"))
}
