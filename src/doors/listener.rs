//! From a listening socket to one stream type, whatever lies between: TCP now, the place for TLS and WebSocket.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A peer that vanished without a word is noticed after about this time even when the protocol has no keep-alive.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// A listening socket of one door.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
}

impl Listener {
    /// Listens on `address`; port 0 lets the system choose.
    ///
    /// # Errors
    /// When the address is taken, not of this machine or not allowed.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // `[::]` takes IPv4 as well, whatever the system's default is.
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: TcpListener::from_std(socket.into())? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection.
    ///
    /// # Errors
    /// When one failed while it was being accepted, or file descriptors have run out.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, peer) = self.socket.accept().await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        Ok((Stream { tcp: stream }, peer))
    }
}

/// One connection's bytes.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
}

impl Stream {
    /// The socket itself, for a protocol library that reads and writes by itself.
    pub fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    /// The two directions, to be used apart.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        let (read, write) = self.tcp.into_split();
        (ReadHalf { tcp: read }, WriteHalf { tcp: write })
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self { tcp }
    }
}

/// What comes in.
#[derive(Debug)]
pub struct ReadHalf {
    tcp: OwnedReadHalf,
}

impl ReadHalf {
    /// Reads what is there into `buffer`; 0 is the end.
    ///
    /// # Errors
    /// When the connection broke.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut self.tcp).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(buffer.filled().len())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// What goes out. Any task may write in place while it holds the right to; only the owner waits.
#[derive(Debug)]
pub struct WriteHalf {
    tcp: OwnedWriteHalf,
}

impl WriteHalf {
    /// Writes what the socket takes now, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when that is nothing; anything else when the connection broke.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [one] => self.tcp.try_write(one),
            many => self.tcp.try_write_vectored(many),
        }
    }

    /// Waits until the socket takes something again. For the connection's own task alone.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.as_ref().poll_write_ready(cx)
    }

    /// Tells the peer that nothing more comes.
    pub fn shut_write(&self) {
        let _ = SockRef::from(self.tcp.as_ref()).shutdown(std::net::Shutdown::Write);
    }

    /// Ends both directions at once, from any task.
    pub fn abort(&self) {
        let _ = SockRef::from(self.tcp.as_ref()).shutdown(std::net::Shutdown::Both);
    }
}
