//! Filters and binding keys, level by level, so that an address finds all that match it in one walk.

use std::mem;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::address::{Level, Pattern, levels};
use slab::Slab;
use smallvec::SmallVec;

/// A set of patterns, each with values. One walk per address keeps the set of nodes that are still possible, so that
/// its cost is bounded by levels times nodes even for `#.a.#.a.#`.
#[derive(Debug)]
pub(crate) struct Tree<T> {
    nodes: Slab<Node<T>>,
    root: u32,
}

/// No node.
const NOWHERE: u32 = u32::MAX;

#[derive(Debug)]
struct Node<T> {
    parent: u32,
    /// Where one level of any name leads; [`NOWHERE`] without.
    one: u32,
    rest: u32,
    literals: HashMap<Box<[u8]>, u32, RandomState>,
    /// Reached by `#`: stays possible whatever level comes.
    is_rest: bool,
    /// The first level of the pattern is a wildcard.
    wild: bool,
    entries: Vec<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    spares_dollar: bool,
    value: T,
}

type Nodes = SmallVec<[u32; 16]>;

impl<T> Tree<T> {
    pub(crate) fn new() -> Self {
        let mut nodes = Slab::new();
        let root = number(nodes.insert(Node::new(NOWHERE, false, false)));
        Self { nodes, root }
    }

    /// Adds a value under a pattern.
    pub(crate) fn insert(&mut self, pattern: &Pattern, value: T) {
        let mut at = self.root;
        for level in &pattern.levels {
            at = self.child(at, level).unwrap_or_else(|| self.grow(at, level));
        }
        if let Some(node) = self.nodes.get_mut(at as usize) {
            if node.entries.is_empty() {
                node.entries.reserve_exact(1);
            }
            node.entries.push(Entry { spares_dollar: pattern.spares_dollar, value });
        }
    }

    /// Takes out the first value under exactly this pattern that `is_it` accepts.
    pub(crate) fn remove(&mut self, pattern: &Pattern, mut is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let at = self.find(pattern)?;
        let node = self.nodes.get_mut(at as usize)?;
        let place = node.entries.iter().position(|entry| is_it(&entry.value))?;
        let value = node.entries.swap_remove(place).value;
        self.prune(at, &pattern.levels);
        Some(value)
    }

    /// The values under exactly this pattern.
    pub(crate) fn under(&self, pattern: &Pattern) -> impl Iterator<Item = &T> {
        let node = self.find(pattern).and_then(|at| self.nodes.get(at as usize));
        node.into_iter().flat_map(|node| node.entries.iter().map(|entry| &entry.value))
    }

    /// All values, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.nodes.iter().flat_map(|(_, node)| node.entries.iter().map(|entry| &entry.value))
    }

    /// Calls `found` once for each value whose pattern matches `path`, which is in MQTT's spelling.
    pub(crate) fn matches<'a>(&'a self, path: &[u8], mut found: impl FnMut(&'a T)) {
        let mut now = Nodes::new();
        let mut next = Nodes::new();
        self.enter(self.root, &mut now);
        for level in levels(path) {
            for at in &now {
                let Some(node) = self.nodes.get(*at as usize) else { continue };
                if node.is_rest {
                    next.push(*at);
                }
                if let Some(child) = node.literals.get(level) {
                    self.enter(*child, &mut next);
                }
                self.enter(node.one, &mut next);
            }
            if next.len() > 1 {
                next.sort_unstable();
                next.dedup();
            }
            mem::swap(&mut now, &mut next);
            next.clear();
            if now.is_empty() {
                return;
            }
        }
        let dollar = path.first() == Some(&b'$');
        for node in now.iter().filter_map(|at| self.nodes.get(*at as usize)) {
            for entry in &node.entries {
                if !(dollar && node.wild && entry.spares_dollar) {
                    found(&entry.value);
                }
            }
        }
    }

    /// A node is possible, and with it what a `#` of no levels leads to.
    fn enter(&self, at: u32, into: &mut Nodes) {
        let mut at = at;
        while let Some(node) = self.nodes.get(at as usize) {
            into.push(at);
            at = node.rest;
        }
    }

    fn find(&self, pattern: &Pattern) -> Option<u32> {
        pattern.levels.iter().try_fold(self.root, |at, level| self.child(at, level))
    }

    fn child(&self, at: u32, level: &Level) -> Option<u32> {
        let node = self.nodes.get(at as usize)?;
        let child = match level {
            Level::Literal(literal) => node.literals.get(literal).copied()?,
            Level::One => node.one,
            Level::Rest => node.rest,
        };
        (child != NOWHERE).then_some(child)
    }

    fn grow(&mut self, at: u32, level: &Level) -> u32 {
        let is_wild = !matches!(level, Level::Literal(_));
        let parent = self.nodes.get(at as usize);
        let wild = if at == self.root { is_wild } else { parent.is_some_and(|parent| parent.wild) };
        let child = number(self.nodes.insert(Node::new(at, matches!(level, Level::Rest), wild)));
        if let Some(parent) = self.nodes.get_mut(at as usize) {
            match level {
                Level::Literal(literal) => {
                    parent.literals.insert(literal.clone(), child);
                }
                Level::One => parent.one = child,
                Level::Rest => parent.rest = child,
            }
        }
        child
    }

    /// Removes the nodes at the end of a pattern that nothing needs any more.
    fn prune(&mut self, at: u32, pattern: &[Level]) {
        let mut at = at;
        for level in pattern.iter().rev() {
            let Some(node) = self.nodes.get_mut(at as usize) else { return };
            if !node.is_bare() {
                if node.entries.capacity() > 2 * node.entries.len().max(4) {
                    node.entries.shrink_to_fit();
                }
                return;
            }
            let parent = node.parent;
            self.nodes.remove(at as usize);
            if let Some(parent) = self.nodes.get_mut(parent as usize) {
                match level {
                    Level::Literal(literal) => {
                        parent.literals.remove(literal);
                    }
                    Level::One => parent.one = NOWHERE,
                    Level::Rest => parent.rest = NOWHERE,
                }
            }
            at = parent;
        }
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(NOWHERE)
}

impl<T> Node<T> {
    fn new(parent: u32, is_rest: bool, wild: bool) -> Self {
        Self {
            parent,
            literals: HashMap::default(),
            one: NOWHERE,
            rest: NOWHERE,
            is_rest,
            wild,
            entries: Vec::new(),
        }
    }

    fn is_bare(&self) -> bool {
        self.entries.is_empty() && self.literals.is_empty() && self.one == NOWHERE && self.rest == NOWHERE
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(tree: &Tree<usize>, path: &str) -> Vec<usize> {
        let mut found = Vec::new();
        tree.matches(path.as_bytes(), |value| found.push(*value));
        found.sort_unstable();
        found
    }

    #[test]
    fn many_hashes_in_one_pattern_cost_no_more_than_levels_times_nodes() {
        let mut tree = Tree::new();
        let key = "#.a.".repeat(60) + "#";
        tree.insert(&Pattern::from_binding(key.as_bytes()), 1);
        assert_eq!(found(&tree, &"a/".repeat(120)), [1]);
        assert!(found(&tree, "a/a").is_empty());
    }

    #[test]
    fn what_was_removed_leaves_nothing_behind() {
        let mut tree = Tree::new();
        let patterns = ["a/b/c", "a/+/c", "a/#", "+", "#", "", "a"].map(Pattern::from_filter);
        for (value, pattern) in patterns.iter().enumerate() {
            tree.insert(pattern, value);
        }
        for (value, pattern) in patterns.iter().enumerate() {
            assert_eq!(tree.remove(pattern, |it| *it == value), Some(value));
            assert_eq!(tree.remove(pattern, |it| *it == value), None);
        }
        assert_eq!(tree.nodes.len(), 1, "only the root stays");
    }

    fn word() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "$x", "*", "#", "+"])
    }

    fn text() -> impl Strategy<Value = String> {
        prop::collection::vec(word(), 0..6).prop_map(|words| words.join("/"))
    }

    proptest! {
        #[test]
        fn the_tree_finds_exactly_what_each_pattern_matches(
            patterns in prop::collection::vec((text(), any::<bool>()), 1..20),
            removed in prop::collection::vec(any::<bool>(), 20),
            paths in prop::collection::vec(text(), 1..20),
        ) {
            let patterns: Vec<Pattern> = patterns
                .iter()
                .map(|(text, filter)| match filter {
                    true => Pattern::from_filter(text),
                    false => Pattern::from_binding(text.replace('/', ".").as_bytes()),
                })
                .collect();
            let mut tree = Tree::new();
            for (value, pattern) in patterns.iter().enumerate() {
                tree.insert(pattern, value);
            }
            let gone = |value: usize| removed.get(value).copied().unwrap_or_default();
            for (value, pattern) in patterns.iter().enumerate().filter(|(value, _)| gone(*value)) {
                prop_assert_eq!(tree.remove(pattern, |it| *it == value), Some(value));
            }
            for path in &paths {
                let expected: Vec<usize> = (0..patterns.len())
                    .filter(|value| !gone(*value) && patterns[*value].matches(path.as_bytes()))
                    .collect();
                prop_assert_eq!(found(&tree, path), expected, "{}", path);
            }
        }
    }
}
