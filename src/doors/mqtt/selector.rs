//! What a topic filter selects: copies of messages, a group's share of them, or a queue's work.

use linkspan_contract::Source;

/// Begins a shared subscription (MQTT 5 §4.8.2).
const SHARE: &str = "$share/";

/// Begins the name of a queue.
const QUEUE: &str = "$queue/";

/// A filter that cannot be subscribed to, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unselectable {
    #[error(
        "'{0}' has to be $share/<group>/<filter>, the group without '+' and '#' [MQTT-4.8.2-1] [MQTT-4.8.2-2]"
    )]
    Share(Box<str>),
    #[error("'{0}' has to be $queue/<name>, the name without '+' and '#'")]
    Queue(Box<str>),
    #[error("a filter of {levels} levels is not taken: {allowed} are allowed")]
    Levels { levels: usize, allowed: usize },
}

/// Takes a well-formed topic filter apart.
///
/// # Errors
/// When it is no shared subscription and no queue although it begins like one, or has too many levels.
pub(super) fn select(filter: &str, levels_allowed: usize) -> Result<Source<'_>, Unselectable> {
    let levels = memchr::memchr_iter(b'/', filter.as_bytes()).count() + 1;
    if levels > levels_allowed {
        return Err(Unselectable::Levels { levels, allowed: levels_allowed });
    }
    let wild = |text: &str| memchr::memchr2(b'+', b'#', text.as_bytes()).is_some();
    if let Some(shared) = filter.strip_prefix(SHARE) {
        return match shared.split_once('/') {
            Some((group, filter)) if !group.is_empty() && !filter.is_empty() && !wild(group) => {
                Ok(Source::Group { group, filter })
            }
            _ => Err(Unselectable::Share(filter.into())),
        };
    }
    if let Some(name) = filter.strip_prefix(QUEUE) {
        return match name {
            "" => Err(Unselectable::Queue(filter.into())),
            name if wild(name) => Err(Unselectable::Queue(filter.into())),
            name => Ok(Source::Queue(name)),
        };
    }
    Ok(Source::Filter(filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_selects_copies_a_share_or_a_queue() {
        for (filter, source) in [
            ("a/+/#", Source::Filter("a/+/#")),
            ("$SYS/#", Source::Filter("$SYS/#")),
            ("$share", Source::Filter("$share")),
            ("$share/g/a/#", Source::Group { group: "g", filter: "a/#" }),
            ("$share/g//a", Source::Group { group: "g", filter: "/a" }),
            ("$queue/image-resize", Source::Queue("image-resize")),
            ("$queue/a/b", Source::Queue("a/b")),
        ] {
            assert_eq!(select(filter, 8), Ok(source), "{filter}");
        }
    }

    #[test]
    fn a_share_has_a_group_and_a_filter_mqtt_4_8_2_1() {
        for filter in ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/#"] {
            assert_eq!(select(filter, 8), Err(Unselectable::Share(filter.into())), "{filter}");
        }
        for filter in ["$queue/", "$queue/#", "$queue/+"] {
            assert_eq!(select(filter, 8), Err(Unselectable::Queue(filter.into())), "{filter}");
        }
    }

    #[test]
    fn the_number_of_levels_is_bounded() {
        assert!(select("a/b/c", 3).is_ok());
        assert_eq!(select("a/b/c/d", 3), Err(Unselectable::Levels { levels: 4, allowed: 3 }));
    }
}
