//! Names of queues that are Linkspan's own at the broker, made of names that clients chose.

use std::fmt::Write;

/// The longest queue name that RabbitMQ takes.
const LONGEST: usize = 255;

/// The queue of that kind for these names: the same in every Linkspan, readable as long as it is short enough, and
/// another for other names.
pub(crate) fn queue_name(kind: &str, names: &[&str]) -> String {
    let mut name = format!("linkspan.{kind}");
    for part in names {
        name.push('.');
        escape(part, &mut name);
    }
    if name.len() <= LONGEST {
        return name;
    }
    let mut end = LONGEST - 33;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let (one, other) = (digest(&name, 0xcbf2_9ce4_8422_2325), digest(&name, 0x9ae1_6a3b_2f90_404f));
    format!("{}~{one:016x}{other:016x}", name.get(..end).unwrap_or_default())
}

/// Dots and what may stand for them written as bytes, so that no two lists of names have one queue.
fn escape(text: &str, out: &mut String) {
    for letter in text.chars() {
        match letter {
            '.' | '%' | '~' => _ = write!(out, "%{:02x}", letter as u32),
            other => out.push(other),
        }
    }
}

/// The names that a queue of that kind is made of; none when it is of another kind, or was too long for them.
pub(crate) fn names(kind: &str, name: &str) -> Option<Vec<String>> {
    let rest = name.strip_prefix("linkspan.")?.strip_prefix(kind)?.strip_prefix('.')?;
    rest.split('.').map(unescaped).collect()
}

/// What was escaped; nothing when that is not what it is.
fn unescaped(text: &str) -> Option<String> {
    if text.contains('~') {
        return None;
    }
    let mut parts = text.split('%');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        plain.push(char::from(u8::from_str_radix(code, 16).ok()?));
        plain.push_str(rest);
    }
    Some(plain)
}

/// FNV-1a, which is the same everywhere and for ever.
fn digest(text: &str, seed: u64) -> u64 {
    text.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lists_of_names_have_one_queue() {
        assert_eq!(queue_name("share", &["g", "a/+/#"]), "linkspan.share.g.a/+/#");
        assert_ne!(queue_name("share", &["a.b", "c"]), queue_name("share", &["a", "b.c"]));
        for of in [&["a.b", "c"][..], &["%", "~", "ü"], &["plain"]] {
            assert_eq!(names("share", &queue_name("share", of)).unwrap(), of);
        }
        let long = "x".repeat(300);
        assert_eq!(names("share", &queue_name("share", &[&long])), None);
        let of = |last: char| queue_name("share", &["g", &format!("{long}{last}")]);
        assert!(of('1').len() <= 255 && of('2').len() <= 255 && of('1') != of('2'));
    }
}
