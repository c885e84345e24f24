//! A route's `match`: an address filter, and how two of them stand to each other.

use std::cmp::Ordering;
use std::fmt;

/// Levels that a route's match may have; bounds the depth of a look-up.
pub const MAX_LEVELS: usize = 128;

/// Longest filter in bytes, what an MQTT UTF-8 string can carry [MQTT-1.5.4].
const MAX_BYTES: usize = 65_535;

/// A valid address filter in MQTT topic form: levels separated by `/`, `+` for any one level,
/// `#` at the end for the level before it and all below.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter(Box<str>);

/// Why a text is no filter for a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// [MQTT-4.7.3-1]
    #[error("is empty; write an address such as `orders/placed`, or `#` for all addresses")]
    Empty,
    /// Longer than an MQTT topic filter can be [MQTT-4.7.3-3].
    #[error("has {0} bytes; a filter has at most 65535")]
    TooLong(usize),
    /// More levels than [`MAX_LEVELS`].
    #[error("has {0} levels; a route's match has at most 128")]
    TooDeep(usize),
    /// [MQTT-4.7.3-2]
    #[error("contains the character U+0000, which no address has")]
    Nul,
    /// [MQTT-4.7.1-3]
    #[error("`{0}`: `+` stands for a whole level; write `+` alone between slashes")]
    PartialOne(Box<str>),
    /// [MQTT-4.7.1-2]
    #[error("`{0}`: `#` stands for all that follows; write it alone, as the last level")]
    PartialRest(Box<str>),
    /// `$…` is not part of the address space.
    #[error("begins with `$`: `$SYS`, `$share` and `$queue` are not addresses, so no route can match them")]
    Dollar,
}

/// How the addresses that a subscription's filter matches stand to those of a route's match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// Both match the same addresses.
    Equal,
    /// The filter matches some of the route's addresses and no others.
    Narrower,
    /// The filter matches all of the route's addresses and others.
    Wider,
    /// The filter matches some of the route's addresses and others too.
    Overlapping,
    /// No address is matched by both.
    Disjoint,
}

impl Filter {
    /// Checks `text` by MQTT's rules for topic filters (§4.7) and those of a route.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(FilterError::TooLong(text.len()));
        }
        if text.contains('\0') {
            return Err(FilterError::Nul);
        }
        if text.starts_with('$') {
            return Err(FilterError::Dollar);
        }
        let depth = text.split('/').count();
        if depth > MAX_LEVELS {
            return Err(FilterError::TooDeep(depth));
        }
        for (at, level) in text.split('/').enumerate() {
            if level.contains('#') && (level != "#" || at + 1 != depth) {
                return Err(FilterError::PartialRest(level.into()));
            }
            if level.contains('+') && level != "+" {
                return Err(FilterError::PartialOne(level.into()));
            }
        }
        Ok(Self(text.into()))
    }

    /// The filter as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter as all are written here that match the same addresses.
    pub fn canonical(&self) -> &str {
        if &*self.0 == "+/#" { "#" } else { &self.0 }
    }

    /// How a subscription's `filter` (without `$share/…/`) stands to this match.
    pub fn relation(&self, filter: &str) -> Relation {
        if begin_differently(&self.0, filter) {
            return Relation::Disjoint;
        }
        let (route, filter) = (levels(&self.0), levels(filter));
        match (covers(&filter, &route), covers(&route, &filter)) {
            (true, true) => Relation::Equal,
            (false, true) => Relation::Narrower,
            (true, false) => Relation::Wider,
            (false, false) if meets(&filter, &route) => Relation::Overlapping,
            (false, false) => Relation::Disjoint,
        }
    }

    /// The filter of the addresses that a subscription's `filter` and this match have in common, when there are any.
    pub fn common(&self, filter: &str) -> Option<String> {
        let (mine, theirs) = (levels(&self.0), levels(filter));
        if !meets(&mine, &theirs) {
            return None;
        }
        let (mut mine, mut theirs) = (mine.as_slice(), theirs.as_slice());
        let mut common = Vec::with_capacity(mine.len().max(theirs.len()));
        loop {
            match (mine, theirs) {
                (["#"], rest) | (rest, ["#"]) => {
                    common.extend_from_slice(rest);
                    break;
                }
                ([a, more_mine @ ..], [b, more_theirs @ ..]) => {
                    common.push(if *a == "+" { *b } else { *a });
                    (mine, theirs) = (more_mine, more_theirs);
                }
                _ => break,
            }
        }
        let common = common.join("/");
        Some(if common == "+/#" { "#".to_owned() } else { common })
    }

    /// Whether this match wins against `other` for the addresses that both match: level by level from the left a
    /// literal wins against `+`, and `+` against `#`.
    pub fn outranks(&self, other: &Filter) -> bool {
        let kind = |level: &str| match level {
            "#" => 2,
            "+" => 1,
            _ => 0,
        };
        let (mut mine, mut theirs) = (self.0.split('/').map(kind), other.0.split('/').map(kind));
        loop {
            match (mine.next(), theirs.next()) {
                (None, None) => return false,
                (None, Some(_)) => return true,
                (Some(_), None) => return false,
                (Some(a), Some(b)) => match a.cmp(&b) {
                    Ordering::Less => return true,
                    Ordering::Greater => return false,
                    Ordering::Equal => {}
                },
            }
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The levels of a filter. An address has at least one level, so `#` alone says what `+/#` says.
fn levels(filter: &str) -> Vec<&str> {
    if filter == "#" { vec!["+", "#"] } else { filter.split('/').collect() }
}

/// Whether the first levels tell that no address is matched by both: so it is with most of many routes.
fn begin_differently(one: &str, other: &str) -> bool {
    let (one, other) = (first_literal(one), first_literal(other));
    one.is_some() && other.is_some() && one != other
}

fn first_literal(filter: &str) -> Option<&str> {
    filter.split('/').next().filter(|level| !matches!(*level, "+" | "#"))
}

/// Leading wildcards do not match addresses that begin with `$` [MQTT-4.7.2-1].
fn hidden(wild: &[&str], literal: &[&str]) -> bool {
    matches!((wild.first(), literal.first()), (Some(&("+" | "#")), Some(level)) if level.starts_with('$'))
}

/// Whether each address that `inner` matches is matched by `outer`.
fn covers(outer: &[&str], inner: &[&str]) -> bool {
    if hidden(outer, inner) {
        return false;
    }
    let (mut outer, mut inner) = (outer, inner);
    loop {
        match (outer, inner) {
            (["#"], _) | ([], []) => return true,
            (_, ["#"]) | ([], _) | (_, []) => return false,
            ([a, more_outer @ ..], [b, more_inner @ ..]) => {
                if *a != "+" && a != b {
                    return false;
                }
                (outer, inner) = (more_outer, more_inner);
            }
        }
    }
}

/// Whether an address exists that both match.
fn meets(left: &[&str], right: &[&str]) -> bool {
    if hidden(left, right) || hidden(right, left) {
        return false;
    }
    let (mut left, mut right) = (left, right);
    loop {
        match (left, right) {
            (["#"], _) | (_, ["#"]) | ([], []) => return true,
            ([], _) | (_, []) => return false,
            ([a, more_left @ ..], [b, more_right @ ..]) => {
                if *a != "+" && *b != "+" && a != b {
                    return false;
                }
                (left, right) = (more_left, more_right);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_two_filters_have_in_common_is_one_filter() {
        let common = |mine: &str, other: &str| Filter::parse(mine).unwrap().common(other);
        for (mine, other, expected) in [
            ("a/#", "#", Some("a/#")),
            ("a/#", "+/b", Some("a/b")),
            ("a/#", "+", Some("a")),
            ("a/+/c", "+/b/#", Some("a/b/c")),
            ("#", "#", Some("#")),
            ("+/#", "a", Some("a")),
            ("a", "b", None),
            ("+", "a/b", None),
            ("#", "$SYS/x", None),
        ] {
            assert_eq!(common(mine, other).as_deref(), expected, "{mine} and {other}");
        }
    }

    /// What MQTT 5.0 §4.7 says, written as plainly as possible.
    fn matches(filter: &[&str], address: &[&str]) -> bool {
        if matches!(filter.first(), Some(&("+" | "#"))) && address.first().is_some_and(|a| a.starts_with('$'))
        {
            return false;
        }
        matches_below(filter, address)
    }

    fn matches_below(filter: &[&str], address: &[&str]) -> bool {
        match (filter.split_first(), address.split_first()) {
            (Some((&"#", _)), _) => true,
            (None, None) => true,
            (None, _) | (_, None) => false,
            (Some((f, more_f)), Some((a, more_a))) => (*f == "+" || f == a) && matches_below(more_f, more_a),
        }
    }

    fn sequences(alphabet: &[&'static str], longest: usize) -> Vec<Vec<&'static str>> {
        let mut all: Vec<Vec<&'static str>> = Vec::new();
        let mut last: Vec<Vec<&'static str>> = vec![vec![]];
        for _ in 0..longest {
            last = last
                .iter()
                .flat_map(|start| alphabet.iter().map(|l| [start.as_slice(), &[*l]].concat()))
                .collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    /// `c` stands for each level that no filter names; one level more than the filters have tells `#` apart. The empty
    /// address is among them: no MQTT topic, but a routing key of AMQP.
    fn addresses() -> Vec<Vec<&'static str>> {
        sequences(&["a", "b", "", "$s", "c"], 4)
    }

    fn filters() -> Vec<String> {
        let mut filters: Vec<String> =
            sequences(&["a", "b", "", "$s", "+"], 3).into_iter().map(|f| f.join("/")).collect();
        let below: Vec<String> =
            sequences(&["a", "b", "", "$s", "+"], 2).into_iter().map(|f| f.join("/") + "/#").collect();
        filters.extend(below);
        filters.push("#".into());
        filters.retain(|f| !f.is_empty());
        filters
    }

    #[test]
    fn a_relation_says_what_comparing_all_addresses_says() {
        let addresses = addresses();
        let filters = filters();
        let sets: Vec<Vec<bool>> = filters
            .iter()
            .map(|f| {
                let levels: Vec<&str> = f.split('/').collect();
                addresses.iter().map(|a| matches(&levels, a)).collect()
            })
            .collect();
        for (route, route_set) in filters.iter().zip(&sets) {
            let Ok(parsed) = Filter::parse(route) else {
                assert!(route.starts_with('$'), "{route} should be a valid match");
                continue;
            };
            for (filter, filter_set) in filters.iter().zip(&sets) {
                let both = || filter_set.iter().zip(route_set);
                let common = both().any(|(f, r)| *f && *r);
                let beyond = both().any(|(f, r)| *f && !*r);
                let missing = both().any(|(f, r)| !*f && *r);
                let expected = match (common, beyond, missing) {
                    (false, _, _) => Relation::Disjoint,
                    (true, false, false) => Relation::Equal,
                    (true, false, true) => Relation::Narrower,
                    (true, true, false) => Relation::Wider,
                    (true, true, true) => Relation::Overlapping,
                };
                assert_eq!(parsed.relation(filter), expected, "filter {filter} against match {route}");
            }
        }
    }

    #[test]
    fn filters_are_checked_by_the_rules_of_mqtt() {
        for valid in ["#", "+", "a", "/", "/a", "a//b", "+/+/#", "a b/ü", "a.b/*"] {
            assert_eq!(Filter::parse(valid).unwrap().as_str(), valid);
        }
        assert_eq!(Filter::parse(""), Err(FilterError::Empty));
        assert_eq!(Filter::parse("a\0"), Err(FilterError::Nul));
        assert_eq!(Filter::parse("a/b+"), Err(FilterError::PartialOne("b+".into())));
        assert_eq!(Filter::parse("#/a"), Err(FilterError::PartialRest("#".into())));
        assert_eq!(Filter::parse("a/b#"), Err(FilterError::PartialRest("b#".into())));
        assert_eq!(Filter::parse("$queue/a"), Err(FilterError::Dollar));
        assert_eq!(Filter::parse(&"/".repeat(128)), Err(FilterError::TooDeep(129)));
        assert_eq!(Filter::parse(&"a".repeat(65_536)), Err(FilterError::TooLong(65_536)));
    }

    #[test]
    fn a_literal_outranks_one_and_one_outranks_rest() {
        let outranks = |a, b| Filter::parse(a).unwrap().outranks(&Filter::parse(b).unwrap());
        for (winner, loser) in
            [("a", "+"), ("+", "#"), ("a/#", "+/b"), ("a", "a/#"), ("a/+", "a/#"), ("a/b/+/#", "a/b/#")]
        {
            assert!(outranks(winner, loser), "{winner} against {loser}");
            assert!(!outranks(loser, winner), "{loser} against {winner}");
        }
        assert!(!outranks("a/+", "a/+"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_never_panics(text in ".*", other in "[+#/$a]{0,12}") {
            if let Ok(filter) = Filter::parse(&text) {
                filter.relation(&other);
            }
            if let Ok(filter) = Filter::parse(&other) {
                prop_assert_eq!(filter.relation(&other), Relation::Equal);
            }
        }
    }
}
