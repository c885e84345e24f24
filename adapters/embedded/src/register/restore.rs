//! What was declared before is declared again.

use std::sync::Arc;

use linkspan_contract::topology::Argument;
use linkspan_contract::{ExchangeSpec, Refused};

use crate::archive::GROUPS;
use crate::arguments::{Owned, QueueArguments};
use crate::declaration::new_exchange;
use crate::embedded::BindingWatch;
use crate::exchange::{Binding, End};
use crate::house::House;
use crate::inbox::INBOX;
use crate::queue::{Queue, QueueTraits};
use crate::register::{BindingRow, EndRow, ExchangeRow, Known, QueueRow, Register, Row};
use crate::topology::Topology;
use crate::vhost::Vhost;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Restored {
    /// The vhosts in which something was declared.
    pub(crate) vhosts: Vec<Arc<Vhost>>,
    /// False when something was left out: a queue in the log that nobody knows may be one of these.
    pub(crate) whole: bool,
}

impl Known {
    /// Makes the vhosts of a house anew. What cannot be is reported and left out; it stays in the file until something
    /// else of its name is declared.
    pub(crate) fn restore(
        self,
        house: &Arc<House>,
        watch: Option<&Arc<dyn BindingWatch>>,
        register: &Arc<Register>,
    ) -> Restored {
        let mut restored = Restored { vhosts: Vec::new(), whole: self.whole };
        for (name, rows) in self.vhosts {
            let vhost = Vhost::kept(name, Arc::clone(house), watch.cloned(), Arc::clone(register));
            let vhost = Arc::new(vhost);
            restored.whole &= vhost.restore(rows);
            restored.vhosts.push(vhost);
        }
        // What is left out may be a session's.
        if restored.whole {
            restored.vhosts.iter().for_each(|vhost| vhost.tidy_groups());
        }
        restored
    }
}

impl Vhost {
    /// Declares rows again, exchanges and queues before the bindings between them; false when one was left out.
    fn restore(self: &Arc<Self>, rows: Vec<Row>) -> bool {
        let mut whole = true;
        for row in rows {
            let (what, name, done) = match row {
                Row::Exchange(row) => ("exchange", Arc::clone(&row.name), self.restore_exchange(row)),
                Row::Queue(row) => ("queue", Arc::clone(&row.name), self.restore_queue(row)),
                Row::Binding(row) => ("binding", Arc::clone(&row.source), self.restore_binding(row)),
            };
            if let Err(error) = done {
                whole = false;
                tracing::error!(vhost = %self.name, what, %name, %error, "what was declared is left out");
            }
        }
        whole
    }

    fn restore_exchange(&self, row: ExchangeRow) -> Result<(), Refused> {
        let exchange = new_exchange(&ExchangeSpec {
            name: &row.name,
            kind: row.kind,
            passive: false,
            durable: true,
            auto_delete: row.auto_delete,
            internal: row.internal,
            arguments: &lent(&row.arguments),
        })?;
        self.change(|topology| topology.add_exchange(exchange));
        Ok(())
    }

    fn restore_queue(self: &Arc<Self>, row: QueueRow) -> Result<(), Refused> {
        let QueueRow { name, number, auto_delete, arguments } = row;
        if name.starts_with(INBOX) {
            self.new_inbox(name, number, arguments);
            return Ok(());
        }
        if number >= GROUPS {
            return self.restore_group(name, number);
        }
        let (read, _) = QueueArguments::read(&self.name, &name, &lent(&arguments))?;
        let traits = QueueTraits {
            durable: true,
            auto_delete,
            declared: arguments,
            number: Some(number),
            ..QueueTraits::default()
        };
        let queue = Queue::new(name, self, traits, &read, self.house.now());
        self.change(|topology| topology.add_queue(Arc::clone(&queue)));
        queue.watch();
        Ok(())
    }

    fn restore_binding(&self, row: BindingRow) -> Result<(), Refused> {
        let BindingRow { source, to, key, arguments } = row;
        self.change(|topology| {
            let to = end(topology, &to)?;
            let binding = Binding { key, arguments, to };
            if !topology.keeps(&source, &binding) {
                return Err(Refused::Precondition("its source is not there".into()));
            }
            topology.bind(&source, binding);
            Ok(())
        })
    }
}

fn end(topology: &Topology, row: &EndRow) -> Result<End, Refused> {
    Ok(match row {
        EndRow::Queue(name) => {
            let queue = topology.queue(name);
            End::Queue(Arc::clone(queue.ok_or_else(|| missing("queue", name))?))
        }
        EndRow::Exchange(name) => {
            let exchange = topology.exchange(name);
            End::Exchange(Arc::clone(&exchange.ok_or_else(|| missing("exchange", name))?.name))
        }
    })
}

fn missing(what: &str, name: &str) -> Refused {
    Refused::Precondition(format!("{what} '{name}', to which it leads, is not there"))
}

fn lent(arguments: &Owned) -> Vec<Argument<'_>> {
    arguments.iter().map(|(name, value)| (&**name, value.clone())).collect()
}
