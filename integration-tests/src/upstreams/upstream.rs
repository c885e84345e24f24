//! The life of a broker that a test started.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::leash::Leash;
use super::place::{Kind, Place};
use super::port::Port;

/// How long a broker may take until it serves: a busy machine with a few of them.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often it is asked.
const EVERY: Duration = Duration::from_millis(50);

/// Whether somebody serves at an address, and not merely listens.
pub(super) type Probe = fn(SocketAddr) -> bool;

/// Whether somebody listens, which is all that can be seen from outside of who speaks TLS to friends only.
pub(super) fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

/// A broker that runs for one test, or for one process.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    kind: &'static Kind,
    leash: Arc<Mutex<Leash>>,
    serving: Vec<(SocketAddr, Probe)>,
    ports: Arc<[Port]>,
}

impl Upstream {
    /// Starts a broker with these files in its folder and these ports, and waits until it serves.
    pub(super) async fn start(
        kind: &'static Kind,
        variables: Vec<(&'static str, String)>,
        files: Vec<(String, String)>,
        run: String,
        serving: Vec<(SocketAddr, Probe)>,
        ports: impl IntoIterator<Item = Port>,
    ) -> Self {
        let ports = ports.into_iter().collect();
        let starting = spawn_blocking(move || {
            let place = Place::find(kind);
            let mut leash = Leash::new(place.command(kind, &variables, &run));
            for (name, text) in &files {
                leash.write(name, text);
            }
            let began = Instant::now();
            let upstream = Self { kind, leash: Arc::new(Mutex::new(leash)), serving, ports };
            upstream.start_now();
            let (name, took) = (kind.name, began.elapsed().as_secs_f32());
            eprintln!("{name} serves at {} ({place}; {took:.1} s)", upstream.serving[0].0);
            upstream
        });
        finished(starting.await)
    }

    fn leash(&self) -> MutexGuard<'_, Leash> {
        self.leash.lock().expect("what was done to the broker before succeeded")
    }

    fn start_now(&self) {
        let mut leash = self.leash();
        leash.start();
        let until = Instant::now() + PATIENCE;
        for (address, probe) in &self.serving {
            while !probe(*address) {
                leash.still_runs_after(EVERY);
                assert!(
                    Instant::now() < until,
                    "{} does not serve at {address} within {PATIENCE:?}; it said:\n{}",
                    self.kind.name,
                    leash.last_words()
                );
            }
        }
    }

    async fn act(&self, act: impl FnOnce(&Self) + Send + 'static) {
        let this = self.clone();
        finished(spawn_blocking(move || act(&this)).await);
    }

    /// Starts it again, on the same ports with the same data, and waits until it serves.
    pub(super) async fn start_again(&self) {
        self.act(Self::start_now).await;
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    pub(super) async fn stop(&self) {
        self.end(|leash| leash.signal("TERM")).await;
    }

    /// Kills it and all that it started (SIGKILL).
    pub(super) async fn kill(&self) {
        self.end(Leash::kill).await;
    }

    async fn end(&self, how: fn(&mut Leash)) {
        self.act(move |this| {
            let mut leash = this.leash();
            how(&mut leash);
            leash.ended();
            // what it had started may take a moment longer to die
            for port in this.ports.iter() {
                while TcpStream::connect(port.address()).is_ok() {
                    std::thread::yield_now();
                }
            }
        })
        .await;
    }

    /// Freezes it (SIGSTOP): its connections stay open, nothing comes from them.
    pub(super) async fn pause(&self) {
        self.act(|this| this.leash().freeze(true)).await;
    }

    /// Goes on after [`pause`](Self::pause).
    pub(super) async fn resume(&self) {
        self.act(|this| this.leash().freeze(false)).await;
    }

    /// Runs a shell command where it runs.
    pub(super) async fn run(&self, command: String) {
        self.act(move |this| this.leash().run(&command)).await;
    }
}

/// The result of a blocking task, whose failure is the test's.
fn finished<T>(result: Result<T, tokio::task::JoinError>) -> T {
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
