//! A desk's channel.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use lapin::message::Delivery;
use lapin::{Channel, ConnectionState, Consumer, Error, ErrorKind};

use crate::upstream::Live;

/// The channel, and the broker's consumers on it with their windows.
pub(super) struct Link {
    pub(super) live: Arc<Live>,
    pub(super) channel: Arc<Channel>,
    pub(super) streams: Vec<(Consumer, u16)>,
}

/// What has come by it.
pub(super) enum Came {
    Messages(Vec<Delivery>),
    /// The channel is lost.
    Lost(Error),
    /// The queue is gone.
    Cancelled,
}

impl Link {
    /// How many messages the broker lends by them at once.
    pub(super) fn window(&self) -> u32 {
        self.streams.iter().fold(0, |all, (_, window)| all.saturating_add((*window).into()))
    }

    /// Takes what has come.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Option<Came> {
        let mut came = Vec::new();
        loop {
            let known = came.len();
            for (consumer, _) in &mut self.streams {
                loop {
                    match Pin::new(&mut *consumer).poll_next(cx) {
                        Poll::Ready(Some(Ok(delivery))) => came.push(delivery),
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
        came.sort_by_key(|delivery| delivery.delivery_tag);
        Some(Came::Messages(came))
    }

    /// Takes all that has come by consumers that were cancelled.
    pub(super) fn take_rest(&mut self, cx: &mut Context<'_>) -> Vec<Delivery> {
        let mut came = Vec::new();
        for (mut consumer, _) in self.streams.drain(..) {
            while let Poll::Ready(Some(Ok(delivery))) = Pin::new(&mut consumer).poll_next(cx) {
                came.push(delivery);
            }
        }
        came.sort_by_key(|delivery| delivery.delivery_tag);
        came
    }
}

/// The connection is gone, whatever lapin says.
pub(super) fn lost() -> Error {
    ErrorKind::InvalidConnectionState(ConnectionState::Error).into()
}
