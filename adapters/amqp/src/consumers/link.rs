//! The channel of a consuming task: opened, lost, made anew.

use std::sync::Arc;

use lapin::Channel;
use lapin::types::ShortString;
use linkspan_contract::{Ended, Refused};

use super::coordinator::Worker;
use super::transaction::Transaction;
use crate::translate::{closed, is_deleted, refused};
use crate::upstream::Live;

impl Worker {
    /// The channel, opened if need be.
    ///
    /// # Errors
    /// When the broker is away, or the lane is over.
    pub(super) async fn channel(&mut self) -> Result<Arc<Channel>, Refused> {
        if let Some((code, text)) = self.plan.origin.over() {
            return Err(Refused::Upstream { code, text: text.to_string() });
        }
        if let Some((_, channel)) = &self.link
            && channel.status().connected()
        {
            return Ok(Arc::clone(channel));
        }
        let away = Refused::Away(self.plan.upstream.backend.to_string());
        let Some(live) = self.plan.upstream.live() else { return Err(away) };
        self.waiting = None;
        self.restore(live).await?;
        self.link.as_ref().map(|(_, channel)| Arc::clone(channel)).ok_or(away)
    }

    /// Opens a channel and makes the consumers again. Who cannot be made again is ended.
    pub(super) async fn restore(&mut self, live: Arc<Live>) -> Result<(), Refused> {
        loop {
            self.forget();
            self.seen = live.generation;
            let backend = Arc::clone(&self.plan.upstream.backend);
            let failed = |error: lapin::Error| refused(&error, &backend);
            let channel = Arc::new(live.connection.create_channel().await.map_err(failed)?);
            if self.transaction.is_some() {
                channel.tx_select().await.map_err(failed)?;
            }
            self.make_inbox(&live).await.map_err(failed)?;
            self.link = Some((Arc::clone(&live), channel));
            let mut broken = None;
            for at in 0..self.takers.len() {
                if let Err(error) = self.consume(at).await {
                    broken = Some((at, error));
                    break;
                }
            }
            let Some((at, error)) = broken else { return Ok(()) };
            self.link = None;
            if !live.is_connected() || closed(&error).is_none() {
                self.wait();
                return Err(failed(error));
            }
            if self.is_of_session(at) && !is_deleted(&error) {
                self.forget();
                self.again_later();
                return Err(failed(error));
            }
            let taker = self.takers.remove(at);
            let why = match failed(error) {
                Refused::NotFound { .. } => Ended::QueueDeleted,
                _ => Ended::Superseded,
            };
            self.leave_group(&taker.wanted).await;
            self.sink.ended(taker.wanted.key, why);
        }
    }

    /// What was under way on the channel of before is the broker's again.
    pub(super) fn forget(&mut self) {
        self.held.lose();
        self.due.clear();
        (self.leaving, self.later) = (None, false);
        self.late.clear();
        for taker in &mut self.takers {
            taker.buffer.clear();
            taker.streams.clear();
            if let Some(credit) = &taker.wanted.credit {
                credit.give_back(std::mem::take(&mut taker.prepaid));
            }
            (taker.delayed, taker.late) = (0, 0);
            if let Some(attendance) = &mut taker.attendance {
                attendance.letter = None;
            }
        }
        self.copies.clear();
        self.strays = false;
        self.suspects.clear();
        self.ends.clear();
        self.undone.clear();
    }

    /// A channel on which lapin may have dropped something makes place for a new one, while the client holds nothing: the
    /// broker gives it out again.
    pub(super) async fn replace(&mut self) {
        let Some((live, channel)) = self.link.take() else { return };
        let text = ShortString::try_new("OK").unwrap_or_default();
        if let Err(error) = channel.close(200, text).await {
            tracing::debug!(%error, "a channel was lost while it was replaced");
        }
        self.forget();
        if self.takers.is_empty() {
            return;
        }
        if !live.is_connected() {
            self.wait();
        } else if let Err(why) = self.restore(live).await {
            tracing::debug!(%why, "a consuming channel waits for its connection");
        }
    }

    /// The client is away and holds nothing: its session needs no channel until it is back.
    pub(super) async fn rest(&mut self) {
        let Some((live, channel)) = self.link.take() else { return };
        let text = ShortString::try_new("OK").unwrap_or_default();
        tokio::select! {
            closed = channel.close(200, text) => {
                if let Err(error) = closed {
                    tracing::debug!(%error, "a channel was lost while it was given up");
                }
            }
            () = self.plan.upstream.gone(live.generation) => {}
        }
        self.forget();
    }

    /// The channel is gone, and no request was the reason.
    pub(super) async fn struck(&mut self, error: &lapin::Error) {
        match (closed(error), &self.link) {
            // What a session has outlives a channel, which the broker closes when a client holds something for too long.
            (Some((code, text, false)), Some((live, _))) if live.is_connected() && !self.plan.keeps => {
                self.link = None;
                self.forget();
                for taker in std::mem::take(&mut self.takers) {
                    self.leave_group(&taker.wanted).await;
                }
                self.plan.origin.close(code, &text);
            }
            _ => self.lost(error).await,
        }
    }

    /// What a transaction held is lost with its channel: the lane is over.
    pub(super) fn lose_transaction(&mut self) {
        let backend = &self.plan.upstream.backend;
        let text =
            format!("PRECONDITION_FAILED - back end '{backend}' was lost, and with it the transaction");
        self.plan.origin.close(406, &text);
    }

    /// The channel is gone: the broker has closed it, or the connection is lost.
    pub(super) async fn lost(&mut self, error: &lapin::Error) {
        let Some((live, _)) = self.link.take() else { return };
        // Others learn of it before lapin says so of the connection.
        tokio::task::yield_now().await;
        if self.transaction.as_ref().is_some_and(Transaction::holds) {
            self.lose_transaction();
        }
        self.forget();
        if live.is_connected() {
            if let Err(why) = self.restore(live).await {
                tracing::debug!(%why, %error, "a consuming channel waits for its connection");
            }
        } else {
            self.wait();
        }
    }

    /// Has the consumers made again when there is a connection again.
    pub(super) fn wait(&mut self) {
        let (upstream, seen) = (Arc::clone(&self.plan.upstream), self.seen);
        self.waiting = Some(Box::pin(async move { upstream.after(seen).await }));
    }

    pub(super) async fn back(&mut self, live: Arc<Live>) {
        if self.plan.origin.over().is_some() {
            return;
        }
        let restored = if self.is_at_rest() {
            self.seen = live.generation;
            let backend = Arc::clone(&self.plan.upstream.backend);
            self.make_inbox(&live).await.map_err(|error| refused(&error, &backend))
        } else {
            self.restore(Arc::clone(&live)).await
        };
        if let Err(why) = restored {
            tracing::debug!(%why, "a consuming channel waits for its connection");
            if self.plan.keeps && live.is_connected() {
                self.again_later();
            } else if self.waiting.is_none() {
                self.wait();
            }
        }
    }
}
