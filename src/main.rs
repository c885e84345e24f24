//! The `linkspan` binary.

fn main() {}
