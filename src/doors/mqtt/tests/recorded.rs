//! Sessions in the ledger: what of them is there after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use linkspan_contract::ledger::{Conditions, Entry, Version};
use linkspan_contract::{
    BackendError, Clock, Fence, Health, Lease, Leases, Ledger, LedgerError, Millis, NotGranted, Outcome,
    Receipt, Refused, What,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::broker::Broker;
use super::client::{House, Wire, connect_with, publish5, until};
use crate::ledger::EmbeddedLedger;

/// The ledger that Linkspan has when it is alone, which can be away, and a clock that is set.
struct Ledgers {
    folder: TempDir,
    away: AtomicBool,
    now: AtomicU64,
}

struct Opened {
    inner: EmbeddedLedger,
    of: Arc<Ledgers>,
}

impl Ledgers {
    fn new() -> Arc<Self> {
        let now = AtomicU64::new(1_800_000_000_000);
        Arc::new(Self { folder: TempDir::new().unwrap(), away: AtomicBool::new(false), now })
    }

    /// A Linkspan with what is in the file, and an empty back end.
    async fn house(self: &Arc<Self>) -> House {
        self.house_with(|_| ()).await
    }

    /// The same, whose back end is told something before.
    async fn house_with(self: &Arc<Self>, tell: impl FnOnce(&Broker)) -> House {
        let file = self.folder.path().join("ledger.redb");
        let clock: Arc<dyn Clock> = Arc::clone(self) as _;
        let mut tries = 0;
        let inner = loop {
            match EmbeddedLedger::open(&file, "test", Arc::clone(&clock)) {
                Ok(inner) => break inner,
                // What served before lets go of it when its last task has ended.
                Err(_) if tries < 1000 => tries += 1,
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let ledger = Arc::new(Opened { inner, of: Arc::clone(self) });
        let broker = Broker::new();
        tell(&broker);
        House::recorded(broker, ledger, clock).await
    }

    fn away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    fn pass(&self, seconds: u64) {
        self.now.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for Ledgers {
    fn now(&self) -> Millis {
        self.now.load(Ordering::SeqCst)
    }
}

impl Opened {
    fn reach(&self) -> Result<&EmbeddedLedger, LedgerError> {
        match self.of.away.load(Ordering::SeqCst) {
            true => Err(LedgerError::Away("test".into())),
            false => Ok(&self.inner),
        }
    }
}

#[async_trait]
impl Leases for Opened {
    async fn take(&self, name: &str) -> Result<Lease, NotGranted> {
        self.inner.take(name).await
    }

    async fn give_back(&self, name: &str, fence: Fence) {
        self.inner.give_back(name, fence).await;
    }
}

#[async_trait]
impl Ledger for Opened {
    async fn get(&self, key: &str) -> Result<Option<Entry>, LedgerError> {
        self.reach()?.get(key).await
    }

    async fn put(&self, key: &str, value: &[u8], terms: Conditions<'_>) -> Result<Version, LedgerError> {
        self.reach()?.put(key, value, terms).await
    }

    async fn delete(&self, key: &str, terms: Conditions<'_>) -> Result<bool, LedgerError> {
        self.reach()?.delete(key, terms).await
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Box<str>, Entry)>, LedgerError> {
        self.reach()?.scan(prefix, after, limit).await
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }

    async fn advance(&self, name: &str, fence: Fence) -> Result<Lease, NotGranted> {
        self.inner.advance(name, fence).await
    }
}

/// Session expiry interval: an hour.
const HOUR: [u8; 5] = [0x11, 0, 0, 0x0E, 0x10];

fn device(flags: u8, list: &[u8]) -> Vec<u8> {
    connect_with(5, flags, 0, list, &[b"device"])
}

/// Reason code of the CONNACK, and whether there is a session.
async fn come(house: &House, connect: &[u8]) -> (Wire, u8, bool) {
    let mut client = house.client().await;
    client.send(connect).await;
    let packet = client.packet().await;
    assert_eq!(packet[0], 0x20);
    let (present, reason) = (packet[2] == 1, packet[3]);
    (client, reason, present)
}

async fn begun(house: &House) -> Wire {
    let (client, reason, present) = come(house, &device(0, &HOUR)).await;
    assert_eq!((reason, present), (0, false));
    client
}

async fn record(house: &House) -> Option<Value> {
    let ledger = house.ledger.clone().unwrap();
    let entry = ledger.get("session/own/%2F/device").await.unwrap()?;
    Some(serde_json::from_slice(&entry.value).unwrap())
}

/// Waits until the record is as it is to be.
async fn wait_until_written(house: &House, done: impl Fn(&Option<Value>) -> bool) {
    for _ in 0..5000 {
        if done(&record(house).await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the record stays {:?}", record(house).await);
}

#[tokio::test]
async fn the_record_is_written_before_the_client_is_told() {
    let ledgers = Ledgers::new();
    let house = ledgers.house().await;
    let mut client = begun(&house).await;
    assert_eq!(record(&house).await.unwrap()["subscriptions"], json!([]));
    client.subscribe5("a/+", 2, &[0x0B, 7]).await;
    client.subscribe5("b", 0b1101, &[]).await;
    let expected = json!([
        {"filter": "a/+", "number": 0, "qos": 2, "identifier": 7},
        {"filter": "b", "number": 1, "qos": 1, "no-local": true, "retain-as-published": true},
    ]);
    let written = record(&house).await.unwrap();
    assert_eq!((&written["subscriptions"], &written["ends"]), (&expected, &Value::Null));
    client.send(b"\xA2\x08\0\x09\0\0\x03a/+").await;
    client.expect(&[0xB0, 4, 0, 9, 0, 0]).await;
    let written = record(&house).await.unwrap();
    assert_eq!((written["subscriptions"][0]["filter"].as_str(), &written["next"]), (Some("b"), &json!(2)));
    drop(client);
    let ends = json!(ledgers.now() + 3_600_000);
    wait_until_written(&house, |record| record.as_ref().unwrap()["ends"] == ends).await;
    let (mut client, _, present) = come(&house, &device(0, &HOUR)).await;
    assert!(present);
    assert_eq!(record(&house).await.unwrap()["ends"], Value::Null);
    client.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    client.closed().await;
    wait_until_written(&house, Option::is_none).await;
}

#[tokio::test]
async fn a_session_is_there_after_a_restart_and_its_subscriptions_give() {
    let ledgers = Ledgers::new();
    let house = ledgers.house().await;
    let mut client = begun(&house).await;
    client.subscribe5("t", 2, &[0x0B, 7]).await;
    client.subscribe5("$queue/jobs", 1, &[]).await;
    house.stopped().await;
    ledgers.pass(3000);
    let house = ledgers.house().await;
    assert_eq!(
        house.broker.subscribed(),
        ["Filter(\"t\") AsPublished true", "Queue(\"jobs\") AsPublished true"],
        "before clients are let in"
    );
    let mut publisher = house.v5("publisher").await;
    publisher.send(&publish5(0x34, "t", Some(1), &[], b"meanwhile")).await;
    publisher.expect(&[0x50, 2, 0, 1]).await;
    let (mut client, _, present) = come(&house, &device(0, &HOUR)).await;
    assert!(present, "[MQTT-3.2.2-3]");
    client.expect(&publish5(0x34, "t", Some(1), &[0x0B, 7], b"meanwhile")).await;
    // A filter that is subscribed to again is the same subscription.
    client.subscribe5("t", 1, &[]).await;
    assert_eq!(house.broker.subscriptions(), 2);
}

#[tokio::test]
async fn a_session_whose_time_is_over_meanwhile_is_not_there_any_more() {
    let ledgers = Ledgers::new();
    let house = ledgers.house().await;
    let mut client = begun(&house).await;
    client.subscribe5("t", 1, &[]).await;
    house.stopped().await;
    ledgers.pass(3601);
    let house = ledgers.house().await;
    assert!(record(&house).await.is_none());
    // It was made again so that its end reaches all who have something of it.
    assert_eq!((house.broker.subscriptions(), house.broker.closed()), (0, vec!["device".into()]));
    assert!(!come(&house, &device(0, &HOUR)).await.2);
}

#[tokio::test]
async fn a_clean_start_is_clean_after_a_restart_too() {
    let ledgers = Ledgers::new();
    let house = ledgers.house().await;
    let mut client = begun(&house).await;
    client.subscribe5("t", 1, &[]).await;
    drop(client);
    let (mut client, reason, _) = come(&house, &device(0b10, &[])).await;
    assert_eq!(reason, 0);
    client.ping().await;
    assert!(record(&house).await.is_none(), "before the CONNACK");
    house.stopped().await;
    let house = ledgers.house().await;
    assert!(house.broker.subscribed().is_empty());
}

/// The ledger's thread knows no other time than the real one.
async fn pass_at_once(seconds: u64) {
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_will_that_waits_survives_a_restart() {
    let ledgers = Ledgers::new();
    let house = ledgers.house().await;
    let will = [&[5, 0x18, 0, 0, 0, 60][..], b"\0\x01w\0\x04gone"].concat();
    let mut connect = device(0b100, &HOUR);
    connect.extend(&will);
    connect[1] += u8::try_from(will.len()).unwrap();
    let (client, reason, _) = come(&house, &connect).await;
    assert_eq!(reason, 0);
    assert_eq!(record(&house).await.unwrap()["will"]["delay"], json!(60), "for when Linkspan dies");
    house.stopped().await;
    drop(client);
    let house = ledgers.house().await;
    pass_at_once(50).await;
    assert!(house.broker.payloads().is_empty());
    pass_at_once(11).await;
    until("the will is published", || house.broker.payloads() == ["gone"]).await;
    wait_until_written(&house, |record| record.as_ref().unwrap()["will"] == Value::Null).await;
    house.stopped().await;
    let house = ledgers.house().await;
    pass_at_once(100).await;
    assert!(house.broker.payloads().is_empty(), "once");
}

#[tokio::test]
async fn without_the_ledger_only_clean_sessions_begin() {
    let ledgers = Ledgers::new();
    let house = ledgers.house().await;
    let mut client = begun(&house).await;
    client.subscribe5("a", 1, &[]).await;
    ledgers.away(true);
    let (_, reason, present) = come(&house, &connect_with(5, 0, 0, &HOUR, &[b"another"])).await;
    assert_eq!((reason, present), (0x88, false));
    let mut old = house.client().await;
    old.send(&connect_with(4, 0, 0, &[], &[b"old"])).await;
    old.expect(&[0x20, 2, 0, 3]).await;
    old.closed().await;
    house.v5("clean").await.ping().await;
    // What cannot be promised is not acknowledged.
    client.send(b"\x82\x07\0\x01\0\0\x01b\x01").await;
    client.disconnected(0x89).await;
    assert_eq!(come(&house, &device(0, &HOUR)).await.1, 0x88);
    ledgers.away(false);
    let (mut client, reason, present) = come(&house, &device(0, &HOUR)).await;
    assert_eq!((reason, present), (0, true));
    client.subscribe5("b", 1, &[]).await;
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_at_the_start_is_read_before_anybody_begins_anew() {
    let ledgers = Ledgers::new();
    let house = ledgers.house().await;
    let mut client = begun(&house).await;
    client.subscribe5("t", 1, &[]).await;
    house.stopped().await;
    ledgers.away(true);
    let house = ledgers.house().await;
    assert_eq!(come(&house, &device(0, &HOUR)).await.1, 0x88);
    assert_eq!(come(&house, &device(0, &[])).await.1, 0x88, "it wants the session that it has");
    ledgers.away(false);
    assert_eq!(come(&house, &device(0, &HOUR)).await.1, 0x88, "it would lose the session that it has");
    assert!(house.broker.clients().is_empty(), "a back end would throw away what waits in it");
    house.v5("clean").await.ping().await;
    pass_at_once(6).await;
    until("the ledger is read", || house.broker.subscriptions() == 1).await;
    // The door is told only when all was read.
    let mut present = false;
    for _ in 0..100 {
        let (_, reason, found) = come(&house, &device(0, &HOUR)).await;
        present = found;
        if reason == 0 {
            break;
        }
    }
    assert!(present);
}

#[tokio::test]
async fn a_session_that_the_back_end_cannot_make_at_the_start_is_made_when_its_client_comes() {
    let ledgers = Ledgers::new();
    let house = ledgers.house().await;
    let mut client = begun(&house).await;
    client.subscribe5("t", 1, &[]).await;
    house.stopped().await;
    let house = ledgers.house_with(|broker| {
        broker.refuse_clients(Some(BackendError::Away { name: "test".into(), why: "gone".into() }));
    });
    let house = house.await;
    assert_eq!(come(&house, &device(0, &HOUR)).await.1, 0x88);
    house.broker.refuse_clients(None);
    let (_, reason, present) = come(&house, &device(0, &HOUR)).await;
    assert_eq!((reason, present), (0, true));
    assert_eq!(house.broker.subscriptions(), 1);
    house.stopped().await;
    // A refusal may pass.
    let house = ledgers.house_with(|broker| {
        broker.refuse_subscriptions(Some(Refused::AccessRefused("no".into())));
    });
    let house = house.await;
    assert_eq!(come(&house, &device(0, &HOUR)).await.1, 0x88);
    house.broker.refuse_subscriptions(None);
    assert!(come(&house, &device(0, &HOUR)).await.2);
    house.stopped().await;
    // One that there cannot be any more is over.
    let house = ledgers.house_with(|broker| {
        let gone = Refused::NotFound { what: What::Queue, name: "t".into() };
        broker.refuse_subscriptions(Some(gone));
    });
    let house = house.await;
    house.broker.refuse_subscriptions(None);
    assert!(!come(&house, &device(0, &HOUR)).await.2);
}

#[tokio::test]
async fn a_clean_start_ends_the_session_that_was_not_read_yet_and_a_refused_one_does_not() {
    let ledgers = Ledgers::new();
    let house = ledgers.house().await;
    let mut client = begun(&house).await;
    client.subscribe5("t", 1, &[]).await;
    house.stopped().await;
    ledgers.away(true);
    let house = ledgers.house().await;
    // It has its identifier while the sessions are read, and is refused.
    house.broker.stall(true);
    let mut refused = house.client().await;
    refused.send(&device(0b10, &[])).await;
    until("the back end is asked", || house.broker.waiting() == 1).await;
    ledgers.away(false);
    until("the ledger is read", || house.alarms.raised().is_empty()).await;
    house.broker.refuse_clients(Some(BackendError::Away { name: "test".into(), why: "gone".into() }));
    house.broker.stall(false);
    assert_eq!(refused.packet().await[3], 0x88);
    house.broker.refuse_clients(None);
    assert!(come(&house, &device(0, &HOUR)).await.2, "it is still there");
    house.stopped().await;
    ledgers.away(true);
    let house = ledgers.house().await;
    let (mut clean, reason, _) = come(&house, &device(0b10, &[])).await;
    assert_eq!(reason, 0);
    ledgers.away(false);
    until("the ledger is read", || house.alarms.raised().is_empty()).await;
    wait_until_written(&house, Option::is_none).await;
    clean.ping().await;
}

#[tokio::test]
async fn a_will_stays_written_down_until_it_is_safe_where_it_was_published() {
    let ledgers = Ledgers::new();
    let house = ledgers.house().await;
    let will = b"\0\0\x01w\0\x04gone";
    // At QoS 1.
    let mut connect = device(0b1100, &HOUR);
    connect.extend(will);
    connect[1] += u8::try_from(will.len()).unwrap();
    house.broker.hold_receipts();
    let (client, reason, _) = come(&house, &connect).await;
    assert_eq!(reason, 0);
    drop(client);
    let is_away = |record: &Option<Value>| record.as_ref().unwrap()["ends"] != Value::Null;
    wait_until_written(&house, is_away).await;
    assert_eq!(house.broker.payloads(), ["gone"]);
    assert_eq!(record(&house).await.unwrap()["will"]["delay"], json!(0), "it may not be on a disk yet");
    house.broker.receipts(&[Receipt { first: 0, count: 1, outcome: Outcome::Accepted }]);
    wait_until_written(&house, |record| record.as_ref().unwrap()["will"] == Value::Null).await;
    assert_eq!(house.broker.payloads(), ["gone"], "once");
}
