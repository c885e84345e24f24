//! Keeps a connection to the broker: makes it, watches it, makes it again.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use lapin::{Connection, ConnectionProperties, Event};
use tokio::time::{sleep, timeout};

use crate::explain::{Trouble, explain};
use crate::options::{AmqpOptions, Node};
use crate::random;
use crate::reporter::Reporter;
use crate::upstream::{Link, Live, Upstream, next_wait};

/// Starts a task that keeps `upstream` until it is closed.
pub(crate) fn keep(
    upstream: Arc<Upstream>,
    options: Arc<AmqpOptions>,
    reporter: Arc<Reporter>,
    first: usize,
) {
    tokio::spawn(async move {
        let mut node = first;
        let mut generation = 0;
        let mut wait = options.retry_min;
        while !upstream.is_closed() {
            let dialed = tokio::select! {
                dialed = dial(&options, node, &upstream.name) => dialed,
                () = upstream.closing.notified() => break,
            };
            match dialed {
                Ok((at, connection)) => {
                    generation += 1;
                    let live = Arc::new(Live { generation, connection });
                    // lapin may owe an answer for ever when the connection is lost meanwhile.
                    tokio::select! {
                        () = restore(&upstream, &live) => {}
                        () = lost(&live) => {}
                    }
                    // The figure is right by the time that the health is asked.
                    reporter.up(&at.to_string());
                    upstream.set(Link::Up(Arc::clone(&live)));
                    wait = options.retry_min;
                    let why = watch(&upstream, &live).await;
                    if upstream.is_closed() {
                        upstream.set(Link::Closed);
                        return close(&live).await;
                    }
                    reporter.lost(&why);
                    upstream.set(Link::Down(why.as_str().into()));
                }
                Err(why) => {
                    upstream.set(Link::Down(reporter.failed(&why).into()));
                    node = node.wrapping_add(1);
                }
            }
            let (next, now) = next_wait(wait, options.retry_max, random::number());
            wait = next;
            tokio::select! {
                () = sleep(now) => {}
                () = upstream.closing.notified() => break,
            }
        }
        upstream.set(Link::Closed);
    });
}

/// Connects to one node; a peer that says nothing is given up in time.
///
/// # Errors
/// Why not, for people.
pub(crate) async fn dial(
    options: &AmqpOptions,
    node: usize,
    name: &str,
) -> Result<(Node, Connection), Trouble> {
    let Some((node, uri)) = options.uri(node) else { return Err("no node is named".to_owned().into()) };
    let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let limit = options.connect_timeout;
    let connect = Connection::connect_uri_with_config(uri, properties, options.tls(), runtime);
    let connected = timeout(limit, connect).await;
    match connected {
        Ok(Ok(connection)) => Ok((node, connection)),
        Ok(Err(error)) => Err(explain(&node, options, &error)),
        Err(_) => Err(format!(
            "{node} accepts connections but has not answered within {} ms: it may be no AMQP broker, or speak TLS only",
            limit.as_millis()
        )
        .into()),
    }
}

/// Declares again what clients have declared that did not survive.
async fn restore(upstream: &Upstream, live: &Live) {
    for step in upstream.declared().iter().flat_map(|declared| declared.steps()) {
        let done = upstream.request_on(live, async |channel| step.carry_out(channel).await).await;
        if let Err(error) = done {
            if !live.is_connected() {
                return;
            }
            tracing::warn!(backend = &*upstream.backend, %error, ?step, "something that a client had declared could not be declared again");
        }
    }
}

/// How often it is looked whether a connection is there.
const LOOK: Duration = Duration::from_millis(100);

/// Returns when the connection is lost.
async fn lost(live: &Live) {
    while live.is_connected() {
        sleep(LOOK).await;
    }
}

/// Returns when the connection is lost, and why.
async fn watch(upstream: &Upstream, live: &Live) -> String {
    let mut events = pin!(live.connection.events_listener());
    let mut last = String::from("the connection was lost");
    loop {
        let event = tokio::select! {
            event = poll_fn(|cx| events.as_mut().poll_next(cx)) => event,
            () = sleep(LOOK) => None,
            () = upstream.closing.notified() => return last,
        };
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(
                    backend = &*upstream.backend,
                    reason,
                    "the broker takes no messages: publishers wait"
                );
                upstream.block(&reason);
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!(backend = &*upstream.backend, "the broker takes messages again");
                upstream.unblock();
            }
            Some(Event::Error(error)) => last = error.to_string(),
            _ => {}
        }
        if !live.is_connected() {
            return last;
        }
    }
}

/// The broker is told, when it listens.
async fn close(live: &Live) {
    let text = lapin::types::ShortString::try_new("OK").unwrap_or_default();
    if timeout(Duration::from_secs(2), live.connection.close(200, text)).await.is_err() {
        tracing::debug!("the broker did not agree to the end of a connection in time");
    }
}

/// Carries out what a client that has left leaves to be done.
pub(crate) fn afterwards(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(work);
    }
}

/// What something comes to, when that is soon enough.
pub(crate) async fn within<T>(limit: Duration, what: impl Future<Output = T>) -> Option<T> {
    timeout(limit, what).await.ok()
}

/// Waits for something, but not for ever.
pub(crate) async fn at_most(limit: Duration, what: impl Future<Output = ()>) {
    if within(limit, what).await.is_none() {
        tracing::warn!("the back end is closed although not all that was under way has arrived");
    }
}
