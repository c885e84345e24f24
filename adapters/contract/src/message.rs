//! One published message, as spans into the bytes it came in.

use std::ops::{BitOr, BitOrAssign, Range};

/// A number for a [`Destination`](crate::Destination), good on the lane that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TargetId(pub u32);

/// A range of bytes in a batch. Offsets are 32 bits: a batch holds less than 4 GiB, larger bodies are
/// [`Body::Stored`](crate::Body).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    /// The span that begins at `start` and is `len` bytes long.
    pub const fn new(start: u32, len: u32) -> Self {
        Self { start, len }
    }

    /// The offset behind the last byte.
    pub const fn end(self) -> u32 {
        self.start.saturating_add(self.len)
    }

    /// True when the span holds no bytes.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The span as a range of offsets.
    pub const fn range(self) -> Range<usize> {
        self.start as usize..self.end() as usize
    }

    /// The bytes of the span; empty when the span lies outside of `bytes`.
    #[inline]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.range()).unwrap_or_default()
    }

    /// The same span in a buffer whose first byte was at `origin`.
    pub const fn rebased(self, origin: u32) -> Self {
        Self { start: self.start.saturating_sub(origin), len: self.len }
    }
}

/// What is true of a message, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The publisher waits for a receipt: MQTT QoS 1 and 2, an AMQP channel in confirm mode, HTTP.
    pub const RECEIPT: Self = Self(1);
    /// To be kept on disk by durable queues: MQTT QoS 1 and 2, AMQP delivery-mode 2.
    pub const DURABLE: Self = Self(1 << 1);
    /// Published with QoS 2.
    pub const EXACTLY_ONCE: Self = Self(1 << 2);
    /// To be given back when no queue and no subscription takes it (AMQP 0-9-1 §1.8.3.3 `mandatory`).
    pub const MANDATORY: Self = Self(1 << 3);
    /// To be kept as the address's retained message (MQTT 5 §3.3.1.3).
    pub const RETAIN: Self = Self(1 << 4);
    /// [`Message::expiry`] counts.
    pub const EXPIRES: Self = Self(1 << 5);
    /// The properties are not empty.
    pub const PROPERTIES: Self = Self(1 << 6);
    /// The properties hold application headers (AMQP headers, MQTT user properties).
    pub const HEADERS: Self = Self(1 << 7);
    /// The payload is a ticket that stands for a payload in the claim store.
    pub const TICKET: Self = Self(1 << 8);
    /// [`Message::wire`] cannot be sent on as it is even by a sink of the same form (it holds a topic alias, a
    /// subscription identifier, or the message was put together from several frames).
    pub const REWRITE: Self = Self(1 << 9);
    /// The publisher gave a priority.
    pub const PRIORITY: Self = Self(1 << 10);

    /// True when all bits of `other` are set.
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True when any bit of `other` is set.
    #[inline]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// These bits without those of `other`.
    #[inline]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// `self` when `yes`, else nothing.
    #[inline]
    pub const fn when(self, yes: bool) -> Self {
        if yes { self } else { Self::NONE }
    }
}

impl BitOr for Flags {
    type Output = Self;
    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// One message of a [`Batch`](crate::Batch): no pointer, no owner, [`Copy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Message {
    /// Where it goes, by this lane's numbers.
    pub target: TargetId,
    /// What is true of it.
    pub flags: Flags,
    /// Priority 0 to 255; the publisher's when [`Flags::PRIORITY`] is set, else 0.
    pub priority: u8,
    /// Time to live in milliseconds from the moment of publishing; counts with [`Flags::EXPIRES`]. Zero means: only
    /// to who can take it at once.
    pub expiry: u64,
    /// Everything: the other spans lie within. It can be sent on as it is by a sink of the same form, unless
    /// [`Flags::REWRITE`] is set or the batch has a [`Body`](crate::Body).
    pub wire: Span,
    /// The address, as [`WireForm::address`](crate::WireForm::address) reads it.
    pub address: Span,
    /// The encoded properties, as [`WireForm::properties`](crate::WireForm::properties) reads them.
    pub properties: Span,
    /// The payload; empty when the batch has a [`Body`](crate::Body).
    pub payload: Span,
}
