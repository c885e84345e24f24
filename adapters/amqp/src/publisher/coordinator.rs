//! The task of a publishing channel.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use linkspan_contract::Clock;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};

use super::inflight::{Failure, Inflight, Large};
use super::{Command, Publisher};
use crate::options::AmqpOptions;
use crate::origin::Origin;
use crate::translate::{Sender, closed, refused};
use crate::upstream::{Live, Upstream};

/// What a publishing channel is made of.
pub(crate) struct Plan {
    pub(crate) upstream: Arc<Upstream>,
    /// Connections that hold what clients have declared, and by the first of which subscribers are sent what they want:
    /// after a loss they come first.
    pub(crate) declaring: Vec<Arc<Upstream>>,
    pub(crate) options: Arc<AmqpOptions>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The one lane that it is for; it ends when the broker closes the channel.
    pub(crate) only: Option<Arc<Origin>>,
}

/// How long it takes lapin at most to tell all who wait why a channel is gone.
const WORDS: Duration = Duration::from_secs(1);

/// How long publishing waits for queues to be declared again.
const DECLARING: Duration = Duration::from_secs(2);

/// How long what a client has left behind may wait for the ledger while nothing of it goes on.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a channel may still say why, once its connection is gone.
const LAST_WORDS: Duration = Duration::from_millis(10);

/// Starts a publishing channel. It is opened when there is something to publish.
pub(crate) fn start(plan: Plan, high: u64) -> Publisher {
    let (publisher, commands) = Publisher::new(high);
    let inflight = Inflight::new(plan.options.window, Arc::clone(&publisher.gauge));
    let worker = Worker { plan, commands, open: true, inflight, large: None };
    tokio::spawn(worker.run());
    publisher
}

struct Worker {
    plan: Plan,
    commands: UnboundedReceiver<Command>,
    /// Somebody may still publish.
    open: bool,
    inflight: Inflight,
    large: Option<Bytes>,
}

enum Turn {
    Failed(Failure),
    Load(Large),
    After(Arc<Origin>),
    /// Nobody publishes any more.
    Left,
    /// Nothing is under way and nobody is there any more.
    Over,
}

impl Worker {
    async fn run(mut self) {
        let mut generation = 0;
        loop {
            if self.inflight.is_empty() {
                match self.commands.recv().await {
                    Some(Command::Publish(parcel)) => self.inflight.add(&parcel),
                    Some(Command::After(origin)) => origin.gauge.emptied().await,
                    None => return,
                }
                if self.inflight.is_empty() {
                    continue;
                }
            }
            let Some(live) = self.plan.upstream.after(generation).await else { break };
            self.wait_for_declarations().await;
            let upstream = Arc::clone(&self.plan.upstream);
            let opened = tokio::select! {
                opened = open(&live) => opened,
                () = upstream.gone(live.generation) => {
                    generation = live.generation;
                    continue;
                }
            };
            let channel = match opened {
                Ok(channel) => Arc::new(channel),
                Err(error) if live.is_connected() => {
                    let why = refused(&error, &self.plan.upstream.backend);
                    tracing::warn!(backend = &*self.plan.upstream.backend, %why, "a publishing channel cannot be opened");
                    sleep(self.plan.options.retry_max).await;
                    continue;
                }
                Err(_) => {
                    generation = live.generation;
                    continue;
                }
            };
            let served = tokio::select! {
                served = self.serve(&channel) => served,
                // Its own words come first; lapin may owe them for ever.
                () = async { upstream.gone(live.generation).await; sleep(LAST_WORDS).await } => Some(Failure(lost())),
            };
            let Some(failure) = served else {
                return;
            };
            if !self.failed(failure).await {
                break;
            }
            generation = if live.is_connected() { live.generation - 1 } else { live.generation };
        }
        self.inflight.give_up();
        while let Some(command) = self.commands.recv().await {
            if let Command::Publish(parcel) = command {
                let (count, size) = (parcel.batch.messages().len() as u64, parcel.size());
                parcel.origin.gauge.sub(count, size);
            }
        }
    }

    /// Queues that died with a connection are declared again before what is for them is sent again, and what was subscribed
    /// to while the broker was away is in force.
    async fn wait_for_declarations(&mut self) {
        let there = async {
            for upstream in &self.plan.declaring {
                if upstream.is_down() {
                    upstream.after(0).await;
                }
            }
            if let Some(first) = self.plan.declaring.first() {
                first.watched().await;
            }
        };
        if timeout(DECLARING, there).await.is_err() {
            tracing::debug!("publishing goes on before all that clients had declared is there again");
        }
    }

    /// Publishes until the channel fails; nothing when nobody is there any more.
    async fn serve(&mut self, channel: &Arc<Channel>) -> Option<Failure> {
        let mut steps = self.inflight.steps();
        loop {
            let patience = if self.open { Duration::MAX } else { PATIENCE };
            let Ok(turn) = timeout(patience, poll_fn(|cx| self.turn(channel, cx))).await else {
                let before = std::mem::replace(&mut steps, self.inflight.steps());
                if before == steps && self.inflight.is_stuck() {
                    self.inflight.give_up();
                    return None;
                }
                continue;
            };
            match turn {
                Turn::Failed(failure) => return Some(failure),
                Turn::Load(Large(body)) => match body.whole().await {
                    Ok(bytes) => self.large = Some(bytes),
                    Err(error) => {
                        tracing::error!(%error, "a stored payload cannot be read; its message is refused");
                        self.inflight.refuse_next(&error);
                    }
                },
                Turn::After(origin) => origin.gauge.emptied().await,
                Turn::Left => {}
                Turn::Over => return None,
            }
        }
    }

    fn turn(&mut self, channel: &Arc<Channel>, cx: &mut Context<'_>) -> Poll<Turn> {
        let options = Arc::clone(&self.plan.options);
        let sender = Sender {
            account: &options.user,
            from: None,
            by_name: false,
            terms: None,
            is_delayed: false,
            now: self.plan.clock.now(),
            frame_max: options.frame_max,
            body_limit: options.body_limit,
        };
        loop {
            let mut moved = false;
            while self.open {
                match self.commands.poll_recv(cx) {
                    Poll::Ready(Some(Command::Publish(parcel))) => {
                        self.inflight.add(&parcel);
                        moved = true;
                    }
                    Poll::Ready(Some(Command::After(origin))) => return Poll::Ready(Turn::After(origin)),
                    Poll::Ready(None) => {
                        self.open = false;
                        return Poll::Ready(Turn::Left);
                    }
                    Poll::Pending => break,
                }
            }
            match self.inflight.send(channel, &sender, self.large.take(), cx.waker()) {
                Ok(None) => {}
                Ok(Some(large)) => return Poll::Ready(Turn::Load(large)),
                Err(failure) => return Poll::Ready(Turn::Failed(failure)),
            }
            match self.inflight.collect(&sender, cx) {
                Ok(told) => moved |= told,
                Err(failure) => return Poll::Ready(Turn::Failed(failure)),
            }
            if !self.open && self.inflight.is_empty() {
                return Poll::Ready(Turn::Over);
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }

    /// The channel is gone. False when that is the end.
    async fn failed(&mut self, Failure(error): Failure) -> bool {
        let error = if closed(&error).is_some() {
            error
        } else {
            let words = timeout(WORDS, poll_fn(|cx| self.inflight.poll_last_words(cx))).await;
            words.ok().flatten().unwrap_or(error)
        };
        let said = closed(&error);
        if let Some(only) = &self.plan.only
            && let Some((code, text, false)) = &said
        {
            only.close(*code, text);
            return false;
        }
        match said {
            // 320 is what an operator does, or a broker that goes down.
            Some((code, ..)) if code != 320 => {
                self.inflight.suspect(&refused(&error, &self.plan.upstream.backend));
            }
            _ => self.inflight.rewind(),
        }
        true
    }
}

/// The connection is gone, whatever lapin says.
fn lost() -> lapin::Error {
    lapin::ErrorKind::InvalidConnectionState(lapin::ConnectionState::Error).into()
}

async fn open(live: &Live) -> lapin::Result<Channel> {
    let channel = live.connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}
