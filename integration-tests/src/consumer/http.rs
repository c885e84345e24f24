//! Consuming by HTTP: leases of a queue, one request at a time, or a stream of events.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::received::{Hand, Received};
use super::{Asking, PREFETCH, Refusal, Taking};
use crate::http::{Answer, Client, Events};

pub(super) async fn consume(
    at: SocketAddr,
    taking: Taking<'_>,
    asking: Asking,
    sender: mpsc::Sender<Received>,
) -> Result<JoinHandle<()>, Refusal> {
    match taking {
        Taking::Watch(filter) => {
            let events = Events::watch(at, &filter.replace('#', "%23")).await;
            Ok(tokio::spawn(watch(events, sender)))
        }
        Taking::Work { queue, .. } | Taking::Queue(queue) => work(at, queue, asking, sender).await,
    }
}

async fn watch(mut events: Events, sender: mpsc::Sender<Received>) {
    while let Some((kind, event)) = events.next_if_any().await {
        if kind != "message" {
            continue;
        }
        let payload = event["payload"].as_str().expect("text").as_bytes().to_vec();
        let properties = event["properties"].as_object().into_iter().flatten();
        let text =
            |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let properties = properties.map(|(name, value)| (name.clone(), text(value))).collect();
        if sender.try_send(Received { payload, properties, hand: Hand::Copy }).is_err() {
            return;
        }
    }
}

async fn work(
    at: SocketAddr,
    queue: &str,
    asking: Asking,
    sender: mpsc::Sender<Received>,
) -> Result<JoinHandle<()>, Refusal> {
    let client = if asking.guest { Client::guest(at) } else { Client::to(at) };
    let places = Arc::new(Semaphore::new(asking.in_hand.unwrap_or(PREFETCH).into()));
    let mut path = format!("/v1/queues/{queue}/leases?");
    if let Some(lease) = asking.lease {
        path.push_str(&format!("lease={}ms&", lease.as_millis()));
    }
    let waiting = format!("{path}wait=5s");
    // The answer to the first request, which does not wait, tells whether it may consume at all.
    let place = Arc::clone(&places).acquire_owned().await.expect("a place");
    let first = client.post(&path, Vec::new(), Vec::new()).await;
    if !matches!(first.status, 200 | 204) {
        return Err(Refusal { code: first.status, text: first.body });
    }
    Ok(tokio::spawn(async move {
        let mut next = Some((first, place));
        loop {
            let (answer, place) = match next.take() {
                Some(answered) => answered,
                None => {
                    let place = Arc::clone(&places).acquire_owned().await.expect("a place");
                    let Ok(answer) = client.ask("POST", &waiting, Vec::new(), Vec::new()).await else {
                        return;
                    };
                    (answer, place)
                }
            };
            match answer.status {
                200 => {
                    if sender.try_send(leased(answer, &client, place)).is_err() {
                        return;
                    }
                }
                204 => {}
                _ => return,
            }
        }
    }))
}

fn leased(answer: Answer, client: &Client, place: OwnedSemaphorePermit) -> Received {
    let path = answer.header("location").expect("where the lease is").to_owned();
    let property = |(name, value): &(String, String)| {
        let name = match name.as_str() {
            "linkspan-fence" => name,
            _ => name.strip_prefix("linkspan-property-")?,
        };
        Some((name.to_owned(), value.clone()))
    };
    let properties = answer.headers.iter().filter_map(property).collect();
    let hand = Hand::Lease { client: client.clone(), path, _place: place };
    Received { payload: answer.body.into_bytes(), properties, hand }
}
