//! What has been received and not yet dealt with: nothing, for most connections most of the time.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::arriving::Arriving;
use super::limits::LARGE;
use crate::protocol::mqtt::{Frame, Framing, PacketType};

/// Bytes of one permit for large packets.
pub(super) const PERMIT: u64 = 1024;

/// The rest of a read.
#[derive(Debug, Default)]
pub(super) struct Input {
    rest: Vec<u8>,
    /// The rest may begin with whole packets.
    unread: bool,
    large: Option<Box<Large>>,
}

/// A packet that is read into a buffer of exactly its size.
#[derive(Debug)]
struct Large {
    bytes: Vec<u8>,
    filled: usize,
    needed: usize,
    permit: Option<OwnedSemaphorePermit>,
    /// Where it goes, once that is known.
    way: Way,
}

/// Where a large packet goes.
enum Way {
    /// Not known yet: it is a PUBLISH, and the head has to be there.
    Open,
    /// Into memory.
    Memory,
    /// Its payload is written where it is kept.
    Arriving(Box<Arriving>),
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Memory => "into memory",
            Self::Arriving(_) => "where it is kept",
        })
    }
}

impl Input {
    /// Puts what was kept before the bytes that will be read; says how many that are.
    pub(super) fn place_before(&self, buffer: &mut [u8]) -> usize {
        match buffer.get_mut(..self.rest.len()) {
            Some(front) => {
                front.copy_from_slice(&self.rest);
                self.rest.len()
            }
            None => 0,
        }
    }

    /// Keeps what was not dealt with: the beginning of a packet of `needed` bytes.
    pub(super) fn keep(&mut self, rest: &[u8], needed: Option<usize>) {
        self.unread = false;
        match needed {
            Some(needed) if needed > LARGE => {
                self.rest = Vec::new();
                let first = rest.first().copied().and_then(PacketType::from_first_byte);
                let way = if first == Some(PacketType::Publish) { Way::Open } else { Way::Memory };
                let large = Large { bytes: rest.to_vec(), filled: rest.len(), needed, permit: None, way };
                self.large = Some(Box::new(large));
            }
            _ if rest.is_empty() => self.rest = Vec::new(),
            _ => {
                self.rest.clear();
                self.rest.reserve_exact(needed.unwrap_or(rest.len()).max(rest.len()));
                self.rest.extend_from_slice(rest);
            }
        }
    }

    /// Keeps packets that come after a request that is being carried out.
    pub(super) fn keep_unread(&mut self, rest: &[u8]) {
        self.rest = rest.to_vec();
        self.unread = !rest.is_empty();
    }

    /// Adds what came behind it meanwhile.
    pub(super) fn keep_more(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        self.unread |= !bytes.is_empty();
    }

    /// Number of bytes that are kept.
    pub(super) fn kept(&self) -> usize {
        self.rest.len()
    }

    /// Takes the PINGREQs out of the whole packets that are kept, from `looked` on, and says how many they were.
    pub(super) fn take_pings(&mut self, looked: &mut usize) -> usize {
        self.take_out(looked, is_ping).len() / 2
    }

    /// Takes out of the whole packets that are kept, from `looked` on, those that only answer what was sent to the client,
    /// and PINGREQs: they wait for nothing that comes before them.
    pub(super) fn take_answers(&mut self, looked: &mut usize) -> Vec<u8> {
        use PacketType::{Puback, Pubcomp, Pubrec, Pubrel};
        self.take_out(looked, |frame| {
            is_ping(frame) || matches!(frame.packet_type, Puback | Pubrec | Pubrel | Pubcomp)
        })
    }

    fn take_out(&mut self, looked: &mut usize, wanted: impl Fn(&Frame<'_>) -> bool) -> Vec<u8> {
        let (mut at, mut taken) = (*looked, Vec::new());
        let most = Framing::MAXIMUM_PACKET_SIZE;
        while let Ok(Framing::Complete(frame)) = Framing::read(self.rest.get(at..).unwrap_or_default(), most)
        {
            let end = at + frame.wire.len();
            if wanted(&frame) {
                taken.extend_from_slice(frame.wire);
            } else {
                self.rest.copy_within(at..end, *looked);
                *looked += end - at;
            }
            at = end;
        }
        if !taken.is_empty() {
            self.rest.drain(*looked..at);
            self.unread = !self.rest.is_empty();
        }
        taken
    }

    /// The packets that were kept.
    pub(super) fn take_unread(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.unread).then(|| std::mem::take(&mut self.rest))
    }

    /// Puts back what is still to be dealt with, from `consumed` on.
    pub(super) fn put_back(&mut self, mut bytes: Vec<u8>, consumed: usize) {
        bytes.drain(..consumed);
        self.unread = !bytes.is_empty();
        self.rest = bytes;
    }

    /// Whether a large packet is under way.
    pub(super) fn is_large(&self) -> bool {
        self.large.is_some()
    }

    /// Whether it is not known yet where the large packet goes: it is a PUBLISH of which only the beginning is there.
    pub(super) fn is_open(&self) -> bool {
        self.large.as_ref().is_some_and(|large| matches!(large.way, Way::Open))
    }

    /// Whether the large packet is a PUBLISH.
    pub(super) fn is_publish(&self) -> bool {
        let first = self.large.as_ref().and_then(|large| large.bytes.first());
        first.is_some_and(|first| PacketType::from_first_byte(*first) == Some(PacketType::Publish))
    }

    /// The beginning of the large packet, and how long it is.
    pub(super) fn beginning(&self) -> (&[u8], usize) {
        self.large.as_ref().map_or((&[], 0), |large| (&large.bytes, large.needed))
    }

    /// More of its beginning.
    pub(super) fn add_to_beginning(&mut self, bytes: &[u8]) {
        if let Some(large) = &mut self.large {
            large.bytes.extend_from_slice(bytes);
            large.filled = large.bytes.len();
        }
    }

    /// It goes into memory.
    pub(super) fn goes_into_memory(&mut self) {
        if let Some(large) = &mut self.large {
            large.way = Way::Memory;
        }
    }

    /// Its payload is written where it is kept.
    pub(super) fn goes_to_its_place(&mut self, arriving: Box<Arriving>) {
        if let Some(large) = &mut self.large {
            large.bytes = Vec::new();
            large.way = Way::Arriving(arriving);
        }
    }

    /// What is on its way there.
    pub(super) fn arriving(&mut self) -> Option<&mut Arriving> {
        match &mut self.large.as_mut()?.way {
            Way::Arriving(arriving) => Some(arriving),
            Way::Open | Way::Memory => None,
        }
    }

    /// What has arrived there.
    pub(super) fn arrived(&mut self) -> Option<Box<Arriving>> {
        match self.large.take()?.way {
            Way::Arriving(arriving) => Some(arriving),
            Way::Open | Way::Memory => None,
        }
    }

    /// The permits that the large packet still needs before memory is taken for it; none when it has them.
    pub(super) fn permits_needed(&self, all: u64) -> Option<u32> {
        let large = self.large.as_ref().filter(|large| large.permit.is_none())?;
        let permits = (large.needed as u64).div_ceil(PERMIT).min(all / PERMIT);
        Some(u32::try_from(permits).unwrap_or(u32::MAX))
    }

    /// Takes memory for the large packet.
    pub(super) fn admit(&mut self, permit: OwnedSemaphorePermit) {
        if let Some(large) = &mut self.large {
            // The system gives zeroed pages as they are written to, not before.
            let mut bytes = vec![0; large.needed];
            if let Some(front) = bytes.get_mut(..large.filled) {
                front.copy_from_slice(&large.bytes);
            }
            large.bytes = bytes;
            large.permit = Some(permit);
        }
    }

    /// Where the large packet's next bytes go.
    pub(super) fn large_room(&mut self) -> &mut [u8] {
        self.large.as_mut().and_then(|large| large.bytes.get_mut(large.filled..)).unwrap_or_default()
    }

    /// `count` more bytes of the large packet are there; the whole packet when these were the last.
    pub(super) fn large_filled(&mut self, count: usize) -> Option<(Bytes, Option<OwnedSemaphorePermit>)> {
        let large = self.large.as_mut()?;
        large.filled += count;
        if large.filled < large.needed {
            return None;
        }
        let large = self.large.take()?;
        Some((Bytes::from(large.bytes), large.permit))
    }
}

fn is_ping(frame: &Frame<'_>) -> bool {
    frame.packet_type == PacketType::Pingreq && frame.wire.len() == 2
}

/// Permits for `bytes` of large packets.
pub(super) fn permits(bytes: u64) -> Arc<Semaphore> {
    let permits = usize::try_from(bytes / PERMIT).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_taken_out_from_between_other_packets_and_half_ones_stay() {
        let (ping, puback, publish) = ([0xC0, 0], [0x40, 2, 0, 1], [0x30, 4, 0, 1, b'a', 0xC0]);
        let mut input = Input::default();
        input.keep_unread(&[&ping[..], &publish, &ping, &ping, &puback].concat());
        let mut looked = 0;
        assert_eq!((input.take_pings(&mut looked), looked), (3, 10));
        input.keep_more(&[0xC0]);
        assert_eq!(input.take_pings(&mut looked), 0);
        input.keep_more(&[0, 0x30]);
        assert_eq!(input.take_pings(&mut looked), 1);
        assert_eq!(input.take_unread().unwrap(), [&publish[..], &puback, &[0x30]].concat());
        input.keep_unread(&[&publish[..], &puback, &ping, &publish, &[0x62, 2, 0, 7], &ping].concat());
        let mut looked = 0;
        assert_eq!(input.take_answers(&mut looked), [&puback[..], &ping, &[0x62, 2, 0, 7], &ping].concat());
        assert_eq!((input.take_unread().unwrap(), looked), ([publish, publish].concat(), 12));
        input.keep_unread(&ping);
        assert_eq!((input.take_pings(&mut 0), input.take_unread()), (1, None));
    }
}
