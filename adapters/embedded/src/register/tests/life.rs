//! A vhost over a register, from a start to the next.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use linkspan_contract::topology::{Argument, Binding, BindingEnd};
use linkspan_contract::{ExchangeKind, ExchangeSpec, QueueSpec, Refused, SystemClock, Value};

use super::super::store::Store;
use super::super::{ExchangeRow, Known, QueueRow, Register, RegisterError, Row};
use crate::declaration::Made;
use crate::house::House;
use crate::options::EmbeddedOptions;
use crate::topology;
use crate::vhost::Vhost;

/// The client that does everything.
pub(super) const CLIENT: u64 = 7;

/// All exchanges that a test may declare, and those that are always there.
const EXCHANGES: [&str; 7] = ["x", "y", "z", "amq.topic", "amq.headers", "amq.direct", "amq.fanout"];

/// Rows in words, without the numbers of queues.
pub(super) type Rows = BTreeSet<String>;

/// One life.
pub(super) struct Life {
    pub(super) vhost: Arc<Vhost>,
    pub(super) register: Arc<Register>,
    /// What was found.
    pub(super) known: Rows,
    pub(super) whole: bool,
}

impl Life {
    pub(super) fn at(directory: &Path) -> Self {
        Self::of(Register::open(directory)).expect("it can be opened")
    }

    pub(super) fn on<S: Store>(store: S) -> Result<Self, RegisterError> {
        Self::of(Register::over(store))
    }

    fn of(opened: Result<(Register, Known), RegisterError>) -> Result<Self, RegisterError> {
        let (register, found) = opened?;
        let register = Arc::new(register);
        let known = found.vhosts.values().flatten().map(in_words).collect();
        let house = Arc::new(House::new("local", EmbeddedOptions::default(), Arc::new(SystemClock), None));
        let mut restored = found.restore(&house, None, &register);
        let make = || Arc::new(Vhost::kept("/".into(), Arc::clone(&house), None, Arc::clone(&register)));
        let vhost = restored.vhosts.pop().unwrap_or_else(make);
        Ok(Self { vhost, register, known, whole: restored.whole })
    }

    /// What is seen of what is kept.
    pub(super) fn rows(&self) -> Rows {
        let topology = self.vhost.look();
        let mut rows = Rows::new();
        for name in EXCHANGES {
            let Some(exchange) = topology.exchange(name) else { continue };
            if exchange.durable && !name.starts_with("amq.") {
                rows.insert(in_words(&Row::Exchange(ExchangeRow {
                    name: Arc::clone(&exchange.name),
                    kind: exchange.kind.clone(),
                    auto_delete: exchange.auto_delete,
                    internal: exchange.internal,
                    arguments: exchange.arguments.clone(),
                })));
            }
            exchange.each_binding(|binding| {
                if topology.keeps(name, binding) {
                    let row =
                        topology::row(name.into(), binding.clone()).expect("it leads to a queue or exchange");
                    rows.insert(in_words(&Row::Binding(row)));
                }
            });
        }
        for queue in topology.queues() {
            if let Some(number) = queue.traits().number {
                rows.insert(in_words(&Row::Queue(QueueRow {
                    name: Arc::clone(&queue.name),
                    number,
                    auto_delete: queue.traits().auto_delete,
                    arguments: queue.traits().declared.clone(),
                })));
            }
        }
        rows
    }

    pub(super) fn number(&self, queue: &str) -> Option<u64> {
        self.vhost.look().queue(queue)?.traits().number
    }

    pub(super) fn sees_queue(&self, name: &str) -> bool {
        self.vhost.look().queue(name).is_some()
    }

    pub(super) async fn exchange(&self, name: &str, kind: ExchangeKind) -> Result<(), Refused> {
        self.vhost.declare_exchange(&exchange(name, kind)).await
    }

    pub(super) async fn queue(&self, name: &str, arguments: &[Argument<'_>]) -> Result<Made, Refused> {
        self.vhost.declare_queue(&queue(name, arguments), CLIENT).await
    }

    pub(super) async fn bind(&self, source: &str, to: BindingEnd<'_>, key: &str) -> Result<(), Refused> {
        self.vhost.bind(&binding(source, to, key), CLIENT).await
    }

    pub(super) async fn unbind(&self, source: &str, to: BindingEnd<'_>, key: &str) -> Result<(), Refused> {
        self.vhost.unbind(&binding(source, to, key), CLIENT).await
    }

    /// One step of a life that does everything once. A step that was refused can be done again.
    pub(super) async fn step(&self, number: usize) -> Result<(), Refused> {
        let q = BindingEnd::Queue("q");
        let y = BindingEnd::Exchange("y");
        match number {
            0 => self.exchange("x", ExchangeKind::Topic).await,
            1 => {
                let arguments = [("alternate-exchange", Value::Text("amq.fanout".into()))];
                let spec = ExchangeSpec {
                    auto_delete: true,
                    internal: true,
                    arguments: &arguments,
                    ..exchange("y", ExchangeKind::Fanout)
                };
                self.vhost.declare_exchange(&spec).await
            }
            2 => self.queue("q", &[("x-max-length", Value::I32(7)), ("x", Value::Void)]).await.map(drop),
            3 => self.bind("x", q, "a.#").await,
            4 => self.bind("x", y, "").await,
            5 => self.bind("amq.topic", q, "a.*").await,
            6 => self.bind("y", q, "k").await,
            7 => {
                let spec = QueueSpec { auto_delete: true, ..queue("w", &[]) };
                self.vhost.declare_queue(&spec, CLIENT).await.map(drop)
            }
            8 => {
                let arguments = [("x-match", Value::Text("any".into())), ("a", Value::F64(0.5))];
                let to = BindingEnd::Queue("w");
                let binding = Binding { arguments: &arguments, ..binding("amq.headers", to, "") };
                self.vhost.bind(&binding, CLIENT).await
            }
            9 => self.unbind("x", q, "a.#").await,
            // Nobody consumes any more: it goes by itself.
            10 => {
                let w = self.vhost.look().queue("w").cloned();
                if let Some(w) = w {
                    self.vhost.leave(&w);
                }
                self.settled().await
            }
            // With the last binding goes the exchange, and what leads to it.
            11 => self.unbind("y", q, "k").await,
            12 => self.vhost.delete_queue("q", false, false, CLIENT).await.map(drop),
            13 => self.queue("q", &[]).await.map(drop),
            14 => self.bind("x", q, "b").await,
            _ => self.vhost.delete_exchange("x", false).await,
        }
    }

    /// Everything that was asked for is durable.
    pub(super) async fn settled(&self) -> Result<(), Refused> {
        self.register.settled().await.map_err(RegisterError::refused)
    }
}

/// Steps of [`Life::step`].
pub(super) const STEPS: usize = 16;

pub(super) fn in_words(row: &Row) -> String {
    match row {
        Row::Queue(queue) => format!("{:?}", QueueRow { number: 0, ..queue.clone() }),
        row => format!("{row:?}"),
    }
}

pub(super) fn exchange(name: &str, kind: ExchangeKind) -> ExchangeSpec<'_> {
    ExchangeSpec {
        name,
        kind,
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: &[],
    }
}

pub(super) fn queue<'a>(name: &'a str, arguments: &'a [Argument<'a>]) -> QueueSpec<'a> {
    QueueSpec { durable: true, arguments, ..QueueSpec::new(name) }
}

pub(super) fn binding<'a>(source: &'a str, to: BindingEnd<'a>, key: &'a str) -> Binding<'a> {
    Binding { source, to, key: key.as_bytes(), arguments: &[] }
}

/// Looks whether something is done, once.
pub(super) fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
