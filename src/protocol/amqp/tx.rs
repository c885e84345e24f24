//! Class `tx`, 90: transactions (standard §1.9).

use super::method::methods;

methods! {
    /// The methods of class `tx`.
    class 90 "tx" Tx;

    /// Puts the channel into transaction mode.
    10 "select" Select {}
    /// The channel is transactional.
    11 "select-ok" SelectOk {}
    /// Ends the transaction, all of it done.
    20 "commit" Commit {}
    /// The transaction is done.
    21 "commit-ok" CommitOk {}
    /// Ends the transaction, nothing of it done.
    30 "rollback" Rollback {}
    /// The transaction is undone.
    31 "rollback-ok" RollbackOk {}
}
