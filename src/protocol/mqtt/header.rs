//! The fixed header (§2.1): where a packet starts and ends in the bytes received.

use super::{error::Error, qos::Qos, sender::Sender, varint, version::Version};

/// What a packet is for (§2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// A client asks for a connection.
    Connect = 1,
    /// The server's answer to CONNECT.
    Connack = 2,
    /// A message.
    Publish = 3,
    /// Receipt of a message of QoS 1.
    Puback = 4,
    /// Receipt of a message of QoS 2, first step.
    Pubrec = 5,
    /// Second step.
    Pubrel = 6,
    /// Third and last step.
    Pubcomp = 7,
    /// A client subscribes.
    Subscribe = 8,
    /// The server's answer to SUBSCRIBE.
    Suback = 9,
    /// A client ends subscriptions.
    Unsubscribe = 10,
    /// The server's answer to UNSUBSCRIBE.
    Unsuback = 11,
    /// A client shows that it is alive.
    Pingreq = 12,
    /// The server's answer to PINGREQ.
    Pingresp = 13,
    /// The sender is about to close the connection.
    Disconnect = 14,
    /// A step of an extended authentication, from 5.0 on.
    Auth = 15,
}

impl PacketType {
    /// The type that the upper four bits of a packet's first byte stand for.
    pub const fn from_first_byte(first: u8) -> Option<Self> {
        Some(match first >> 4 {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of such a packet; a PUBLISH's own flags are still to be added.
    #[inline]
    pub const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.reserved_flags()
    }

    /// The flags that every such packet has; of a PUBLISH, whose flags mean something, none (§2.1.3).
    const fn reserved_flags(self) -> u8 {
        match self {
            Self::Pubrel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// Whether `sender` may send it in this version (§2.1.2, table 2-1).
    pub(super) const fn check_sender(self, version: Version, sender: Sender) -> Result<(), Error> {
        let allowed = match (self, sender) {
            (Self::Auth, _) if matches!(version, Version::V311) => {
                return Err(Error::ReservedPacketType(self as u8));
            }
            (Self::Connect | Self::Subscribe | Self::Unsubscribe | Self::Pingreq, sender) => {
                matches!(sender, Sender::Client)
            }
            (Self::Connack | Self::Suback | Self::Unsuback | Self::Pingresp, sender) => {
                matches!(sender, Sender::Server)
            }
            (Self::Disconnect, Sender::Server) => matches!(version, Version::V5),
            _ => true,
        };
        if allowed { Ok(()) } else { Err(Error::UnexpectedPacket { packet_type: self, sender }) }
    }
}

/// One whole packet in the bytes received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is for.
    pub packet_type: PacketType,
    /// The lower four bits of its first byte, already checked.
    pub flags: u8,
    /// How many bytes its fixed header takes: 2 to 5.
    pub header_len: usize,
    /// All its bytes, the fixed header included.
    pub wire: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Its variable header and payload.
    pub fn body(&self) -> &'a [u8] {
        self.wire.get(self.header_len..).unwrap_or_default()
    }
}

/// What the bytes received begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing<'a> {
    /// A part of a packet.
    Incomplete {
        /// How many bytes the packet has altogether, once its remaining length has arrived.
        needed: Option<usize>,
    },
    /// A whole packet, more bytes may follow it.
    Complete(Frame<'a>),
}

impl<'a> Framing<'a> {
    /// The size of the largest packet that the standard can express, in bytes.
    pub const MAXIMUM_PACKET_SIZE: u32 = varint::VARIABLE_BYTE_INTEGER_MAX + 5;

    /// Looks at the start of `received`. `maximum` bounds the size of a packet, its fixed header included (§3.1.2.11.4,
    /// §3.2.2.3.6); it is checked as soon as the remaining length has arrived.
    ///
    /// # Errors
    /// [`Error::ReservedPacketType`], [`Error::FixedHeaderFlags`], [`Error::PublishQos`], [`Error::DupWithoutQos`],
    /// [`Error::VariableByteInteger`], [`Error::PacketTooLarge`].
    pub fn read(received: &'a [u8], maximum: u32) -> Result<Self, Error> {
        let Some((&first, rest)) = received.split_first() else {
            return Ok(Self::Incomplete { needed: None });
        };
        let packet_type = PacketType::from_first_byte(first).ok_or(Error::ReservedPacketType(first >> 4))?;
        let flags = first & 0x0F;
        if packet_type == PacketType::Publish {
            check_publish_flags(flags)?;
        } else if flags != packet_type.reserved_flags() {
            return Err(Error::FixedHeaderFlags { packet_type, flags });
        }
        let Some((remaining, length_len)) = varint::decode(rest)? else {
            return Ok(Self::Incomplete { needed: None });
        };
        let header_len = 1 + length_len;
        let size = header_len + remaining as usize;
        if size > maximum as usize {
            return Err(Error::PacketTooLarge { size: size as u64, maximum });
        }
        Ok(match received.get(..size) {
            Some(wire) => Self::Complete(Frame { packet_type, flags, header_len, wire }),
            None => Self::Incomplete { needed: Some(size) },
        })
    }
}

/// The QoS in the flags of a PUBLISH (§3.3.1).
#[inline]
pub(super) fn check_publish_flags(flags: u8) -> Result<Qos, Error> {
    match flags & 0b1110 {
        0b1000 => Err(Error::DupWithoutQos),
        _ => Qos::from_bits(flags >> 1 & 0b11).ok_or(Error::PublishQos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 1024;

    #[test]
    fn a_packet_is_framed_as_soon_as_its_last_byte_is_there() {
        let bytes = [0x30, 0x05, 0, 1, b'a', b'h', b'i', 0xC0, 0x00];
        for end in 0..7 {
            let needed = if end < 2 { None } else { Some(7) };
            assert_eq!(
                Framing::read(&bytes[..end], LIMIT),
                Ok(Framing::Incomplete { needed }),
                "{end} bytes"
            );
        }
        let Ok(Framing::Complete(frame)) = Framing::read(&bytes, LIMIT) else { panic!("a packet is there") };
        assert_eq!((frame.packet_type, frame.flags, frame.header_len), (PacketType::Publish, 0, 2));
        assert_eq!((frame.wire, frame.body()), (&bytes[..7], &bytes[2..7]));
    }

    #[test]
    fn the_maximum_packet_size_holds_before_the_packet_has_arrived_mqtt_3_2_2_15() {
        assert_eq!(
            Framing::read(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], LIMIT),
            Err(Error::PacketTooLarge { size: 268_435_460, maximum: LIMIT })
        );
        // 1024 bytes altogether are allowed, one more is not.
        assert_eq!(Framing::read(&[0x30, 0xFD, 0x07], LIMIT), Ok(Framing::Incomplete { needed: Some(1024) }));
        assert_eq!(
            Framing::read(&[0x30, 0xFE, 0x07], LIMIT),
            Err(Error::PacketTooLarge { size: 1025, maximum: LIMIT })
        );
    }

    #[test]
    fn a_remaining_length_of_five_bytes_is_malformed() {
        assert_eq!(Framing::read(&[0xC0, 0x80, 0x80, 0x80, 0x80], LIMIT), Err(Error::VariableByteInteger));
    }

    #[test]
    fn packet_type_0_is_reserved() {
        assert_eq!(Framing::read(&[0x00, 0x00], LIMIT), Err(Error::ReservedPacketType(0)));
    }

    #[test]
    fn reserved_flags_must_have_their_value_mqtt_2_1_3_1() {
        for first in 0x10..=0xFFu8 {
            let packet_type = PacketType::from_first_byte(first).unwrap();
            let expected = match packet_type {
                PacketType::Publish => continue,
                PacketType::Pubrel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
                _ => 0,
            };
            let flags = first & 0x0F;
            let bytes = [first];
            let result = Framing::read(&bytes, LIMIT);
            if flags == expected {
                assert_eq!(result, Ok(Framing::Incomplete { needed: None }), "{first:#04x}");
            } else {
                assert_eq!(result, Err(Error::FixedHeaderFlags { packet_type, flags }), "{first:#04x}");
            }
        }
    }

    #[test]
    fn a_publish_has_not_both_qos_bits_set_mqtt_3_3_1_4() {
        for first in [0x36, 0x37, 0x3E, 0x3F] {
            assert_eq!(Framing::read(&[first], LIMIT), Err(Error::PublishQos), "{first:#04x}");
        }
    }

    #[test]
    fn dup_is_not_set_with_qos_0_mqtt_3_3_1_2() {
        assert_eq!(Framing::read(&[0x38], LIMIT), Err(Error::DupWithoutQos));
        assert_eq!(Framing::read(&[0x39], LIMIT), Err(Error::DupWithoutQos));
    }
}
