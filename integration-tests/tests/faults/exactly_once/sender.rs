//! A publisher at QoS 2 that keeps to the standard, and remembers what is not over (MQTT 5 §4.3.3, §4.4).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use linkspan_integration_tests::mqtt_wire::{V5, publish};

use super::link::Link;

/// So many messages are under way at a time; few, so that packet identifiers are soon used again.
const WINDOW: usize = 8;

/// One publisher, over all lives of the server.
#[derive(Debug)]
pub struct Sender {
    pub name: &'static str,
    pub version: u8,
    /// The number of the next message.
    pub next: u64,
    open: VecDeque<Open>,
    began: bool,
}

#[derive(Debug)]
struct Open {
    id: u16,
    number: u64,
    /// Its PUBREC has come.
    released: bool,
}

impl Sender {
    pub const fn new(name: &'static str, version: u8) -> Self {
        Self { name, version, next: 0, open: VecDeque::new(), began: false }
    }

    /// Publishes until the connection ends, or everything is over when nothing more is `wanted`.
    pub async fn work(&mut self, door: SocketAddr, wanted: bool) -> io::Result<()> {
        let (mut link, present) = Link::connect(door, self.version, self.name).await?;
        assert!(present || !self.began, "{}: its session is gone", self.name);
        self.began = true;
        for open in &self.open {
            match open.released {
                true => link.acknowledge(0x62, open.id).await?,
                false => self.publish(&mut link, 8, open).await?,
            }
        }
        loop {
            while wanted && self.open.len() < WINDOW {
                let taken = |id: u16| self.open.iter().any(|open| open.id == id);
                let id = (1..).find(|id| !taken(*id)).expect("a free identifier");
                self.open.push_back(Open { id, number: self.next, released: false });
                self.next += 1;
                self.publish(&mut link, 0, self.open.back().expect("it was pushed")).await?;
            }
            if self.open.is_empty() {
                return Ok(());
            }
            let (first, body) = link.next().await?;
            let id = u16::from_be_bytes([body[0], body[1]]);
            let reason = body.get(2).copied().unwrap_or_default();
            let place = self.open.iter().position(|open| open.id == id);
            match (first, place) {
                (0x50, Some(place)) => {
                    assert!(reason < 0x80, "{}: PUBREC {reason:#x}", self.name);
                    self.open[place].released = true;
                    link.acknowledge(0x62, id).await?;
                }
                (0x70, Some(place)) if self.open[place].released => drop(self.open.remove(place)),
                _ => panic!("{}: unexpected {first:#x} for {id} with {:?} open", self.name, self.open),
            }
        }
    }

    async fn publish(&self, link: &mut Link, dup: u8, open: &Open) -> io::Result<()> {
        let id = open.id.to_be_bytes();
        let properties: &[u8] = if self.version == V5 { &[0] } else { &[] };
        let rest = [&id, properties, open.number.to_string().as_bytes()].concat();
        link.send(&publish(4 | dup, &format!("once/{}", self.name), &rest)).await
    }
}
