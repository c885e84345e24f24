//! Who consumes: one queue, what it is given noted, and settled in some way.

use std::collections::VecDeque;
use std::time::Duration;

use futures_lite::StreamExt;
use futures_lite::future::poll_once;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use tokio::time::{sleep, timeout};

use super::life::{Life, Work};
use super::notes::{Name, Settled};

/// How a queue is consumed.
#[derive(Debug, Clone, Copy)]
pub struct Taking {
    pub queue: &'static str,
    pub prefetch: u16,
    /// So many are acknowledged by one acknowledgement.
    pub at_once: usize,
    /// In a hundred.
    pub requeued: u64,
    /// In a hundred.
    pub rejected: u64,
    /// Milliseconds before each acknowledgement, to have a backlog grow.
    pub pause: u64,
}

impl Taking {
    /// One at a time, all accepted.
    pub const fn all(queue: &'static str) -> Self {
        Self { queue, prefetch: 20, at_once: 1, requeued: 0, rejected: 0, pause: 0 }
    }
}

/// The server answers a question about a queue behind everything that was said on this channel: how many are ready.
async fn ask(life: &Life, channel: &Channel, queue: &'static str) -> anyhow::Result<u32> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let answer = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
    life.notes().answered(queue);
    Ok(answer.message_count())
}

/// Consumes until the connection ends; in the last life until nothing is left.
pub async fn take(life: Life, taking: Taking) -> Work {
    let Taking { queue, prefetch, at_once, .. } = taking;
    let (_connection, channel) = life.connect().await?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut deliveries =
        channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    let mut hand: VecDeque<(Name, Delivery)> = VecDeque::new();
    let (mut settled, mut come) = (0, None);
    loop {
        let next = match come.take() {
            Some(delivery) => Ok(delivery),
            None => timeout(Duration::from_millis(50), deliveries.next()).await,
        };
        let idle = next.is_err();
        if let Ok(delivery) = next {
            let Some(delivery) = delivery.transpose()? else { anyhow::bail!("{queue} is consumed no more") };
            let name = life.notes().seen(queue, &delivery.data, delivery.redelivered);
            match name {
                Some(name) => hand.push_back((name, delivery)),
                None => {
                    delivery.acker.ack(BasicAckOptions::default()).await?;
                }
            }
        }
        if hand.len() >= at_once || idle && !hand.is_empty() {
            if taking.pause > 0 && !life.is_last {
                sleep(Duration::from_millis(taking.pause)).await;
            }
            settled += hand.len();
            settle(&life, &taking, &mut hand).await?;
        }
        if settled >= 20 || idle && settled > 0 {
            settled = 0;
            ask(&life, &channel, queue).await?;
        }
        if idle && life.is_last && ask(&life, &channel, queue).await? == 0 {
            // What was given out before the answer has come before it, too.
            come = poll_once(deliveries.next()).await;
            if come.is_none() {
                return Ok(());
            }
        }
    }
}

/// Settles what is in the hand.
async fn settle(life: &Life, taking: &Taking, hand: &mut VecDeque<(Name, Delivery)>) -> Work {
    let queue = taking.queue;
    if hand.len() > 1 {
        let names: Vec<Name> = hand.iter().map(|(name, _)| *name).collect();
        let Some((_, last)) = hand.pop_back() else { return Ok(()) };
        hand.clear();
        names.into_iter().for_each(|name| life.notes().settled(queue, name, Settled::Accepted));
        last.acker.ack(BasicAckOptions { multiple: true }).await?;
        return Ok(());
    }
    let Some((name, Delivery { acker, .. })) = hand.pop_front() else { return Ok(()) };
    let dice = life.below(100);
    let how = if dice < taking.rejected {
        Settled::Rejected
    } else if dice < taking.rejected + taking.requeued && !life.is_last {
        Settled::Requeued
    } else {
        Settled::Accepted
    };
    life.notes().settled(queue, name, how);
    match how {
        Settled::Accepted => acker.ack(BasicAckOptions::default()).await?,
        Settled::Rejected => acker.reject(BasicRejectOptions { requeue: false }).await?,
        Settled::Requeued => {
            acker.nack(BasicNackOptions { requeue: true, multiple: false }).await?;
            true
        }
    };
    Ok(())
}
