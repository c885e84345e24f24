//! The workspace on disk.

use crate::source::Source;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const FOREIGN: [&str; 5] = ["artifacts", "corpus", "linkspan-data", "node_modules", "target"];

/// Every text file of the workspace, in the order of its names.
pub struct Tree {
    /// Path from the root, and text.
    pub files: Vec<(String, String)>,
}

impl Tree {
    /// Reads the workspace that this test belongs to.
    pub fn of_the_workspace() -> Tree {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = vec![];
        walk(&root, &root, &mut files);
        files.sort();
        assert!(files.iter().any(|f| f.0 == "src/lib.rs"), "no src/lib.rs below {}", root.display());
        Tree { files }
    }

    /// The Rust sources below one of the given folders.
    pub fn sources(&self, folders: &[&str]) -> Vec<Source> {
        let inside = |path: &str| folders.iter().any(|f| path.starts_with(f));
        let rust = self.files.iter().filter(|f| f.0.ends_with(".rs") && inside(&f.0));
        rust.map(|f| Source::new(&f.0, &f.1)).collect()
    }

    /// The text of one file.
    pub fn text(&self, path: &str) -> &str {
        &self.files.iter().find(|f| f.0 == path).unwrap_or_else(|| panic!("no file {path}")).1
    }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            if !FOREIGN.contains(&name.as_str()) && name != ".git" {
                walk(root, &path, files);
            }
        } else if name != ".git"
            && let Ok(text) = fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            files.push((path, text));
        }
    }
}
