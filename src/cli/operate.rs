//! `linkspan queues`, `routes` and `dead-letters`: what operators ask of a running server, through its HTTP door.

mod connection;
mod request;
mod shown;
mod table;

use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use self::request::{Base, Request};
use crate::config::{Config, ConfigErrors};

/// The variable that has the password of `--user`.
pub const PASSWORD: &str = "LINKSPAN_PASSWORD";

/// Which server, and how its answer is shown.
#[derive(Debug, Args, PartialEq, Eq)]
pub struct At {
    /// The HTTP door of the server; 127.0.0.1:8080 unless the configuration says otherwise.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The configuration file of the server, for where its HTTP door is.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub config: Option<PathBuf>,
    /// Who asks; the password is in LINKSPAN_PASSWORD, or is asked for.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What may be asked of queues.
#[derive(Debug, Subcommand, PartialEq, Eq)]
pub enum QueuesCommand {
    /// List the queues, with what they hold and who consumes.
    List(At),
    /// Tell all that is known of one.
    Show(Queue),
    /// Remove the messages that are ready in it; those in the hands of consumers stay.
    Purge(Queue),
    /// Give nothing out until `resume`, also after a restart; publishing goes on.
    Pause(Queue),
    /// Give out again what waits in it.
    Resume(Queue),
}

/// One queue.
#[derive(Debug, Args, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub queue: String,
    /// Which server.
    #[command(flatten)]
    pub at: At,
}

/// What may be asked of dead letters.
#[derive(Debug, Subcommand, PartialEq, Eq)]
pub enum DeadLettersCommand {
    /// List those that died in a queue, the oldest first; they stay where they are.
    List(Letters),
    /// Show one with its properties and payload.
    Show(Letter),
    /// Move those that are there now back into the queue, or to an address, with their history.
    Replay(Replay),
    /// Remove those that are there now.
    Purge(Which),
}

/// Dead letters of a queue.
#[derive(Debug, Args, PartialEq, Eq)]
pub struct Which {
    /// The queue in which they died.
    pub queue: String,
    /// Only those that died for this reason: rejected, expired, max-deliveries, max-length, …
    #[arg(long)]
    pub reason: Option<String>,
    /// Which server.
    #[command(flatten)]
    pub at: At,
}

/// The first of them.
#[derive(Debug, Args, PartialEq, Eq)]
pub struct Letters {
    /// Which.
    #[command(flatten)]
    pub which: Which,
    /// At most so many.
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u64>,
}

/// Those that are moved, and where.
#[derive(Debug, Args, PartialEq, Eq)]
pub struct Replay {
    /// The first of them.
    #[command(flatten)]
    pub letters: Letters,
    /// Publish them to this address, such as jobs/again, instead of putting them back into the queue.
    #[arg(long, value_name = "ADDRESS")]
    pub to: Option<String>,
}

/// One of them.
#[derive(Debug, Args, PartialEq, Eq)]
pub struct Letter {
    /// Which.
    #[command(flatten)]
    pub which: Which,
    /// Its number in the list, from 1 on.
    pub number: u64,
}

/// Why the server did not do it.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// The URL cannot be used: the caller's fault.
    #[error("--url {url}: {why}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The configuration is wrong; says all that is.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The configuration has no HTTP door.
    #[error(
        "the configuration turns the HTTP door off (doors.http.enabled), and these commands go through it"
    )]
    NoDoor,
    /// The configuration leaves the port to the system.
    #[error(
        "the configuration leaves the port of the HTTP door to the system (doors.http.listen): say where it is with --url"
    )]
    AnyPort,
    /// No password came.
    #[error("the password cannot be read: {0}")]
    Password(#[from] io::Error),
    /// Nobody answers there.
    #[error(
        "no server answers at {url}: {why}; start it with `linkspan --config FILE`, or say where it is with --url URL or --config FILE"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// What the system says.
        why: String,
    },
    /// Something else answers there.
    #[error(
        "what answers at {url} is not Linkspan's HTTP door ({why}): say where that is with --url URL or --config FILE"
    )]
    Strange {
        /// Where.
        url: String,
        /// What it said.
        why: String,
    },
    /// The server wants to know who asks.
    #[error("the server does not let you in: {detail}; {}", if *.named { "check --user and the password" } else { "give --user NAME, and the password in LINKSPAN_PASSWORD or when asked" })]
    Denied {
        /// In its words.
        detail: String,
        /// Somebody was named.
        named: bool,
    },
    /// The server says no.
    #[error("{detail}")]
    Refused {
        /// In its words.
        detail: String,
    },
}

impl OperateError {
    /// What the process exits with: 1 when the server said no, 2 when the caller is at fault, 3 when there is no server.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Denied { .. } | Self::Refused { .. } => 1,
            Self::Url { .. } | Self::Config(_) | Self::NoDoor | Self::AnyPort | Self::Password(_) => 2,
            Self::Unreachable { .. } | Self::Strange { .. } => 3,
        }
    }
}

/// `linkspan queues …`: what the server says.
///
/// # Errors
/// Why it was not done.
pub async fn queues(
    command: &QueuesCommand,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<String, OperateError> {
    let (at, request): (&At, Request) = match command {
        QueuesCommand::List(at) => (at, Request::get(&["queues"])),
        QueuesCommand::Show(Queue { queue, at }) => (at, Request::get(&["queues", queue])),
        QueuesCommand::Purge(Queue { queue, at }) => (at, Request::post(&["queues", queue, "purge"])),
        QueuesCommand::Pause(Queue { queue, at }) => (at, Request::post(&["queues", queue, "pause"])),
        QueuesCommand::Resume(Queue { queue, at }) => (at, Request::post(&["queues", queue, "resume"])),
    };
    let answer = ask(at, &request, environment).await?;
    shown::answer(at, &answer, |found| match command {
        QueuesCommand::List(_) => shown::queues(found),
        QueuesCommand::Show(_) => shown::queue(found),
        QueuesCommand::Purge(_) => shown::purged(found, "message"),
        QueuesCommand::Pause(_) | QueuesCommand::Resume(_) => shown::paused(found),
    })
}

/// `linkspan routes`: what the server says.
///
/// # Errors
/// Why it was not done.
pub async fn routes(
    at: &At,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<String, OperateError> {
    let answer = ask(at, &Request::get(&["routes"]), environment).await?;
    shown::answer(at, &answer, |found| found.get("text")?.as_str().map(str::to_owned))
}

/// `linkspan dead-letters …`: what the server says.
///
/// # Errors
/// Why it was not done.
pub async fn dead_letters(
    command: &DeadLettersCommand,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<String, OperateError> {
    let (which, request) = match command {
        DeadLettersCommand::List(Letters { which, limit }) => {
            let request = Request::get(&["queues", &which.queue, "dead-letters"]);
            (which, request.with("limit", limit.map(|limit| limit.to_string())))
        }
        DeadLettersCommand::Show(Letter { which, number }) => {
            (which, Request::get(&["queues", &which.queue, "dead-letters", &number.to_string()]))
        }
        DeadLettersCommand::Replay(Replay { letters: Letters { which, limit }, to }) => {
            let request = Request::post(&["queues", &which.queue, "replay"]).with("to", to.clone());
            (which, request.with("limit", limit.map(|limit| limit.to_string())))
        }
        DeadLettersCommand::Purge(which) => {
            (which, Request::post(&["queues", &which.queue, "dead-letters", "purge"]))
        }
    };
    let request = request.with("reason", which.reason.clone());
    let answer = ask(&which.at, &request, environment).await?;
    shown::answer(&which.at, &answer, |found| match command {
        DeadLettersCommand::List(_) => shown::dead_letters(found),
        DeadLettersCommand::Show(_) => shown::dead_letter(found),
        DeadLettersCommand::Replay(_) => shown::replayed(found),
        DeadLettersCommand::Purge(_) => shown::purged(found, "dead letter"),
    })
}

/// Asks the server.
async fn ask(
    at: &At,
    request: &Request,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<serde_json::Value, OperateError> {
    let environment: Vec<(String, String)> = environment.into_iter().collect();
    let password = environment.iter().find(|(name, _)| name == PASSWORD).map(|(_, value)| value.clone());
    let base = base(at, environment)?;
    let login = match &at.user {
        Some(user) => Some((user.as_str(), password.map_or_else(ask_password, Ok)?)),
        None => None,
    };
    let login = login.as_ref().map(|(user, password)| (*user, password.as_str()));
    connection::ask(&base, request, login).await
}

/// Where the door is.
fn base(at: &At, environment: Vec<(String, String)>) -> Result<Base, OperateError> {
    if let Some(url) = &at.url {
        return Base::parse(url).map_err(|why| OperateError::Url { url: url.clone(), why });
    }
    let http = Config::load(at.config.as_deref(), environment)?.doors.http;
    if !http.enabled {
        return Err(OperateError::NoDoor);
    }
    if http.listen.port() == 0 {
        return Err(OperateError::AnyPort);
    }
    let mut address = http.listen;
    // It listens everywhere, and so here.
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        });
    }
    Ok(Base::at(address))
}

/// The password from the terminal, else one line of standard input. Never an argument: others would see it in the process
/// list.
fn ask_password() -> io::Result<String> {
    if io::stdin().is_terminal() {
        return rpassword::prompt_password("Password: ");
    }
    let line = super::first_line(io::stdin().lock())?;
    String::from_utf8(line).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::hash_password;

    fn at(url: Option<&str>) -> At {
        At { url: url.map(str::to_owned), config: None, user: None, json: false }
    }

    #[test]
    fn the_door_is_where_the_url_or_the_configuration_says() {
        let hash = hash_password(b"secret").unwrap();
        let base = |at: &At, listen: Option<&str>| {
            let variable = |address: &str| ("LINKSPAN_DOORS__HTTP__LISTEN".to_owned(), address.to_owned());
            // A door beyond loopback needs users.
            let user = ("LINKSPAN_USERS__ANN__PASSWORD".to_owned(), hash.clone());
            let environment = listen.map(variable).into_iter().chain([user]).collect();
            base(at, environment).map(|base| base.to_string())
        };
        assert_eq!(base(&at(None), None).unwrap(), "http://127.0.0.1:8080");
        assert_eq!(base(&at(None), Some("0.0.0.0:81")).unwrap(), "http://127.0.0.1:81");
        assert_eq!(base(&at(None), Some("[::]:81")).unwrap(), "http://[::1]:81");
        assert_eq!(base(&at(Some("http://broker:81/")), None).unwrap(), "http://broker:81");
        assert!(matches!(base(&at(None), Some("127.0.0.1:0")), Err(OperateError::AnyPort)));
        let error = base(&at(Some("https://broker")), None).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().starts_with("--url https://broker: "), "{error}");
    }
}
