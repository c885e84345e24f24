//! Where a broker runs: in a container, or as a program of this machine.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::leash::SCRIPT;

/// What has to be known of a broker to start it.
#[derive(Debug)]
pub(super) struct Kind {
    /// As people call it.
    pub(super) name: &'static str,
    /// What `docker/stand-ins/build` calls its image, its official image, and the user that is in both.
    pub(super) stand_in: &'static str,
    pub(super) official: &'static str,
    pub(super) user: &'static str,
    /// The variables that name a running one, and an image.
    pub(super) url_variable: &'static str,
    pub(super) image_variable: &'static str,
    /// Its program, and Debian's package of it.
    pub(super) program: &'static str,
    pub(super) package: &'static str,
}

/// What containers of tests carry: the process that started them, and when that process was started.
const LABEL: &str = "linkspan.test";

/// Where programs are that a user's PATH may lack; and where Debian has those of PostgreSQL, by its versions.
const ALSO: [&str; 2] = ["/usr/local/sbin", "/usr/sbin"];
const BY_VERSION: &str = "/usr/lib/postgresql";

/// Where a broker can run.
#[derive(Debug)]
pub(super) enum Place {
    /// In a container of this image.
    Docker(String),
    /// As this program.
    Path(PathBuf),
}

impl Place {
    /// The first place for `kind` that there is; the test fails when there is none.
    pub(super) fn find(kind: &Kind) -> Self {
        let only = env::var("LINKSPAN_TEST_BROKERS").ok();
        let found = match only.as_deref() {
            None => docker(kind).or_else(|no| path(kind).map_err(|neither| format!("{no}\n- {neither}"))),
            Some("docker") => docker(kind),
            Some("path") => path(kind),
            Some(other) => panic!("LINKSPAN_TEST_BROKERS={other}: it is `docker` or `path`"),
        };
        found.unwrap_or_else(|why| {
            panic!(
                "There is no {name} for this test:\n- {why}\nOne of these helps: start Docker, and where it reaches no \
                 registry call docker/stand-ins/build; `apt-get install {package}`; and for tests that leave the \
                 broker as it is, its URL in {url}.",
                name = kind.name,
                package = kind.package,
                url = kind.url_variable
            )
        })
    }

    /// A command that runs the leash there, with these variables, which runs `run`.
    pub(super) fn command(&self, kind: &Kind, variables: &[(&str, String)], run: &str) -> Command {
        let mut command = match self {
            Self::Docker(image) => {
                let mut command = Command::new("docker");
                let label = format!("--label={LABEL}={}", alive(std::process::id()).expect("we live"));
                command.args(["run", "--rm", "--interactive", "--network=host", "--pull=never", &label]);
                command.args(["--user", kind.user, "--entrypoint=sh"]);
                for (name, value) in variables {
                    command.arg(format!("--env={name}={value}"));
                }
                command.arg(image);
                command
            }
            Self::Path(_) => {
                let mut command = Command::new("sh");
                command.env("PATH", search_path());
                command.envs(variables.iter().map(|(name, value)| (*name, value)));
                command
            }
        };
        command.args(["-c", SCRIPT, "leash", run]);
        // a Ctrl-C is for the test, which then lets the leash go
        command.process_group(0);
        command
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Docker(image) => write!(f, "Docker, image {image}"),
            Self::Path(program) => write!(f, "{}", program.display()),
        }
    }
}

fn docker(kind: &Kind) -> Result<Place, String> {
    let Err(why) = answer(&["version", "--format={{.Server.Version}}"]) else {
        let has = |image: &str| answer(&["image", "inspect", "--format={{.Id}}", image]).is_ok();
        let named = env::var(kind.image_variable).ok();
        if named.is_none() && has(kind.stand_in) {
            return Ok(Place::Docker(kind.stand_in.to_owned()));
        }
        let image = named.as_deref().unwrap_or(kind.official);
        if !has(image) {
            answer(&["pull", "--quiet", image]).map_err(|why| format!("Docker has no image: {why}"))?;
        }
        return Ok(Place::Docker(image.to_owned()));
    };
    Err(format!("Docker does not answer: {why}"))
}

/// What `docker` prints with these arguments, or why it fails.
fn answer(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("docker: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn path(kind: &Kind) -> Result<Place, String> {
    let programs =
        env::split_paths(&search_path()).map(|folder| folder.join(kind.program)).collect::<Vec<_>>();
    let found = programs.into_iter().find(|program| program.is_file());
    found.map(Place::Path).ok_or_else(|| format!("{} is not on the PATH", kind.program))
}

fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir(BY_VERSION).into_iter().flatten().flatten();
    let mut by_version: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    by_version.sort();
    let folders = env::split_paths(&path).chain(ALSO.map(PathBuf::from)).chain(by_version);
    env::join_paths(folders).expect("they were split from a path")
}

/// Removes containers whose test is dead: of use only where the engine lost sight of them, since they end by themselves.
pub fn reap() {
    let filter = format!("label={LABEL}");
    let format = format!("--format={{{{.ID}}}} {{{{.Label \"{LABEL}\"}}}}");
    let Ok(containers) = answer(&["ps", "--all", "--filter", &filter, &format]) else { return };
    for (id, owner) in containers.lines().filter_map(|line| line.split_once(' ')) {
        let pid = owner.split('-').next().and_then(|pid| pid.parse().ok());
        if pid.and_then(alive).as_deref() != Some(owner) {
            // another test may have been quicker
            let _ = answer(&["rm", "--force", "--volumes", id]);
        }
    }
}

/// A living process's id and start, which together mean no other.
fn alive(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): the name may hold anything, so count from its end; the start is the 22nd field
    let (_, fields) = stat.rsplit_once(')')?;
    Some(format!("{pid}-{}", fields.split_whitespace().nth(19)?))
}
