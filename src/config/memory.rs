//! `[memory]`: how much of it Linkspan may have before publishers are held.

use serde::{Deserialize, Serialize};

use super::amount::Amount;
use super::key::KeyPath;
use super::report::Report;

/// `[memory]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Memory {
    /// Bytes that the process uses above which publishers are held; a share is of what the machine has or the process's
    /// control group allows, whichever is less.
    pub limit: Amount,
}

impl Default for Memory {
    fn default() -> Self {
        Self { limit: Amount::percent(60) }
    }
}

impl Memory {
    pub(super) fn check(&self, report: &mut Report<'_>) {
        if self.limit.is_zero() {
            report.bad_value(
                &KeyPath::of(["memory", "limit"]),
                "would hold publishers for ever; expected a size such as \"2 GiB\", or a share such as \"60%\" \
                 (\"100%\" holds nobody)",
            );
        }
    }
}
