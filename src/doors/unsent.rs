//! Bytes towards one client that the socket has not taken yet.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use linkspan_contract::StoredPayload;

use super::buffer;
use super::listener::WriteHalf;

/// How many pieces one system call takes.
const PIECES: usize = 16;

/// Bytes of a stored body that are read at once, and ahead of what the socket takes.
const PART: usize = 256 * 1024;

/// What stands between the bytes of a stored body on their way to a client.
pub trait Wrap: Send + fmt::Debug {
    /// Says in their order the pieces that a part of the body makes, which begins at `offset`.
    fn wrap(&self, offset: u64, part: Bytes, piece: &mut dyn FnMut(Bytes));
}

/// Bytes in order: pieces, then a tail that grows.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    pieces: VecDeque<Piece>,
    /// To be appended to; then call [`Unsent::count`].
    pub(super) tail: Vec<u8>,
    /// Bytes of the first piece (or of the tail, when there is none) that are sent.
    sent: usize,
    /// All unsent bytes that are in memory.
    pub(super) len: usize,
    /// Bytes of stored bodies that are to be read yet.
    pub(super) stored: u64,
    /// Bytes in memory in `pieces`, sent ones of the first included.
    pieced: usize,
}

#[derive(Debug)]
enum Piece {
    Own(Vec<u8>),
    Shared(Bytes),
    Stored(Box<Stored>),
}

/// What is to be read yet of a stored body.
struct Stored {
    body: Arc<dyn StoredPayload>,
    offset: u64,
    wrap: Option<Box<dyn Wrap>>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("len", &self.body.len()).field("offset", &self.offset).finish()
    }
}

impl Piece {
    /// None when they are not in memory.
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Own(bytes) => Some(bytes),
            Self::Shared(bytes) => Some(bytes),
            Self::Stored(_) => None,
        }
    }
}

/// A part of a stored body that should be read now.
pub(super) struct Wanted {
    body: Arc<dyn StoredPayload>,
    offset: u64,
}

impl Wanted {
    /// Reads it.
    pub(super) async fn read(self) -> io::Result<Bytes> {
        let part = self.body.read(self.offset, PART).await?;
        if part.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(part) }
    }
}

impl Unsent {
    /// True when all is sent.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0 && self.stored == 0
    }

    /// True when what comes next is in memory.
    pub(super) fn is_at_hand(&self) -> bool {
        self.len > 0 && (self.stored == 0 || !matches!(self.pieces.front(), Some(Piece::Stored(_))))
    }

    /// Puts a stored body behind, to be read when its turn comes.
    pub(super) fn push_stored(&mut self, body: Arc<dyn StoredPayload>, wrap: Option<Box<dyn Wrap>>) {
        if body.is_empty() {
            return;
        }
        self.park_tail();
        self.stored = self.stored.saturating_add(body.len());
        self.pieces.push_back(Piece::Stored(Box::new(Stored { body, offset: 0, wrap })));
        self.count();
    }

    /// What should be read, because little that is in memory stands before it.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        if self.stored == 0 {
            return None;
        }
        let mut before = 0;
        for piece in &self.pieces {
            match piece.bytes() {
                Some(bytes) => before += bytes.len(),
                None if before.saturating_sub(self.sent) >= PART => return None,
                None => {
                    let Piece::Stored(stored) = piece else { continue };
                    return Some(Wanted { body: Arc::clone(&stored.body), offset: stored.offset });
                }
            }
        }
        None
    }

    /// Puts in its place what was wanted last.
    pub(super) fn put_read(&mut self, part: Bytes) {
        let Some(at) = self.pieces.iter().position(|piece| matches!(piece, Piece::Stored(_))) else { return };
        let behind = self.pieces.split_off(at);
        let mut behind = behind.into_iter();
        let Some(Piece::Stored(mut stored)) = behind.next() else { return };
        let (offset, count) = (stored.offset, part.len() as u64);
        let Self { pieces, pieced, .. } = self;
        let mut put = |bytes: Bytes| {
            *pieced += bytes.len();
            pieces.push_back(Piece::Shared(bytes));
        };
        match &stored.wrap {
            Some(wrap) => wrap.wrap(offset, part, &mut put),
            None => put(part),
        }
        stored.offset = offset.saturating_add(count);
        self.stored = self.stored.saturating_sub(count);
        if stored.offset < stored.body.len() {
            self.pieces.push_back(Piece::Stored(stored));
        }
        self.pieces.extend(behind);
        self.count();
    }

    /// Counts what was appended to the tail.
    pub(super) fn count(&mut self) {
        self.len = (self.pieced + self.tail.len()).saturating_sub(self.sent);
    }

    fn park_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieced += self.tail.len();
            self.pieces.push_back(Piece::Own(std::mem::take(&mut self.tail)));
        }
    }

    /// Puts a piece behind, by reference.
    pub(super) fn push_shared(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.park_tail();
        self.pieced += bytes.len();
        self.pieces.push_back(Piece::Shared(bytes));
        self.count();
    }

    /// Puts `later` behind.
    pub(super) fn append(&mut self, mut later: Self) {
        if later.is_empty() {
            return;
        }
        if later.pieces.is_empty() && self.tail.len() + later.tail.len() <= buffer::KEPT {
            self.tail.extend_from_slice(&later.tail);
            buffer::give_back(std::mem::take(&mut later.tail));
        } else {
            self.park_tail();
            self.pieced += later.pieced;
            self.stored = self.stored.saturating_add(later.stored);
            self.pieces.append(&mut later.pieces);
            self.tail = std::mem::take(&mut later.tail);
        }
        self.count();
    }

    /// Writes up to `budget` bytes, or what the socket takes.
    pub(super) fn write(&mut self, socket: &WriteHalf, budget: usize) -> io::Result<()> {
        let mut left = budget;
        while left > 0 && self.is_at_hand() {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let mut used = 0;
            let mut skip = self.sent;
            let tail = (self.stored == 0).then_some(self.tail.as_slice());
            let all = self.pieces.iter().map_while(Piece::bytes).chain(tail);
            for (slice, bytes) in slices.iter_mut().zip(all) {
                *slice = IoSlice::new(bytes.get(skip..).unwrap_or_default());
                skip = 0;
                used += 1;
            }
            let offered = slices.get(..used).unwrap_or_default();
            match socket.try_write(offered) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    left = left.saturating_sub(n);
                    self.forget(n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Drops the first `n` unsent bytes.
    fn forget(&mut self, n: usize) {
        self.len = self.len.saturating_sub(n);
        self.sent += n;
        while let Some(first) = self.pieces.front() {
            let first = first.bytes().map_or(usize::MAX, <[u8]>::len);
            if self.sent < first {
                return;
            }
            self.sent -= first;
            self.pieced -= first;
            if let Some(Piece::Own(bytes)) = self.pieces.pop_front() {
                buffer::give_back(bytes);
            }
        }
        if self.len == 0 {
            self.sent = 0;
            self.tail.clear();
        } else if self.sent > buffer::KEPT && self.sent > self.tail.len() / 2 {
            // A client that is never quite served must not make the tail longer and longer.
            self.tail.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Gives the memory back to the thread.
    pub(super) fn recycle(self) {
        buffer::give_back(self.tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_let_go_of_although_something_is_always_left() {
        let mut unsent = Unsent::default();
        unsent.tail.extend_from_slice(&[0; 100]);
        unsent.count();
        for _ in 0..100 {
            unsent.tail.extend_from_slice(&[0; 100_000]);
            unsent.count();
            unsent.forget(100_000);
        }
        assert_eq!(unsent.len, 100);
        assert!(unsent.tail.len() < 1024 * 1024, "{} bytes are held for 100", unsent.tail.len());
    }
}
