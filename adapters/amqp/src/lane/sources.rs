//! Where what a lane is given comes from: topic filters, the queue of the client's session, queues, and groups.

use std::sync::Arc;

use linkspan_contract::{Binding, Credit, QueueSpec, Refused, Source, Subscribe, SubscriptionKey, Value};

use super::AmqpLane;
use crate::consumers::{Command, Interest, Terms, Wanted};
use crate::goal::short;
use crate::inbox::Inbox;
use crate::queue_name::queue_name;
use crate::translate::table;
use crate::watch::binding_key;

/// A subscription to a topic filter.
pub(super) struct Filter {
    pub(super) binding: String,
    pub(super) no_local: bool,
}

impl AmqpLane {
    /// Has this instance sent what the filter matches.
    pub(super) async fn watch(
        &mut self,
        filter: &str,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        let binding = binding_key(filter);
        self.scope.fleet.watch.bind(&binding).await?;
        if how.no_local {
            self.scope.add_no_local();
        }
        let made = Filter { binding, no_local: how.no_local };
        let done = self.inner()?.subscribe(&Source::Filter(filter), key, how, credit).await;
        match done {
            Ok(()) => {
                self.filters.entry(key).or_default().push(made);
                Ok(())
            }
            Err(why) => {
                self.unwatch(&made);
                Err(why)
            }
        }
    }

    /// Has the broker keep what the filter matches for the client's session.
    pub(super) async fn attend(
        &mut self,
        inbox: Arc<Inbox>,
        filter: &str,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        let terms = Terms { settle: how.settle, no_local: how.no_local };
        let interest = Box::new(Interest::new(key, filter, binding_key(filter), terms));
        let consumers = Arc::clone(self.consumers());
        consumers.ask(|reply| Command::Attend(inbox, interest, credit, reply)).await?;
        if how.no_local {
            self.scope.add_no_local();
        }
        if self.attended.insert(key, how.no_local) == Some(true) {
            self.scope.remove_no_local();
        }
        Ok(())
    }

    /// A subscription is not served by the queue of the session any more.
    pub(super) fn forget_attended(&mut self, key: SubscriptionKey) -> bool {
        let no_local = self.attended.remove(&key);
        if no_local == Some(true) {
            self.scope.remove_no_local();
        }
        no_local.is_some()
    }

    pub(super) fn unwatch(&self, filter: &Filter) {
        self.scope.fleet.watch.unbind(&filter.binding);
        if filter.no_local {
            self.scope.remove_no_local();
        }
    }

    pub(super) async fn consume(
        &mut self,
        queue: &str,
        group: bool,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        self.scope.fleet.owners.check(queue, self.scope.client.number)?;
        let priority = Value::I32(how.priority);
        let named = how.arguments.iter().any(|(name, _)| *name == "x-priority");
        let added = (how.priority != 0 && !named).then_some(("x-priority", &priority));
        let arguments = table(how.arguments.iter().map(|(name, value)| (*name, value)).chain(added))?;
        let wanted = Box::new(Wanted {
            queue: short("the queue", queue.as_bytes())?,
            key,
            settle: how.settle,
            exclusive: how.exclusive,
            no_local: how.no_local,
            arguments,
            ack_timeout: how.ack_timeout,
            credit,
            group,
        });
        Arc::clone(self.consumers()).ask(|reply| Command::Subscribe(wanted, reply)).await
    }

    pub(super) async fn join(
        &mut self,
        group: &str,
        filter: &str,
        key: SubscriptionKey,
        how: &Subscribe<'_>,
        credit: Option<Arc<Credit>>,
    ) -> Result<(), Refused> {
        let queue = queue_name("share", &[group, filter]);
        let fleet = &self.scope.fleet;
        // It outlives the connection, as what it holds was acknowledged, and this process, if a member does; the last member
        // deletes it.
        let options = &fleet.options;
        let expires = match self.scope.client.keeps_session() {
            true => options.longest_session(),
            false => Some(i64::try_from(options.instance_expires.as_millis()).unwrap_or(i64::MAX)),
        };
        let arguments: Vec<_> = expires.map(|millis| ("x-expires", Value::I64(millis))).into_iter().collect();
        let spec = QueueSpec { durable: true, arguments: &arguments, ..QueueSpec::new(&queue) };
        match self.scope.clerk.declare_queue(&spec).await {
            // Its first member has made it: one of a session that is kept, or one that is not.
            Err(Refused::Inequivalent { argument, .. }) if argument == "x-expires" => {
                self.scope.clerk.declare_queue(&QueueSpec { passive: true, ..spec }).await?;
            }
            declared => {
                declared?;
            }
        }
        let binding = binding_key(filter);
        let to = linkspan_contract::topology::BindingEnd::Queue(&queue);
        let source = &fleet.options.topic_exchange;
        self.scope.clerk.bind(&Binding { source, to, key: binding.as_bytes(), arguments: &[] }).await?;
        self.consume(&queue, true, key, how, credit).await
    }

    pub(super) async fn leave_filter(&mut self, key: SubscriptionKey) -> Result<(), Refused> {
        let Some(filters) = self.filters.remove(&key) else { return Ok(()) };
        filters.iter().for_each(|filter| self.unwatch(filter));
        match &mut self.inner {
            Some(inner) => inner.unsubscribe(key).await,
            None => Ok(()),
        }
    }
}
