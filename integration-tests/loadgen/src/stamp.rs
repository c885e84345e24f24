//! The stamp at the front of every payload: by it each message is known again.

/// Bytes of a stamp, the least that a payload may have.
pub const LEN: usize = 16;

/// The 16 bytes at the front of every payload.
/// ts: 48 bits of nanoseconds; seq: per stream; stream: a (publisher, topic) pair; run: this run.
#[inline(always)]
pub fn put(p: &mut [u8], ts: u64, seq: u32, stream: u32, run: u16) {
    let a = (ts << 16) | run as u64;
    let b = ((stream as u64) << 32) | seq as u64;
    p[..8].copy_from_slice(&a.to_le_bytes());
    p[8..16].copy_from_slice(&b.to_le_bytes());
}

#[inline(always)]
pub fn get(p: &[u8]) -> (u64, u32, u32, u16) {
    let a = u64::from_le_bytes(p[..8].try_into().unwrap());
    let b = u64::from_le_bytes(p[8..16].try_into().unwrap());
    (a >> 16, b as u32, (b >> 32) as u32, a as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_round_trip() {
        let mut p = [0u8; 16];
        put(&mut p, 123_456_789_012, 77, 3, 0xbeef);
        assert_eq!(get(&p), (123_456_789_012, 77, 3, 0xbeef));
    }
}
