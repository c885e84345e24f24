//! The map: `src/lib.rs` names every room in its docs.

/// Modules that the library declares and its docs do not name as a link.
pub fn missing(lib: &str) -> Vec<String> {
    let docs: Vec<&str> = lib.lines().filter_map(|l| l.trim().strip_prefix("//!")).collect();
    let docs = docs.join("\n");
    let declared = lib.lines().filter_map(|l| {
        let l = l.trim();
        l.strip_prefix("pub mod ").or_else(|| l.strip_prefix("mod "))?.strip_suffix(';')
    });
    let unnamed = declared.filter(|m| !docs.contains(&format!("[`{m}`]")));
    unnamed.map(|m| format!("src/lib.rs: the docs do not say what [`{m}`] is")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_without_a_line_in_the_docs_is_missed() {
        assert_eq!(missing("//! - [`hub`]: where everything passes\n\npub mod hub;\nmod mover;\n").len(), 1);
        assert_eq!(missing("//! hub is mentioned, not linked\npub mod hub;\n").len(), 1);
        assert!(missing("//! [`hub`] and [`mover`]\npub mod hub;\nmod mover;\n").is_empty());
    }
}
