//! The MQTT codec's own path for messages allocates nothing: neither to read a message nor to write it into a buffer that
//! is large enough.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    num::{NonZeroU16, NonZeroU32},
};

use linkspan::protocol::mqtt::{
    AckKind, Framing, Packet, PublishEncoder, Publishes, Qos, Sender, UserProperties, Version,
};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to the system's allocator as it came, so its guarantees are System's. The counter is a
// constant without destructor, so counting neither allocates nor fails while a thread ends.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps alloc's contract, which is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from System through alloc or realloc here, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the pointer came from System through alloc or realloc here, with this layout.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MESSAGES: u16 = 1000;
const LIMIT: u32 = 1 << 20;

/// How often `act` allocates.
fn allocations(act: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    act();
    ALLOCATIONS.get() - before
}

fn expiring_with_user_properties() -> Vec<u8> {
    let mut list = vec![0x02, 0, 0, 0x0E, 0x10];
    for name in ["unit", "site", "trace-id"] {
        UserProperties::append(&mut list, name, "rotterdam-3").expect("a short value");
    }
    list
}

#[test]
fn a_message_that_passes_allocates_nothing() {
    let list = expiring_with_user_properties();
    for (version, properties) in [(Version::V311, &[][..]), (Version::V5, &[]), (Version::V5, &list)] {
        let mut received = Vec::new();
        for id in 1..=MESSAGES {
            let head = PublishEncoder {
                qos: Qos::AtLeastOnce,
                packet_id: NonZeroU16::new(id),
                properties,
                ..PublishEncoder::new(version)
            };
            head.encode(&mut received, "sensors/7/température".as_bytes(), &[7; 16])
                .expect("a small message");
        }
        let identifiers = [NonZeroU32::MIN];
        let mut out = Vec::with_capacity(2 * received.len());
        let mut passed = 0;
        let count = allocations(|| {
            for publish in Publishes::new(&received, version, Sender::Client, LIMIT) {
                let publish = publish.expect("a good message");
                let head = PublishEncoder {
                    qos: publish.qos,
                    packet_id: publish.packet_id,
                    properties: publish.properties.of(&received),
                    properties_are_plain: publish.has_plain_properties(),
                    message_expiry_interval: publish.message_expiry_interval.map(|seconds| seconds - 1),
                    subscription_identifiers: &identifiers,
                    ..PublishEncoder::new(version)
                };
                let (topic, payload) = (publish.topic.of(&received), publish.payload.of(&received));
                head.encode(&mut out, topic, payload).expect("a small message");
                passed += 1;
            }
        });
        assert_eq!(passed, MESSAGES);
        assert_eq!(count, 0, "{version:?} allocated {count} times for {MESSAGES} messages");
    }
}

#[test]
fn a_receipt_allocates_nothing() {
    let mut out = Vec::with_capacity(4 * usize::from(MESSAGES));
    let count = allocations(|| {
        for id in (1..=MESSAGES).filter_map(NonZeroU16::new) {
            out.extend_from_slice(&AckKind::Puback.success(id));
        }
        let mut rest = &out[..];
        while let Framing::Complete(frame) = Framing::read(rest, LIMIT).expect("a good packet") {
            let packet = Packet::decode(&frame, Version::V5, Sender::Client).expect("a good packet");
            assert!(matches!(packet, Packet::Puback(_)));
            rest = &rest[frame.wire.len()..];
        }
    });
    assert_eq!(count, 0, "{MESSAGES} receipts allocated {count} times");
}

#[test]
fn a_message_costs_the_outbound_buffer_one_growth_at_most() {
    let mut out = Vec::new();
    let count = allocations(|| {
        PublishEncoder::new(Version::V5).encode(&mut out, b"a/b", &[0; 1000]).expect("a small message");
    });
    assert_eq!((count, out.capacity()), (1, out.len()), "room is made once, for all parts together");
}
