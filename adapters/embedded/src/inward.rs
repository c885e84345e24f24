//! One publish on its way in.

use linkspan_contract::{Millis, Published};

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
}
