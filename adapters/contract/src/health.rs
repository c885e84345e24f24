//! How a back end is.

/// Whether a back end can be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Up,
    /// It does not, and why; what needs it waits or is refused.
    Away(String),
}
