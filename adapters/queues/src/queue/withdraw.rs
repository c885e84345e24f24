//! Taking out what is ready, for whoever keeps the messages elsewhere too.

use super::Queue;
use crate::journal::Journal;
use crate::offer::Queued;

impl<B: Clone, J: Journal<B>> Queue<B, J> {
    /// Takes out what is ready, in memory and `wanted`, by level and position. The journal is not told: it is the caller's to
    /// say where they are now.
    pub fn withdraw(&mut self, wanted: impl Fn(&Queued<B>) -> bool) -> Vec<Queued<B>> {
        self.unpark_all();
        self.ready.take_out(wanted)
    }
}
