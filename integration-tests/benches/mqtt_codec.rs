//! What the MQTT codec costs a message: a PUBLISH is checked in the read buffer and written to an outbound one. The time
//! is per message. That none of them allocates, `integration-tests/tests/doors/mqtt_codec_allocations.rs` holds.

use std::{hint::black_box, num::NonZeroU16};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use linkspan::protocol::mqtt::{
    AckKind, Framing, Packet, PublishEncoder, Publishes, Qos, Sender, UserProperties, Version,
};

/// Messages of one read: 64 KiB or less of those with 16 bytes.
const BATCH: usize = 1000;
const TOPIC: &[u8] = b"sensors/7/temperature";
const LIMIT: u32 = 1 << 20;

/// A read buffer full of messages.
fn received(version: Version, qos: Qos, properties: &[u8], payload_len: usize) -> Vec<u8> {
    let payload = vec![7; payload_len];
    let mut buffer = Vec::new();
    for id in 1..=BATCH as u16 {
        let encoder = PublishEncoder {
            qos,
            packet_id: NonZeroU16::new(id),
            properties,
            ..PublishEncoder::new(version)
        };
        if let Err(error) = encoder.encode(&mut buffer, TOPIC, &payload) {
            eprintln!("{error}");
        }
    }
    buffer
}

/// All messages of `received`, in `out` as they are delivered; the number of messages.
fn forward(received: &[u8], version: Version, out: &mut Vec<u8>) -> usize {
    out.clear();
    let mut count = 0;
    for publish in Publishes::new(received, version, Sender::Client, LIMIT) {
        let Ok(publish) = publish else { break };
        let encoder = PublishEncoder {
            qos: publish.qos,
            packet_id: publish.packet_id,
            properties: publish.properties.of(received),
            properties_are_plain: publish.has_plain_properties(),
            message_expiry_interval: publish.message_expiry_interval,
            ..PublishEncoder::new(version)
        };
        if encoder.encode(out, publish.topic.of(received), publish.payload.of(received)).is_err() {
            break;
        }
        count += 1;
    }
    count
}

/// All receipts of `received`, each read as a packet.
fn receipts(mut received: &[u8]) -> u32 {
    let mut sum = 0;
    while let Ok(Framing::Complete(frame)) = Framing::read(received, LIMIT) {
        let Ok(Packet::Puback(ack)) = Packet::decode(&frame, Version::V5, Sender::Client) else { break };
        sum += u32::from(ack.packet_id.get());
        received = received.get(frame.wire.len()..).unwrap_or_default();
    }
    sum
}

fn bench(criterion: &mut Criterion) {
    let mut user = Vec::new();
    for (name, value) in [("unit", "celsius"), ("site", "rotterdam-3"), ("trace-id", "4bf92f3577b34da6")] {
        if let Err(error) = UserProperties::append(&mut user, name, value) {
            eprintln!("{error}");
        }
    }
    let expiring = [&[0x02, 0, 0, 0x0E, 0x10][..], &user].concat();

    let mut group = criterion.benchmark_group("mqtt");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, version, qos, properties, len) in [
        ("publish/v311_qos0_16", Version::V311, Qos::AtMostOnce, &[][..], 16),
        ("publish/v311_qos1_16", Version::V311, Qos::AtLeastOnce, &[], 16),
        ("publish/v5_qos0_16", Version::V5, Qos::AtMostOnce, &[], 16),
        ("publish/v5_qos0_16_user_properties", Version::V5, Qos::AtMostOnce, &user, 16),
        ("publish/v5_qos0_16_expiry_and_user_properties", Version::V5, Qos::AtMostOnce, &expiring, 16),
        ("publish/v311_qos0_1024", Version::V311, Qos::AtMostOnce, &[], 1024),
    ] {
        let received = received(version, qos, properties, len);
        let mut out = Vec::new();
        assert_eq!(forward(&received, version, &mut out), BATCH, "all messages are forwarded");
        group.bench_function(name, |bencher| {
            bencher.iter(|| forward(black_box(&received), version, &mut out));
        });
    }

    let acks: Vec<u8> =
        (1..=BATCH as u16).filter_map(NonZeroU16::new).flat_map(|id| AckKind::Puback.success(id)).collect();
    assert_eq!(receipts(&acks), 500_500, "all receipts are read");
    group.bench_function("puback", |bencher| bencher.iter(|| receipts(black_box(&acks))));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
