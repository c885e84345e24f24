//! One address space, two spellings.
//!
//! MQTT writes `a/b/c`, AMQP `a.b.c`. A `.` inside an MQTT level and a `/` inside an AMQP word change places
//! (`a.b/c` is `a/b.c`), so that each spelling of an address has exactly one of the other. Back ends keep addresses in
//! MQTT's spelling.

use std::borrow::Cow;

/// How an address is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Syntax {
    /// MQTT topic: levels parted by `/`.
    Topic,
    /// AMQP routing key: words parted by `.`.
    Key,
}

/// Where a message was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address<'a> {
    /// The exchange it was published to; `None` is the vhost's address space (its topic exchange).
    pub exchange: Option<&'a [u8]>,
    /// Topic or routing key.
    pub path: &'a [u8],
    /// How `path` is spelled.
    pub syntax: Syntax,
}

impl<'a> Address<'a> {
    /// The path in MQTT's spelling.
    pub fn topic(&self) -> Cow<'a, [u8]> {
        respelled(self.path, self.syntax, Syntax::Topic)
    }

    /// The path in AMQP's spelling.
    pub fn key(&self) -> Cow<'a, [u8]> {
        respelled(self.path, self.syntax, Syntax::Key)
    }
}

/// `byte` in the other spelling.
#[inline]
pub const fn swapped(byte: u8) -> u8 {
    match byte {
        b'/' => b'.',
        b'.' => b'/',
        other => other,
    }
}

/// `path`, spelled `from`, in the spelling `to`.
pub fn respelled(path: &[u8], from: Syntax, to: Syntax) -> Cow<'_, [u8]> {
    if from == to || !path.iter().any(|byte| matches!(byte, b'/' | b'.')) {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(path.iter().copied().map(swapped).collect())
    }
}

/// True when a path in MQTT's spelling is a topic that an MQTT client can be given: UTF-8, not empty, no wildcard, no
/// NUL (MQTT 5 §4.7.3). A routing key may be none.
pub fn is_topic(path: &[u8]) -> bool {
    !path.is_empty()
        && path.len() <= usize::from(u16::MAX)
        && !path.iter().any(|byte| matches!(byte, b'+' | b'#' | 0))
        && std::str::from_utf8(path).is_ok()
}

/// The levels of a path in MQTT's spelling. The empty path (an empty routing key) has none.
pub fn levels(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = (!path.is_empty()).then_some(path);
    std::iter::from_fn(move || {
        let whole = rest?;
        match whole.iter().position(|byte| *byte == b'/') {
            Some(at) => {
                let (level, after) = whole.split_at(at);
                rest = after.get(1..);
                Some(level)
            }
            None => {
                rest = None;
                Some(whole)
            }
        }
    })
}

/// One level of a [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Level {
    /// This level and no other, in MQTT's spelling.
    Literal(Box<[u8]>),
    /// Any one level: MQTT `+`, AMQP `*`.
    One,
    /// Any number of levels, none included: `#`.
    Rest,
}

/// An address filter: MQTT's topic filter or AMQP's binding key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// Level by level.
    pub levels: Box<[Level]>,
    /// A wildcard at the front matches no `$…` address (MQTT 5 §4.7.2 [MQTT-4.7.2-1]).
    pub spares_dollar: bool,
}

impl Pattern {
    /// Reads an MQTT topic filter that is known to be valid.
    pub fn from_filter(filter: &str) -> Self {
        let levels = levels(filter.as_bytes())
            .map(|level| match level {
                b"+" => Level::One,
                b"#" => Level::Rest,
                literal => Level::Literal(literal.into()),
            })
            .collect();
        Self { levels, spares_dollar: true }
    }

    /// Reads the binding key of a topic exchange.
    pub fn from_binding(key: &[u8]) -> Self {
        let topic = respelled(key, Syntax::Key, Syntax::Topic);
        let levels = levels(&topic)
            .map(|level| match level {
                b"*" => Level::One,
                b"#" => Level::Rest,
                literal => Level::Literal(literal.into()),
            })
            .collect();
        Self { levels, spares_dollar: false }
    }

    /// True when `path`, in MQTT's spelling, is matched.
    pub fn matches(&self, path: &[u8]) -> bool {
        fn walk(pattern: &[Level], path: &[&[u8]]) -> bool {
            match (pattern.split_first(), path.split_first()) {
                (None, None) => true,
                (None, Some(_)) => false,
                (Some((Level::Rest, [])), _) => true,
                (Some((Level::Rest, after)), None) => walk(after, path),
                (Some((Level::Rest, after)), Some((_, rest))) => walk(after, path) || walk(pattern, rest),
                (Some(_), None) => false,
                (Some((Level::One, after)), Some((_, rest))) => walk(after, rest),
                (Some((Level::Literal(literal), after)), Some((level, rest))) => {
                    **literal == **level && walk(after, rest)
                }
            }
        }
        if self.spares_dollar
            && path.first() == Some(&b'$')
            && !matches!(self.levels.first(), Some(Level::Literal(_)))
        {
            return false;
        }
        let path: Vec<&[u8]> = levels(path).collect();
        walk(&self.levels, &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_separators_change_places() {
        assert_eq!(&*respelled(b"a.b/c", Syntax::Topic, Syntax::Key), b"a/b.c");
        assert_eq!(&*respelled(b"a/b.c", Syntax::Key, Syntax::Topic), b"a.b/c");
    }

    #[test]
    fn empty_levels_are_kept_and_the_empty_key_has_none() {
        assert_eq!(levels(b"/a//b").collect::<Vec<_>>(), [&b""[..], b"a", b"", b"b"]);
        assert_eq!(levels(b"a/").collect::<Vec<_>>(), [&b"a"[..], b""]);
        assert_eq!(levels(b"").count(), 0);
    }

    #[test]
    fn filters_match_as_mqtt_says() {
        for (filter, topic, yes) in [
            ("sport/tennis/#", "sport/tennis", true), // [MQTT-4.7.1-2], §4.7.1.2
            ("sport/tennis/#", "sport/tennis/a/b", true),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false), // [MQTT-4.7.2-1]
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("a/*/b", "a/x/b", false),
        ] {
            assert_eq!(Pattern::from_filter(filter).matches(topic.as_bytes()), yes, "{filter} {topic}");
        }
    }

    #[test]
    fn bindings_match_as_amqp_says() {
        for (binding, key, yes) in [
            ("*.orange.*", "quick.orange.rabbit", true),
            ("*.orange.*", "quick.orange.male.rabbit", false),
            ("lazy.#", "lazy", true),
            ("#", "", true),
            ("*", "", false),
            ("", "", true),
            ("a.#.b", "a.b", true),
            ("a.#.b", "a.x.y.b", true),
            ("a.#.b", "a.x.y", false),
            ("#.x", "a.b.x", true),
            ("a.+", "a.b", false),
        ] {
            let topic = respelled(key.as_bytes(), Syntax::Key, Syntax::Topic);
            assert_eq!(Pattern::from_binding(binding.as_bytes()).matches(&topic), yes, "{binding} {key}");
        }
    }

    #[test]
    fn a_key_with_wildcards_or_nothing_is_no_topic() {
        assert!(is_topic(b"a/b") && is_topic(b"/"));
        assert!(
            !is_topic(b"")
                && !is_topic(b"a/+")
                && !is_topic(b"#x")
                && !is_topic(b"a\0")
                && !is_topic(b"\xff")
        );
    }
}
