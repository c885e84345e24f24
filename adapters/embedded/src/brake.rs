//! What a publisher waits for before its next read.

use std::ptr;
use std::sync::Arc;
use std::task::{Context, Poll};

use linkspan_contract::{DeliverySink, Millis};

use crate::archive::Archive;
use crate::coordinator::Coordinator;
use crate::gate::Gate;
use crate::queue::Queue;
use crate::session::Session;

/// The sinks, sessions and queues above their marks that a lane has published to.
#[derive(Default)]
pub(crate) struct Brakes {
    list: Vec<Brake>,
    /// When the coordinator will wake the publisher, who was held long enough then.
    woken_at: Millis,
}

/// Who is held by so many is held: more are not noted, and not looked through at every delivery.
const MOST: usize = 64;

enum Brake {
    Sink(Arc<dyn DeliverySink>),
    Session(Arc<Session>, Millis),
    Queue(Arc<Queue>, Millis),
    Archive(Arc<Archive>),
}

impl Brake {
    /// What holds, and until when at the latest.
    fn gate(&self) -> Option<(&Gate, Millis)> {
        match self {
            Self::Sink(_) | Self::Archive(_) => None,
            Self::Session(session, until) => Some((&session.gate, *until)),
            Self::Queue(queue, until) => Some((&queue.gate, *until)),
        }
    }
}

impl Brakes {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn sink(&mut self, sink: &Arc<dyn DeliverySink>) {
        let is_it = |brake: &Brake| matches!(brake, Brake::Sink(other) if ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(sink)));
        if self.list.len() < MOST && !self.list.iter().any(is_it) {
            self.list.push(Brake::Sink(Arc::clone(sink)));
        }
    }

    pub(crate) fn session(&mut self, session: &Arc<Session>, until: Millis) {
        self.list.retain(|brake| !matches!(brake, Brake::Session(other, _) if Arc::ptr_eq(other, session)));
        self.list.truncate(MOST - 1);
        self.list.push(Brake::Session(Arc::clone(session), until));
    }

    pub(crate) fn queue(&mut self, queue: &Arc<Queue>, until: Millis) {
        self.list.retain(|brake| !matches!(brake, Brake::Queue(other, _) if Arc::ptr_eq(other, queue)));
        self.list.truncate(MOST - 1);
        self.list.push(Brake::Queue(Arc::clone(queue), until));
    }

    pub(crate) fn archive(&mut self, archive: &Arc<Archive>) {
        self.list.retain(|brake| !matches!(brake, Brake::Archive(_)));
        self.list.truncate(MOST - 1);
        self.list.push(Brake::Archive(Arc::clone(archive)));
    }

    /// Ready when nothing holds the publisher.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Millis,
        coordinator: &Arc<Coordinator>,
    ) -> Poll<()> {
        if self.list.is_empty() {
            return Poll::Ready(());
        }
        self.list.retain(|brake| match brake {
            Brake::Sink(sink) => sink.poll_drained(cx).is_pending(),
            Brake::Archive(archive) => archive.poll(cx).is_pending(),
            other => other.gate().is_some_and(|(gate, until)| now < until && gate.poll(cx, now).is_pending()),
        });
        if self.list.is_empty() {
            *self = Self::default();
            return Poll::Ready(());
        }
        let until = self.list.iter().filter_map(|brake| Some(brake.gate()?.1)).min();
        if let Some(until) = until
            && (self.woken_at <= now || until < self.woken_at)
        {
            self.woken_at = until;
            coordinator.wake(cx.waker(), until);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::conformance::recorder::Recorder;

    use super::*;
    use crate::options::EmbeddedOptions;

    #[test]
    fn a_publisher_to_very_many_slow_subscribers_notes_some_of_them() {
        let mut brakes = Brakes::default();
        for client in 0..1000 {
            let sink: Arc<dyn DeliverySink> = Arc::new(Recorder::default());
            brakes.sink(&sink);
            brakes
                .session(&Arc::new(Session::new(client, false, None, sink, &EmbeddedOptions::default())), 5);
        }
        assert_eq!(brakes.list.len(), MOST);
    }
}
