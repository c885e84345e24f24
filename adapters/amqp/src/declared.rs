//! What a client has declared that does not outlive a connection or the broker: it is declared again.

use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, ExchangeKind, options};
use parking_lot::Mutex;

/// A client's queues, exchanges and bindings that may be gone after a loss.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone)]
struct State {
    exchanges: Vec<Exchange>,
    queues: Vec<Queue>,
    bindings: Vec<Bound>,
}

/// An exchange as it was declared.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) name: ShortString,
    pub(crate) kind: ExchangeKind,
    pub(crate) options: options::ExchangeDeclareOptions,
    pub(crate) arguments: FieldTable,
}

/// A queue as it was declared.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    pub(crate) name: ShortString,
    pub(crate) options: options::QueueDeclareOptions,
    pub(crate) arguments: FieldTable,
}

/// A binding as it was made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bound {
    pub(crate) source: ShortString,
    pub(crate) to: ShortString,
    pub(crate) to_queue: bool,
    pub(crate) key: ShortString,
    pub(crate) arguments: FieldTable,
}

impl Declared {
    pub(crate) fn add_exchange(&self, exchange: Exchange) {
        if exchange.options.durable && !exchange.options.auto_delete {
            return;
        }
        let mut state = self.state.lock();
        state.exchanges.retain(|other| other.name != exchange.name);
        state.exchanges.push(exchange);
    }

    pub(crate) fn add_queue(&self, queue: Queue) {
        let options = queue.options;
        if options.durable && !options.auto_delete && !options.exclusive {
            return;
        }
        let mut state = self.state.lock();
        state.queues.retain(|other| other.name != queue.name);
        state.queues.push(queue);
    }

    pub(crate) fn add_binding(&self, bound: Bound) {
        let mut state = self.state.lock();
        let (queues, exchanges) = (&state.queues, &state.exchanges);
        let perishes = (bound.to_queue && queues.iter().any(|queue| queue.name == bound.to))
            || exchanges.iter().any(|it| it.name == bound.source || (!bound.to_queue && it.name == bound.to));
        if perishes && !state.bindings.contains(&bound) {
            state.bindings.push(bound);
        }
    }

    pub(crate) fn remove_exchange(&self, name: &str) {
        let mut state = self.state.lock();
        state.exchanges.retain(|exchange| exchange.name.as_str() != name);
        state.bindings.retain(|it| it.source.as_str() != name && (it.to_queue || it.to.as_str() != name));
    }

    pub(crate) fn remove_queue(&self, name: &str) {
        let mut state = self.state.lock();
        state.queues.retain(|queue| queue.name.as_str() != name);
        state.bindings.retain(|it| !it.to_queue || it.to.as_str() != name);
    }

    pub(crate) fn remove_binding(&self, bound: &Bound) {
        self.state.lock().bindings.retain(|other| other != bound);
    }

    /// The names of queues that are this client's alone.
    pub(crate) fn exclusive(&self) -> Vec<ShortString> {
        let state = self.state.lock();
        state.queues.iter().filter(|queue| queue.options.exclusive).map(|queue| queue.name.clone()).collect()
    }

    /// What has to be asked for, in its order.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let State { exchanges, queues, bindings } = self.state.lock().clone();
        let steps = exchanges.into_iter().map(Step::Exchange).chain(queues.into_iter().map(Step::Queue));
        steps.chain(bindings.into_iter().map(Step::Bind)).collect()
    }
}

/// One request of a restoration.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Exchange(Exchange),
    Queue(Queue),
    Bind(Bound),
}

impl Step {
    /// # Errors
    /// What the broker said.
    pub(crate) async fn carry_out(&self, channel: &Channel) -> lapin::Result<()> {
        match self.clone() {
            Self::Exchange(it) => channel.exchange_declare(it.name, it.kind, it.options, it.arguments).await,
            Self::Queue(it) => channel.queue_declare(it.name, it.options, it.arguments).await.map(drop),
            Self::Bind(it) => it.bind(channel).await,
        }
    }
}

impl Bound {
    /// # Errors
    /// What the broker said.
    pub(crate) async fn bind(self, channel: &Channel) -> lapin::Result<()> {
        let Self { source, to, to_queue, key, arguments } = self;
        if to_queue {
            channel.queue_bind(to, source, key, options::QueueBindOptions::default(), arguments).await
        } else {
            channel.exchange_bind(to, source, key, options::ExchangeBindOptions::default(), arguments).await
        }
    }

    /// # Errors
    /// What the broker said.
    pub(crate) async fn unbind(self, channel: &Channel) -> lapin::Result<()> {
        let Self { source, to, to_queue, key, arguments } = self;
        if to_queue {
            channel.queue_unbind(to, source, key, arguments).await
        } else {
            channel
                .exchange_unbind(to, source, key, options::ExchangeUnbindOptions::default(), arguments)
                .await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ShortString {
        ShortString::try_new(text).unwrap()
    }

    fn queue(text: &str, exclusive: bool) -> Queue {
        let options = options::QueueDeclareOptions { durable: true, exclusive, ..Default::default() };
        Queue { name: name(text), options, arguments: FieldTable::default() }
    }

    fn bound(to: &str) -> Bound {
        Bound {
            source: name("e"),
            to: name(to),
            to_queue: true,
            key: name("k"),
            arguments: FieldTable::default(),
        }
    }

    #[test]
    fn only_what_may_perish_is_kept_and_with_it_its_bindings() {
        let declared = Declared::default();
        declared.add_queue(queue("stays", false));
        declared.add_queue(queue("own", true));
        declared.add_queue(queue("own", true));
        for to in ["stays", "own", "own"] {
            declared.add_binding(bound(to));
        }
        assert!(matches!(&declared.steps()[..], [Step::Queue(own), Step::Bind(to)]
            if own.name == name("own") && to.to == name("own")));
        assert_eq!(declared.exclusive(), [name("own")]);
        declared.remove_queue("own");
        assert!(declared.steps().is_empty());
    }
}
