//! Where something lies in a buffer.

/// A stretch of a buffer, without the buffer: batches keep it beside the bytes of one read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    /// The bytes themselves; `None` when `buffer` is not the one that the span was taken from and ends before it.
    #[inline]
    pub fn of(self, buffer: &[u8]) -> Option<&[u8]> {
        let start = self.start as usize;
        buffer.get(start..start.checked_add(self.len as usize)?)
    }

    /// Offset just past the last byte.
    #[inline]
    pub fn end(self) -> usize {
        self.start as usize + self.len as usize
    }
}
