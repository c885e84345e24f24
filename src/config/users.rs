//! `[users.NAME]`: who may come in.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::key::KeyPath;
use super::report::Report;
use crate::identity::{Account, PasswordText};

/// `[users.NAME]` as written.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct UserTable {
    /// An argon2id hash, from `linkspan hash-password`.
    password: Option<String>,
    /// The vhosts that the user may enter; all when not given.
    vhosts: Option<Vec<String>>,
}

/// The accounts by user name.
pub(super) fn check<'a>(
    users: &BTreeMap<String, UserTable>,
    vhosts: impl Iterator<Item = &'a str> + Clone,
    report: &mut Report<'_>,
) -> BTreeMap<Arc<str>, Account> {
    let mut accounts = BTreeMap::new();
    for (name, user) in users {
        let key = KeyPath::of(["users", name]);
        if name.is_empty() {
            report.bad_value(&key, "a user needs a name");
        }
        for (at, vhost) in user.vhosts.iter().flatten().enumerate() {
            if !vhosts.clone().any(|known| known == vhost) {
                report.unknown(&key.key("vhosts").index(at), "vhost", vhost, vhosts.clone());
            }
        }
        let allowed =
            user.vhosts.as_ref().map(|names| names.iter().map(|name| name.as_str().into()).collect());
        match user.password.as_deref().map(PasswordText::parse) {
            None => report.missing(&key.key("password"), "make a hash with `linkspan hash-password`"),
            Some(Err(error)) => report.bad_value(&key.key("password"), error.to_string()),
            Some(Ok(password)) => {
                accounts.insert(name.as_str().into(), Account { password, vhosts: allowed });
            }
        }
    }
    accounts
}
