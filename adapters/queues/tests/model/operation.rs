//! What can be done to a queue, at random.

use linkspan_contract::{Retry, Settle, Settlement};
use linkspan_queues::{Limits, Overflow, Window};
use proptest::option;
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Push {
        priority: u8,
        size: u64,
        expiry: Option<u64>,
        delay: u64,
        durable: bool,
    },
    Dispatch,
    Direct {
        count: u32,
        durable: bool,
    },
    Settle {
        holder: usize,
        first: u64,
        count: u32,
        outcome: Settlement,
    },
    Fetch {
        lane: u64,
        settled: bool,
    },
    Add {
        lane: u64,
        priority: i32,
        exclusive: bool,
        settle: Settle,
        credit: Option<usize>,
        ack_timeout: Option<u64>,
        start: bool,
    },
    Pause {
        consumer: usize,
        paused: bool,
    },
    Remove {
        consumer: usize,
    },
    ReleaseLane {
        lane: u64,
    },
    Recover {
        lane: u64,
    },
    Redeliver {
        holder: usize,
    },
    TakeBack {
        count: usize,
    },
    Grant {
        credit: usize,
        count: u32,
    },
    Window {
        credit: usize,
        limit: u32,
    },
    Pass {
        millis: u64,
    },
    Tick,
    Purge,
    Touch,
    /// Another window in memory, where there is one; what is more is paged out.
    Shrink {
        messages: u64,
        bytes: u64,
    },
}

fn settlement() -> impl Strategy<Value = Settlement> {
    prop_oneof![
        6 => Just(Settlement::Accept),
        1 => Just(Settlement::Reject(None)),
        2 => Just(Settlement::Release { delay: 0 }),
        1 => Just(Settlement::Undo),
        1 => (1..40u64).prop_map(|delay| Settlement::Release { delay }),
        1 => (0..50u64).prop_map(Settlement::Extend),
    ]
}

fn settle() -> impl Strategy<Value = Settle> {
    prop_oneof![
        3 => Just(Settle::ByConsumer),
        1 => Just(Settle::OnDelivery),
        1 => Just(Settle::AsPublished),
    ]
}

fn add() -> impl Strategy<Value = Operation> {
    let who = (0..3u64, prop_oneof![4 => Just(0), 1 => -1..3i32], prop::bool::weighted(0.05), settle());
    let how = (option::weighted(0.8, 0..5usize), option::of(5..60u64), prop::bool::weighted(0.9));
    (who, how).prop_map(|((lane, priority, exclusive, settle), (credit, ack_timeout, start))| {
        Operation::Add { lane, priority, exclusive, settle, credit, ack_timeout, start }
    })
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let expiry = prop_oneof![4 => Just(None), 1 => Just(Some(0)), 2 => (1..60u64).prop_map(Some)];
    let delay = prop_oneof![5 => Just(0), 1 => 1..60u64];
    prop_oneof![
        16 => (0..6u8, 0..40u64, expiry, delay, any::<bool>()).prop_map(|(priority, size, expiry, delay, durable)| {
            Operation::Push { priority, size, expiry, delay, durable }
        }),
        10 => Just(Operation::Dispatch),
        2 => (0..6u32, any::<bool>()).prop_map(|(count, durable)| Operation::Direct { count, durable }),
        12 => (0..8usize, 0..12u64, 0..6u32, settlement())
            .prop_map(|(holder, first, count, outcome)| Operation::Settle { holder, first, count, outcome }),
        2 => (0..3u64, any::<bool>()).prop_map(|(lane, settled)| Operation::Fetch { lane, settled }),
        4 => add(),
        2 => (0..4usize, any::<bool>()).prop_map(|(consumer, paused)| Operation::Pause { consumer, paused }),
        1 => (0..4usize).prop_map(|consumer| Operation::Remove { consumer }),
        1 => (0..3u64).prop_map(|lane| Operation::ReleaseLane { lane }),
        1 => (0..3u64).prop_map(|lane| Operation::Recover { lane }),
        1 => (0..8usize).prop_map(|holder| Operation::Redeliver { holder }),
        1 => (1..4usize).prop_map(|count| Operation::TakeBack { count }),
        6 => (0..5usize, 1..5u32).prop_map(|(credit, count)| Operation::Grant { credit, count }),
        1 => (0..5usize, 0..6u32).prop_map(|(credit, limit)| Operation::Window { credit, limit }),
        5 => (0..20u64).prop_map(|millis| Operation::Pass { millis }),
        4 => Just(Operation::Tick),
        2 => (1..5u64, 1..200u64).prop_map(|(messages, bytes)| Operation::Shrink { messages, bytes }),
        1 => prop::bool::weighted(0.2).prop_map(|purge| if purge { Operation::Purge } else { Operation::Touch }),
    ]
}

pub(crate) fn limits() -> impl Strategy<Value = Limits> {
    let overflow =
        prop_oneof![Just(Overflow::DropHead), Just(Overflow::Reject), Just(Overflow::RejectDeadLetter)];
    let room = (option::weighted(0.3, 0..8u64), option::weighted(0.2, 0..150u64), overflow);
    let time =
        (option::weighted(0.2, 0..60u64), option::weighted(0.3, 1..80u64), option::weighted(0.3, 5..60u64));
    let retry = option::weighted(0.3, (0..30u64, 100..300u32, 0..60u64))
        .prop_map(|retry| retry.map(|(delay, factor, max)| Retry { delay, factor, max }));
    let rest =
        (prop_oneof![Just(0u8), Just(4u8)], option::weighted(0.3, 0..3u32), prop::bool::weighted(0.2), retry);
    let window = (1..5u64, 1..200u64).prop_map(|(messages, bytes)| Window { messages, bytes });
    (room, time, rest, option::weighted(0.4, window)).prop_map(
        |(
            (max_length, max_bytes, overflow),
            (message_ttl, expires, ack_timeout),
            (max_priority, delivery_limit, single_active, retry),
            window,
        )| Limits {
            max_length,
            max_bytes,
            max_delayed_bytes: None,
            overflow,
            message_ttl,
            max_priority,
            delivery_limit,
            retry,
            weighted: false,
            keyed: false,
            single_active,
            expires,
            ack_timeout,
            window,
        },
    )
}
