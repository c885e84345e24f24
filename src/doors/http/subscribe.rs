//! `GET /v1/subscriptions/{filter}`: Server-Sent Events.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_core::Stream;
use linkspan_contract::backend::Retained;
use linkspan_contract::deliveries::Next;
use linkspan_contract::{
    Backend, Client, Connection, Deliveries, Ended, Kept, Lane, LaneEvent, LaneEvents, Receipt, ReceiptSink,
    Settle, Source, Subscribe, SubscriptionKey,
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::query::Query;
use super::translate::{self, Problem};
use super::{Shared, User, WATCHER_MARK};
use crate::hub::Filter;

/// A comment is sent this often while nothing happens, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Events in the hands of the connection,
const AHEAD: usize = 16;

/// and bytes of their payloads, or one event that has more.
const BYTES_AHEAD: u32 = 1 << 20;

/// The request's query.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Whether retained messages come first.
    #[serde(default = "yes")]
    retained: bool,
}

const fn yes() -> bool {
    true
}

/// Watches a filter: each message is an event `message` with a JSON object; `dropped` says how many were lost because
/// the client did not keep up; `ended` says why there will be no more.
pub(super) async fn subscribe(
    State(shared): State<Arc<Shared>>,
    User(identity): User,
    Path(filter): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Sse<KeepAliveStream>, Problem> {
    Filter::parse(&filter).map_err(|error| Problem::bad(format!("filter {error}")))?;
    let number = linkspan_contract::client_number();
    let client = Client {
        number,
        identifier: format!("http-{number}").into(),
        user: identity.user,
        vhost: Arc::clone(&shared.vhost),
        session: None,
    };
    let deliveries = Deliveries::watching(WATCHER_MARK);
    let mut connection = shared.hub.connect(&client, deliveries.sink()).await?;
    let (changed, changes) = mpsc::channel(1);
    let ear = Arc::new(Ear { changed, over: Notify::new() });
    let mut lane = connection.lane(Arc::clone(&ear) as _, Arc::clone(&ear) as _).await?;
    let key = SubscriptionKey { subscription: 1, part: 0 };
    // In a group of its own it gets a copy of everything, also of what goes to a queue that its filter is the match of:
    // a plain filter would make it a worker there, and take work from the others.
    let group = format!("linkspan-watch-{number}");
    let source = Source::Group { group: &group, filter: &filter };
    lane.subscribe(&source, key, &Subscribe::new(Settle::OnDelivery), None).await?;
    lane.start(key);
    let mut retained = Vec::new();
    if wanted.retained {
        retained.extend(shared.hub.retained(&shared.vhost).iter().flat_map(|hub| hub.matching(&filter)));
        match lane.retained(&filter).await {
            Ok(found) => retained.extend(found.unwrap_or_default()),
            Err(refused) => {
                tracing::warn!(filter, %refused, "retained messages were not to be had for a new subscriber");
                metrics::counter!("linkspan_retained_missed_total").increment(1);
            }
        }
    }
    let (events, stream) = mpsc::channel(AHEAD);
    let watcher = Watcher {
        deliveries,
        lane,
        _connection: connection,
        changes,
        ear,
        events,
        room: Arc::new(Semaphore::new(BYTES_AHEAD as usize)),
    };
    let work = Box::pin(watcher.run(retained, shared.stop.wanted()));
    Ok(Sse::new(EventStream { work: Some(work), stream }).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

type KeepAliveStream = axum::response::sse::KeepAliveStream<EventStream>;

/// From the back end's deliveries to the connection's events.
struct Watcher {
    deliveries: Deliveries,
    lane: Box<dyn Lane>,
    _connection: Box<dyn Connection>,
    changes: mpsc::Receiver<()>,
    ear: Arc<Ear>,
    events: mpsc::Sender<Ready>,
    room: Arc<Semaphore>,
}

/// An event, and the room that it takes until the connection has it.
type Ready = (Event, Option<OwnedSemaphorePermit>);

impl Watcher {
    async fn run(mut self, retained: Vec<Retained>, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        for message in retained {
            let room = place(Arc::clone(&self.room), &message.message).await;
            let event = message_event(&message.message, true).await;
            if self.events.send((event, room)).await.is_err() {
                return;
            }
        }
        loop {
            let next = tokio::select! {
                next = self.deliveries.next(self.lane.as_mut()) => next,
                _ = self.changes.recv() => {
                    self.lane.refresh().await;
                    continue;
                }
                () = self.ear.over.notified() => Next::Ended(SubscriptionKey::default(), Ended::Away),
                () = &mut stop => return,
            };
            let mut room = None;
            let (event, last) = match next {
                Next::Delivery(delivery) => {
                    metrics::counter!("linkspan_messages_out_total", "door" => "http").increment(1);
                    room = place(Arc::clone(&self.room), &delivery.message).await;
                    (message_event(&delivery.message, false).await, false)
                }
                Next::Dropped(count) => {
                    metrics::counter!("linkspan_messages_dropped_total", "reason" => "slow-watcher")
                        .increment(count);
                    (Event::default().event("dropped").data(json!({ "count": count }).to_string()), false)
                }
                Next::Ended(_, why) => (
                    Event::default().event("ended").data(json!({ "why": translate::ended(why) }).to_string()),
                    true,
                ),
            };
            if self.events.send((event, room)).await.is_err() || last {
                return;
            }
        }
    }
}

/// Waits for the room that a message's payload takes.
async fn place(room: Arc<Semaphore>, message: &Kept) -> Option<OwnedSemaphorePermit> {
    let bytes = u32::try_from(message.payload_len()).unwrap_or(u32::MAX).min(BYTES_AHEAD);
    room.acquire_many_owned(bytes).await.ok()
}

/// Bytes of the largest stored payload that an event has.
const LARGEST: u64 = 16 << 20;

/// One message as an event.
async fn message_event(message: &Kept, retained: bool) -> Event {
    let mut object = object(message).await;
    if retained {
        object.insert("retained".into(), json!(true));
    }
    Event::default().event("message").data(serde_json::Value::Object(object).to_string())
}

/// One message in JSON. Text payloads are text; all others are base64. Of what is too large it is only said how large that
/// is.
pub(super) async fn object(message: &Kept) -> serde_json::Map<String, serde_json::Value> {
    let stored = message.body().filter(|_| message.payload().is_none());
    let read = match stored.filter(|body| body.len() <= LARGEST) {
        Some(body) => {
            body.whole().await.inspect_err(|error| tracing::error!(%error, "a payload cannot be read")).ok()
        }
        None => None,
    };
    let address = String::from_utf8_lossy(&message.address().topic()).into_owned();
    let mut object = serde_json::Map::new();
    let mut put = |name: &str, value: serde_json::Value| object.insert(name.into(), value);
    put("address", json!(address));
    if let Some(payload) = message.payload().or(read.as_deref()) {
        match std::str::from_utf8(payload) {
            Ok(text) => put("payload", json!(text)),
            Err(_) => put("payload_base64", json!(STANDARD.encode(payload))),
        };
    } else {
        put("payload_bytes", json!(message.payload_len()));
    }
    if let Ok(properties) = message.properties() {
        if let Some(content_type) = &properties.content_type {
            put("content_type", json!(content_type));
        }
        if let Some(id) = &properties.message_id {
            put("message_id", json!(id));
        }
        if !properties.headers.is_empty() {
            let header = |(name, value): &(Cow<'_, str>, _)| (name.to_string(), translate::json_value(value));
            put("properties", properties.headers.iter().map(header).collect());
        }
    }
    object
}

/// Hears that routes changed, or that the lane is over; an HTTP watcher publishes nothing.
struct Ear {
    changed: mpsc::Sender<()>,
    over: Notify,
}

impl ReceiptSink for Ear {
    fn receipts(&self, _: &[Receipt]) {}
}

impl LaneEvents for Ear {
    fn event(&self, event: LaneEvent) {
        match event {
            // One that is on its way already does for this one too.
            LaneEvent::Changed => drop(self.changed.try_send(())),
            LaneEvent::Closed { .. } => self.over.notify_one(),
            LaneEvent::Returned { .. }
            | LaneEvent::TakenOver
            | LaneEvent::Blocked(_)
            | LaneEvent::Unblocked => {}
        }
    }
}

/// The events as a stream that does the watcher's work while it is polled: when the client goes, the watcher goes.
pub(super) struct EventStream {
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    stream: mpsc::Receiver<Ready>,
}

impl Stream for EventStream {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.work.as_mut().is_some_and(|work| work.as_mut().poll(cx).is_ready()) {
            self.work = None;
        }
        self.stream.poll_recv(cx).map(|event| event.map(|(event, _)| Ok(event)))
    }
}
