//! What was declared before.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::register::row::Row;

/// What the file held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The rows of each vhost: exchanges, then queues, then bindings.
    pub(crate) vhosts: BTreeMap<Arc<str>, Vec<Row>>,
    /// False when a row could not be understood. It was reported and stays in the file.
    pub(crate) whole: bool,
}
