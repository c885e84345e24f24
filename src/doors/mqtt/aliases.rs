//! Topic aliases that a client has set on its connection (MQTT 5 §3.3.2.3.4).

use std::num::NonZeroU16;

/// Which topic each alias stands for. Empty, and without memory of its own, until the first is set.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    topics: Vec<Option<Box<[u8]>>>,
}

impl Aliases {
    /// From now on `alias` stands for `topic` [MQTT-3.3.2-12].
    pub(super) fn set(&mut self, alias: NonZeroU16, topic: &[u8]) {
        let place = usize::from(alias.get()) - 1;
        if self.topics.len() <= place {
            self.topics.resize(place + 1, None);
        }
        match self.topics.get_mut(place) {
            Some(Some(known)) if **known == *topic => {}
            Some(slot) => *slot = Some(topic.into()),
            None => {}
        }
    }

    /// The topic that `alias` stands for.
    pub(super) fn get(&self, alias: NonZeroU16) -> Option<&[u8]> {
        self.topics.get(usize::from(alias.get()) - 1)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_stands_for_the_topic_that_it_was_set_to_last() {
        let (three, one) = (NonZeroU16::new(3).unwrap(), NonZeroU16::MIN);
        let mut aliases = Aliases::default();
        assert_eq!(aliases.get(three), None);
        aliases.set(three, b"a");
        aliases.set(three, b"b/c");
        assert_eq!(aliases.get(three), Some(&b"b/c"[..]));
        assert_eq!(aliases.get(one), None, "never set");
    }
}
