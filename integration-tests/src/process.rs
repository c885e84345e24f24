//! The real binary, to be signalled and killed.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a process may take to say or do what it should.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `linkspan` whose standard error is read line by line.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

/// A folder of the test's own, gone with the test.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// An empty folder.
    #[allow(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("linkspan-test-").tempdir().expect("a folder for the test"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file; returns its name, for commands that run in this folder.
    pub fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path().join(name), text).expect("a file for the test");
        name.to_owned()
    }
}

/// The binary that was built together with the tests.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let target = test.ancestors().nth(2).expect("target/<profile>/deps");
    let binary = target.join("linkspan");
    assert!(
        binary.exists(),
        "{} is missing: `cargo build` first, as integration-tests/run does",
        binary.display()
    );
    binary
}

/// A `linkspan` command in `folder`, without variables of the test's environment that would configure it.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(folder);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LINKSPAN_")) {
        command.env_remove(name);
    }
    command
}

/// What a `linkspan` with these arguments prints, and how it exits.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(folder).args(arguments).output().expect("linkspan runs")
}

impl Process {
    /// Starts `linkspan` with `arguments` in `folder`, on ports that the system chooses.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = command(folder);
        command.args(arguments);
        Self::spawn(command)
    }

    /// The same, whose disk can be told to fail.
    pub fn start_on_a_poor_disk(folder: &Path, arguments: &[&str]) -> Self {
        let linkspan = command(folder);
        // A write that the system does not allow is an error then, and not the end.
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(linkspan.get_program()).args(arguments);
        shell.current_dir(folder);
        for (name, _) in linkspan.get_envs().filter(|(_, value)| value.is_none()) {
            shell.env_remove(name);
        }
        Self::spawn(shell)
    }

    /// Has every write to any file of a process that was [started so](Self::start_on_a_poor_disk) fail from now on, or none.
    pub fn disk_fails(&self, fails: bool) {
        let limit = if fails { "--fsize=0:" } else { "--fsize=unlimited:" };
        let limited = Command::new("prlimit").args(["--pid", &self.child.id().to_string(), limit]).status();
        assert!(limited.expect("this test needs `prlimit` of util-linux").success(), "prlimit {limit}");
    }

    /// Runs `command`, on ports that the system chooses.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for door in ["MQTT", "AMQP", "HTTP"] {
            command.env(format!("LINKSPAN_DOORS__{door}__LISTEN"), "127.0.0.1:0");
        }
        let mut child = command.spawn().expect("linkspan starts");
        let stderr = BufReader::new(child.stderr.take().expect("standard error"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, said: Vec::new() }
    }

    /// The first line, said or to be said, that holds all of `words`.
    pub fn line_with(&mut self, words: &[&str]) -> String {
        let holds = |line: &String| words.iter().all(|word| line.contains(word));
        if let Some(line) = self.said.iter().find(|line| holds(line)) {
            return line.clone();
        }
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if holds(&line) {
                        return line;
                    }
                }
                Err(_) => panic!("no line with {words:?}; it said:\n{}", self.said.join("\n")),
            }
        }
    }

    /// All that it has said, and what it says within `time`.
    pub fn listen(&mut self, time: Duration) -> &[String] {
        let until = Instant::now() + time;
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.said.push(line);
        }
        &self.said
    }

    /// Where a door listens, as the process says.
    pub fn door(&mut self, door: &str) -> SocketAddr {
        let line = self.line_with(&["listening", door]);
        let address =
            line.split_whitespace().find_map(|word| word.trim_start_matches("address=").parse().ok());
        address.unwrap_or_else(|| panic!("no address in: {line}"))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that it has now.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most bytes of memory that it has ever had.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it lives");
        let line = status.lines().find_map(|it| it.strip_prefix(line)).expect("it has memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib << 10
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success(), "kill -s {name} {pid}");
    }

    /// Kills it (SIGKILL); what it has said.
    pub fn kill(mut self) -> String {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process is ours");
        self.said.extend(self.lines.iter());
        self.said.join("\n")
    }

    /// How it exits, within reason.
    pub fn exit(mut self) -> (ExitStatus, String) {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("the process is ours") {
                Some(status) => break status,
                None if Instant::now() < until => std::thread::yield_now(),
                None => {
                    self.said.extend(self.lines.try_iter());
                    panic!("it did not exit; it said:\n{}", self.said.join("\n"));
                }
            }
        };
        self.said.extend(self.lines.iter());
        (status, self.said.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_end(&mut Vec::new());
        }
    }
}
