//! The holder's end of `leash.sh`.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What runs, in a folder of its own, on a leash.
pub(super) const SCRIPT: &str = include_str!("leash.sh");

/// How long the leash may take to do what it is told.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long what the broker said last may be on its way.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How many lines of the broker's own words are kept for a failing test.
const KEPT: usize = 60;

/// A process that runs [`SCRIPT`].
#[derive(Debug)]
pub(super) struct Leash {
    child: Child,
    /// Gone when the leash is let go.
    orders: Option<ChildStdin>,
    words: Receiver<String>,
    said: Arc<Mutex<VecDeque<String>>>,
    running: Option<u32>,
}

impl Leash {
    /// Starts `command`, which runs [`SCRIPT`] somewhere.
    pub(super) fn new(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let orders = child.stdin.take();
        let (sender, words) = channel();
        read_lines(child.stdout.take().expect("standard output"), move |line| {
            // nobody listens any more when a test is over
            let _ = sender.send(line);
        });
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let keep = Arc::clone(&said);
        read_lines(child.stderr.take().expect("standard error"), move |line| {
            let mut said = keep.lock().expect("whoever held it lives");
            if said.len() == KEPT {
                said.pop_front();
            }
            said.push_back(line);
        });
        Self { child, orders, words, said, running: None }
    }

    /// Puts a file into the folder.
    pub(super) fn write(&mut self, name: &str, text: &str) {
        let lines = text.lines().count();
        let text: String = text.lines().map(|line| format!("{line}\n")).collect();
        self.order(&format!("write {name} {lines}\n{text}"));
    }

    /// Starts the broker, which must not run.
    pub(super) fn start(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        self.order("start\n");
        let pid = self.answer("started").parse().expect("a process id");
        self.running = Some(pid);
    }

    /// Sends the broker's first process a signal, such as `TERM`.
    pub(super) fn signal(&mut self, name: &str) {
        let pid = self.running.expect("it runs");
        self.order(&format!("signal {name} {pid}\n"));
    }

    /// Kills the broker and all that it started.
    pub(super) fn kill(&mut self) {
        let pid = self.running.expect("it runs");
        self.order(&format!("signal KILL -{pid}\n"));
    }

    /// Stops the broker and all that it started where they are, or lets them go on.
    pub(super) fn freeze(&mut self, frozen: bool) {
        let pid = self.running.expect("it runs");
        let signal = if frozen { "STOP" } else { "CONT" };
        // no signal order: this is over when it is answered
        // The broker may not yet lead its group.
        self.run(&format!(
            "(n=0; until kill -{signal} -{pid} 2> /dev/null; do n=$((n + 1)); [ $n -lt 40 ] || exit 1; sleep 0.05; done)"
        ));
        if frozen {
            // A busy machine takes its time to stop every thread.
            self.run(&format!(
                "(n=0; while awake=; for stat in /proc/[0-9]*/task/[0-9]*/stat; do read -r line < $stat || continue; \
                 set -- ${{line##*) }}; [ $3 != {pid} ] || case $1 in T | Z) ;; *) awake=$stat ;; esac; done \
                 2> /dev/null; [ \"$awake\" ]; do n=$((n + 1)); [ $n -lt 40 ] || exit 1; sleep 0.05; done)"
            ));
        }
    }

    /// Waits until the broker has ended.
    pub(super) fn ended(&mut self) {
        self.answer("ended");
        self.running = None;
    }

    /// Waits a moment; fails when the broker ends meanwhile.
    pub(super) fn still_runs_after(&mut self, moment: Duration) {
        match self.words.recv_timeout(moment) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(word) => panic!("the broker did not start ({word}):\n{}", self.last_words()),
            Err(RecvTimeoutError::Disconnected) => panic!("its leash broke:\n{}", self.last_words()),
        }
    }

    /// Runs a shell command where the broker runs.
    pub(super) fn run(&mut self, command: &str) {
        self.order(&format!("run {command}\n"));
        let status = self.answer("done");
        assert_eq!(status, "0", "`{command}` failed:\n{}", self.last_words());
    }

    /// What the broker said last.
    pub(super) fn last_words(&self) -> String {
        // They come by another way than the news of its end.
        let _ = self.words.recv_timeout(LAST_WORDS);
        let said = self.said.lock().expect("whoever held it lives");
        said.iter().map(|line| format!("  {line}\n")).collect()
    }

    fn order(&mut self, text: &str) {
        let orders = self.orders.as_mut().expect("not let go yet");
        if let Err(error) = orders.write_all(text.as_bytes()).and_then(|()| orders.flush()) {
            panic!("the broker's leash broke ({error}):\n{}", self.last_words());
        }
    }

    /// The rest of the next answer, which must begin with `word`.
    fn answer(&mut self, word: &str) -> String {
        match self.words.recv_timeout(PATIENCE) {
            Ok(line) => match line.split_once(' ') {
                Some((first, rest)) if first == word => rest.to_owned(),
                _ => panic!("`{word}` was to come, not `{line}`:\n{}", self.last_words()),
            },
            Err(error) => panic!("`{word}` did not come ({error}):\n{}", self.last_words()),
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.orders.take());
        loop {
            match self.words.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.child.kill();
                    break;
                }
            }
        }
        let _ = self.child.wait();
    }
}

fn read_lines(from: impl Read + Send + 'static, mut each: impl FnMut(String) + Send + 'static) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            each(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    });
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::{Leash, SCRIPT};

    fn leash(run: &str) -> Leash {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "leash", run]);
        Leash::new(command)
    }

    /// Waits until the leash's command has written its folder's name and its process id.
    fn told(place: &Path) -> (PathBuf, String) {
        loop {
            if let Some((folder, pid)) = std::fs::read_to_string(place)
                .ok()
                .and_then(|t| t.trim_end().rsplit_once(' ').map(|(a, b)| (a.into(), b.to_owned())))
            {
                return (folder, pid);
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_runs_on_a_leash_is_killed_and_its_folder_gone_when_the_holder_goes() {
        let here = crate::process::Folder::new();
        let told_at = here.path().join("told");
        let mut leash = leash(&format!(
            "echo $HOME $$ > {}.new; mv {0}.new {0}; sleep 1000 & exec sleep 1000",
            told_at.display()
        ));
        leash.write("a file", "two\nlines");
        leash.start();
        let (folder, pid) = told(&told_at);
        assert_eq!(std::fs::read_to_string(folder.join("a file")).unwrap(), "two\nlines\n");
        assert!(Path::new("/proc").join(&pid).exists());
        drop(leash);
        assert!(!Path::new("/proc").join(&pid).exists(), "the process is gone");
        assert!(!folder.exists(), "the folder is gone");
    }

    #[test]
    fn it_says_when_the_broker_ended_and_starts_it_again() {
        let mut leash = leash("exec sleep 1000");
        for signal in ["TERM", "KILL"] {
            leash.start();
            leash.signal(signal);
            leash.ended();
        }
        leash.start();
        leash.freeze(true);
        leash.freeze(false);
        leash.run("test -e pid");
    }

    #[test]
    #[should_panic(expected = "oh dear")]
    fn a_broker_that_does_not_start_is_quoted() {
        let mut leash = leash("echo oh dear >&2; exit 3");
        leash.start();
        leash.still_runs_after(std::time::Duration::from_secs(30));
    }
}
