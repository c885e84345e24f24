//! How long the routes before a reload are still followed: until every lane has resolved its subscriptions again.

mod coordinator;

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// The era of the routes in force. Every lane with subscriptions has one in hand: that of the routes by which it resolved
/// them.
#[derive(Debug, Default)]
pub struct Eras(Mutex<Arc<Era>>);

/// One reload's until the next.
#[derive(Debug, Default)]
pub struct Era;

/// An era that was replaced: over when nobody has it in hand any more.
#[derive(Debug)]
pub struct Past(Weak<Era>);

impl Eras {
    /// The present one. Whoever takes it before he looks at the routes looks at these, or at later ones.
    pub fn present(&self) -> Arc<Era> {
        Arc::clone(&self.0.lock())
    }

    /// Begins another: the routes in force are new.
    pub fn begin(&self) -> Past {
        let mut present = self.0.lock();
        let past = Past(Arc::downgrade(&present));
        *present = Arc::default();
        past
    }
}

impl Past {
    /// Whether it is.
    fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_era_is_over_when_the_last_lane_has_gone_on() {
        let eras = Eras::default();
        let (one, other) = (eras.present(), eras.present());
        let past = eras.begin();
        let next = eras.present();
        drop(one);
        assert!(!past.ends(Duration::from_secs(1)).await, "the other lane is still in it");
        drop(other);
        assert!(past.ends(Duration::ZERO).await);
        drop(next);
        assert!(eras.begin().ends(Duration::ZERO).await, "nobody subscribes");
    }
}
