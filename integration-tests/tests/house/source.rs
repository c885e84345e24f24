//! One Rust source file as the rules see it: without comments, strings and tests, and with every path it names.

use std::collections::HashMap;

/// A source file.
pub struct Source {
    /// From the workspace's root, with `/`.
    pub path: String,
    /// What it says, with comments, strings and test items blanked: every byte that is left is code, on its own line.
    pub code: String,
}

/// A path such as `crate::hub::Hub`: resolved through the file's `use` items, `self` and `super`.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// 1 is the first line.
    pub line: usize,
    /// `crate` comes first for what this crate has, the crate's name for others.
    pub segments: Vec<String>,
}

impl Path {
    /// The path begins with `prefix`, which is written with `::`.
    pub fn within(&self, prefix: &str) -> bool {
        let mut own = self.segments.iter();
        prefix.split("::").all(|p| own.next().is_some_and(|s| s == p))
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.segments.join("::"))
    }
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let mut code = blank_comments_and_strings(text);
        if is_test_file(path) {
            code = code.chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        }
        Source { path: path.into(), code: blank_tests(&code) }
    }

    /// The file's name without its extension; for `mod.rs` the folder's.
    pub fn stem(&self) -> &str {
        self.module().last().copied().unwrap_or_else(|| self.file_stem())
    }

    fn file_stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.strip_suffix(".rs").unwrap_or(name)
    }

    /// The module that the file is, from its crate's root.
    pub fn module(&self) -> Vec<&str> {
        let inner = self.path.rsplit_once("src/").map_or(self.path.as_str(), |(_, inner)| inner);
        let mut m: Vec<&str> = inner.strip_suffix(".rs").unwrap_or(inner).split('/').collect();
        if matches!(m.last(), Some(&("mod" | "lib" | "main"))) {
            m.pop();
        }
        m
    }

    /// The first module below the crate's root; empty for the root itself.
    pub fn room(&self) -> &str {
        self.module().first().copied().unwrap_or_default()
    }

    /// Lines that hold code, tests not counted.
    pub fn lines_of_code(&self) -> usize {
        self.code.lines().filter(|l| !l.trim().is_empty()).count()
    }

    /// Identifiers with their lines.
    pub fn identifiers(&self) -> Vec<(usize, String)> {
        let words = tokens(&self.code).into_iter().filter(|(_, t)| is_identifier(t));
        words.map(|(line, t)| (line, t.to_string())).collect()
    }

    /// Every path of two segments or more that the code names, `use` items included.
    pub fn paths(&self) -> Vec<Path> {
        let tokens = tokens(&self.code);
        let (mut uses, mut inline) = (vec![], vec![]);
        let mut i = 0;
        while i < tokens.len() {
            if tokens[i].1 == "use" {
                i = read_use_tree(&tokens, i + 1, &[], &mut uses);
            } else if is_identifier(tokens[i].1) && tokens.get(i + 1).is_some_and(|t| t.1 == "::") {
                let line = tokens[i].0;
                let mut segments = vec![tokens[i].1.to_string()];
                while tokens.get(i + 1).is_some_and(|t| t.1 == "::")
                    && tokens.get(i + 2).is_some_and(|t| is_identifier(t.1))
                {
                    segments.push(tokens[i + 2].1.to_string());
                    i += 2;
                }
                inline.push(Path { line, segments });
                i += 1;
            } else {
                i += 1;
            }
        }
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        let mut found = vec![];
        for (name, p) in uses {
            let segments = self.resolve(&p.segments, &HashMap::new());
            if segments.first() != Some(&name) {
                names.insert(name, segments.clone());
            }
            found.push(Path { line: p.line, segments });
        }
        found.extend(
            inline.into_iter().map(|p| Path { line: p.line, segments: self.resolve(&p.segments, &names) }),
        );
        found.retain(|p| p.segments.len() > 1);
        found
    }

    fn resolve(&self, p: &[String], names: &HashMap<String, Vec<String>>) -> Vec<String> {
        let Some((first, rest)) = p.split_first() else {
            return vec![];
        };
        let here = || std::iter::once("crate").chain(self.module()).map(str::to_string).collect::<Vec<_>>();
        let (mut base, mut rest) = match first.as_str() {
            "self" => (here(), rest),
            "super" => (here(), p),
            // the binary knows its library by the package's name
            "linkspan" => (vec!["crate".to_string()], rest),
            name => (names.get(name).cloned().unwrap_or_else(|| vec![name.to_string()]), rest),
        };
        while rest.first().is_some_and(|s| s == "super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        base
    }
}

fn is_test_file(path: &str) -> bool {
    let tests = ["tests", "benches", "fuzz", "conformance"];
    path.trim_end_matches(".rs").split('/').any(|part| tests.contains(&part))
}

fn is_identifier(t: &str) -> bool {
    t.starts_with(|c: char| c == '_' || c.is_alphabetic())
}

/// Identifiers, `::` and single other characters, with their lines.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut out = vec![];
    let (mut line, mut at) = (1, 0);
    while let Some(c) = code[at..].chars().next() {
        let rest = &code[at..];
        let len = if c == '_' || c.is_alphanumeric() {
            rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        if c == '\n' {
            line += 1;
        } else if !c.is_whitespace() {
            out.push((line, &rest[..len]));
        }
        at += len;
    }
    out
}

/// Reads one tree of a `use` item from token `i`; returns the index behind it. Found are the name that the file knows
/// it by, and the path.
fn read_use_tree(
    tokens: &[(usize, &str)],
    mut i: usize,
    prefix: &[String],
    found: &mut Vec<(String, Path)>,
) -> usize {
    let mut segments = prefix.to_vec();
    let mut name = None;
    let line = tokens.get(i).map_or(0, |t| t.0);
    while let Some(&(_, t)) = tokens.get(i) {
        match t {
            "::" => i += 1,
            "as" => {
                name = tokens.get(i + 1).map(|t| t.1.to_string());
                i += 2;
            }
            "{" => {
                i += 1;
                while tokens.get(i).is_some_and(|t| t.1 != "}") {
                    i = read_use_tree(tokens, i, &segments, found);
                    if tokens.get(i).is_some_and(|t| t.1 == ",") {
                        i += 1;
                    }
                }
                return i + 1;
            }
            "self" if !segments.is_empty() => i += 1,
            t if is_identifier(t) => {
                segments.push(t.to_string());
                i += 1;
            }
            "*" => i += 1,
            _ => break,
        }
    }
    let name = name.or_else(|| segments.last().cloned()).unwrap_or_default();
    found.push((name, Path { line, segments }));
    i
}

/// Blanks comments and the insides of string and character literals.
fn blank_comments_and_strings(text: &str) -> String {
    let c: Vec<char> = text.chars().collect();
    let mut out: Vec<char> = Vec::with_capacity(c.len());
    let at = |i: usize| c.get(i).copied().unwrap_or('\0');
    let word = |i: usize| i > 0 && (at(i - 1) == '_' || at(i - 1).is_alphanumeric());
    let mut i = 0;
    while i < c.len() {
        let end = match c[i] {
            '/' if at(i + 1) == '/' => (i..c.len()).find(|&k| c[k] == '\n').unwrap_or(c.len()),
            '/' if at(i + 1) == '*' => {
                let (mut depth, mut k) = (1, i + 2);
                while k < c.len() && depth > 0 {
                    match (c[k], at(k + 1)) {
                        ('/', '*') => (depth, k) = (depth + 1, k + 2),
                        ('*', '/') => (depth, k) = (depth - 1, k + 2),
                        _ => k += 1,
                    }
                }
                k
            }
            'r' if !word(i) || (i > 0 && matches!(at(i - 1), 'b' | 'c') && !word(i - 1)) => {
                let hashes = (i + 1..c.len()).take_while(|&k| c[k] == '#').count();
                if at(i + 1 + hashes) == '"' {
                    let close = |k: usize| c[k] == '"' && (1..=hashes).all(|h| at(k + h) == '#');
                    let from = i + 2 + hashes;
                    (from..c.len()).find(|&k| close(k)).map_or(c.len(), |k| k + 1 + hashes)
                } else {
                    i
                }
            }
            '"' => end_of_literal(&c, i, '"'),
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => end_of_literal(&c, i, '\''),
            _ => i,
        };
        if end == i {
            out.push(c[i]);
            i += 1;
        } else {
            out.extend(c[i..end].iter().map(|&x| if x == '\n' { x } else { ' ' }));
            i = end;
        }
    }
    out.into_iter().collect()
}

fn end_of_literal(c: &[char], start: usize, quote: char) -> usize {
    let mut k = start + 1;
    while k < c.len() && c[k] != quote {
        k += if c[k] == '\\' { 2 } else { 1 };
    }
    (k + 1).min(c.len())
}

/// Blanks every item under `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn blank_tests(code: &str) -> String {
    let mut out = code.to_string();
    while let Some(start) = ["#[cfg(test)]", "#[cfg(all(test,"].iter().filter_map(|a| out.find(a)).min() {
        let b = out.as_bytes();
        let (mut i, mut depth, mut end) = (start, 0usize, b.len());
        while i < b.len() {
            match b[i] {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' => depth = depth.saturating_sub(1),
                b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && matches!(b[i], b'}' | b';') {
                end = i + 1;
                break;
            }
            i += 1;
        }
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(path: &str, text: &str) -> Vec<String> {
        Source::new(path, text).paths().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        let s = Source::new(
            "src/a.rs",
            "// crate::a\n/* crate::b /* crate::c */ crate::d */ let x = \"crate::e \\\" crate::f\"; let r = r#\"crate::g \"\"#;\nlet c = ('\"', '\\'', b'\"'); fn f<'a>(x: &'a str) { crate::real::one() }",
        );
        assert_eq!(s.paths().iter().map(|p| p.segments.join("::")).collect::<Vec<_>>(), ["crate::real::one"]);
        assert_eq!(s.paths()[0].line, 3);
        assert_eq!(s.lines_of_code(), 2);
    }

    #[test]
    fn use_trees_are_expanded_and_names_resolved() {
        let text = "use crate::{hub::{self, Hub}, routes as r};\nuse tokio::time::Instant;\nfn f() { hub::go(); Instant::now(); r::Table::new() }";
        assert_eq!(
            paths("src/doors/mqtt/connection.rs", text),
            [
                "crate::hub",
                "crate::hub::Hub",
                "crate::routes",
                "tokio::time::Instant",
                "crate::hub::go",
                "tokio::time::Instant::now",
                "crate::routes::Table::new",
            ]
        );
    }

    #[test]
    fn self_and_super_are_followed() {
        let text = "use super::super::amqp::Channel; use self::inner::X; fn f() { super::handshake::run() }";
        assert_eq!(
            paths("src/doors/mqtt/session.rs", text),
            [
                "crate::doors::amqp::Channel",
                "crate::doors::mqtt::session::inner::X",
                "crate::doors::mqtt::handshake::run",
            ]
        );
        assert_eq!(paths("src/doors/mod.rs", "use super::hub::Hub;"), ["crate::hub::Hub"]);
        assert_eq!(paths("src/main.rs", "use linkspan::broker;"), ["crate::broker"]);
    }

    #[test]
    fn items_for_tests_are_not_counted() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use crate::doors::X;\n    fn t() { let s = [1]; }\n}\n#[cfg(test)]\nuse crate::hub::H;\nfn b() {}\n";
        let s = Source::new("src/patterns/x.rs", text);
        assert_eq!(s.lines_of_code(), 2);
        assert!(s.paths().is_empty());
        assert_eq!(Source::new("src/patterns/x/tests.rs", "fn a() {}").lines_of_code(), 0);
    }

    #[test]
    fn a_file_knows_its_module_and_name() {
        let s = |p: &str| Source::new(p, "");
        assert_eq!(s("src/doors/mqtt/mod.rs").module(), ["doors", "mqtt"]);
        assert_eq!(s("src/doors/mqtt/mod.rs").stem(), "mqtt");
        assert_eq!(s("src/lib.rs").stem(), "lib");
        assert_eq!(s("adapters/queues/src/ready.rs").module(), ["ready"]);
        assert_eq!(s("src/hub.rs").room(), "hub");
    }
}
