//! The command line: what may be asked of the binary, the answers that need no broker, and those of a running one.

pub mod operate;
pub mod store;

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigErrors};
use crate::identity::{HashFailed, hash_password};

use operate::{At, DeadLettersCommand, QueuesCommand};
use store::{StoreCommand, StoreError};

/// One address space for MQTT, AMQP 0-9-1 and HTTP clients. Without a command, runs the broker.
#[derive(Debug, Parser)]
#[command(name = "linkspan", version, args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Environment: LINKSPAN_DOORS__MQTT__LISTEN and the like set single keys and win against the file; \
                        LINKSPAN_LOG sets the log level.\n\
                        Without a file: MQTT on 127.0.0.1:1883, AMQP on 127.0.0.1:5672, HTTP on 127.0.0.1:8080."
)]
pub struct Cli {
    /// The configuration file (TOML); its keys are explained in config/linkspan.toml.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What may be asked.
#[derive(Debug, Subcommand, PartialEq, Eq)]
pub enum Command {
    /// Say what is wrong with a configuration file, or which route goes where and how its back end does that; nothing is
    /// started.
    Check {
        /// Connect to each back end, too, and say what is there.
        #[arg(long)]
        connect: bool,
        /// The configuration file.
        file: PathBuf,
    },
    /// Hash a password for the users section; it is asked for, or read as one line from standard input.
    HashPassword,
    /// Look at the durable store of an embedded back end, or make it small.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Look at the queues of a running server; purge, pause or resume one.
    #[command(subcommand)]
    Queues(QueuesCommand),
    /// Say which route goes where in a running server.
    Routes(At),
    /// Look at the dead letters of a queue of a running server; move them back, or remove them.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
}

/// Why a command failed. The fault is the user's, except for [`CliError::Hash`].
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong; says all that is.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Standard input or the terminal gave no password.
    #[error("the password cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// Nothing was typed.
    #[error("the password is empty")]
    Empty,
    /// The second time it was typed differently.
    #[error("the two passwords differ; try again")]
    Differ,
    /// The store cannot be looked at.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Out of memory or randomness.
    #[error(transparent)]
    Hash(#[from] HashFailed),
}

/// The variables of this process; those that are not UTF-8 cannot be ours.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: OsString| text.into_string().ok();
    std::env::vars_os().filter_map(move |(name, value)| Some((text(name)?, text(value)?)))
}

/// `linkspan check FILE`: the configuration, and its doors and routes as they would be.
///
/// # Errors
/// All that is wrong with the file or the environment.
pub fn check(
    file: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(Config, String), ConfigErrors> {
    let config = Config::load(Some(file), environment)?;
    let mut text = String::from("doors\n");
    for (door, address) in config.doors.open() {
        text.push_str(&format!("  {door}  {address}\n"));
    }
    if let Ok(routes) = config.routes() {
        text.push_str(&format!("\n{routes}\n"));
    }
    Ok((config, text))
}

/// `linkspan hash-password`: asks twice on a terminal, else reads one line. Never an argument: others would see it in the
/// process list.
///
/// # Errors
/// No password came, or it could not be hashed.
pub fn ask_and_hash() -> Result<String, CliError> {
    let password = if io::stdin().is_terminal() {
        let password = rpassword::prompt_password("Password: ")?;
        if password != rpassword::prompt_password("Once more: ")? {
            return Err(CliError::Differ);
        }
        password.into_bytes()
    } else {
        first_line(io::stdin().lock())?
    };
    if password.is_empty() {
        return Err(CliError::Empty);
    }
    Ok(hash_password(&password)?)
}

/// The first line without its end.
fn first_line(mut input: impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["linkspan"], arguments].concat())
    }

    #[test]
    fn no_argument_runs_and_config_names_the_file() {
        let plain = parse(&[]).unwrap();
        assert_eq!((plain.config, plain.command), (None, None));
        let with_file = parse(&["--config", "a.toml"]).unwrap();
        assert_eq!(with_file.config.as_deref(), Some(Path::new("a.toml")));
    }

    #[test]
    fn commands_stand_alone() {
        assert_eq!(
            parse(&["check", "a.toml"]).unwrap().command,
            Some(Command::Check { connect: false, file: "a.toml".into() })
        );
        assert_eq!(
            parse(&["check", "--connect", "a.toml"]).unwrap().command,
            Some(Command::Check { connect: true, file: "a.toml".into() })
        );
        assert_eq!(parse(&["hash-password"]).unwrap().command, Some(Command::HashPassword));
        let target = store::Target { dir: "data".into(), json: true };
        assert_eq!(
            parse(&["store", "verify", "--json", "data"]).unwrap().command,
            Some(Command::Store(StoreCommand::Verify(target)))
        );
        let at = At { url: None, config: Some("a.toml".into()), user: None, json: true };
        assert_eq!(
            parse(&["queues", "list", "--config", "a.toml", "--json"]).unwrap().command,
            Some(Command::Queues(QueuesCommand::List(at)))
        );
        let at = At { url: Some("http://h:1".into()), config: None, user: Some("ann".into()), json: false };
        let which = operate::Which { queue: "jobs".into(), reason: Some("expired".into()), at };
        let letters = operate::Letters { which, limit: Some(5) };
        let replay = operate::Replay { letters, to: Some("jobs/again".into()) };
        assert_eq!(
            parse(&[
                "dead-letters",
                "replay",
                "jobs",
                "--limit",
                "5",
                "--to",
                "jobs/again",
                "--reason",
                "expired",
                "--url",
                "http://h:1",
                "--user",
                "ann"
            ])
            .unwrap()
            .command,
            Some(Command::DeadLetters(DeadLettersCommand::Replay(replay)))
        );
        for wrong in [
            &["queues"][..],
            &["queues", "purge"],
            &["dead-letters", "show", "jobs"],
            &["routes", "--url", "a", "--config", "b"],
            &["check"],
            &["store"],
            &["store", "inspect"],
            &["hash-password", "secret"],
            &["--config", "a", "check", "b"],
            &["--cofnig", "a"],
        ] {
            let error = parse(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn check_shows_what_is_open_and_which_route_goes_where() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/image-workers.toml");
        let off = [("LINKSPAN_DOORS__HTTP__ENABLED".to_owned(), "false".to_owned())];
        let (_, text) = check(&file, off).unwrap();
        assert_eq!(
            text,
            "doors\n  mqtt  127.0.0.1:1883\n  amqp  127.0.0.1:5672\n\nvhost /\n  \
             images/resize  competing-consumers  on local, queue image-resize, settled within 30s, 3 deliveries at most, \
             again after 1s, dead letters to images/failed\n  \
             images/failed  competing-consumers  on local, queue images-failed\n  \
             (all else)     publish-subscribe    on local\n"
        );
    }

    #[test]
    fn a_password_is_the_first_line_without_its_end() {
        for (input, password) in
            [("a b\nc", "a b"), ("a\r\n", "a"), ("a", "a"), ("", ""), ("\n", ""), (" a \n", " a ")]
        {
            assert_eq!(first_line(input.as_bytes()).unwrap(), password.as_bytes(), "{input:?}");
        }
    }
}
