//! The number that the broker has reached on a channel.
//!
//! What a broker has sent for a consumer that it was told is cancelled, lapin drops: it is on its way behind the answer, and
//! nobody can settle what nobody has seen. But deliveries are numbered in the order in which they are sent; and who has a
//! message by another way, which comes behind them, knows the numbers of all before it.

use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};

use crate::coordinator::within;
use crate::now::poke;
use crate::random;
use crate::upstream::Upstream;

/// How long a mark may take to be there.
const SOON: Duration = Duration::from_secs(2);

/// The number that a delivery has which is behind all that was sent on the channel until now; none when that is not to be
/// learned. Not inside a transaction, where nothing comes before the commit.
///
/// The mark is published on another connection: while the broker has an alarm it reads nothing more of one that publishes,
/// acknowledgements neither.
///
/// # Errors
/// When the channel is lost.
pub(crate) async fn number_reached(upstream: &Upstream, channel: &Channel) -> lapin::Result<Option<u64>> {
    let Some(publishing) = upstream.publishing() else { return Ok(None) };
    let queue = ShortString::try_new(format!("linkspan.mark-{}", random::name())).unwrap_or_default();
    let own = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.clone(), own, FieldTable::default()).await?;
    let key = queue.clone();
    let mark = async |channel: &Channel| {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let (exchange, properties) = (ShortString::default(), BasicProperties::default());
        channel.basic_publish(exchange, key, BasicPublishOptions::default(), b"", properties).await?.await
    };
    let got = match within(SOON, publishing.request(mark)).await {
        Some(Ok(Confirmation::Ack(_))) => {
            channel.basic_get(queue.clone(), BasicGetOptions { no_ack: true }).await?
        }
        _ => None,
    };
    poke(channel.queue_delete(queue, QueueDeleteOptions { nowait: true, ..QueueDeleteOptions::default() }));
    Ok(got.map(|message| message.delivery.delivery_tag))
}
