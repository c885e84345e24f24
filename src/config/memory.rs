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
    /// Bytes of messages that queues have in memory together where a log keeps the rest; a share is of
    /// [`limit`](Self::limit).
    pub queues: Amount,
}

impl Default for Memory {
    fn default() -> Self {
        Self { limit: Amount::percent(60), queues: Amount::percent(40) }
    }
}

impl Memory {
    /// What queues may have, where the machine or the control group allows so many bytes.
    pub fn of_queues(&self, allowed: u64) -> u64 {
        self.queues.of(self.limit.of(allowed))
    }

    pub(super) fn check(&self, report: &mut Report<'_>) {
        if self.limit.is_zero() {
            report.bad_value(
                &KeyPath::of(["memory", "limit"]),
                "would hold publishers for ever; expected a size such as \"2 GiB\", or a share such as \"60%\" \
                 (\"100%\" holds nobody)",
            );
        }
        if self.queues.is_zero() {
            report.bad_value(
                &KeyPath::of(["memory", "queues"]),
                "would leave nothing of any queue in memory; expected a size such as \"1 GiB\", or a share of \
                 memory.limit such as \"40%\"",
            );
        }
    }
}
