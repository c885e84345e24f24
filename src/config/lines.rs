//! On which line of the file a key stands: figment keeps no lines, this second parse with spans does.

use std::ops::Range;

use toml_edit::{ImDocument, Item, Table, TableLike, TomlError, Value};

use super::error::{ConfigError, ConfigErrors, Place, Problem};
use super::key::{KeyPath, Segment};

/// A file's text with the place of each key.
pub(super) struct Lines {
    name: Box<str>,
    document: ImDocument<String>,
}

/// What stands under a path. An element of `[[route]]` is a table, one of an inline list a value, all else an item.
#[derive(Clone, Copy)]
enum Node<'a> {
    Item(&'a Item),
    Table(&'a Table),
    Value(&'a Value),
}

/// How far a path could be followed.
struct Walk<'a> {
    node: Node<'a>,
    span: Option<Range<usize>>,
    complete: bool,
}

impl Lines {
    /// Reads a file.
    ///
    /// # Errors
    /// It is not TOML, with the line.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, ConfigErrors> {
        match ImDocument::parse(text.to_owned()) {
            Ok(document) => Ok(Self { name: name.into(), document }),
            Err(error) => Err(not_toml(name, text, &error).into()),
        }
    }

    /// The file's name as given.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The line of `key`, or of the nearest table around it; none when not even that stands in the file.
    pub(super) fn nearest(&self, key: &KeyPath) -> Option<usize> {
        self.walk(key).span.map(|span| line_of(self.document.raw(), span.start))
    }

    /// Whether `key` stands in the file.
    pub(super) fn has(&self, key: &KeyPath) -> bool {
        self.walk(key).complete
    }

    /// The names in the table under these keys.
    pub(super) fn keys(&self, table: &[String]) -> impl Iterator<Item = &str> {
        let walk = self.walk(&KeyPath::of(table));
        let table = walk.complete.then(|| walk.node.table()).flatten();
        table.into_iter().flat_map(|table| table.iter().map(|(name, _)| name))
    }

    fn walk(&self, key: &KeyPath) -> Walk<'_> {
        let mut node = Node::Item(self.document.as_item());
        let mut span = None;
        for segment in key.segments() {
            let below = match segment {
                Segment::Key(key) => node.value(key),
                Segment::Index(at) => node.element(*at),
            };
            let Some((next, place)) = below else { return Walk { node, span, complete: false } };
            node = next;
            span = place.or(span);
        }
        Walk { node, span, complete: true }
    }
}

impl<'a> Node<'a> {
    fn table(self) -> Option<&'a dyn TableLike> {
        match self {
            Node::Item(item) => item.as_table_like(),
            Node::Table(table) => Some(table),
            Node::Value(value) => value.as_inline_table().map(|table| table as &dyn TableLike),
        }
    }

    fn value(self, key: &str) -> Option<(Node<'a>, Option<Range<usize>>)> {
        let (name, item) = self.table()?.get_key_value(key)?;
        Some((Node::Item(item), name.span()))
    }

    fn element(self, at: usize) -> Option<(Node<'a>, Option<Range<usize>>)> {
        let list = match self {
            Node::Item(Item::ArrayOfTables(tables)) => {
                return tables.get(at).map(|table| (Node::Table(table), table.span()));
            }
            Node::Item(item) => item.as_array(),
            Node::Value(value) => value.as_array(),
            Node::Table(_) => None,
        };
        list?.get(at).map(|value| (Node::Value(value), value.span()))
    }
}

/// toml_edit's message, which has several lines, in one. The line itself is not repeated: it may hold a password.
fn not_toml(name: &str, text: &str, error: &TomlError) -> ConfigError {
    let message: Vec<&str> = error.message().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut message = message.join("; ");
    if message.starts_with("expected newline") {
        message.push_str("; a text needs quotes");
    }
    let at = error.span().map(|span| span.start);
    if let Some(before) = at.and_then(|at| text.get(..at)) {
        let column = 1 + before.chars().rev().take_while(|c| *c != '\n').count();
        message = format!("column {column}: {message}");
    }
    ConfigError {
        place: Place::File { file: name.into(), line: at.map(|at| line_of(text, at)) },
        key: KeyPath::default(),
        problem: Problem::Syntax(message.into()),
    }
}

/// The line on which the byte `at` stands, counted from 1.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# a comment
[doors.mqtt]
listen = "127.0.0.1:1883"

[users]
a = { password = "x", vhosts = [
    "/",
    "lab",
] }

[[route]]
match = "a"
queue = ["b",
         "c"]

[[route]]
match = "b"
"#;

    #[test]
    fn each_key_has_its_line_and_a_missing_one_that_of_its_table() {
        let lines = Lines::parse("file", TEXT).unwrap();
        let route = |at| KeyPath::of(["route"]).index(at);
        for (key, line, stands) in [
            (KeyPath::of(["doors", "mqtt"]), Some(2), true),
            (KeyPath::of(["doors", "mqtt", "listen"]), Some(3), true),
            (KeyPath::of(["doors", "mqtt", "enabled"]), Some(2), false),
            (KeyPath::of(["doors", "amqp", "listen"]), Some(2), false),
            (KeyPath::of(["users", "a", "password"]), Some(6), true),
            (KeyPath::of(["users", "a", "vhosts"]).index(1), Some(8), true),
            (route(0), Some(11), true),
            (route(0).key("queue"), Some(13), true),
            (route(0).key("queue").index(1), Some(14), true),
            (route(0).key("pattern"), Some(11), false),
            (route(1).key("match"), Some(17), true),
            (route(1).key("pattern"), Some(16), false),
            (KeyPath::of(["limits", "queue-limit"]), None, false),
        ] {
            assert_eq!(lines.nearest(&key), line, "{key}");
            assert_eq!(lines.has(&key), stands, "{key}");
        }
        assert_eq!(lines.keys(&["doors".into()]).collect::<Vec<_>>(), ["mqtt"]);
        assert_eq!(lines.keys(&["nothing".into()]).count(), 0);
    }

    #[test]
    fn a_file_that_is_not_toml_is_told_in_one_line() {
        let told = |text: &str| Lines::parse("linkspan.toml", text).err().unwrap().to_string();
        for (text, line) in [("a = 1\nb = [1,\nc = 2", 3), ("[doors", 1), ("\n\nx", 3), ("a = 1\na = 2", 2)] {
            let told = told(text);
            assert!(told.starts_with(&format!("linkspan.toml:{line}: this is not TOML: ")), "{told}");
            assert!(!told.contains('\n'), "{told}");
        }
        assert_eq!(
            told("[doors.mqtt]\nlisten = 127.0.0.1"),
            "linkspan.toml:2: this is not TOML: column 15: expected newline, `#`; a text needs quotes"
        );
    }
}
