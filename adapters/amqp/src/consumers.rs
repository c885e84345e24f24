//! A consuming channel, as its lane sees it. It is never in confirm mode: a transaction may begin on it.

mod attendance;
mod attending;
pub(crate) mod coordinator;
mod delivering;
mod held;
mod link;
mod settling;
mod taker;
mod taking;
mod transaction;

use std::sync::Arc;

use lapin::types::{FieldTable, ShortString};
use linkspan_contract::backend::Fetched;
use linkspan_contract::{Credit, DeliverySink, Refused, Settle, Settled, SubscriptionKey};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::attendance::{Interest, Terms};
pub(crate) use self::held::{LONGEST, Marks};
use crate::inbox::Inbox;
use crate::mailbox::mailbox;
use crate::publisher::Parcel;

/// The way to a consuming channel's task. The channel is closed when it is dropped.
pub(crate) struct Consumers {
    commands: mpsc::UnboundedSender<Command>,
    backend: Arc<str>,
    hungry: Arc<Mutex<Vec<Hungry>>>,
}

/// A consumer that has something to be given, and no credit.
pub(crate) struct Hungry {
    key: SubscriptionKey,
    credit: Arc<Credit>,
    wanting: u32,
}

/// Credit that the lane has taken for a consumer.
pub(crate) struct Prepaid {
    pub(crate) key: SubscriptionKey,
    pub(crate) credit: Arc<Credit>,
    pub(crate) count: u32,
}

/// Where the answer to a request goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// A consumer to be made.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) queue: ShortString,
    pub(crate) key: SubscriptionKey,
    pub(crate) settle: Settle,
    pub(crate) exclusive: bool,
    pub(crate) no_local: bool,
    pub(crate) arguments: FieldTable,
    pub(crate) ack_timeout: Option<u64>,
    pub(crate) credit: Option<Arc<Credit>>,
    /// The queue is Linkspan's own, of a shared subscription: it goes with its last member.
    pub(crate) group: bool,
}

impl Wanted {
    /// Whether the broker's consumer for `other` serves this one as well. `transacts`: inside a transaction, where who
    /// settles nothing consumes without acknowledgement.
    pub(crate) fn is_served_by(&self, other: &Self, transacts: bool) -> bool {
        let unacknowledged = |it: &Self| transacts && it.settle == Settle::OnDelivery;
        (self.exclusive, self.no_local, &self.arguments)
            == (other.exclusive, other.no_local, &other.arguments)
            && unacknowledged(self) == unacknowledged(other)
    }
}

/// What a consuming channel is asked.
pub(crate) enum Command {
    Subscribe(Box<Wanted>, Reply<()>),
    /// The client's session is to be given what a topic filter matches.
    Attend(Arc<Inbox>, Box<Interest>, Option<Arc<Credit>>, Reply<()>),
    Start(SubscriptionKey),
    Unsubscribe(SubscriptionKey, Reply<()>),
    Settle(Vec<Settled>),
    /// Give what waits; for some the lane has taken credit already.
    Resume(Vec<Prepaid>),
    Fetch(ShortString, SubscriptionKey, bool, Reply<Option<Fetched>>),
    Recover(bool, Reply<()>),
    Attach(Arc<dyn DeliverySink>),
    Begin(Reply<()>),
    Commit(Reply<()>),
    Rollback(Reply<()>),
    /// Publish inside the transaction.
    Publish(Parcel),
}

impl Consumers {
    pub(crate) fn new(backend: Arc<str>) -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (commands, receiver) = mailbox();
        (Self { commands, backend, hungry: Arc::default() }, receiver)
    }

    /// Has the task give what waits. The credit is taken at once: whoever is asked next would have all of it before the
    /// task has its turn.
    pub(crate) fn resume(&self) {
        let mut prepaid = Vec::new();
        for Hungry { key, credit, wanting } in self.hungry.lock().iter_mut() {
            let count = credit.take(*wanting);
            *wanting -= count;
            if count > 0 {
                prepaid.push(Prepaid { key: *key, credit: Arc::clone(credit), count });
            }
        }
        self.tell(Command::Resume(prepaid));
    }

    /// Tells the task something that it does not answer.
    pub(crate) fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::debug!("a consuming channel was told something after its end");
        }
    }

    /// Asks the task.
    ///
    /// # Errors
    /// What the broker said, or that the channel is over.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply));
        answer.await.unwrap_or_else(|_| Err(Refused::Away(self.backend.to_string())))
    }
}
