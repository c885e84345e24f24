//! Looks at spools again and again, as long as there are any.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use crate::hub::Hub;

/// How often: a back end that goes away is noticed so soon.
const LOOK: Duration = Duration::from_millis(20);

impl Hub {
    /// Has them looked at from now on.
    pub(super) fn watch_spools(&self) {
        let mut coordinator = self.spools.coordinator.lock();
        let works = coordinator.as_ref().is_some_and(|it| !it.is_finished());
        if works || self.spools.all.read().is_empty() {
            return;
        }
        *coordinator = Some(tokio::spawn(watch(Weak::clone(&self.me))).abort_handle());
    }
}

async fn watch(hub: Weak<Hub>) {
    loop {
        sleep(LOOK).await;
        let Some(hub) = hub.upgrade() else { return };
        hub.look_at_spools().await;
        // One that is made meanwhile begins another.
        if Arc::clone(&hub).spools.all.read().is_empty() {
            return;
        }
    }
}
