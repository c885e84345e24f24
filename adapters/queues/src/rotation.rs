//! Whose turn it is.

use std::collections::VecDeque;

use smallvec::SmallVec;

/// The consumers that may be given something, by their places among the holders: those of the highest priority first,
/// equals in turn.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    /// Priorities descending; a group may be empty.
    groups: SmallVec<[Group; 1]>,
}

#[derive(Debug)]
struct Group {
    priority: i32,
    able: VecDeque<usize>,
}

impl Rotation {
    /// Whose turn it is.
    #[inline]
    pub(crate) fn first(&self) -> Option<usize> {
        self.groups.iter().find_map(|group| group.able.front().copied())
    }

    /// True when nobody shares the turn with the first.
    pub(crate) fn is_alone(&self) -> bool {
        self.groups.iter().find(|group| !group.able.is_empty()).is_some_and(|group| group.able.len() == 1)
    }

    /// True when it is the turn of the one at this place.
    pub(crate) fn is_first(&self, at: usize) -> bool {
        self.first() == Some(at)
    }

    /// Those who take turns with the first, it included, as two slices.
    pub(crate) fn equals(&self) -> Option<&VecDeque<usize>> {
        self.groups.iter().map(|group| &group.able).find(|able| !able.is_empty())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    /// The first has had `turns` turns, each followed by the next one's.
    #[inline]
    pub(crate) fn turn(&mut self, turns: usize) {
        if let Some(group) = self.groups.iter_mut().find(|group| !group.able.is_empty()) {
            let by = turns.checked_rem(group.able.len()).unwrap_or(0);
            group.able.rotate_left(by);
        }
    }

    /// The first cannot take any more.
    pub(crate) fn leave(&mut self) {
        if let Some(group) = self.groups.iter_mut().find(|group| !group.able.is_empty()) {
            group.able.pop_front();
        }
    }

    /// Lets `at` in, behind its equals.
    pub(crate) fn enter(&mut self, priority: i32, at: usize) {
        let place = self.groups.partition_point(|group| group.priority > priority);
        match self.groups.get_mut(place) {
            Some(group) if group.priority == priority => group.able.push_back(at),
            _ => self.groups.insert(place, Group { priority, able: VecDeque::from([at]) }),
        }
    }

    /// Takes `at` out, wherever it stands.
    pub(crate) fn remove(&mut self, priority: i32, at: usize) {
        if let Some(group) = self.groups.iter_mut().find(|group| group.priority == priority) {
            group.able.retain(|other| *other != at);
        }
    }

    /// Forgets priorities that nobody stands at.
    pub(crate) fn tidy(&mut self) {
        self.groups.retain(|group| !group.able.is_empty());
    }
}
