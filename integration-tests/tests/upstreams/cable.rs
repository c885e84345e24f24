//! The faults of a cable are what they say.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use linkspan_integration_tests::{Cable, Way, soon, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::LULL;

/// A server that says everything back, and farewell to who says farewell.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                // a reset is a client's right
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

struct Client(TcpStream);

impl Client {
    async fn to(cable: &Cable) -> Self {
        Self(TcpStream::connect(cable.address()).await.unwrap())
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn receive(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        soon("an echo", self.0.read_exact(&mut bytes)).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    async fn says(&mut self, text: &str) {
        self.send(text).await;
        assert_eq!(self.receive(text.len()).await, text);
    }

    /// What comes in a while: bytes or an end.
    async fn hears_nothing(&mut self) {
        let came = within(LULL, self.0.read_u8()).await;
        assert!(came.is_none(), "nothing was to come: {came:?}");
    }

    async fn is_reset(&mut self) {
        let end = soon("a reset", self.0.read_u8()).await.unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset, "{end}");
    }
}

async fn refusal(cable: &Cable) -> ErrorKind {
    TcpStream::connect(cable.address()).await.expect_err("refused").kind()
}

#[tokio::test]
async fn a_sound_cable_passes_everything_and_the_farewell() {
    let cable = Cable::to(echo().await).await;
    let Client(stream) = Client::to(&cable).await;
    let (mut from, mut to) = stream.into_split();
    let sent: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let mut came = Vec::new();
    let sending = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let (_, received) =
        soon("all comes back", async { tokio::join!(sending, from.read_to_end(&mut came)) }).await;
    received.expect("the server's farewell, no reset");
    assert!(came == sent, "{} of {} bytes came back", came.len(), sent.len());
}

#[tokio::test]
async fn a_cut_resets_all_and_refuses_new_ones_until_it_is_healed() {
    let cable = Cable::to(echo().await).await;
    let (mut one, mut other) = (Client::to(&cable).await, Client::to(&cable).await);
    one.says("hello").await;
    for _ in 0..5 {
        cable.cut().await;
        one.is_reset().await;
        other.is_reset().await;
        assert_eq!(refusal(&cable).await, ErrorKind::ConnectionRefused);
        cable.heal().await;
        (one, other) = (Client::to(&cable).await, Client::to(&cable).await);
        one.says("again").await;
        other.says("the same place").await;
    }
}

#[tokio::test]
async fn a_reset_ends_what_is_and_lets_new_ones_through() {
    let cable = Cable::to(echo().await).await;
    let mut old = Client::to(&cable).await;
    old.says("hello").await;
    cable.reset();
    old.is_reset().await;
    Client::to(&cable).await.says("again").await;
}

#[tokio::test]
async fn refusing_leaves_what_is() {
    let cable = Cable::to(echo().await).await;
    let mut old = Client::to(&cable).await;
    old.says("hello").await;
    cable.refuse().await;
    assert_eq!(refusal(&cable).await, ErrorKind::ConnectionRefused);
    old.says("still here").await;
    cable.heal().await;
    old.says("still").await;
    Client::to(&cable).await.says("again").await;
}

#[tokio::test]
async fn delayed_it_all_comes_in_order_and_later() {
    const DELAY: Duration = Duration::from_millis(200);
    let cable = Cable::to(echo().await).await;
    let mut client = Client::to(&cable).await;
    client.says("hello").await;
    for (ways, ways_delayed) in [(&[Way::ToServer][..], 1), (&[Way::ToServer, Way::ToClient][..], 2)] {
        ways.iter().for_each(|way| cable.delay(*way, DELAY));
        let sent = Instant::now();
        // one behind the other is one delay, not a hundred
        for _ in 0..100 {
            client.send("0123456789").await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.receive(1000).await, "0123456789".repeat(100));
        assert!(sent.elapsed() >= ways_delayed * DELAY, "{:?} with {ways:?}", sent.elapsed());
        assert!(sent.elapsed() < 100 * DELAY, "{:?} with {ways:?}", sent.elapsed());
    }
}

#[tokio::test]
async fn throttled_it_passes_that_many_bytes_a_second() {
    let cable = Cable::to(echo().await).await;
    let mut client = Client::to(&cable).await;
    for way in [Way::ToServer, Way::ToClient] {
        cable.throttle(way, 20_000);
        let sent = Instant::now();
        client.says(&"x".repeat(10_000)).await;
        assert!(sent.elapsed() >= Duration::from_millis(490), "{:?} {way:?}", sent.elapsed());
        cable.heal().await;
    }
}

#[tokio::test]
async fn stalled_it_accepts_and_passes_nothing_until_it_is_healed() {
    let cable = Cable::to(echo().await).await;
    let mut old = Client::to(&cable).await;
    old.says("hello").await;
    cable.stall();
    let mut new = Client::to(&cable).await;
    for client in [&mut old, &mut new] {
        client.send("is anybody there").await;
        client.hears_nothing().await;
    }
    cable.heal().await;
    for client in [&mut old, &mut new] {
        assert_eq!(client.receive(16).await, "is anybody there");
    }
}

#[tokio::test]
async fn half_open_it_loses_one_way_and_is_reset_when_healed() {
    for losing in [Way::ToServer, Way::ToClient] {
        let cable = Cable::to(echo().await).await;
        let (mut talking, mut silent) = (Client::to(&cable).await, Client::to(&cable).await);
        talking.says("hello").await;
        silent.says("hello").await;
        cable.half_open(losing);
        talking.send("lost").await;
        talking.hears_nothing().await;
        cable.heal().await;
        talking.is_reset().await;
        silent.says("I lost nothing").await;
    }
}

#[tokio::test]
async fn half_open_the_other_way_is_sound() {
    // a server that speaks first
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cable = Cable::to(listener.local_addr().unwrap()).await;
    let mut client = Client::to(&cable).await;
    let (mut server, _) = soon("a connection", listener.accept()).await.unwrap();
    cable.half_open(Way::ToServer);
    client.send("lost").await;
    server.write_all(b"heard").await.unwrap();
    assert_eq!(client.receive(5).await, "heard");
    let came = within(LULL, server.read_u8()).await;
    assert!(came.is_none(), "nothing was to come: {came:?}");
}

#[tokio::test]
async fn a_client_that_vanishes_without_a_farewell_is_a_reset_for_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cable = Cable::to(listener.local_addr().unwrap()).await;
    let client = Client::to(&cable).await;
    let (mut server, _) = soon("a connection", listener.accept()).await.unwrap();
    client.0.set_zero_linger().unwrap();
    drop(client);
    let end = soon("a reset", server.read_u8()).await.unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset, "{end}");
}

#[tokio::test]
async fn a_cable_that_is_taken_away_resets_all() {
    let cable = Cable::to(echo().await).await;
    let mut client = Client::to(&cable).await;
    client.says("hello").await;
    drop(cable);
    client.is_reset().await;
}
