//! Who has a file locked.

use std::fs::Metadata;
use std::os::linux::fs::MetadataExt;

/// The process that has the file locked, in the text of `/proc/locks` (proc_locks(5)); none when it is not seen from here,
/// as from another container.
pub(super) fn holder(locks: &str, file: &Metadata) -> Option<u32> {
    let device = file.st_dev();
    // as glibc's major() and minor() take it apart
    let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
    let minor = device & 0xff | (device >> 12) & !0xff;
    let place = format!("{major:02x}:{minor:02x}:{}", file.st_ino());
    // 1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF
    let lock_of = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next()?;
        let (id, at) = (words.nth(2)?, words.next()?);
        (kind != "->" && at == place).then(|| id.parse().ok()).flatten()
    };
    locks.lines().filter_map(lock_of).find(|id| *id > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_by_device_and_inode() {
        let file = std::fs::metadata(env!("CARGO_MANIFEST_DIR")).unwrap();
        let device = file.st_dev();
        let (major, minor) = ((device >> 8) & 0xfff, device & 0xff | (device >> 12) & !0xff);
        let inode = file.st_ino();
        let locks = format!(
            "1: POSIX  ADVISORY  WRITE 17 00:2e:{inode} 0 EOF\n\
             2: OFDLCK ADVISORY  WRITE -1 {major:02x}:{minor:02x}:{inode} 0 EOF\n\
             2: -> FLOCK  ADVISORY  WRITE 99 {major:02x}:{minor:02x}:{inode} 0 EOF\n\
             3: FLOCK  ADVISORY  WRITE 4711 {major:02x}:{minor:02x}:{inode} 0 EOF\n"
        );
        assert_eq!(holder(&locks, &file), Some(4711));
        assert_eq!(holder("3: FLOCK  ADVISORY  WRITE 1 00:00:1 0 EOF\n", &file), None);
    }
}
