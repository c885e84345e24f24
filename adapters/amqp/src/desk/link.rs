//! A desk's channel.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use lapin::message::Delivery;
use lapin::{Channel, ConnectionState, Consumer, Error, ErrorKind};
use linkspan_contract::Millis;

use super::look::Look;
use crate::upstream::Live;

/// The channel, and the broker's consumers on it with their windows.
pub(super) struct Link {
    pub(super) live: Arc<Live>,
    pub(super) channel: Arc<Channel>,
    pub(super) streams: Vec<Intake>,
    /// They were cancelled, and it is not known what the broker had sent by then; it is asked again at this time.
    pub(super) unmarked: Option<Millis>,
}

/// A consumer at the broker.
pub(super) struct Intake {
    pub(super) consumer: Consumer,
    pub(super) window: u16,
    /// Which level's queue it consumes from, where each has one.
    pub(super) level: Option<u8>,
}

/// A message that has come, and its level where that has a queue of its own.
pub(super) type Lent = (Option<u8>, Delivery);

/// What has come by it.
pub(super) enum Came {
    Messages(Vec<Lent>),
    /// The channel is lost.
    Lost(Error),
    /// The queue is gone.
    Cancelled,
}

impl Link {
    /// How many messages the broker lends by them at once, of each queue.
    pub(super) fn window(&self) -> u32 {
        self.of_one().fold(0, |all, stream| all.saturating_add(stream.window.into()))
    }

    /// Whether the broker's one consumer is to make room for one with a greater window.
    pub(super) fn makes_room(&self, look: &Look) -> bool {
        let has = self.window();
        let is_alone = look.is_alone && !look.has_others_stand_by;
        self.unmarked.is_none() && is_alone && has > 0 && look.wanted() > has
    }

    /// The consumers from one of the queues, as many as from each.
    pub(super) fn of_one(&self) -> impl Iterator<Item = &Intake> {
        self.streams.iter().filter(|stream| stream.level.is_none_or(|level| level == 0))
    }

    /// Takes what has come.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Option<Came> {
        let mut came = Vec::new();
        loop {
            let known = came.len();
            for Intake { consumer, level, .. } in &mut self.streams {
                loop {
                    match Pin::new(&mut *consumer).poll_next(cx) {
                        Poll::Ready(Some(Ok(delivery))) => came.push((*level, delivery)),
                        Poll::Ready(Some(Err(error))) => return Some(Came::Lost(error)),
                        Poll::Ready(None) => return Some(Came::Cancelled),
                        Poll::Pending => break,
                    }
                }
            }
            // The first of them may have been sent something, since it was looked at, before what another was sent.
            if self.streams.len() < 2 || came.len() == known {
                break;
            }
        }
        if came.is_empty() {
            let is_there = self.live.is_connected() && self.channel.status().connected();
            return (!is_there).then(|| Came::Lost(lost()));
        }
        came.sort_by_key(|(_, delivery)| delivery.delivery_tag);
        Some(Came::Messages(came))
    }

    /// Takes all that has come by consumers that were cancelled.
    pub(super) fn take_rest(&mut self, cx: &mut Context<'_>) -> Vec<Lent> {
        let mut came = Vec::new();
        for Intake { mut consumer, level, .. } in self.streams.drain(..) {
            while let Poll::Ready(Some(Ok(delivery))) = Pin::new(&mut consumer).poll_next(cx) {
                came.push((level, delivery));
            }
        }
        came.sort_by_key(|(_, delivery)| delivery.delivery_tag);
        came
    }
}

/// The connection is gone, whatever lapin says.
pub(super) fn lost() -> Error {
    ErrorKind::InvalidConnectionState(ConnectionState::Error).into()
}
