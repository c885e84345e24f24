//! What topic filters have in common.

use linkspan_contract::address::{self, Level, Pattern, Syntax, respelled};

/// True when every topic that `narrow` matches is matched by `wide`.
pub(crate) fn covers(wide: &Pattern, narrow: &Pattern) -> bool {
    fn walk(wide: &[Level], narrow: &[Level]) -> bool {
        match (wide.split_first(), narrow.split_first()) {
            (Some((Level::Rest, _)), _) | (None, None) => true,
            (None, Some(_)) | (Some(_), None) => false,
            (Some((Level::One, wide)), Some((first, narrow))) => *first != Level::Rest && walk(wide, narrow),
            (Some((one, wide)), Some((other, narrow))) => one == other && walk(wide, narrow),
        }
    }
    // A wildcard at the front matches no `$` address.
    let hidden = begins_with_dollar(narrow) && !matches!(wide.levels.first(), Some(Level::Literal(_)));
    !hidden && walk(&wide.levels, &narrow.levels)
}

/// True when there may be a topic that both match.
pub(crate) fn meet(one: &Pattern, other: &Pattern) -> bool {
    fn walk(one: &[Level], other: &[Level]) -> bool {
        match (one.split_first(), other.split_first()) {
            (Some((Level::Rest, _)), _) | (_, Some((Level::Rest, _))) | (None, None) => true,
            (None, Some(_)) | (Some(_), None) => false,
            (Some((Level::Literal(a), one)), Some((Level::Literal(b), other))) => a == b && walk(one, other),
            (Some((_, one)), Some((_, other))) => walk(one, other),
        }
    }
    let hidden = |wild: &Pattern, dollar: &Pattern| {
        begins_with_dollar(dollar) && !matches!(wild.levels.first(), Some(Level::Literal(_)))
    };
    !hidden(one, other) && !hidden(other, one) && walk(&one.levels, &other.levels)
}

fn begins_with_dollar(pattern: &Pattern) -> bool {
    matches!(pattern.levels.first(), Some(Level::Literal(first)) if first.first() == Some(&b'$'))
}

/// A filter that covers both.
pub(crate) fn joined(one: &Pattern, other: &Pattern) -> Pattern {
    let mut levels = Vec::new();
    let mut pairs = (one.levels.iter(), other.levels.iter());
    loop {
        match (pairs.0.next(), pairs.1.next()) {
            (None, None) => break,
            (Some(Level::Rest), _) | (_, Some(Level::Rest)) | (None, _) | (_, None) => {
                levels.push(Level::Rest);
                break;
            }
            (Some(a), Some(b)) if a == b => levels.push(a.clone()),
            _ => levels.push(Level::One),
        }
    }
    Pattern { levels: levels.into(), spares_dollar: true }
}

/// The filter in MQTT's words.
pub(crate) fn text(pattern: &Pattern) -> String {
    let levels: Vec<_> = pattern
        .levels
        .iter()
        .map(|level| match level {
            Level::Literal(literal) => String::from_utf8_lossy(literal),
            Level::One => "+".into(),
            Level::Rest => "#".into(),
        })
        .collect();
    levels.join("/")
}

/// The MQTT filter that brings what the binding key of a topic exchange matches, perhaps more; none when no topic does.
pub(crate) fn of_binding(key: &[u8]) -> Option<String> {
    let binding = Pattern::from_binding(key);
    let mut levels = Vec::new();
    for level in &binding.levels {
        if let Level::Literal(word) = level
            && !word.is_empty()
            && !address::is_topic(word)
        {
            return None;
        }
        levels.push(level.clone());
        if *level == Level::Rest {
            break;
        }
    }
    if levels.is_empty() || respelled(key, Syntax::Key, Syntax::Topic).len() > usize::from(u16::MAX) {
        return None;
    }
    Some(text(&Pattern { levels: levels.into(), spares_dollar: true }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(filter: &str) -> Pattern {
        Pattern::from_filter(filter)
    }

    /// All topics of up to three levels over a small alphabet.
    fn topics() -> Vec<String> {
        let words = ["", "a", "b", "$s"];
        let mut all: Vec<String> = words.iter().skip(1).map(|word| (*word).into()).collect();
        for one in words {
            for two in words {
                all.push(format!("{one}/{two}"));
                all.extend(words.iter().map(|three| format!("{one}/{two}/{three}")));
            }
        }
        all
    }

    fn filters() -> Vec<String> {
        let words = ["a", "b", "+", "$s", ""];
        let mut all: Vec<String> = vec!["#".into(), "a".into(), "b".into(), "+".into(), "$s".into()];
        for one in words {
            all.push(format!("{one}/#"));
            for two in words {
                all.push(format!("{one}/{two}"));
                all.push(format!("{one}/{two}/#"));
                all.extend(words.iter().map(|three| format!("{one}/{two}/{three}")));
            }
        }
        all
    }

    #[test]
    fn covering_meeting_and_joining_agree_with_matching() {
        let (topics, filters) = (topics(), filters());
        for one in &filters {
            for other in &filters {
                let (a, b) = (pattern(one), pattern(other));
                let both = topics.iter().any(|it| a.matches(it.as_bytes()) && b.matches(it.as_bytes()));
                if both {
                    assert!(meet(&a, &b), "{one} and {other} meet");
                }
                if covers(&a, &b) {
                    let gap = topics.iter().find(|it| b.matches(it.as_bytes()) && !a.matches(it.as_bytes()));
                    assert_eq!(gap, None, "{one} covers {other}");
                }
                if both {
                    let joined = joined(&a, &b);
                    assert!(
                        covers(&joined, &a) && covers(&joined, &b),
                        "{one} and {other}: {}",
                        text(&joined)
                    );
                }
            }
        }
        assert!(!meet(&pattern("a/+"), &pattern("b/#")));
        assert!(covers(&pattern("a/#"), &pattern("a")) && !covers(&pattern("a/+"), &pattern("a/#")));
    }

    #[test]
    fn a_binding_is_brought_by_the_filter_or_a_wider_one() {
        for (binding, filter) in [
            ("a.*.c", Some("a/+/c")),
            ("#", Some("#")),
            ("a.#.b", Some("a/#")),
            ("#.x", Some("#")),
            ("a/b.c", Some("a.b/c")),
            ("a..b", Some("a//b")),
            ("", None),
            ("a.+", None),
            ("a#", None),
            ("a\0", None),
        ] {
            assert_eq!(of_binding(binding.as_bytes()).as_deref(), filter, "{binding}");
        }
        assert_eq!(of_binding(b"\xff"), None);
    }
}
