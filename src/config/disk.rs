//! `[disk]`: how much of it has to be free, or else publishers are held.

use serde::{Deserialize, Serialize};

use super::amount::Amount;
use super::key::KeyPath;
use super::report::Report;

/// `[disk]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Disk {
    /// Free bytes of each volume that a back end writes to below which publishers are held; a share is of the volume's size.
    /// Nothing: nobody is held.
    pub free_limit: Amount,
}

impl Default for Disk {
    fn default() -> Self {
        Self { free_limit: Amount::Bytes(1 << 30) }
    }
}

impl Disk {
    pub(super) fn check(&self, report: &mut Report<'_>) {
        if self.free_limit.is_whole() {
            report.bad_value(
                &KeyPath::of(["disk", "free-limit"]),
                "no volume is ever wholly free; expected a size such as \"1 GiB\", or a share such as \"5%\"",
            );
        }
    }
}
