//! The look-up of a route by address: a tree of levels.

use super::Filter;

/// Values under filters; a look-up finds the most specific filter that matches an address.
#[derive(Debug, Clone)]
pub(crate) struct Tree<T> {
    root: Node<T>,
}

/// What follows one prefix of levels.
#[derive(Debug, Clone)]
struct Node<T> {
    /// Sorted by level.
    literals: Vec<(Box<[u8]>, Node<T>)>,
    one: Option<Box<Node<T>>>,
    /// The filter that ends here.
    here: Option<T>,
    /// The filter that goes on with `#` here.
    rest: Option<T>,
}

// Derived, it would ask for `T: Default`.
impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literals: Vec::new(), one: None, here: None, rest: None }
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<T> Tree<T> {
    /// Puts `value` under `filter`; what was there before comes back.
    pub(crate) fn insert(&mut self, filter: &Filter, value: T) -> Option<T> {
        let mut node = &mut self.root;
        for level in filter.as_str().split('/') {
            node = match level {
                "#" => return node.rest.replace(value),
                "+" => node.one.get_or_insert_default(),
                literal => node.child(literal.as_bytes()),
            };
        }
        node.here.replace(value)
    }

    /// The value of the most specific filter that matches `address` (levels separated by `/`). Allocates nothing.
    pub(crate) fn find(&self, address: &[u8]) -> Option<&T> {
        // No filter begins with `$`, and leading wildcards do not match it [MQTT-4.7.2-1].
        if address.first() == Some(&b'$') {
            return None;
        }
        self.root.find(Some(address))
    }
}

impl<T> Node<T> {
    fn child(&mut self, level: &[u8]) -> &mut Self {
        let at = match self.literals.binary_search_by(|(name, _)| name.as_ref().cmp(level)) {
            Ok(at) => at,
            Err(at) => {
                self.literals.insert(at, (level.into(), Self::default()));
                at
            }
        };
        #[expect(clippy::indexing_slicing, reason = "`at` was found or has just been inserted")]
        &mut self.literals[at].1
    }

    /// `levels` is what follows this node's prefix; none when the address ends here. The first hit in the order
    /// literal, one, rest is the most specific. Each node is visited once at most, however the wildcards nest.
    fn find(&self, levels: Option<&[u8]>) -> Option<&T> {
        let Some(levels) = levels else {
            return self.here.as_ref().or(self.rest.as_ref());
        };
        let (level, below) = match memchr::memchr(b'/', levels) {
            Some(at) => (levels.get(..at)?, levels.get(at + 1..)),
            None => (levels, None),
        };
        let literal = self.literals.binary_search_by(|(name, _)| name.as_ref().cmp(level)).ok();
        literal
            .and_then(|at| self.literals.get(at))
            .and_then(|(_, node)| node.find(below))
            .or_else(|| self.one.as_ref().and_then(|node| node.find(below)))
            .or(self.rest.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::Relation;
    use proptest::prelude::*;

    fn tree(filters: &[&str]) -> Tree<String> {
        let mut tree = Tree::default();
        for filter in filters {
            assert_eq!(tree.insert(&Filter::parse(filter).unwrap(), (*filter).to_string()), None);
        }
        tree
    }

    fn found<'a>(tree: &'a Tree<String>, address: &str) -> Option<&'a str> {
        tree.find(address.as_bytes()).map(String::as_str)
    }

    #[test]
    fn the_most_specific_match_wins_level_by_level_from_the_left() {
        let tree = tree(&["#", "+/b", "a/#", "a/b", "a/+/c", "a/b/+"]);
        for (address, winner) in [
            ("x", "#"),
            ("x/b", "+/b"),
            ("x/b/c", "#"),
            ("a", "a/#"),
            ("a/b", "a/b"),
            ("a/x", "a/#"),
            ("a/b/c", "a/b/+"),
            ("a/x/c", "a/+/c"),
            ("a/b/c/d", "a/#"),
            ("/", "#"),
        ] {
            assert_eq!(found(&tree, address), Some(winner), "{address}");
        }
    }

    #[test]
    fn a_wildcard_is_tried_when_a_literal_leads_nowhere() {
        let tree = tree(&["a/b/c", "+/b/d"]);
        assert_eq!(found(&tree, "a/b/d"), Some("+/b/d"));
        assert_eq!(found(&tree, "a/b"), None);
    }

    #[test]
    fn leading_wildcards_do_not_match_dollar_addresses() {
        let tree = tree(&["#", "+/b"]);
        assert_eq!(found(&tree, "$SYS/b"), None, "[MQTT-4.7.2-1]");
        assert_eq!(found(&tree, "a/$b"), Some("#"));
    }

    #[test]
    fn empty_levels_are_levels() {
        let tree = tree(&["/a", "a//b", "a/"]);
        assert_eq!(found(&tree, "/a"), Some("/a"));
        assert_eq!(found(&tree, "a//b"), Some("a//b"));
        assert_eq!(found(&tree, "a/"), Some("a/"));
        assert_eq!(found(&tree, "a/b"), None);
        assert_eq!(found(&tree, "a"), None);
    }

    #[test]
    fn the_same_filter_twice_gives_the_first_value_back() {
        let mut tree = tree(&["a/+"]);
        assert_eq!(tree.insert(&Filter::parse("a/+").unwrap(), "again".into()), Some("a/+".into()));
    }

    proptest! {
        #[test]
        fn a_look_up_finds_the_filter_that_no_other_matching_one_outranks(
            filters in prop::collection::btree_set("([ab+]?(/[ab+]?){0,3}(/#)?|#)", 0..12),
            address in "[ab]?(/[abc]?){0,4}",
        ) {
            let filters: Vec<Filter> = filters.iter().filter_map(|f| Filter::parse(f).ok()).collect();
            let mut tree = Tree::default();
            for filter in &filters {
                tree.insert(filter, filter.clone());
            }
            let as_filter = |f: &&Filter| matches!(f.relation(&address), Relation::Equal | Relation::Narrower);
            let best = filters.iter().filter(as_filter).reduce(|a, b| if b.outranks(a) { b } else { a });
            prop_assert_eq!(tree.find(address.as_bytes()), best);
        }
    }
}
