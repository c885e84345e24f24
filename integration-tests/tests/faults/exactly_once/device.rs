//! A subscriber at QoS 2 that keeps to the standard, and remembers which packet identifiers are not over
//! (MQTT 5 §4.3.3 method A).

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::sleep;

use super::link::Link;

/// One subscriber, over all lives of the server.
#[derive(Debug)]
pub struct Device {
    pub name: &'static str,
    pub version: u8,
    /// What stands behind each packet identifier that is not over.
    received: HashMap<u16, (String, String)>,
    /// The messages of each topic in the order in which they came.
    pub got: HashMap<String, Vec<u64>>,
    began: bool,
}

impl Device {
    pub fn new(name: &'static str, version: u8) -> Self {
        Self { name, version, received: HashMap::new(), got: HashMap::new(), began: false }
    }

    /// How many messages it has.
    pub fn count(&self) -> usize {
        self.got.values().map(Vec::len).sum()
    }

    /// Has a session with a subscription.
    pub async fn begin(&mut self, door: SocketAddr) -> io::Result<()> {
        let (mut link, _) = Link::connect(door, self.version, self.name).await?;
        link.subscribe("once/#").await?;
        self.began = true;
        Ok(())
    }

    /// Takes what is given until the connection ends, or it has as many messages as that and all of them are over. Now and
    /// then it takes its time, so that exchanges are in every state.
    pub async fn work(&mut self, door: SocketAddr, most: usize, dice: impl Fn() -> u64) -> io::Result<()> {
        let (mut link, present) = Link::connect(door, self.version, self.name).await?;
        assert!(present && self.began, "{}: its session is gone", self.name);
        while self.count() < most || !self.received.is_empty() {
            let (first, body) = link.next().await?;
            if dice().is_multiple_of(16) {
                sleep(Duration::from_millis(dice() % 20)).await;
            }
            match first & 0xf0 {
                0x30 => {
                    assert_eq!(first & 0x06, 0x04, "{}: QoS 2", self.name);
                    let (topic, id, payload) = link.publish_in(&body);
                    let is_again = first & 0x08 != 0;
                    match self.received.get(&id) {
                        None => {
                            let number = payload.parse().expect("a number");
                            self.got.entry(topic.clone()).or_default().push(number);
                            self.received.insert(id, (topic, payload));
                        }
                        Some(before) => {
                            let again = (topic, payload);
                            assert_eq!(before, &again, "{}: another message under {id}", self.name);
                            assert!(is_again, "{}: {again:?} comes again without DUP", self.name);
                        }
                    }
                    link.acknowledge(0x50, id).await?;
                }
                0x60 => {
                    let id = u16::from_be_bytes([body[0], body[1]]);
                    self.received.remove(&id);
                    link.acknowledge(0x70, id).await?;
                }
                other => panic!("{}: unexpected {other:#x}", self.name),
            }
        }
        Ok(())
    }
}
