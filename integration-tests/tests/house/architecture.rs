//! The rules, applied to the tree as it is.

use crate::tree::Tree;
use crate::{direction, effects, form, manifest, map, vocabulary, words};

/// All code that is ours.
const EVERYTHING: [&str; 3] = ["src/", "adapters/", "integration-tests/"];

fn hold(what: &str, violations: Vec<String>) {
    assert!(violations.is_empty(), "{what}:\n  {}\n", violations.join("\n  "));
}

#[test]
fn every_room_knows_only_what_it_may() {
    let tree = Tree::of_the_workspace();
    let crates: Vec<String> =
        manifest::dependencies(tree.text("Cargo.toml")).iter().map(|d| d.replace('-', "_")).collect();
    hold("a room knows what it must not", direction::violations(&tree.sources(&["src/"]), &crates));
}

#[test]
fn adapters_depend_on_the_contract_and_the_queues_alone() {
    let tree = Tree::of_the_workspace();
    let mut found = vec![];
    for (path, text) in &tree.files {
        if let Some(name) = path.strip_prefix("adapters/").and_then(|p| p.strip_suffix("/Cargo.toml")) {
            found.extend(manifest::violations(name, text));
        }
    }
    hold("a crate depends on what it must not", found);
}

#[test]
fn sockets_tasks_and_clocks_are_in_files_that_say_so() {
    let tree = Tree::of_the_workspace();
    hold(
        "a file has effects that its name hides",
        effects::violations(&tree.sources(&["src/", "adapters/"])),
    );
}

#[test]
fn files_are_short_and_named_by_a_noun() {
    let tree = Tree::of_the_workspace();
    hold("a file is too long or named by nothing", form::violations(&tree.sources(&EVERYTHING)));
}

#[test]
fn the_same_job_has_the_same_file_name_in_every_door() {
    let tree = Tree::of_the_workspace();
    hold("a door hides a common job", form::jobs_under_other_names(&tree.sources(&["src/doors/"])));
}

#[test]
fn only_a_translate_file_speaks_two_protocols() {
    let tree = Tree::of_the_workspace();
    hold("protocols meet in the wrong place", vocabulary::violations(&tree.sources(&["src/"])));
}

#[test]
fn nobody_below_a_door_asks_which_one_it_was() {
    let tree = Tree::of_the_workspace();
    hold(
        "a protocol is asked for below the doors",
        vocabulary::questions(&tree.sources(&["src/", "adapters/"])),
    );
}

#[test]
fn the_map_names_every_room() {
    hold("the map has gaps", map::missing(Tree::of_the_workspace().text("src/lib.rs")));
}

#[test]
fn the_text_speaks_of_the_project_alone() {
    hold("the text says what it should not", words::violations(&Tree::of_the_workspace().files));
}
