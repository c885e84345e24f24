//! Bytes towards one client that the socket has not taken yet.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

use bytes::Bytes;

use super::buffer;
use super::listener::WriteHalf;

/// How many pieces one system call takes.
const PIECES: usize = 16;

/// Bytes in order: pieces, then a tail that grows.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    pieces: VecDeque<Piece>,
    /// To be appended to; then call [`Unsent::count`].
    pub(super) tail: Vec<u8>,
    /// Bytes of the first piece (or of the tail, when there is none) that are sent.
    sent: usize,
    /// All unsent bytes.
    pub(super) len: usize,
    /// Bytes in `pieces`, sent ones of the first included.
    pieced: usize,
}

#[derive(Debug)]
enum Piece {
    Own(Vec<u8>),
    Shared(Bytes),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Unsent {
    /// True when all is sent.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
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
            self.pieces.append(&mut later.pieces);
            self.tail = std::mem::take(&mut later.tail);
        }
        self.count();
    }

    /// Writes up to `budget` bytes, or what the socket takes.
    pub(super) fn write(&mut self, socket: &WriteHalf, budget: usize) -> io::Result<()> {
        let mut left = budget;
        while self.len > 0 && left > 0 {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let mut used = 0;
            let mut skip = self.sent;
            let all = self.pieces.iter().map(Piece::bytes).chain([self.tail.as_slice()]);
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
        while let Some(first) = self.pieces.front().map(|piece| piece.bytes().len()) {
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
