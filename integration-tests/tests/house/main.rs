//! The house rules of `src/lib.rs`, held by tests: which room may know which, what a file may be, who touches the
//! world. Each rule is a file beside this one, tried there on made-up sources that break it; `architecture.rs` applies
//! all of them to the tree.
#![allow(unreachable_pub, reason = "nothing is outside of a test binary")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod architecture;
mod direction;
mod effects;
mod form;
mod manifest;
mod map;
mod source;
mod tree;
mod vocabulary;
mod words;
