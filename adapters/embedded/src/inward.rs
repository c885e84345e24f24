//! One publish on its way in.

use linkspan_contract::{Millis, Published};

use linkspan_queues::log::Lsn;

use crate::brake::Brakes;
use crate::outlet::Touched;

/// Who publishes, when, and what comes of it.
pub(crate) struct Inward<'a> {
    /// The number of the client that publishes.
    pub(crate) client: u64,
    pub(crate) now: Millis,
    pub(crate) touched: &'a mut Touched,
    pub(crate) brakes: &'a mut Brakes,
    pub(crate) published: &'a mut Published,
    /// Where what has to be safe before the publisher is told ends in the log; 0 when there is nothing.
    pub(crate) written: Lsn,
    /// Something of it has to be safe, and the log did not take it.
    pub(crate) unwritten: bool,
}
