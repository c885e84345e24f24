//! The number that the broker has reached on a channel.
//!
//! What a broker has sent for a consumer that it was told is cancelled, lapin drops: it is on its way behind the answer, and
//! nobody can settle what nobody has seen. But deliveries are numbered in the order in which they are sent; and who has a
//! message by another way, which comes behind them, knows the numbers of all before it.

use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel};

use crate::now::poke;
use crate::random;

/// The number that a delivery has which is behind all that was sent on the channel until now; none when that is not to be
/// learned. Not inside a transaction, where nothing comes before the commit.
///
/// # Errors
/// When the channel is lost.
pub(crate) async fn number_reached(channel: &Channel) -> lapin::Result<Option<u64>> {
    let queue = ShortString::try_new(format!("linkspan.mark-{}", random::name())).unwrap_or_default();
    let own = QueueDeclareOptions { exclusive: true, nowait: true, ..QueueDeclareOptions::default() };
    poke(channel.queue_declare(queue.clone(), own, FieldTable::default()));
    let (exchange, key, properties) = (ShortString::default(), queue.clone(), BasicProperties::default());
    drop(channel.basic_publish(exchange, key, BasicPublishOptions::default(), b"", properties).await?);
    let got = channel.basic_get(queue.clone(), BasicGetOptions { no_ack: true }).await?;
    poke(channel.queue_delete(queue, QueueDeleteOptions { nowait: true, ..QueueDeleteOptions::default() }));
    Ok(got.map(|message| message.delivery.delivery_tag))
}
