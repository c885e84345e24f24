//! A bare TCP connection: bytes written by hand, and what comes back.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::patience::soon;

/// A socket to a door, without any protocol.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
}

impl Wire {
    /// Connects to `door`.
    pub async fn to(door: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(door)).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Self { stream }
    }

    /// Sends `bytes`. That the server has closed already is no failure: what it said is still to be read.
    pub async fn send(&mut self, bytes: &[u8]) {
        match soon("the server reads", self.stream.write_all(bytes)).await {
            Ok(()) => {}
            Err(error) if is_closed(error.kind()) => {}
            Err(error) => panic!("sending failed: {error}"),
        }
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The next `count` bytes.
    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        soon("bytes from the server", self.stream.read_exact(&mut bytes))
            .await
            .expect("the connection lives");
        bytes
    }

    /// Everything until the server closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match soon("the server closes", self.stream.read_to_end(&mut bytes)).await {
            Ok(_) => {}
            Err(error) if is_closed(error.kind()) => {}
            Err(error) => panic!("reading failed: {error}"),
        }
        bytes
    }
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}
