//! Taking one message for who takes them one by one.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use linkspan_contract::backend::Fetched;
use linkspan_contract::{Millis, Refused, SubscriptionKey};
use linkspan_queues::{ConsumerId, LaneId};
use tokio::time::{Instant, sleep};

use crate::desk::Desk;

/// Has one more message taken from the broker, whether or not somebody still waits for it; tells how many it has behind
/// that.
///
/// # Errors
/// What the broker says.
pub(in crate::desk) async fn get(desk: &Arc<Desk>, channel: Arc<Channel>) -> Result<Option<u32>, Refused> {
    let got = tokio::spawn(Arc::clone(desk).get(channel)).await;
    got.unwrap_or_else(|_| Err(Refused::Away(desk.backend.to_string())))
}

/// Takes a message for who takes them one by one from a queue whose messages have keys, or levels with queues of their own: it
/// comes by the desk's consumers, or others would overtake those that are in hand here or at another Linkspan.
///
/// # Errors
/// What the broker says.
pub(in crate::desk) async fn wait_for_one(
    desk: &Arc<Desk>,
    lane: LaneId,
    id: impl Fn() -> ConsumerId,
    key: SubscriptionKey,
    settled: bool,
) -> Result<Option<Fetched>, Refused> {
    let end = Instant::now() + if desk.levels.is_some() { PATIENCE_WITH_LEVELS } else { PATIENCE };
    loop {
        let taken = desk.take_or_ask(lane, &id, key, settled, ASKED);
        if taken.is_some() || desk.is_known_empty() || Instant::now() >= end {
            return Ok(taken);
        }
        desk.ready().await?;
        sleep(LULL).await;
    }
}

/// How long who takes messages one by one waits for the desk's consumer to be sent one.
const PATIENCE: Duration = Duration::from_millis(200);

/// The same where the broker is asked, which has something in one of many queues, or in none.
const PATIENCE_WITH_LEVELS: Duration = Duration::from_secs(5);

/// How long it is looked for the next time.
const LULL: Duration = Duration::from_millis(10);

/// Milliseconds that the consumer is kept for the next who takes one.
const ASKED: Millis = 1000;
