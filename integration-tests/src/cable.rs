//! A wire to a server with the faults that networks have, at the test's command.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::upstreams::Port;

/// A wire on loopback between clients and a server: it forwards connections, and can have faults.
///
/// Faults add up and last until [`heal`](Self::heal); they are in force at once, for what is on its way too.
#[derive(Debug)]
pub struct Cable {
    port: Port,
    faults: Arc<watch::Sender<Faults>>,
    /// What the listener knows of the faults.
    listening: watch::Receiver<bool>,
    connections: Arc<AtomicUsize>,
    forwarding: JoinHandle<()>,
}

/// One way through a cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What clients send.
    ToServer,
    /// What the server sends.
    ToClient,
}

/// What is wrong with a cable.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// Counts the resets: a connection of an earlier one is over.
    resets: u64,
    /// Counts the healings: a connection that lost bytes does not live through one.
    healed: u64,
    refusing: bool,
    to_server: Fault,
    to_client: Fault,
}

/// What is wrong with one way.
#[derive(Debug, Clone, Copy, Default)]
struct Fault {
    delay: Duration,
    bytes_per_second: Option<u32>,
    stalled: bool,
    losing: bool,
}

impl Faults {
    fn of(&self, way: Way) -> Fault {
        match way {
            Way::ToServer => self.to_server,
            Way::ToClient => self.to_client,
        }
    }
}

impl Cable {
    /// A cable to `server`, without faults.
    pub async fn to(server: SocketAddr) -> Self {
        let port = Port::reserve();
        let (faults, watching) = watch::channel(Faults::default());
        let (listens, mut listening) = watch::channel(false);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let forwarding = tokio::spawn(forward(port.address(), server, watching, listens, count));
        listening.wait_for(|listening| *listening).await.expect("the cable's listener lives");
        Self { port, faults: Arc::new(faults), listening, connections, forwarding }
    }

    /// Where the client connects.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// How many connections were ever made over it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Resets every connection, and refuses new ones.
    pub async fn cut(&self) {
        self.faults.send_modify(|faults| {
            faults.refusing = true;
            faults.resets += 1;
        });
        self.listens(false).await;
    }

    /// Resets every connection; new ones go through.
    pub fn reset(&self) {
        self.faults.send_modify(|faults| faults.resets += 1);
    }

    /// Refuses new connections; those that are stay.
    pub async fn refuse(&self) {
        self.faults.send_modify(|faults| faults.refusing = true);
        self.listens(false).await;
    }

    /// Lets everything one way arrive this much later.
    pub fn delay(&self, way: Way, by: Duration) {
        self.change(way, |fault| fault.delay = by);
    }

    /// Lets no more bytes a second pass one way, over each connection.
    ///
    /// # Panics
    /// For none at all, which is [`stall`](Self::stall).
    pub fn throttle(&self, way: Way, bytes_per_second: u32) {
        assert!(bytes_per_second > 0, "nothing at all is a stall");
        self.change(way, |fault| fault.bytes_per_second = Some(bytes_per_second));
    }

    /// Accepts connections and lets nothing pass, either way. What was sent arrives when the cable is healed.
    pub fn stall(&self) {
        self.change(Way::ToServer, |fault| fault.stalled = true);
        self.change(Way::ToClient, |fault| fault.stalled = true);
    }

    /// Loses what goes one way without telling anybody, as a half-open connection does, a farewell too. A connection that
    /// lost something is reset when the cable is healed.
    pub fn half_open(&self, losing: Way) {
        self.change(losing, |fault| fault.losing = true);
    }

    /// Ends all faults.
    pub async fn heal(&self) {
        self.faults.send_modify(|faults| {
            *faults = Faults { resets: faults.resets, healed: faults.healed + 1, ..Faults::default() };
        });
        self.listens(true).await;
    }

    fn change(&self, way: Way, change: impl FnOnce(&mut Fault)) {
        self.faults.send_modify(|faults| {
            change(match way {
                Way::ToServer => &mut faults.to_server,
                Way::ToClient => &mut faults.to_client,
            });
        });
    }

    async fn listens(&self, expected: bool) {
        let mut listening = self.listening.clone();
        listening.wait_for(|listens| *listens == expected).await.expect("the cable's listener lives");
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.forwarding.abort();
        self.faults.send_modify(|faults| faults.resets += 1);
    }
}

/// Listens unless it refuses, and forwards what comes.
async fn forward(
    at: SocketAddr,
    server: SocketAddr,
    mut faults: watch::Receiver<Faults>,
    listens: watch::Sender<bool>,
    connections: Arc<AtomicUsize>,
) {
    loop {
        let listener = TcpListener::bind(at).await.expect("the port is reserved");
        listens.send_replace(true);
        loop {
            let accepted = tokio::select! {
                biased;
                over = faults.wait_for(|faults| faults.refusing) => match over {
                    Ok(_) => break,
                    Err(_) => return,
                },
                accepted = listener.accept() => accepted,
            };
            if let Ok((client, _)) = accepted {
                connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connect(client, server, faults.clone()));
            }
        }
        drop(listener);
        listens.send_replace(false);
        if faults.wait_for(|faults| !faults.refusing).await.is_err() {
            return;
        }
    }
}

/// One connection from its begin to its end, which is a reset on both sides unless both said farewell.
async fn connect(mut client: TcpStream, server: SocketAddr, mut faults: watch::Receiver<Faults>) {
    let begun = *faults.borrow_and_update();
    let Ok(mut server) = TcpStream::connect(server).await else {
        let _ = client.set_zero_linger();
        return;
    };
    for side in [&client, &server] {
        let _ = side.set_nodelay(true);
    }
    let lost = AtomicBool::new(false);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let passing = async {
        tokio::try_join!(
            pass(Way::ToServer, from_client, to_server, faults.clone(), &lost),
            pass(Way::ToClient, from_server, to_client, faults.clone(), &lost),
        )
    };
    let mut resets = faults.clone();
    let farewell = tokio::select! {
        biased;
        // that the cable is gone is a reset too
        _ = resets.wait_for(|now| {
            now.resets != begun.resets || (now.healed != begun.healed && lost.load(Ordering::Relaxed))
        }) => false,
        passed = passing => passed.is_ok(),
    };
    if !farewell {
        for side in [&client, &server] {
            let _ = side.set_zero_linger();
        }
    }
}

/// What was read at once, and when; nothing at all is the farewell.
type Read = (Instant, Bytes);

/// How much is on its way at most: reads of this size, and their number.
const READ: usize = 16 * 1024;
const READS: usize = 256;

/// Passes one way on until the farewell.
async fn pass(
    way: Way,
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    faults: watch::Receiver<Faults>,
    lost: &AtomicBool,
) -> io::Result<()> {
    let (sender, reads) = mpsc::channel(READS);
    tokio::try_join!(read(from, sender), write(way, reads, to, faults, lost)).map(|_| ())
}

async fn read(mut from: ReadHalf<'_>, sender: mpsc::Sender<Read>) -> io::Result<()> {
    let mut buffer = vec![0; READ];
    loop {
        let length = from.read(&mut buffer).await?;
        let read = (Instant::now(), Bytes::copy_from_slice(&buffer[..length]));
        if sender.send(read).await.is_err() || length == 0 {
            return Ok(());
        }
    }
}

async fn write(
    way: Way,
    mut reads: mpsc::Receiver<Read>,
    mut to: WriteHalf<'_>,
    mut faults: watch::Receiver<Faults>,
    lost: &AtomicBool,
) -> io::Result<()> {
    while let Some((at, mut bytes)) = reads.recv().await {
        loop {
            let fault = due(way, at, &mut faults).await?;
            if fault.losing {
                lost.store(true, Ordering::Relaxed);
                break;
            }
            if bytes.is_empty() {
                to.shutdown().await?;
                break;
            }
            let Some(rate) = fault.bytes_per_second else {
                to.write_all(&bytes).await?;
                break;
            };
            // in steps of a hundredth of a second, so that it flows and a change of the fault is noticed
            let step = bytes.split_to(bytes.len().min((rate as usize / 100).max(1)));
            to.write_all(&step).await?;
            sleep(Duration::from_secs_f64(step.len() as f64 / f64::from(rate))).await;
            if bytes.is_empty() {
                break;
            }
        }
    }
    Ok(())
}

/// Waits until what was read `at` may pass; what is wrong with the way then.
async fn due(way: Way, at: Instant, faults: &mut watch::Receiver<Faults>) -> io::Result<Fault> {
    loop {
        let fault = faults.borrow_and_update().of(way);
        let due = at + fault.delay;
        if !fault.stalled && (fault.losing || Instant::now() >= due) {
            return Ok(fault);
        }
        tokio::select! {
            changed = faults.changed() => changed.map_err(io::Error::other)?,
            () = sleep_until(due), if !fault.stalled => {}
        }
    }
}
