//! The disk fails in the middle of exchanges: nothing is acknowledged that is not written, and nothing comes twice or is lost,
//! whether the disk takes writes again or the server begins anew.

use super::*;

/// One message comes from a client that publishes and goes to one that subscribes, and so does a second one.
struct Exchange {
    house: House,
    sender: Link,
    device: Link,
}

impl Exchange {
    /// `a` is behind PUBREC on both sides, `b` on the publisher's alone; then the disk fails, and everybody goes on.
    async fn parted(version: u8) -> Self {
        let folder = Folder::new();
        let process = Process::start_on_a_poor_disk(folder.path(), &[]);
        let house = House::with(folder, process);
        let mut device = house.enter(version, "device").await;
        device.subscribe("t").await.expect("it is subscribed");
        let mut sender = house.enter(version, "sender").await;
        for (own, theirs, payload) in [(7, 1, "a"), (8, 2, "b")] {
            sender.publish_once(0, own, payload).await;
            sender.told(0x50, own).await;
            device.given(0x34, theirs, payload).await;
        }
        device.say(0x50, 1).await;
        device.told(0x62, 1).await;
        device.quiet().await;
        house.process.disk_fails(true);
        let mut this = Self { house, sender, device };
        this.go_on().await;
        this
    }

    /// What both say is not answered, for it is not written.
    async fn go_on(&mut self) {
        self.sender.say(0x62, 7).await;
        self.sender.quiet().await;
        self.device.say(0x70, 1).await;
        self.device.say(0x50, 2).await;
        self.device.quiet().await;
    }
}

#[tokio::test]
async fn an_exchange_that_the_disk_stops_goes_on_when_it_takes_writes_again() {
    for version in [V3, V5] {
        let Exchange { mut house, mut sender, mut device } = Exchange::parted(version).await;
        if version == V5 {
            // 3.1.1 has no word for it.
            sender.publish_once(0, 9, "refused").await;
            let (first, body) = sender.packet().await;
            assert_eq!((first, &body[..3]), (0x50, &[0, 9, 0x97][..]), "quota exceeded");
            device.quiet().await;
        }
        house.process.disk_fails(false);
        sender.told(0x70, 7).await;
        device.told(0x62, 2).await;
        device.say(0x70, 2).await;
        device.quiet().await;
        // The identifiers of what is over, and of what was refused, are others' now.
        for (own, theirs, payload) in [(7, 3, "c"), (9, 4, "d")] {
            sender.publish_once(0, own, payload).await;
            sender.told(0x50, own).await;
            device.given(0x34, theirs, payload).await;
        }
        house = house.again();
        let mut sender = house.resume(version, "sender").await;
        let mut device = house.resume(version, "device").await;
        for (theirs, payload) in [(3, "c"), (4, "d")] {
            device.given(0x3c, theirs, payload).await;
        }
        for (own, payload) in [(7, "c"), (8, "b"), (9, "d")] {
            sender.publish_once(8, own, payload).await;
            sender.told(0x50, own).await;
        }
        device.quiet().await;
        house.process.kill();
    }
}

#[tokio::test]
async fn an_exchange_that_the_disk_stops_goes_on_in_the_next_life_of_the_server() {
    for version in [V3, V5] {
        let Exchange { house, .. } = Exchange::parted(version).await;
        let house = house.again();
        let mut device = house.resume(version, "device").await;
        // Nobody has heard that it is completed, nor that the other one is there.
        device.told(0x62, 1).await;
        device.given(0x3c, 2, "b").await;
        let mut sender = house.resume(version, "sender").await;
        sender.say(0x62, 7).await;
        sender.told(0x70, 7).await;
        sender.publish_once(8, 8, "b").await;
        sender.told(0x50, 8).await;
        sender.say(0x62, 8).await;
        sender.told(0x70, 8).await;
        device.say(0x70, 1).await;
        device.say(0x50, 2).await;
        device.told(0x62, 2).await;
        device.say(0x70, 2).await;
        device.quiet().await;
        sender.publish_once(0, 7, "c").await;
        sender.told(0x50, 7).await;
        device.takes("c").await;
        house.process.kill();
    }
}
