//! `linkspan store`: looking at the durable log of a back end, and making it small.

mod progress;
mod report;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, os::unix::fs::MetadataExt};

use clap::{Args, Subcommand};
use linkspan_queues::log::{Directory, LogError, compact, survey};
use thiserror::Error;

use progress::Progress;
use report::{Compaction, Report};

/// Where the log lies in a back end's directory.
const LOG: &str = "log";

/// What may be asked about a back end's store.
#[derive(Debug, Subcommand, PartialEq, Eq)]
pub enum StoreCommand {
    /// Say what is in it: files, queues, keys, bodies, and what is damaged. Changes nothing, and works beside a running
    /// server.
    Inspect(Target),
    /// Read everything and check every checksum; the exit code is 1 when something is damaged. Changes nothing, and works
    /// beside a running server.
    Verify(Target),
    /// Bring the files down to what is live in them; not while a server has them.
    Compact(Target),
    /// Delete a queue, with all that is in it: one that its route does not want as it is any more. Not while a server has
    /// the store.
    DeleteQueue(DeleteQueue),
}

/// Which queue is to be deleted.
#[derive(Debug, Args, PartialEq, Eq)]
pub struct DeleteQueue {
    /// The directory of an embedded back end (`path` in the configuration).
    pub dir: PathBuf,
    /// Its name.
    pub queue: String,
    /// Where it is.
    #[arg(long, default_value = "/")]
    pub vhost: String,
}

/// Which store, and how it is told of.
#[derive(Debug, Args, PartialEq, Eq)]
pub struct Target {
    /// The directory of an embedded back end (`path` in the configuration), or the log's own.
    pub dir: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Why a store could not be looked at; the fault is the caller's, or the machine's.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The path leads nowhere.
    #[error("{}: there is no such directory", .0.display())]
    Missing(PathBuf),
    /// It is something else.
    #[error(
        "{} holds no log of Linkspan: neither it nor a folder `log` in it has the files of one; give the `path` of an \
         embedded back end",
        .0.display()
    )]
    Foreign(PathBuf),
    /// Another user's.
    #[error("{} may not be used by this user: run this as the user that the server runs as", .0.display())]
    Denied(PathBuf),
    /// A server has it.
    #[error(
        "{} is in use by process {pid}: stop that first; `linkspan store inspect` and `verify` work beside it",
        .dir.display()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process.
        pid: String,
    },
    /// The log says why.
    #[error(transparent)]
    Log(LogError),
    /// The queue could not be deleted.
    #[error("queue `{queue}` cannot be deleted: {why}")]
    Undeleted {
        /// Its name.
        queue: String,
        /// What is in the way.
        why: String,
    },
    /// The answer could not be put into words.
    #[error("the answer cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What a command has to say.
#[derive(Debug)]
pub struct Answer {
    /// For standard output.
    pub text: String,
    /// Nothing is damaged; for `compact`, nothing was.
    pub sound: bool,
}

/// What a queue of the log is called, by its number there.
pub type Names = Box<dyn Fn(u64) -> Option<String>>;

/// Does what is asked. `names` gives the names of queues, for the directory of a back end; those that it does not know are
/// shown as numbers. `delete` deletes a queue there, by vhost and name, and says how many messages waited in it, or what is in
/// the way.
///
/// # Errors
/// When there is no store, it may not be read, it is another version's, or a server has it that is in the way.
pub fn run(
    command: &StoreCommand,
    names: impl FnOnce(&Path) -> Names,
    delete: impl FnOnce(&Path, &str, &str) -> Result<u64, String>,
) -> Result<Answer, StoreError> {
    match command {
        StoreCommand::Inspect(target) => {
            let report = look(target, names)?;
            Ok(Answer { text: told(target, &report, Report::inspected)?, sound: report.is_sound() })
        }
        StoreCommand::Verify(target) => {
            let report = look(target, names)?;
            Ok(Answer { text: told(target, &report, Report::verified)?, sound: report.is_sound() })
        }
        StoreCommand::Compact(target) => {
            let done = make_small(target)?;
            Ok(Answer { text: told(target, &done, Compaction::told)?, sound: done.is_sound() })
        }
        StoreCommand::DeleteQueue(DeleteQueue { dir, queue, vhost }) => {
            log_of(dir)?;
            let undeleted = |why| StoreError::Undeleted { queue: queue.clone(), why };
            let messages = delete(dir, vhost, queue).map_err(undeleted)?;
            Ok(Answer { text: format!("deleted {queue}, and {messages} messages in it\n"), sound: true })
        }
    }
}

fn told<T: serde::Serialize>(
    target: &Target,
    what: &T,
    text: fn(&T) -> String,
) -> Result<String, StoreError> {
    if target.json { Ok(serde_json::to_string_pretty(what)? + "\n") } else { Ok(text(what)) }
}

fn look(target: &Target, names: impl FnOnce(&Path) -> Names) -> Result<Report, StoreError> {
    let dir = log_of(&target.dir)?;
    let mut progress = Progress::new("reading");
    let found = survey(&Directory::look(&dir), &mut |done, all| progress.set(done, all));
    drop(progress);
    let found = found.map_err(|error| explained(error, &dir))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Ok(Report::new(&dir, Directory::holder(&dir), &found, &names(&target.dir), now))
}

fn make_small(target: &Target) -> Result<Compaction, StoreError> {
    let dir = log_of(&target.dir)?;
    let before = on_disk(&dir);
    let store = Directory::open(&dir).map_err(|error| explained(error, &dir))?;
    let mut progress = Progress::new("compacting");
    let done = compact(Arc::new(store), &mut |done, all| progress.set(done, all));
    drop(progress);
    let done = done.map_err(|error| explained(error, &dir))?;
    Ok(Compaction::new(&dir, &done, before, on_disk(&dir)))
}

/// The directory of the log that is meant.
fn log_of(dir: &Path) -> Result<PathBuf, StoreError> {
    let inside = dir.join(LOG);
    for candidate in [&inside, dir] {
        match Directory::is_log(candidate) {
            Ok(true) => return Ok(candidate.to_owned()),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(StoreError::Denied(candidate.to_owned()));
            }
            Err(_) => {}
        }
    }
    if dir.is_dir() {
        Err(StoreError::Foreign(dir.to_owned()))
    } else {
        Err(StoreError::Missing(dir.to_owned()))
    }
}

/// What the system has set aside for the files of a directory, and how many there are; those that go meanwhile are left
/// out.
fn on_disk(dir: &Path) -> (u64, u64) {
    let all = fs::read_dir(dir).into_iter().flatten().filter_map(|entry| entry.ok()?.metadata().ok());
    // The system counts in pieces of 512 bytes.
    all.filter(|file| file.len() > 0 && file.blocks() > 0)
        .fold((0, 0), |(files, bytes), file| (files + 1, bytes + file.blocks() * 512))
}

fn explained(error: LogError, dir: &Path) -> StoreError {
    match error {
        LogError::InUse { dir, pid } => StoreError::InUse { dir, pid },
        LogError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            StoreError::Denied(dir.to_owned())
        }
        other => StoreError::Log(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_store_is_told_apart() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let foreign = log_of(&here.join("src")).unwrap_err();
        assert!(matches!(&foreign, StoreError::Foreign(dir) if dir.ends_with("src")), "{foreign}");
        let missing = log_of(&here.join("nowhere")).unwrap_err();
        assert!(missing.to_string().ends_with("nowhere: there is no such directory"), "{missing}");
        let fixture = here.join("adapters/queues/tests/log/fixture/v1");
        assert_eq!(log_of(&fixture).unwrap(), fixture);
    }

    #[test]
    fn the_fixture_is_sound_and_its_queues_have_the_names_that_are_known() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters/queues/tests/log/fixture/v1");
        let inspect = StoreCommand::Inspect(Target { dir, json: false });
        let answer =
            run(&inspect, |_| Box::new(|number| (number == 1).then(|| "jobs".to_owned())), |_, _, _| Ok(0));
        let answer = answer.unwrap();
        assert!(answer.sound && answer.text.contains("  jobs (1)  31 messages"), "{}", answer.text);
        assert!(answer.text.contains("  2         1 message "), "{}", answer.text);
    }
}
