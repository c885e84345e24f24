//! Where a value stands in the configuration: `route[2].pattern`.

use std::fmt;

use figment::value::Value;

/// A path of keys, as people write it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct KeyPath(Vec<Segment>);

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Segment {
    /// A key of a table.
    Key(String),
    /// An element of a list, counted from 0.
    Index(usize),
}

impl KeyPath {
    /// A path of table keys.
    pub(super) fn of<S: AsRef<str>>(keys: impl IntoIterator<Item = S>) -> Self {
        Self(keys.into_iter().map(|key| Segment::Key(key.as_ref().to_owned())).collect())
    }

    /// A path as figment reports it; `value` tells lists from tables.
    pub(super) fn within(value: &Value, path: &[String]) -> Self {
        let mut here = Some(value);
        let mut segments = Vec::with_capacity(path.len());
        for name in path {
            let (segment, next) = match here {
                Some(Value::Array(_, list)) => match name.parse() {
                    Ok(at) => (Segment::Index(at), list.get(at)),
                    Err(_) => (Segment::Key(name.clone()), None),
                },
                Some(Value::Dict(_, table)) => (Segment::Key(name.clone()), table.get(name)),
                _ => (Segment::Key(name.clone()), None),
            };
            segments.push(segment);
            here = next;
        }
        Self(segments)
    }

    /// The key below this one.
    pub(super) fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Segment::Key(key.to_owned()));
        path
    }

    /// The element of the list that stands here.
    pub(super) fn index(&self, at: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Segment::Index(at));
        path
    }

    /// The path without its last step.
    pub(super) fn parent(&self) -> Self {
        Self(self.0.split_last().map(|(_, parent)| parent.to_vec()).unwrap_or_default())
    }

    /// Whether this is `key`, or stands below it.
    pub(super) fn is_at_or_below(&self, key: &KeyPath) -> bool {
        self.0.starts_with(&key.0)
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether this is the whole configuration.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the value that stands here out of `value`; of a list, the whole list. False when nothing stands here.
    pub(super) fn take_out_of(&self, value: &mut Value) -> bool {
        let keys: Vec<&str> = self
            .0
            .iter()
            .map_while(|segment| match segment {
                Segment::Key(key) => Some(key.as_str()),
                Segment::Index(_) => None,
            })
            .collect();
        // `route[2].patern` goes alone; `users.a.vhosts[1]` goes with its list.
        match self.0.get(keys.len()..) {
            Some([Segment::Index(at), rest @ ..]) if !rest.is_empty() => {
                let Some(Value::Array(_, list)) = descend(value, &keys) else { return false };
                list.get_mut(*at).is_some_and(|element| Self(rest.to_vec()).take_out_of(element))
            }
            _ => match keys.split_last() {
                Some((last, above)) => match descend(value, above) {
                    Some(Value::Dict(_, table)) => table.remove(*last).is_some(),
                    _ => false,
                },
                None => false,
            },
        }
    }
}

fn descend<'v>(value: &'v mut Value, keys: &[&str]) -> Option<&'v mut Value> {
    keys.iter().try_fold(value, |here, key| match here {
        Value::Dict(_, table) => table.get_mut(*key),
        _ => None,
    })
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => {
                    let dot = if at > 0 { "." } else { "" };
                    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
                    if !key.is_empty() && key.chars().all(bare) {
                        write!(f, "{dot}{key}")?;
                    } else {
                        write!(f, "{dot}{key:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use figment::value::Dict;

    #[test]
    fn a_path_is_shown_as_toml_writes_it() {
        assert_eq!(KeyPath::of(["vhosts", "/", "backend"]).to_string(), "vhosts.\"/\".backend");
        assert_eq!(KeyPath::of(["route"]).index(2).key("queue").index(0).to_string(), "route[2].queue[0]");
        assert_eq!(KeyPath::default().to_string(), "");
    }

    #[test]
    fn a_value_is_taken_out_alone_and_an_element_with_its_list() {
        let value = || {
            let route =
                Dict::from([("a".to_owned(), Value::from(1)), ("b".to_owned(), Value::from(vec![2, 3]))]);
            Value::from(Dict::from([("route".to_owned(), Value::from(vec![route]))]))
        };
        let route = KeyPath::of(["route"]).index(0);
        let mut alone = value();
        assert!(route.key("a").take_out_of(&mut alone));
        assert_eq!(alone.find_ref("route").unwrap(), &{
            let left = Dict::from([("b".to_owned(), Value::from(vec![2, 3]))]);
            Value::from(vec![left])
        });
        let mut list = value();
        assert!(route.key("b").index(1).take_out_of(&mut list));
        let left = Dict::from([("a".to_owned(), Value::from(1))]);
        assert_eq!(list.find_ref("route").unwrap(), &Value::from(vec![left]));
        let mut whole = value();
        assert!(route.take_out_of(&mut whole));
        assert_eq!(whole, Value::from(Dict::new()));
        assert!(!route.take_out_of(&mut whole), "nothing stands there any more");
        assert!(!KeyPath::default().take_out_of(&mut whole));
    }
}
