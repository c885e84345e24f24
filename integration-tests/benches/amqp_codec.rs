//! What the AMQP codec costs a message: a publish of 16 bytes is recognised in the read buffer, its properties are
//! scanned, and it is written as a delivery. The time is per message; that none of them allocates is asserted first.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use linkspan::protocol::amqp::{
    Address, Content, Delivery, Limits, Method, Properties, Publish, ShortBytes, Summary, basic,
    frame::{self, Decoded},
    properties::NONE,
};

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed on to the system's allocator as it came, so its guarantees are System's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps alloc's contract, which is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from System through alloc or realloc above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the pointer came from System through alloc or realloc above, with this layout.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMITS: Limits = Limits { frame_max: 131_072, body_max: 1 << 27 };

/// Messages of one read: about 128 KiB.
const BATCH: usize = 1500;

/// A read buffer full of publishes.
fn publishes(properties: &[u8], body: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::new();
    let publish = basic::Publish {
        exchange: ShortBytes::new(b"amq.topic").unwrap_or_default(),
        routing_key: ShortBytes::new(b"sensors.7.temp").unwrap_or_default(),
        mandatory: false,
        immediate: false,
    };
    for _ in 0..BATCH {
        publish.encode(1, &mut buffer);
        Content { properties, body }.encode(1, LIMITS.frame_max, &mut buffer);
    }
    buffer
}

/// All messages of `received` as deliveries in `out`; the number of messages.
fn forward(received: &[u8], out: &mut Vec<u8>) -> u64 {
    out.clear();
    let consumer_tag = ShortBytes::new(b"ctag1.4711").unwrap_or_default();
    let (mut at, mut count) = (0, 0);
    while let Some(publish) = Publish::recognise(received, at, &LIMITS) {
        at = publish.wire.end();
        count += 1;
        let (address, properties, body) =
            (publish.address.of(received), publish.properties.of(received), publish.body.of(received));
        let (Some(address), Some(properties), Some(body)) =
            (address.and_then(Address::new), properties, body)
        else {
            break;
        };
        if black_box(Summary::scan(properties)).is_err() {
            break;
        }
        let delivery =
            Delivery { channel: 2, consumer_tag, delivery_tag: count, redelivered: false, address };
        delivery.encode(&Content { properties, body }, LIMITS.frame_max, out);
    }
    count
}

/// All acks of `received`, read the general way; the highest tag.
fn acks(received: &[u8]) -> u64 {
    let (mut at, mut highest) = (0, 0);
    while let Ok(Decoded::Frame(frame)) = frame::decode(received, at, &LIMITS) {
        at = frame.wire.end();
        let Ok(Method::Basic(basic::Basic::Ack(ack))) = Method::decode(frame.payload) else { break };
        highest = ack.delivery_tag;
    }
    highest
}

fn bench(criterion: &mut Criterion) {
    let mut persistent = Vec::new();
    let properties = Properties {
        content_type: ShortBytes::new(b"application/octet-stream").ok(),
        delivery_mode: Some(2),
        ..Properties::default()
    };
    properties.encode(&mut persistent);

    let mut group = criterion.benchmark_group("amqp");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, properties, len) in [
        ("publish_to_deliver/16", &NONE[..], 16),
        ("publish_to_deliver/16_persistent", &persistent, 16),
        ("publish_to_deliver/1024", &NONE, 1024),
    ] {
        let received = publishes(properties, &vec![7; len]);
        let mut out = Vec::new();
        assert_eq!(forward(&received, &mut out), BATCH as u64, "all messages are recognised");

        let before = ALLOCATIONS.load(Ordering::Relaxed);
        forward(&received, &mut out);
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(allocations, 0, "{BATCH} messages into a buffer that is large enough allocate nothing");

        group.bench_function(name, |bencher| bencher.iter(|| forward(black_box(&received), &mut out)));
    }

    let mut received = Vec::new();
    for delivery_tag in 1..=BATCH as u64 {
        basic::Ack { delivery_tag, multiple: false }.encode(1, &mut received);
    }
    assert_eq!(acks(&received), BATCH as u64, "all acks are read");
    group.bench_function("ack", |bencher| bencher.iter(|| acks(black_box(&received))));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
