//! The queue of a session that outlives the process: what its subscriptions are given and its client settles.

use std::sync::Arc;

use linkspan_contract::{Refused, Value};

use crate::arguments::{Owned, QueueArguments};
use crate::queue::{Queue, QueueTraits};
use crate::register::{QueueRow, Row};
use crate::vhost::Vhost;

/// What the names of sessions' queues begin with; no client declares such.
pub(crate) const INBOX: &str = "$session/";

/// The argument that says who keeps the list of sessions in which this one is.
const OWNER: &str = "owner";

/// The name of a client's.
fn name_of(identifier: &str) -> Arc<str> {
    format!("{INBOX}{identifier}").into()
}

impl Vhost {
    /// The queue of a client's session, made when there is none; none where nothing is kept. A `fresh` session begins with
    /// an empty one.
    pub(crate) async fn inbox(
        self: &Arc<Self>,
        identifier: &str,
        fresh: bool,
    ) -> Result<Option<Arc<Queue>>, Refused> {
        if self.records().is_none() {
            return Ok(None);
        }
        if fresh {
            self.end_inbox(identifier).await?;
        }
        let name = name_of(identifier);
        let turn = self.turn(&name).await;
        if let Some(inbox) = self.look().inbox(&name) {
            return Ok(Some(Arc::clone(inbox)));
        }
        let Some(records) = self.records() else { return Ok(None) };
        let number = records.number();
        let owner = self.house.owner().map(|owner| (OWNER.into(), Value::Text(owner.to_owned().into())));
        let arguments: Owned = owner.into_iter().collect();
        let row =
            QueueRow { name: Arc::clone(&name), number, auto_delete: false, arguments: arguments.clone() };
        let vhost = Arc::clone(self);
        let keeping = records.put(Row::Queue(row), move || {
            let inbox = vhost.new_inbox(name, number, arguments);
            drop(turn);
            inbox
        });
        keeping.kept().await.map(Some)
    }

    /// One of which nothing is seen before it is kept.
    pub(crate) fn new_inbox(self: &Arc<Self>, name: Arc<str>, number: u64, declared: Owned) -> Arc<Queue> {
        let traits = QueueTraits { durable: true, declared, number: Some(number), ..QueueTraits::default() };
        let inbox = Queue::new(name, self, traits, &QueueArguments::default(), self.house.now());
        self.change(|topology| topology.add_inbox(Arc::clone(&inbox)));
        inbox
    }

    /// Whose sessions have a queue, and whether these were begun under the owner of today.
    pub(crate) fn clients_with_inbox(&self) -> Vec<(Arc<str>, bool)> {
        let owner = self.house.owner();
        let is_ours = |inbox: &Queue| {
            let of = inbox.traits().declared.iter().find(|(name, _)| **name == *OWNER);
            owner.is_some_and(|owner| of.is_some_and(|(_, of)| *of == Value::Text(owner.into())))
        };
        let topology = self.look();
        let client = |inbox: &Arc<Queue>| Some((inbox.name.strip_prefix(INBOX)?.into(), is_ours(inbox)));
        topology.inboxes().filter_map(client).collect()
    }

    /// A client's session is over.
    pub(crate) async fn end_inbox(&self, identifier: &str) -> Result<(), Refused> {
        let name = name_of(identifier);
        if self.look().inbox(&name).is_none() {
            return Ok(());
        }
        let (ended, went) = self.undo(|topology| topology.remove_inbox(&name));
        if let Some(inbox) = ended {
            inbox.end();
            self.leave_groups(&name);
            self.settled(went).await?;
        }
        Ok(())
    }
}
