//! Who works in transactions: several messages to two queues at once, and messages moved from one queue to another.

use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions};
use lapin::{BasicProperties, Channel};
use tokio::time::sleep;

use super::life::{Life, Work};
use super::notes::{Name, Notes, Settled};

async fn publish(channel: &Channel, queue: &str, name: Name) -> Work {
    let (options, persistent) =
        (BasicPublishOptions::default(), BasicProperties::default().with_delivery_mode(2));
    let payload = Notes::payload(name, 0);
    channel.basic_publish("".into(), queue.into(), options, &payload, persistent).await?;
    Ok(())
}

/// Publishes a few messages to each of two queues, and commits; or rolls back.
pub async fn pairs(life: Life, line: &'static str, queues: [&'static str; 2]) -> Work {
    let (_connection, channel) = life.connect().await?;
    channel.tx_select().await?;
    loop {
        let count = 2 + life.below(6);
        let messages: Vec<(Name, u64)> = (0..count).map(|_| life.notes().send(line, true, 0)).collect();
        let names: Vec<Name> = messages.iter().map(|(name, _)| *name).collect();
        let group = life.notes().group(&names);
        for (name, queue) in names.iter().zip(queues.iter().cycle()) {
            publish(&channel, queue, *name).await?;
        }
        if life.below(5) == 0 {
            channel.tx_rollback().await?;
            life.notes().ended(group, false);
        } else {
            channel.tx_commit().await?;
            let mut notes = life.notes();
            notes.ended(group, true);
            messages.into_iter().for_each(|(name, sent)| notes.acknowledged(name, sent));
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Moves messages: each is accepted where it was, and published where it goes, in one transaction. In the last life until
/// nothing is left.
pub async fn mover(life: Life, from: &'static str, line: &'static str, to: &'static str) -> Work {
    let (_connection, channel) = life.connect().await?;
    channel.tx_select().await?;
    loop {
        let mut moved = Vec::new();
        while moved.len() < 5
            && let Some(message) = channel.basic_get(from.into(), BasicGetOptions::default()).await?
        {
            let delivery = message.delivery;
            let Some(name) = life.notes().seen(from, &delivery.data, delivery.redelivered) else {
                anyhow::bail!("nobody sent what is in {from}");
            };
            let (made, sent) = life.notes().send(line, true, 0);
            life.notes().made_of(made, name);
            publish(&channel, to, made).await?;
            life.notes().settled(from, name, Settled::Accepted);
            delivery.acker.ack(BasicAckOptions::default()).await?;
            moved.push((made, sent));
        }
        if moved.is_empty() {
            if life.is_last {
                return Ok(());
            }
            sleep(Duration::from_millis(5)).await;
            continue;
        }
        let names: Vec<Name> = moved.iter().map(|(name, _)| *name).collect();
        let group = life.notes().group(&names);
        channel.tx_commit().await?;
        let mut notes = life.notes();
        notes.ended(group, true);
        moved.into_iter().for_each(|(name, sent)| notes.acknowledged(name, sent));
        notes.committed(from);
    }
}
