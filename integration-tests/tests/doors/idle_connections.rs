//! What an idle client costs: the bytes that the whole server allocates for it, and keeps.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use linkspan::broker::Broker;
use linkspan::config::Config;
use linkspan_integration_tests::process::Folder;
use metrics_exporter_prometheus::PrometheusBuilder;

/// Counts the bytes that are allocated and not freed.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator as it came, so its guarantees are System's; an atomic number
// neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps alloc's contract, which is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from System through alloc or realloc here, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        LIVE.fetch_add(new_size, Ordering::Relaxed);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from System through alloc or realloc here, with this layout.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CLIENTS: usize = 512;

/// A client of MQTT 3.1.1 with a keep-alive and one subscription at QoS 1.
fn subscriber(address: SocketAddr, number: usize) -> TcpStream {
    let (name, filter) = (format!("client-{number:05}"), format!("sensors/{number:05}"));
    let mut bytes = vec![0x10, 24, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 12];
    bytes.extend(name.as_bytes());
    bytes.extend([0x82, 18, 0, 1, 0, 13]);
    bytes.extend(filter.as_bytes());
    bytes.push(1);
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(&bytes).unwrap();
    let mut answers = [0; 9];
    client.read_exact(&mut answers).unwrap();
    assert_eq!(answers, [0x20, 2, 0, 0, 0x90, 3, 0, 1, 1]);
    client
}

/// Live bytes, once they have stopped changing: what served a request is freed a moment after its answer.
fn settled() -> usize {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut since = (LIVE.load(Ordering::Relaxed), Instant::now());
    while since.1.elapsed() < Duration::from_millis(100) && Instant::now() < deadline {
        std::thread::yield_now();
        let now = LIVE.load(Ordering::Relaxed);
        if now != since.0 {
            since = (now, Instant::now());
        }
    }
    since.0
}

#[test]
fn an_idle_mqtt_subscriber_takes_at_most_4_kib() {
    // One worker: the buffers that each worker keeps are no connection's, and another one's first would be counted.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let ports = ["MQTT", "AMQP", "HTTP"]
        .map(|door| (format!("LINKSPAN_DOORS__{door}__LISTEN"), "127.0.0.1:0".to_owned()));
    // What it keeps lies where it was started.
    let folder = Folder::new();
    std::env::set_current_dir(folder.path()).unwrap();
    let config = Config::load(None, ports).unwrap();
    let figures = PrometheusBuilder::new().build_recorder().handle();
    let broker = runtime.block_on(Broker::start(&config, figures)).unwrap();
    let address = broker.doors().find(|(door, _)| *door == "mqtt").unwrap().1;
    // Tables that all clients share double as they grow: measured between two doublings, their growth counts too.
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|number| subscriber(address, number)).collect();
    clients.reserve(CLIENTS);
    let before = settled();
    clients.extend((CLIENTS..2 * CLIENTS).map(|number| subscriber(address, number)));
    let each = settled().saturating_sub(before) / CLIENTS;
    assert!(each <= 4096, "{each} bytes for each idle client");
}
