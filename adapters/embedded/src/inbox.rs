//! The queue of a session that outlives the process: what its subscriptions are given and its client settles.

use std::sync::Arc;

use linkspan_contract::Refused;

use crate::arguments::QueueArguments;
use crate::queue::{Queue, QueueTraits};
use crate::register::{QueueRow, Row};
use crate::vhost::Vhost;

/// What the names of sessions' queues begin with; no client declares such.
pub(crate) const INBOX: &str = "$session/";

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
        let arguments = Box::default();
        let row = QueueRow { name: Arc::clone(&name), number, auto_delete: false, arguments };
        let vhost = Arc::clone(self);
        let keeping = records.put(Row::Queue(row), move || {
            let inbox = vhost.new_inbox(name, number);
            drop(turn);
            inbox
        });
        keeping.kept().await.map(Some)
    }

    /// One of which nothing is seen before it is kept.
    pub(crate) fn new_inbox(self: &Arc<Self>, name: Arc<str>, number: u64) -> Arc<Queue> {
        let traits = QueueTraits { durable: true, number: Some(number), ..QueueTraits::default() };
        let inbox = Queue::new(name, self, traits, &QueueArguments::default(), self.house.now());
        self.change(|topology| topology.add_inbox(Arc::clone(&inbox)));
        inbox
    }

    /// Whose sessions have a queue.
    pub(crate) fn clients_with_inbox(&self) -> Vec<Arc<str>> {
        let topology = self.look();
        topology.inboxes().filter_map(|inbox| inbox.name.strip_prefix(INBOX)).map(Arc::from).collect()
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
            self.settled(went).await?;
        }
        Ok(())
    }
}
