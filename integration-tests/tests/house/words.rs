//! What the text of the project does not speak of: who wrote it and where, what is left undone, whose registry.

/// Forbidden anywhere, whatever its case. Written in halves: this file is text of the project too.
const PHRASES: [(&str, &str, &str); 12] = [
    ("TO", "DO", "do it, or say in the docs what is missing"),
    ("FIX", "ME", "fix it"),
    ("todo", "!(", "do it"),
    ("/ro", "ot/", "no path of one machine"),
    ("/ho", "me/", "no path of one machine"),
    ("/wor", "k/", "no path of one machine"),
    ("/tmp/", "wt", "no path of one machine"),
    ("crates", ".io", "no name of a registry's host"),
    ("npmjs", ".", "no name of a registry's host"),
    ("pypi", ".", "no name of a registry's host"),
    ("artifact", "ory", "no name of a registry's host"),
    ("work", "tree", "the project alone, not how it is worked on"),
];

/// Forbidden as words of their own.
const WORDS: [(&str, &str); 6] =
    [("ag", "ent"), ("ag", "ents"), ("assist", "ant"), ("subag", "ent"), ("subag", "ents"), ("chat", "bot")];

/// Files that tools write.
const GENERATED: [&str; 2] = ["Cargo.lock", "LICENSE-APACHE"];

/// Where the texts say what they should not: `files` are paths and texts.
pub fn violations(files: &[(String, String)]) -> Vec<String> {
    let phrases = PHRASES.map(|(a, b, instead)| (format!("{a}{b}"), instead));
    let names = WORDS.map(|(a, b)| format!("{a}{b}"));
    let mut found = vec![];
    for (path, text) in files.iter().filter(|(path, _)| !GENERATED.iter().any(|g| path.ends_with(g))) {
        for (n, line) in text.lines().enumerate() {
            let place = || format!("{path}:{}", n + 1);
            let lower = line.to_lowercase();
            for (phrase, instead) in &phrases {
                // in capitals it is meant as written; in a word it is something else
                let hit = if phrase.chars().all(char::is_uppercase) {
                    line.contains(phrase) && words(line).any(|w| w == phrase)
                } else {
                    lower.contains(phrase)
                };
                if hit {
                    found.push(format!("{}: `{phrase}`: {instead}", place()));
                }
            }
            for name in names.iter().filter(|name| lower.contains(*name)) {
                // a user-agent is a field of HTTP
                if words(&lower.replace("user-", "user_")).any(|w| w == name) {
                    found.push(format!("{}: `{name}`: the project alone, not who works on it", place()));
                }
            }
            if let Some(number) = issue_number(&lower) {
                let instead = "say what it is about, numbers mean nothing to a reader";
                found.push(format!("{}: issue {number}: {instead}", place()));
            }
        }
    }
    found
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| c != '_' && !c.is_alphanumeric()).filter(|w| !w.is_empty())
}

/// The number that follows the word.
fn issue_number(lower: &str) -> Option<&str> {
    let (_, after) = lower.split_once("issue ").or_else(|| lower.split_once("issues "))?;
    let after = after.trim_start_matches('#');
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    (end > 0).then(|| &after[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(text: &str) -> bool {
        !violations(&[("docs/x.md".into(), text.into())]).is_empty()
    }

    #[test]
    fn the_workplace_is_not_spoken_of() {
        for (a, b, _) in PHRASES {
            assert!(broken(&format!("see {a}{b} there")), "{a}{b}");
        }
        for (a, b) in WORDS {
            assert!(broken(&format!("an {a}{b}, maybe")), "{a}{b}");
        }
        assert!(broken(&format!("as is{} 12 asks", "sue")));
        assert!(broken(&format!("closes is{} #3", "sue")));
    }

    #[test]
    fn ordinary_words_are_free() {
        for text in [
            "the session outlives its socket",
            "User-Agent: curl",
            "an issue of trust",
            "workdir /srv",
            "magenta",
        ] {
            assert!(!broken(text), "{text}");
        }
    }
}
