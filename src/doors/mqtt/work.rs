//! Memory that one read needs: the thread's, not the connection's.

use std::cell::Cell;
use std::num::NonZeroU16;

use linkspan_contract::{Message, Settled};

use super::receipts::Answer;
use crate::protocol::mqtt::{AckKind, ReasonCode};

/// A list that has grown beyond this is not kept.
const KEPT: usize = 16 * 1024;

/// Messages and answers of one read.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Messages to be published together.
    pub messages: Vec<Message>,
    /// Whether they lie in `rewritten`, else in what was read.
    pub in_rewritten: bool,
    /// PUBLISH packets that could not stay as they were: a topic alias stood for the topic name.
    pub rewritten: Vec<u8>,
    /// PUBLISHes of QoS 1 and 2 among these, in their order.
    pub asked: Vec<Asked>,
    /// Packets for the client.
    pub replies: Vec<u8>,
    /// What the client has said of its deliveries.
    pub acks: Vec<Acked>,
    /// The same as runs of deliveries.
    pub runs: Vec<Settled>,
    /// Deliveries that the client has, and that are released when this is safe.
    pub received: Vec<NonZeroU16>,
}

/// A client's PUBACK, PUBREC or PUBCOMP.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acked {
    pub kind: AckKind,
    pub packet_id: NonZeroU16,
    pub reason: ReasonCode,
}

/// A PUBLISH that has to be answered.
#[derive(Debug)]
pub(super) struct Asked {
    pub packet_id: NonZeroU16,
    pub kind: AckKind,
    pub verdict: Verdict,
}

/// What its answer depends on.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The receipt of the message at this place among those published together.
    At(u32),
    /// Nothing: it was not published.
    Known(Answer),
}

thread_local! {
    static WORK: Cell<Option<Box<Work>>> = const { Cell::new(None) };
}

impl Work {
    /// Lends this thread's memory, empty; a nested call gets its own.
    pub(super) fn with<R>(with: impl FnOnce(&mut Self) -> R) -> R {
        let mut work = WORK.take().unwrap_or_default();
        let result = with(&mut work);
        work.clear();
        WORK.set(Some(work));
        result
    }

    fn clear(&mut self) {
        fn emptied<T>(list: &mut Vec<T>) {
            list.clear();
            if list.capacity() > KEPT {
                *list = Vec::new();
            }
        }
        emptied(&mut self.messages);
        emptied(&mut self.asked);
        emptied(&mut self.acks);
        emptied(&mut self.runs);
        emptied(&mut self.received);
        self.rewritten.clear();
        self.rewritten.shrink_to(KEPT * size_of::<Message>());
        self.replies.clear();
        self.replies.shrink_to(KEPT * size_of::<Message>());
        self.in_rewritten = false;
    }
}
