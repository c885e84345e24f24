//! Asking the broker what it has.

use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::{BasicQosOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};

/// How many messages each of these queues has that it has sent to nobody. All that it has sent by this channel until then has
/// come when this returns.
///
/// # Errors
/// When the channel is lost, or there is no such queue.
pub(in crate::desk) async fn ready_in(
    channel: &Channel,
    queues: impl IntoIterator<Item = &ShortString>,
) -> lapin::Result<Vec<u32>> {
    let asked = queues.into_iter().map(async |queue| {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let told = channel.queue_declare(queue.clone(), passive, FieldTable::default()).await?;
        lapin::Result::Ok(told.message_count())
    });
    let ready = try_join_all(asked).await?;
    // The broker answers this behind what its queues had sent before they answered.
    channel.basic_qos(1, BasicQosOptions { global: false }).await?;
    Ok(ready)
}
