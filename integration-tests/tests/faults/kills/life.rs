//! One life of a server, seen by the clients of that time.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use lapin::{Channel, Connection, ConnectionProperties};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::dice::Dice;
use super::notes::Notes;

/// What a client does until its connection ends.
pub type Work = anyhow::Result<()>;

/// How long clients still read when the server is gone.
const PARTING: Duration = Duration::from_millis(200);

/// What its clients share.
#[derive(Clone)]
pub struct Life {
    pub amqp: SocketAddr,
    pub mqtt: SocketAddr,
    pub http: SocketAddr,
    notes: Arc<Mutex<Notes>>,
    /// From now on connections may end.
    killed: Arc<watch::Sender<bool>>,
    /// Nothing is published, everything is accepted.
    pub is_last: bool,
    dice: Arc<Dice>,
}

impl Life {
    /// Another one, behind these doors.
    pub fn new(
        [amqp, mqtt, http]: [SocketAddr; 3],
        notes: &Arc<Mutex<Notes>>,
        is_last: bool,
        dice: &Arc<Dice>,
    ) -> Self {
        let (killed, dice) = (Arc::new(watch::Sender::new(false)), Arc::clone(dice));
        Self { amqp, mqtt, http, notes: Arc::clone(notes), killed, is_last, dice }
    }

    /// What everybody notes.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("nobody has failed")
    }

    /// The server is about to be killed.
    pub fn end(&self) {
        self.killed.send_replace(true);
    }

    /// True when the server may be gone.
    pub fn is_over(&self) -> bool {
        *self.killed.borrow()
    }

    /// A number below `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        self.dice.below(limit)
    }

    /// Has a client work; nothing may fail before the server is killed. Behind that it has a moment to read what still
    /// lies in its socket.
    pub fn start(
        &self,
        clients: &mut JoinSet<()>,
        name: &'static str,
        work: impl Future<Output = Work> + Send + 'static,
    ) {
        let life = self.clone();
        let mut killed = self.killed.subscribe();
        let parting = async move {
            let _ = killed.wait_for(|killed| *killed).await;
            sleep(PARTING).await;
        };
        clients.spawn(async move {
            tokio::select! {
                done = work => if let Err(error) = done && !*life.killed.borrow() {
                    life.notes().wrong(format!("{name} failed though the server lives: {error:#}"));
                },
                () = parting => {}
            }
        });
    }

    /// A connection and a channel of it.
    pub async fn connect(&self) -> anyhow::Result<(Connection, Channel)> {
        let uri = format!("amqp://guest:guest@{}/%2f", self.amqp);
        let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok((connection, channel))
    }
}
