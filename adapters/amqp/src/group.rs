//! The queues of shared subscriptions: one for each group and filter, made for its first member and gone with its last.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

/// How many members each has in this process.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    members: Mutex<HashMap<String, usize, RandomState>>,
}

impl Groups {
    pub(crate) fn join(&self, queue: &str) {
        *self.members.lock().entry_ref(queue).or_insert(0) += 1;
    }

    /// True when that was the last member here.
    pub(crate) fn leave(&self, queue: &str) -> bool {
        let mut members = self.members.lock();
        let Some(count) = members.get_mut(queue) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            members.remove(queue);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_there_as_long_as_it_has_members() {
        let groups = Groups::default();
        groups.join("q");
        groups.join("q");
        assert!(!groups.leave("q") && groups.leave("q") && !groups.leave("q"));
    }
}
