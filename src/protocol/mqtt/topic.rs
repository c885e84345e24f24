//! Topic names and topic filters (§4.7): what may be written in them. Matching and `$share/…` are the door's.

use super::{error::Error, text};

/// Whether `name` is a topic name that a message may be published to.
///
/// # Errors
/// [`Error::TopicNameEmpty`] [MQTT-4.7.3-1], [`Error::TopicNameWildcard`] [MQTT-4.7.0-1], [`Error::Utf8`],
/// [`Error::NullCharacter`] [MQTT-4.7.3-2].
pub fn check_topic_name(name: &[u8]) -> Result<(), Error> {
    if name.is_empty() { Err(Error::TopicNameEmpty) } else { check_name_characters(name) }
}

/// As [`check_topic_name`], but an empty name passes: a topic alias may stand for it.
#[inline]
pub(super) fn check_name_characters(name: &[u8]) -> Result<(), Error> {
    if text::is_ascii_without(name, [0, b'#', b'+']) {
        return Ok(());
    }
    check_name_slowly(name)
}

#[cold]
fn check_name_slowly(name: &[u8]) -> Result<(), Error> {
    text::decode(name)?;
    match memchr::memchr2(b'#', b'+', name) {
        Some(_) => Err(Error::TopicNameWildcard),
        None => Ok(()),
    }
}

/// Whether `filter` is a topic filter that can be subscribed to.
///
/// # Errors
/// [`Error::TopicFilterEmpty`] [MQTT-4.7.3-1], [`Error::TopicFilterWildcard`] [MQTT-4.7.1-1] [MQTT-4.7.1-2].
pub fn check_topic_filter(filter: &str) -> Result<(), Error> {
    if filter.is_empty() {
        return Err(Error::TopicFilterEmpty);
    }
    if memchr::memchr2(b'#', b'+', filter.as_bytes()).is_none() {
        return Ok(());
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let good = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            _ => memchr::memchr2(b'#', b'+', level.as_bytes()).is_none(),
        };
        if !good {
            return Err(Error::TopicFilterWildcard);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_name_holds_no_wildcards_mqtt_4_7_0_1() {
        for name in ["#", "+", "sport/+", "a/b/c/d/e/f/g/#", "härte/#", "+é"] {
            assert_eq!(check_topic_name(name.as_bytes()), Err(Error::TopicNameWildcard), "{name}");
        }
        for name in ["/", "a", "sport/tennis/player1", "$SYS/uptime", "ACCOUNTS é", "a//b"] {
            assert_eq!(check_topic_name(name.as_bytes()), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_and_filters_are_at_least_one_character_long_mqtt_4_7_3_1() {
        assert_eq!(check_topic_name(b""), Err(Error::TopicNameEmpty));
        assert_eq!(check_topic_filter(""), Err(Error::TopicFilterEmpty));
    }

    #[test]
    fn a_topic_name_holds_no_null_character_mqtt_4_7_3_2() {
        assert_eq!(check_topic_name(b"a/\0"), Err(Error::NullCharacter));
        assert_eq!(check_topic_name("é\0".as_bytes()), Err(Error::NullCharacter));
    }

    #[test]
    fn the_multi_level_wildcard_is_the_last_level_alone_mqtt_4_7_1_1() {
        for filter in ["#", "sport/tennis/#", "/#", "$share/group/#"] {
            assert_eq!(check_topic_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["sport/tennis#", "sport/tennis/#/ranking", "#/", "##", "#+"] {
            assert_eq!(check_topic_filter(filter), Err(Error::TopicFilterWildcard), "{filter}");
        }
    }

    #[test]
    fn the_single_level_wildcard_occupies_a_level_alone_mqtt_4_7_1_2() {
        for filter in ["+", "+/tennis/#", "sport/+/player1", "/+", "+/+"] {
            assert_eq!(check_topic_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["sport+", "+sport", "a/b+/c", "++"] {
            assert_eq!(check_topic_filter(filter), Err(Error::TopicFilterWildcard), "{filter}");
        }
    }
}
