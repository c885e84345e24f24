//! Event streams over HTTP whose clients do not read: they hold nobody, cost little memory, and learn what they missed.

use std::net::SocketAddr;

use linkspan_integration_tests::mqtt_wire::{MqttWire, V3, publish};
use linkspan_integration_tests::process::{Folder, Process};
use linkspan_integration_tests::soon;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::large_bodies::{LIMITS, MEMORY};

/// An event stream that is read when the test says so.
struct Lazy(BufReader<TcpStream>);

impl Lazy {
    async fn watch(door: SocketAddr, filter: &str) -> Self {
        let stream = soon("a connection", TcpStream::connect(door)).await.expect("a connection");
        let mut stream = BufReader::new(stream);
        // Of 1.0, to which the stream is sent as it is.
        let request = format!("GET /v1/subscriptions/{filter} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it is sent");
        let mut watcher = Self(stream);
        assert!(watcher.line().await.contains(" 200 "), "an event stream");
        while !watcher.line().await.is_empty() {}
        watcher
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        soon("a line", self.0.read_line(&mut line)).await.expect("a line");
        assert!(line.ends_with('\n'), "the stream goes on");
        line.trim_end().to_owned()
    }

    /// The next event: its name and data.
    async fn next(&mut self) -> (String, Value) {
        let mut name = String::new();
        loop {
            let line = self.line().await;
            if let Some(event) = line.strip_prefix("event:") {
                name = event.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data:") {
                return (name, serde_json::from_str(data).expect("JSON"));
            }
        }
    }

    /// Reads on until `published` messages have come or were missed, and tells which came.
    async fn catch_up(&mut self, published: u64) -> Vec<u64> {
        let (mut came, mut missed) = (Vec::new(), 0);
        while came.len() as u64 + missed < published {
            let (name, data) = self.next().await;
            match name.as_str() {
                "message" => {
                    let payload = data["payload"].as_str().unwrap_or_else(|| panic!("no text: {data}"));
                    came.push(payload.split(' ').next().and_then(|n| n.parse().ok()).expect("a number"));
                }
                "dropped" => missed += data["count"].as_u64().expect("a count"),
                other => panic!("{other}: {data}"),
            }
        }
        assert_eq!(came.len() as u64 + missed, published);
        came
    }
}

/// Publishes numbers, each in so many bytes, and waits for each PUBACK.
async fn flood(publisher: &mut MqttWire, topic: &str, numbers: std::ops::Range<u64>, bytes: usize) {
    for number in numbers {
        let mut payload = format!("{number} ").into_bytes();
        payload.resize(bytes, b'x');
        publisher.send(&publish(2, topic, &[&[0, 1][..], &payload].concat())).await;
        assert_eq!(publisher.next().await, (0x40, vec![0, 1]), "PUBACK");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_holds_nobody_and_learns_how_much_it_has_missed() {
    let folder = Folder::new();
    let mut process = Process::start(folder.path(), &[]);
    let (web, mqtt) = (process.door("http"), process.door("mqtt"));
    let mut lazy = Lazy::watch(web, "flood").await;
    let mut publisher = MqttWire::connect(mqtt, V3, "publisher").await;
    // A hundred and twenty-five MiB.
    flood(&mut publisher, "flood", 0..2000, 64_000).await;
    let peak = process.peak();
    assert!(peak < MEMORY, "the server has had {} MiB in memory", peak >> 20);
    let came = lazy.catch_up(2000).await;
    assert!(came.len() < 1000, "{} have come", came.len());
    assert_eq!(came.first(), Some(&0));
    assert!(came.windows(2).all(|pair| pair[0] < pair[1]), "in their order: {came:?}");
    flood(&mut publisher, "flood", 2000..2001, 64_000).await;
    assert_eq!(lazy.catch_up(1).await, [2000], "and what is published from then on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_has_one_large_body_in_memory() {
    let folder = Folder::new();
    let file = folder.write("linkspan.toml", LIMITS);
    let mut process = Process::start(folder.path(), &["--config", &file]);
    let (web, mqtt) = (process.door("http"), process.door("mqtt"));
    let mut lazy = Lazy::watch(web, "large").await;
    let mut publisher = MqttWire::connect(mqtt, V3, "publisher").await;
    // Sixteen of these are events that would be made ahead.
    flood(&mut publisher, "large", 0..20, 12 << 20).await;
    let peak = process.peak();
    assert!(peak < 2 * MEMORY, "the server has had {} MiB in memory", peak >> 20);
    let came = lazy.catch_up(20).await;
    assert!(came.starts_with(&[0, 1]) && came.windows(2).all(|pair| pair[0] < pair[1]), "in order: {came:?}");
}
