//! Bytes without sense, and announcements that nothing follows.

use linkspan_integration_tests::amqp_wire::{AmqpWire, HEADER, content_header, method, short};
use linkspan_integration_tests::mqtt_wire::{MqttWire, V3, V5};
use linkspan_integration_tests::wire::Wire;
use linkspan_integration_tests::{Server, within};

use crate::LULL;
use crate::bystander::Bystander;

/// Connections with random bytes, to each door.
const THROWS: u64 = 200;

/// SplitMix64: the same numbers each time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let count = self.next() % 600;
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Bytes that begin as packets of MQTT do, so that the decoder gets further than the first byte.
fn likely_packet(dice: &mut Dice) -> Vec<u8> {
    let body = dice.bytes();
    let first = [0x30, 0x32, 0x34, 0x3b, 0x40, 0x62, 0x82, 0xa2, 0xc0, 0xe0, 0xf0][dice.next() as usize % 11];
    linkspan_integration_tests::mqtt_wire::packet(first, &body)
}

/// Bytes that begin as frames of AMQP do.
fn likely_frame(dice: &mut Dice) -> Vec<u8> {
    let mut payload = dice.bytes();
    if payload.len() > 4 {
        let class = [10, 20, 40, 50, 60, 85, 90][dice.next() as usize % 7];
        payload[..4].copy_from_slice(&[0, class, 0, (dice.next() % 120) as u8]);
    }
    linkspan_integration_tests::amqp_wire::frame(
        1 + (dice.next() % 3) as u8,
        (dice.next() % 3) as u16,
        &payload,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_harm_nobody() {
    let server = Server::start("").await;
    let bystander = Bystander::of(&server).await;
    let mut dice = Dice(20_240_229);
    for throw in 0..THROWS {
        let (mut mqtt, mut amqp) = if throw % 2 == 0 {
            let mut amqp = Wire::to(server.amqp()).await;
            amqp.send(&HEADER[..(throw % 9) as usize]).await;
            (Wire::to(server.mqtt()).await, amqp)
        } else {
            let level = if throw % 4 == 1 { V3 } else { V5 };
            (
                MqttWire::connect(server.mqtt(), level, "dice").await.wire,
                AmqpWire::open(server.amqp()).await.wire,
            )
        };
        for _ in 0..3 {
            let (packet, frame) = match throw % 3 {
                0 => (dice.bytes(), dice.bytes()),
                _ => (likely_packet(&mut dice), likely_frame(&mut dice)),
            };
            mqtt.send(&packet).await;
            amqp.send(&frame).await;
        }
        mqtt.finish().await;
        amqp.finish().await;
        mqtt.rest().await;
        amqp.rest().await;
    }
    MqttWire::connect(server.mqtt(), V5, "after").await.ping().await;
    AmqpWire::open(server.amqp()).await;
    bystander.noticed_nothing().await;
    server.stop().await;
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[tokio::test]
async fn what_is_announced_and_does_not_come_takes_no_memory() {
    let server = Server::start("").await;
    let bystander = Bystander::of(&server).await;
    let before = resident();
    let mut mqtt = Vec::new();
    let mut amqp = Vec::new();
    for n in 0..50 {
        let mut client = MqttWire::connect(server.mqtt(), V5, &format!("liar-{n}")).await;
        // A PUBLISH of 16 MiB less some bytes: allowed.
        client.send(&[0x30, 0xf0, 0xff, 0xff, 0x07, 0, 1, b'a']).await;
        mqtt.push(client);
        let mut client = AmqpWire::open(server.amqp()).await;
        let publish = method(1, 60, 40, &[&[0, 0][..], &short(""), &short("q"), &[0]].concat());
        client.send(&[publish, content_header(1, 16 << 20), vec![3, 0, 1, 0, 1, 0, 0, b'x']].concat()).await;
        amqp.push(client);
    }
    for client in &mut mqtt {
        assert!(within(LULL / 10, client.next()).await.is_none(), "the server waits for the rest");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "100 announcements of 16 MiB took {} MiB", grown >> 20);
    bystander.noticed_nothing().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let limits = "[doors.mqtt]\nmax-connections = 2\n[doors.amqp]\nmax-connections = 1\n";
    let server = Server::start(limits).await;
    let mut one = MqttWire::connect(server.mqtt(), V3, "one").await;
    let other = MqttWire::connect(server.mqtt(), V3, "other").await;
    assert_eq!(Wire::to(server.mqtt()).await.rest().await, b"");
    let open = AmqpWire::open(server.amqp()).await;
    assert_eq!(Wire::to(server.amqp()).await.rest().await, b"");
    one.ping().await;
    drop((other, open));
    linkspan_integration_tests::soon("a place is free again", async {
        loop {
            let mut wire = Wire::to(server.amqp()).await;
            wire.send(HEADER).await;
            wire.finish().await;
            if !wire.rest().await.is_empty() {
                return;
            }
        }
    })
    .await;
}
