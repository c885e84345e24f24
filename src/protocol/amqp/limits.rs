//! What a peer may send.

/// The bounds that decoding holds, each before memory is taken for what would break it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The negotiated frame-max in bytes, head and end octet included; 0 is no bound (standard §1.4.2.6).
    pub frame_max: u32,
    /// The largest message body in bytes.
    pub body_max: u64,
}

impl Limits {
    /// Whether a frame payload of `size` bytes may come. As RabbitMQ does, it allows 8 bytes more than the
    /// standard, because clients that forget the head and the end octet in their sum are common.
    #[inline]
    pub fn admits(&self, size: u32) -> bool {
        self.frame_max == 0 || size <= self.frame_max
    }
}
