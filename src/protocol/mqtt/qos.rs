//! Quality of service (§4.3).

/// How firmly the delivery of a message is assured (§4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0: the message arrives once or not at all.
    #[default]
    AtMostOnce = 0,
    /// QoS 1: the message arrives at least once.
    AtLeastOnce = 1,
    /// QoS 2: the message arrives exactly once.
    ExactlyOnce = 2,
}

impl Qos {
    /// The quality of service with this number; `None` for everything above 2.
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// Its number on the wire.
    #[inline]
    pub const fn bits(self) -> u8 {
        self as u8
    }
}
