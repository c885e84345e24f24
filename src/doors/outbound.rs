//! The bytes towards one client, and who writes them.
//!
//! Whoever has something for the client appends under the lock and, after it has let go of it, calls
//! [`Outbound::flush`]: that writes in place when nobody else is writing. What the socket refuses, and what goes beyond
//! a fair share, is left to the connection's own task ([`Outbound::poll_owner`]). A client above its high mark holds up
//! who publishes to it ([`Outbound::poll_drained`]) only while it makes progress.

mod guard;

use std::fmt;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, Sleep};

use super::give_way;
use super::listener::WriteHalf;
use super::unsent::Unsent;

pub use self::guard::Guard;

/// A task that writes for another connection stops after this many bytes: the rest is the owner's.
const FAIR_SHARE: usize = 256 * 1024;

/// When a client counts as congested, and when as slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Unsent bytes above which publishers wait.
    pub high: usize,
    /// Unsent bytes below which they go on.
    pub low: usize,
    /// A congested client that took nothing for this long holds up nobody any more.
    pub slow_after: Duration,
}

impl Default for Marks {
    fn default() -> Self {
        Self { high: 1024 * 1024, low: 512 * 1024, slow_after: Duration::from_secs(1) }
    }
}

/// One client's outbound side: a door's own state `S` (packet identifiers, tags, subscriptions) and the unsent bytes
/// under one lock.
#[derive(Debug)]
pub struct Outbound<S> {
    inner: Mutex<Inner<S>>,
    marks: Marks,
}

#[derive(Debug)]
struct Inner<S> {
    state: S,
    /// Gone once the connection has ended: others may hold the outbound side for longer, but not the socket.
    socket: Option<Arc<WriteHalf>>,
    unsent: Unsent,
    /// Bytes in the hands of who writes: those in memory, and those to be read yet.
    in_hand: (usize, u64),
    writing: bool,
    blocked: bool,
    congested: bool,
    slow: bool,
    /// The owner waits until all is written.
    finishing: bool,
    closed: Option<Closed>,
    owner: Option<Waker>,
    waiting: Vec<Waker>,
}

/// How an outbound side ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// By [`Outbound::close`].
    Here,
    /// The socket broke.
    Broken(ErrorKind),
}

impl<S> Inner<S> {
    fn backlog(&self) -> usize {
        let stored = self.unsent.stored.saturating_add(self.in_hand.1);
        self.held().saturating_add(usize::try_from(stored).unwrap_or(usize::MAX))
    }

    /// Those of the backlog that are in memory.
    fn held(&self) -> usize {
        self.unsent.len + self.in_hand.0
    }
}

/// What [`Outbound::poll_owner`] has to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A congested client has room again: let queues that paused go on.
    Drained,
    /// Over.
    Closed(Closed),
}

/// The owning task's part: its timer for a client that takes nothing, and what it reads of stored bodies.
#[derive(Default)]
pub struct Owner {
    patience: Option<Pin<Box<Sleep>>>,
    /// Boxed: few clients are ever sent a stored body.
    part: Option<Box<Part>>,
}

/// A part of a stored body.
enum Part {
    /// It is being read.
    Reading(Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>),
    /// It was read, and is to be put into its place.
    Read(Bytes),
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").field("reads", &self.part.is_some()).finish_non_exhaustive()
    }
}

impl<S> Outbound<S> {
    /// An outbound side over `socket`.
    pub fn new(socket: WriteHalf, state: S, marks: Marks) -> Self {
        let inner = Inner {
            state,
            socket: Some(Arc::new(socket)),
            unsent: Unsent::default(),
            in_hand: (0, 0),
            writing: false,
            blocked: false,
            congested: false,
            slow: false,
            finishing: false,
            closed: None,
            owner: None,
            waiting: Vec::new(),
        };
        Self { inner: Mutex::new(inner), marks }
    }

    /// The door's state and the unsent bytes. Never call a lane while holding this.
    pub fn lock(&self) -> Guard<'_, S> {
        Guard { inner: self.inner.lock(), high: self.marks.high }
    }

    /// Writes in place when nobody else does. What cannot be written now is left to the owner.
    pub fn flush(&self) {
        let inner = self.inner.lock();
        // While blocked the owner waits for the socket already.
        if !inner.blocked {
            self.write(inner);
        }
    }

    /// Writes up to a fair share and says how much it was.
    fn write<'a>(&'a self, mut inner: MutexGuard<'a, Inner<S>>) -> usize {
        if !inner.unsent.is_at_hand() || inner.writing || inner.closed.is_some() {
            return 0;
        }
        let Some(socket) = inner.socket.clone() else { return 0 };
        let mut budget = FAIR_SHARE;
        inner.writing = true;
        loop {
            let mut hand = std::mem::take(&mut inner.unsent);
            inner.in_hand = (hand.len, hand.stored);
            drop(inner);
            let before = hand.len;
            let result = hand.write(&socket, budget);
            let written = before.saturating_sub(hand.len);
            budget = budget.saturating_sub(written);
            inner = self.inner.lock();
            inner.in_hand = (0, 0);
            if inner.closed.is_some() {
                inner.writing = false;
                return 0;
            }
            if !hand.is_empty() {
                hand.append(std::mem::take(&mut inner.unsent));
                inner.unsent = hand;
            } else {
                hand.recycle();
            }
            if written > 0 {
                inner.slow = false;
            }
            match result {
                Ok(()) if inner.unsent.is_at_hand() && budget > 0 => {}
                Ok(()) => {
                    let rest = !inner.unsent.is_empty();
                    self.let_go(inner, rest);
                    break;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    inner.blocked = true;
                    self.let_go(inner, true);
                    break;
                }
                Err(error) => {
                    inner.writing = false;
                    self.end(inner, Closed::Broken(error.kind()));
                    break;
                }
            }
        }
        FAIR_SHARE.saturating_sub(budget)
    }

    fn let_go(&self, mut inner: MutexGuard<'_, Inner<S>>, rest: bool) {
        inner.writing = false;
        let drained = inner.congested && inner.backlog() <= self.marks.low;
        let waiting = if drained { std::mem::take(&mut inner.waiting) } else { Vec::new() };
        let owner = if rest || drained || inner.finishing { inner.owner.take() } else { None };
        drop(inner);
        waiting.into_iter().chain(owner).for_each(Waker::wake);
    }

    /// The connection task's turn: writes what was left, waits for the socket, keeps the time of a client that takes
    /// nothing. Pending while all is well.
    pub fn poll_owner(&self, cx: &mut Context<'_>, owner: &mut Owner) -> Poll<Turn> {
        loop {
            let mut inner = self.inner.lock();
            if let Some(closed) = inner.closed {
                return Poll::Ready(Turn::Closed(closed));
            }
            if inner.congested && inner.backlog() <= self.marks.low {
                inner.congested = false;
                inner.slow = false;
                owner.patience = None;
                // Who writes at this moment will find nobody congested, and wake nobody.
                let waiting = std::mem::take(&mut inner.waiting);
                drop(inner);
                waiting.into_iter().for_each(Waker::wake);
                return Poll::Ready(Turn::Drained);
            }
            if !inner.owner.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                inner.owner = Some(cx.waker().clone());
            }
            if inner.unsent.is_empty() || inner.writing {
                owner.patience = None;
                return Poll::Pending;
            }
            if inner.unsent.stored > 0 {
                match self.poll_stored(inner, cx, owner) {
                    Poll::Ready(()) => continue,
                    Poll::Pending => inner = self.inner.lock(),
                }
                if inner.writing || !inner.unsent.is_at_hand() {
                    return Poll::Pending;
                }
            }
            let Some(socket) = inner.socket.clone() else { return Poll::Pending };
            drop(inner);
            match socket.poll_writable(cx) {
                Poll::Ready(Ok(())) => {
                    owner.patience = None;
                    let mut inner = self.inner.lock();
                    inner.blocked = false;
                    if self.write(inner) >= FAIR_SHARE {
                        give_way(cx);
                        return Poll::Pending;
                    }
                    // Else all is written, or the readiness was stale and is cleared now: look again.
                }
                Poll::Ready(Err(error)) => self.end(self.inner.lock(), Closed::Broken(error.kind())),
                Poll::Pending => return self.wait_for_progress(cx, owner),
            }
        }
    }

    /// Reads the next part of a stored body, when it is time; ready when there is something else to be done.
    fn poll_stored(
        &self,
        mut inner: MutexGuard<'_, Inner<S>>,
        cx: &mut Context<'_>,
        owner: &mut Owner,
    ) -> Poll<()> {
        if let Some(Part::Read(bytes)) =
            owner.part.take_if(|part| matches!(**part, Part::Read(_))).map(|part| *part)
        {
            inner.unsent.put_read(bytes);
        }
        if owner.part.is_none() {
            let wanted = inner.unsent.wanted();
            owner.part = wanted.map(|wanted| Box::new(Part::Reading(Box::pin(wanted.read()))));
        }
        drop(inner);
        let Some(Part::Reading(reading)) = owner.part.as_deref_mut() else { return Poll::Pending };
        match ready!(reading.as_mut().poll(cx)) {
            Ok(bytes) => owner.part = Some(Box::new(Part::Read(bytes))),
            Err(error) => {
                owner.part = None;
                tracing::error!(%error, "a stored payload cannot be read: the connection that it was sent to is closed");
                self.end(self.inner.lock(), Closed::Broken(error.kind()));
            }
        }
        Poll::Ready(())
    }

    fn wait_for_progress(&self, cx: &mut Context<'_>, owner: &mut Owner) -> Poll<Turn> {
        let mut inner = self.inner.lock();
        if !inner.congested || inner.slow {
            return Poll::Pending;
        }
        let deadline = self.marks.slow_after;
        let sleep = owner.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(deadline)));
        if sleep.as_mut().poll(cx).is_ready() {
            inner.slow = true;
            let waiting = std::mem::take(&mut inner.waiting);
            drop(inner);
            waiting.into_iter().for_each(Waker::wake);
        }
        Poll::Pending
    }

    /// Ready when the client is not congested, or below the low mark, when closed, and when the client is slow: then
    /// nobody may be held up by it.
    pub fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.lock();
        // Between the marks only a congested client holds: only its draining wakes who waits.
        let holds = inner.congested && !inner.slow && inner.closed.is_none();
        if !holds || inner.backlog() <= self.marks.low {
            return Poll::Ready(());
        }
        if !inner.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            inner.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Unsent bytes.
    pub fn backlog(&self) -> usize {
        self.inner.lock().backlog()
    }

    /// Ends it at once: unsent bytes are thrown away, nothing more is taken.
    pub fn close(&self) {
        self.end(self.inner.lock(), Closed::Here);
    }

    fn end(&self, mut inner: MutexGuard<'_, Inner<S>>, how: Closed) {
        inner.closed.get_or_insert(how);
        inner.unsent = Unsent::default();
        let waiting = std::mem::take(&mut inner.waiting);
        let owner = inner.owner.take();
        drop(inner);
        waiting.into_iter().chain(owner).for_each(Waker::wake);
    }

    /// Writes what is left and says the farewell, for as long as `patience`. For the connection's own task, at its end.
    pub async fn finish(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut owner = Owner::default();
        self.inner.lock().finishing = true;
        let written = std::future::poll_fn(|cx| match self.poll_owner(cx, &mut owner) {
            Poll::Ready(Turn::Closed(_)) => Poll::Ready(()),
            Poll::Ready(Turn::Drained) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending if self.backlog() == 0 => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        });
        let _ = tokio::time::timeout_at(until, written).await;
        let mut inner = self.inner.lock();
        let socket = inner.socket.take();
        self.end(inner, Closed::Here);
        if let Some(socket) = socket {
            socket.shut_write();
        }
    }

    /// Wakes the connection's own task.
    pub fn wake_owner(&self) {
        let owner = self.inner.lock().owner.take();
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use linkspan_contract::StoredPayload;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::doors::listener::{ReadHalf, Stream};

    async fn pair(marks: Marks) -> (Outbound<()>, ReadHalf, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (read, write) = Stream::from(listener.accept().await.unwrap().0).split();
        (Outbound::new(write, (), marks), read, client)
    }

    fn append(outbound: &Outbound<()>, bytes: &[u8]) -> bool {
        let mut guard = outbound.lock();
        guard.parts().1.extend_from_slice(bytes);
        guard.appended()
    }

    /// More than the sockets' own buffers hold.
    const FLOOD: usize = 16 * 1024 * 1024;

    #[tokio::test]
    async fn whoever_appends_writes_in_place() {
        let (outbound, _read, mut client) = pair(Marks::default()).await;
        append(&outbound, b"ab");
        let mut guard = outbound.lock();
        guard.push_shared(Bytes::from_static(b"cd"));
        guard.appended();
        drop(guard);
        append(&outbound, b"ef");
        outbound.flush();
        assert_eq!(outbound.backlog(), 0, "a few bytes fit into an idle socket");
        let mut got = [0; 6];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"abcdef");
    }

    #[tokio::test]
    async fn the_owner_writes_what_the_socket_refused_and_tells_when_it_drained() {
        let (outbound, _read, mut client) = pair(Marks::default()).await;
        let sent: Vec<u8> = (0..FLOOD).map(|i| (i % 251) as u8).collect();
        assert!(append(&outbound, &sent), "that is above the high mark");
        outbound.flush();
        assert!(outbound.backlog() > 0);
        let reader = tokio::spawn(async move {
            let mut got = vec![0; FLOOD + 3];
            client.read_exact(&mut got).await.unwrap();
            got
        });
        let mut owner = Owner::default();
        let turn = std::future::poll_fn(|cx| outbound.poll_owner(cx, &mut owner)).await;
        assert_eq!(turn, Turn::Drained);
        assert!(!outbound.lock().is_congested());
        append(&outbound, b"end");
        outbound.finish(Duration::from_secs(5)).await;
        let got = reader.await.unwrap();
        assert!(got[..FLOOD] == sent[..] && &got[FLOOD..] == b"end", "bytes were lost or out of order");
    }

    /// A stored body, and how far it was read.
    struct Kept(Bytes, AtomicU64);

    #[async_trait]
    impl StoredPayload for Kept {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        async fn read(&self, offset: u64, max: usize) -> io::Result<Bytes> {
            tokio::task::yield_now().await;
            let start = offset as usize;
            let end = (start + max.min(100_000)).min(self.0.len());
            self.1.fetch_max(end as u64, Ordering::Relaxed);
            Ok(self.0.slice(start..end))
        }
    }

    #[tokio::test]
    async fn a_stored_body_is_read_as_the_socket_takes_it_and_what_comes_behind_it_waits() {
        let (outbound, _read, mut client) = pair(Marks::default()).await;
        let body: Bytes = (0..FLOOD).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
        let stored = Arc::new(Kept(body.clone(), AtomicU64::new(0)));
        append(&outbound, b"head");
        let mut guard = outbound.lock();
        guard.push_stored(Arc::clone(&stored) as _, None);
        assert!(guard.appended(), "that is above the high mark");
        drop(guard);
        append(&outbound, b"behind");
        outbound.flush();
        let outbound = Arc::new(outbound);
        let owned = Arc::clone(&outbound);
        let owning = tokio::spawn(async move {
            let mut owner = Owner::default();
            loop {
                let turn = std::future::poll_fn(|cx| owned.poll_owner(cx, &mut owner)).await;
                assert_eq!(turn, Turn::Drained);
            }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let ahead = stored.1.load(Ordering::Relaxed);
        assert!(ahead < FLOOD as u64, "{ahead} bytes were read for a client that takes none");
        assert!(outbound.lock().held() < 1024 * 1024, "{} bytes are in memory", outbound.lock().held());
        let mut got = vec![0; FLOOD + 10];
        client.read_exact(&mut got).await.unwrap();
        let (head, rest) = got.split_at(4);
        assert!(head == b"head" && rest[..FLOOD] == body[..] && &rest[FLOOD..] == b"behind");
        assert_eq!(outbound.backlog(), 0);
        owning.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_holds_up_publishers_for_a_second_only() {
        let (outbound, _read, _client) = pair(Marks::default()).await;
        append(&outbound, &vec![0; FLOOD]);
        outbound.flush();
        let begin = Instant::now();
        let mut owner = Owner::default();
        tokio::select! {
            turn = std::future::poll_fn(|cx| outbound.poll_owner(cx, &mut owner)) => panic!("{turn:?}"),
            () = std::future::poll_fn(|cx| outbound.poll_drained(cx)) => {}
        }
        assert!(
            begin.elapsed() >= Duration::from_secs(1),
            "publishers wait while it may still make progress"
        );
        assert!(outbound.lock().is_slow());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stopped_before_it_was_congested_holds_up_publishers_for_a_second_only_too() {
        let marks = Marks { high: 2 * FLOOD, ..Marks::default() };
        let (outbound, _read, _client) = pair(marks).await;
        append(&outbound, &vec![0; FLOOD]);
        outbound.flush();
        assert!(outbound.backlog() > 0 && !outbound.lock().is_congested());
        let outbound = Arc::new(outbound);
        let owned = Arc::clone(&outbound);
        let owner = tokio::spawn(async move {
            let mut owner = Owner::default();
            std::future::poll_fn(|cx| owned.poll_owner(cx, &mut owner)).await
        });
        tokio::task::yield_now().await;
        append(&outbound, &vec![0; 3 * FLOOD]);
        outbound.flush();
        std::future::poll_fn(|cx| outbound.poll_drained(cx)).await;
        assert!(outbound.lock().is_slow());
        owner.abort();
    }

    #[tokio::test]
    async fn between_the_marks_only_a_client_that_was_above_the_high_one_holds_up_publishers() {
        let marks = Marks { high: 2 * FLOOD, low: 1, slow_after: Duration::from_secs(1) };
        let (outbound, _read, _client) = pair(marks).await;
        append(&outbound, &vec![0; FLOOD]);
        outbound.flush();
        assert!(outbound.backlog() > 1);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(outbound.poll_drained(&mut cx).is_ready(), "nothing would wake who waits");
    }

    #[tokio::test]
    async fn after_close_nothing_is_kept_and_nobody_waits() {
        let (outbound, _read, _client) = pair(Marks::default()).await;
        append(&outbound, &vec![0; FLOOD]);
        outbound.close();
        assert_eq!(outbound.backlog(), 0);
        assert!(!append(&outbound, b"late") && outbound.lock().is_closed());
        std::future::poll_fn(|cx| outbound.poll_drained(cx)).await;
        let mut owner = Owner::default();
        let turn = std::future::poll_fn(|cx| outbound.poll_owner(cx, &mut owner)).await;
        assert_eq!(turn, Turn::Closed(Closed::Here));
    }
}
