//! Where the values that owners keep under keys lie.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use crate::log::Lsn;
use crate::log::block::Place;
use crate::log::record::size_of_record;
use crate::log::segments::Segments;

/// All keys of all owners.
#[derive(Default)]
pub(crate) struct Keys {
    owners: HashMap<u64, HashMap<Box<[u8]>, Entry, RandomState>, RandomState>,
    /// Deletions that are needed as long as an older segment may hold a value, by their records.
    dead: BTreeMap<Lsn, (u64, Box<[u8]>)>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    place: Place,
    /// No record of this key lies before it.
    oldest: Lsn,
    /// A value; if not, its deletion.
    live: bool,
}

impl Keys {
    /// `place` is the record with the value of this key.
    pub(crate) fn put(&mut self, owner: u64, key: &[u8], place: Place, segments: &mut Segments) {
        let keys = self.owners.entry(owner).or_default();
        match keys.get_mut(key) {
            Some(entry) => {
                if entry.live {
                    segments.release(entry.place.lsn, size_of_record(entry.place.length));
                } else {
                    self.dead.remove(&entry.place.lsn);
                }
                (entry.place, entry.live) = (place, true);
            }
            None => {
                keys.insert(key.into(), Entry { place, oldest: place.lsn, live: true });
            }
        }
        segments.hold(place.lsn, size_of_record(place.length));
    }

    /// The record at `at` says that this key has no value any more.
    pub(crate) fn delete(&mut self, owner: u64, key: &[u8], at: Lsn, segments: &mut Segments) {
        let Some(keys) = self.owners.get_mut(&owner) else { return };
        let Some(entry) = keys.get_mut(key) else { return };
        if entry.live {
            segments.release(entry.place.lsn, size_of_record(entry.place.length));
        } else {
            self.dead.remove(&entry.place.lsn);
        }
        if is_needed(entry.oldest, at, segments) {
            (entry.place, entry.live) = (Place { lsn: at, length: 0 }, false);
            self.dead.insert(at, (owner, key.into()));
        } else {
            self.forget(owner, key);
        }
    }

    /// Where the value of a key lies.
    pub(crate) fn get(&self, owner: u64, key: &[u8]) -> Option<Place> {
        self.owners.get(&owner)?.get(key).filter(|entry| entry.live).map(|entry| entry.place)
    }

    /// The keys of an owner, in no order.
    pub(crate) fn of(&self, owner: u64) -> impl Iterator<Item = (&[u8], Place)> {
        let keys = self.owners.get(&owner).into_iter().flatten();
        keys.filter(|(_, entry)| entry.live).map(|(key, entry)| (&**key, entry.place))
    }

    /// Owners that have a value.
    pub(crate) fn owners(&self) -> impl Iterator<Item = u64> {
        self.owners.iter().filter(|(_, keys)| keys.values().any(|entry| entry.live)).map(|(owner, _)| *owner)
    }

    /// The deletions whose records lie in `from..to` and that are needed still; the others are forgotten.
    pub(crate) fn deletions(&mut self, from: Lsn, to: Lsn, segments: &Segments) -> Vec<(u64, Box<[u8]>)> {
        let mut needed = Vec::new();
        let mut moot = Vec::new();
        for (at, (owner, key)) in self.dead.range(from..to) {
            let oldest = self.owners.get(owner).and_then(|keys| keys.get(key)).map(|entry| entry.oldest);
            if oldest.is_some_and(|oldest| is_needed(oldest, *at, segments)) {
                needed.push((*owner, key.clone()));
            } else {
                moot.push(*at);
            }
        }
        for at in moot {
            if let Some((owner, key)) = self.dead.remove(&at) {
                self.forget(owner, &key);
            }
        }
        needed
    }

    /// Every place of a live value.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.owners.values().flat_map(HashMap::values).filter(|entry| entry.live).map(|entry| entry.place)
    }

    fn forget(&mut self, owner: u64, key: &[u8]) {
        if let Some(keys) = self.owners.get_mut(&owner) {
            keys.remove(key);
            if keys.is_empty() {
                self.owners.remove(&owner);
            }
        }
    }
}

/// True when a segment before that of `at` may hold a value from `oldest` on.
fn is_needed(oldest: Lsn, at: Lsn, segments: &Segments) -> bool {
    segments.at(at).is_none_or(|own| segments.any_between(oldest, own.name.base))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(bases: &[Lsn]) -> Segments {
        let mut segments = Segments::new(1);
        for base in bases {
            if let Some(last) = segments.last_mut() {
                last.end = *base;
            }
            segments.begin(*base);
        }
        segments
    }

    const fn place(lsn: Lsn) -> Place {
        Place { lsn, length: 8 }
    }

    #[test]
    fn a_value_that_goes_in_its_own_segment_leaves_nothing() {
        let (mut keys, mut segments) = (Keys::default(), segments(&[0, 1000]));
        keys.put(1, b"a", place(1000), &mut segments);
        assert_eq!(keys.get(1, b"a"), Some(place(1000)));
        assert_eq!(segments.last().unwrap().live, 40);
        keys.delete(1, b"a", 1040, &mut segments);
        assert_eq!(keys.get(1, b"a"), None);
        assert_eq!((keys.owners.len(), keys.dead.len(), segments.last().unwrap().live), (0, 0, 0));
    }

    #[test]
    fn a_deletion_is_needed_until_the_segments_of_the_value_are_gone() {
        let (mut keys, mut segments) = (Keys::default(), segments(&[0, 1000, 2000, 3000]));
        keys.put(1, b"a", place(0), &mut segments);
        keys.put(1, b"a", place(1000), &mut segments);
        keys.delete(1, b"a", 2000, &mut segments);
        assert_eq!(keys.deletions(2000, 3000, &segments).len(), 1);
        segments.remove(1);
        assert_eq!(keys.deletions(2000, 3000, &segments).len(), 1, "the second value is there still");
        segments.remove(2);
        assert_eq!(keys.deletions(2000, 3000, &segments).len(), 0);
        assert_eq!((keys.owners.len(), keys.dead.len()), (0, 0));
    }

    #[test]
    fn a_value_that_comes_back_inherits_its_past() {
        let (mut keys, mut segments) = (Keys::default(), segments(&[0, 1000]));
        keys.put(1, b"a", place(0), &mut segments);
        keys.delete(1, b"a", 1000, &mut segments);
        keys.put(1, b"a", place(1040), &mut segments);
        assert_eq!(keys.dead.len(), 0);
        keys.delete(1, b"a", 1080, &mut segments);
        assert_eq!(keys.deletions(1000, 2000, &segments).len(), 1, "the first value is there still");
    }

    #[test]
    fn owners_are_apart() {
        let (mut keys, mut segments) = (Keys::default(), segments(&[0]));
        keys.put(1, b"a", place(0), &mut segments);
        keys.put(2, b"a", place(40), &mut segments);
        keys.delete(1, b"a", 80, &mut segments);
        assert_eq!(keys.of(2).collect::<Vec<_>>(), [(&b"a"[..], place(40))]);
        assert_eq!(keys.owners().collect::<Vec<_>>(), [2]);
    }
}
