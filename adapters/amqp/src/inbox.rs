//! The queue of a client's session at the broker: what its topic filters match waits there for a client that is away,
//! whatever becomes of this process or of the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ConnectionState, ErrorKind};
use linkspan_contract::{Client, Refused};
use parking_lot::Mutex;

use crate::goal::short;
use crate::options::AmqpOptions;
use crate::queue_name::queue_name;
use crate::translate::{closed, refused};
use crate::upstream::{Live, Upstream};

/// One session's queue.
pub(crate) struct Inbox {
    pub(crate) name: ShortString,
    exchange: ShortString,
    arguments: FieldTable,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many subscriptions need each binding.
    bindings: BTreeMap<String, usize>,
    /// Bindings that nobody needs any more, and that the broker may still have.
    over: BTreeSet<String>,
    /// What an earlier session of that client has left is not for this one.
    fresh: bool,
    /// The connection on which it was made last.
    made: u64,
}

/// The code of a declaration that differs from what is there.
const PRECONDITION_FAILED: u16 = 406;

impl Inbox {
    /// That of a client; none when its session ends with its connection.
    ///
    /// # Errors
    /// When the broker has no room for its name.
    pub(crate) fn of(
        client: &Client,
        backend: &str,
        options: &AmqpOptions,
    ) -> Result<Option<Arc<Self>>, Refused> {
        let Some(terms) = client.session.as_ref().filter(|terms| terms.keep > 0) else { return Ok(None) };
        let mut names = vec![&*options.owner, backend];
        if *client.vhost != *"/" {
            names.push(&client.vhost);
        }
        names.push(&client.identifier);
        let name = queue_name("session", &names);
        let mut arguments = options.expiry_of_sessions();
        // What cannot be read in the name.
        if name.contains('~')
            && let Ok(key) = ShortString::try_new("x-linkspan-client")
        {
            arguments.insert(key, AMQPValue::LongString(client.identifier.as_bytes().to_vec().into()));
        }
        let state = State { bindings: BTreeMap::new(), over: BTreeSet::new(), fresh: terms.fresh, made: 0 };
        Ok(Some(Arc::new(Self {
            name: short("the session's queue", name.as_bytes())?,
            exchange: short("the topic exchange", options.topic_exchange.as_bytes())?,
            arguments,
            state: Mutex::new(state),
        })))
    }

    /// Whether the session's client published what says that it is `from` there, in this life or an earlier one.
    pub(crate) fn is_publisher(&self, from: &str) -> bool {
        from.splitn(3, ':').nth(2) == Some(self.name.as_str())
    }

    /// One more subscription needs a binding; true when it is the first.
    pub(crate) fn hold(&self, key: &str) -> bool {
        let mut state = self.state.lock();
        state.over.remove(key);
        let count = state.bindings.entry(key.into()).or_insert(0);
        *count += 1;
        *count == 1
    }

    /// One less; true when it was the last.
    pub(crate) fn let_go(&self, key: &str) -> bool {
        let mut state = self.state.lock();
        let Some(count) = state.bindings.get_mut(key) else { return false };
        *count = count.saturating_sub(1);
        let over = *count == 0;
        if over {
            state.bindings.remove(key);
            state.over.insert(key.into());
        }
        over
    }

    /// Makes the queue and its bindings, unless that was done on this connection.
    ///
    /// # Errors
    /// What the broker said.
    pub(crate) async fn make(&self, upstream: &Upstream, live: &Live) -> lapin::Result<()> {
        let (fresh, over, keys) = {
            let state = self.state.lock();
            if state.made == live.generation {
                return Ok(());
            }
            let keys: Vec<_> = state.bindings.keys().cloned().collect();
            (state.fresh, state.over.iter().cloned().collect::<Vec<_>>(), keys)
        };
        if fresh {
            self.delete_on(upstream, live).await?;
            // What comes from now on is this session's, whatever becomes of the connection.
            self.state.lock().fresh = false;
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declare = async |options: QueueDeclareOptions| {
            let (name, arguments) = (self.name.clone(), self.arguments.clone());
            self.ask(upstream, live, async |channel| channel.queue_declare(name, options, arguments).await)
                .await
        };
        match declare(options).await {
            Ok(_) => {}
            // It was made under another limit of time, which it keeps.
            Err(error) if closed(&error).is_some_and(|(code, ..)| code == PRECONDITION_FAILED) => {
                tracing::debug!(queue = %self.name, %error, "a session's queue is there on other terms");
                declare(QueueDeclareOptions { passive: true, ..options }).await?;
            }
            Err(error) => return Err(error),
        }
        for key in over {
            self.unbind_on(upstream, live, &key).await;
        }
        for key in keys {
            self.bind_on(upstream, live, &key).await?;
        }
        self.state.lock().made = live.generation;
        Ok(())
    }

    /// Looks whether it is there and can be used.
    ///
    /// # Errors
    /// What the broker said.
    pub(crate) async fn look(&self, upstream: &Upstream, live: &Live) -> lapin::Result<()> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let (name, arguments) = (self.name.clone(), FieldTable::default());
        self.ask(upstream, live, async |channel| channel.queue_declare(name, options, arguments).await)
            .await
            .map(drop)
    }

    /// Has what `key` matches come here, too. The queue is there.
    ///
    /// # Errors
    /// What the broker said.
    pub(crate) async fn bind_on(&self, upstream: &Upstream, live: &Live, key: &str) -> lapin::Result<()> {
        let bind = async |channel: &Channel| {
            let key = ShortString::try_new(key).unwrap_or_default();
            let (name, exchange) = (self.name.clone(), self.exchange.clone());
            channel.queue_bind(name, exchange, key, QueueBindOptions::default(), FieldTable::default()).await
        };
        self.ask(upstream, live, bind).await
    }

    /// Undoes that for what nobody needs any more: now, or when the broker is there again and the queue is still needed.
    pub(crate) async fn unbind(&self, upstream: &Upstream, key: &str) {
        if let Some(live) = upstream.live() {
            self.unbind_on(upstream, &live, key).await;
        }
    }

    async fn unbind_on(&self, upstream: &Upstream, live: &Live, key: &str) {
        let unbind = async |channel: &Channel| {
            let key = ShortString::try_new(key).unwrap_or_default();
            channel.queue_unbind(self.name.clone(), self.exchange.clone(), key, FieldTable::default()).await
        };
        match self.ask(upstream, live, unbind).await {
            Ok(()) => _ = self.state.lock().over.remove(key),
            // What comes by it is for nobody and dropped.
            Err(error) => tracing::debug!(queue = %self.name, %error, key, "a binding was not undone"),
        }
    }

    /// Deletes it with all that is in it; the next subscription makes it again.
    ///
    /// # Errors
    /// What the broker said, or that it is away: then it stays until it expires there, or is made again.
    pub(crate) async fn delete(&self, upstream: &Upstream) -> Result<(), Refused> {
        let backend = &upstream.backend;
        {
            let mut state = self.state.lock();
            (state.fresh, state.made) = (true, 0);
        }
        let live = upstream.live().ok_or_else(|| Refused::Away(backend.to_string()))?;
        self.delete_on(upstream, &live).await.map_err(|error| refused(&error, backend))?;
        let mut state = self.state.lock();
        state.fresh = false;
        state.over.clear();
        Ok(())
    }

    async fn delete_on(&self, upstream: &Upstream, live: &Live) -> lapin::Result<()> {
        let (name, options) = (self.name.clone(), QueueDeleteOptions::default());
        self.ask(upstream, live, async |channel| channel.queue_delete(name, options).await).await.map(drop)
    }

    /// lapin may owe an answer for ever when the connection is lost meanwhile.
    async fn ask<T>(
        &self,
        upstream: &Upstream,
        live: &Live,
        what: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
    ) -> lapin::Result<T> {
        tokio::select! {
            done = upstream.request_on(live, what) => done,
            () = upstream.gone(live.generation) => {
                Err(ErrorKind::InvalidConnectionState(ConnectionState::Error).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::SessionTerms;

    use super::*;

    fn inbox(identifier: &str, keep: u32) -> Option<Arc<Inbox>> {
        inbox_of("linkspan", "rabbit", identifier, keep)
    }

    fn inbox_of(owner: &str, backend: &str, identifier: &str, keep: u32) -> Option<Arc<Inbox>> {
        let options = AmqpOptions { owner: owner.into(), ..AmqpOptions::at(Vec::new()) };
        let terms = SessionTerms { at_broker: false, fresh: true, keep, window: 1, will: None };
        let client = Client {
            number: 1,
            identifier: identifier.into(),
            user: "u".into(),
            vhost: "/".into(),
            session: Some(Arc::new(terms)),
        };
        Inbox::of(&client, backend, &options).unwrap()
    }

    #[test]
    fn a_session_that_is_kept_has_a_queue_that_tells_whose_it_is() {
        assert!(inbox("sensor", 0).is_none());
        let short = inbox("hall.3/sensor", 60).unwrap();
        assert_eq!(short.name.as_str(), "linkspan.session.linkspan.rabbit.hall%2e3/sensor");
        assert_eq!(short.arguments.inner().len(), 1, "it expires when nobody comes for it");
        let long = "x".repeat(400);
        let hashed = inbox(&long, 60).unwrap();
        assert!(hashed.name.as_str().len() <= 255);
        let whole = AMQPValue::LongString(long.into());
        assert!(hashed.arguments.inner().values().any(|value| *value == whole));
    }

    #[test]
    fn nobody_else_at_that_broker_has_the_same_queue() {
        let name = |owner: &str, backend: &str| inbox_of(owner, backend, "c", 60).unwrap().name.clone();
        assert_ne!(name("one", "rabbit"), name("other", "rabbit"));
        assert_ne!(name("one", "rabbit"), name("one", "other"));
    }

    #[test]
    fn a_binding_that_nobody_needs_any_more_is_remembered_until_it_is_undone() {
        let inbox = inbox("c", 60).unwrap();
        assert!(inbox.hold("a") && inbox.let_go("a"));
        assert!(inbox.state.lock().over.contains("a"));
        assert!(inbox.hold("a") && inbox.state.lock().over.is_empty(), "it is needed again");
    }

    #[test]
    fn a_binding_is_there_as_long_as_a_subscription_needs_it() {
        let inbox = inbox("c", 60).unwrap();
        assert!(inbox.hold("a.#") && !inbox.hold("a.#") && inbox.hold("b"));
        assert!(!inbox.let_go("a.#") && inbox.let_go("a.#") && !inbox.let_go("a.#"));
    }
}
