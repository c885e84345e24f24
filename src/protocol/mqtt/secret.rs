//! Bytes that must not reach a log.

use std::fmt;

/// A password or authentication data: compares like its bytes, but its `Debug` shows only their number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret<'a>(pub &'a [u8]);

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_password_is_not_printed() {
        assert_eq!(format!("{:?}", Secret(b"hunter2")), "Secret(7 bytes)");
    }
}
