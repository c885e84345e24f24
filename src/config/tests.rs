//! What a user of the configuration sees.

mod dead_letters;
mod defaults;
mod examples;
mod fences;
mod ledger;
mod mistakes;
mod reload;
mod robustness;
mod routes;
mod sections;
mod terms;
mod this_version;
mod upstreams;
mod values;

use super::*;
use crate::routes::{Pattern, QueueType};
use std::time::Duration;

const HASH: &str = "argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$JrU8Tqtic8yGdZFcoZ0mt8EDW4ao54m3Pb1uL0p2ueY";

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(Some(("linkspan.toml", text)), [])
}

fn from_environment(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(Some(("linkspan.toml", text)), variables)
}

/// The lines that a user is shown.
fn errors(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

#[track_caller]
fn told(text: &str, expected: &[&str]) {
    assert_eq!(errors(text), expected, "\n--- of ---\n{text}");
}

const JOBS: &str = "[[route]]\nmatch = \"jobs\"\npattern = \"competing-consumers\"\nqueue = \"jobs\"\n";
