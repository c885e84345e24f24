//! The thread of the log's writer.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::log::writer::{Turn, Writer};
use crate::log::{LogError, Shared};

/// How long a disk that refused is left alone.
const PAUSE: Duration = Duration::from_millis(500);
/// How long an idle writer waits before it looks for room to make.
const REST: Duration = Duration::from_secs(1);

/// The thread, until it is joined.
pub(crate) struct Coordinator {
    thread: JoinHandle<()>,
}

impl Coordinator {
    pub(crate) fn start(mut writer: Writer, shared: Arc<Shared>) -> Result<Self, LogError> {
        let run = move || {
            loop {
                let turn = writer.turn();
                let mut state = shared.lock();
                match turn {
                    Turn::Worked => continue,
                    Turn::Failed if state.closing => break,
                    Turn::Failed => {
                        let _ = shared.work.wait_for(&mut state, PAUSE);
                    }
                    Turn::Idle if state.tail.has_work() => continue,
                    Turn::Idle if state.closing => break,
                    Turn::Idle => {
                        state.asleep = true;
                        let _ = shared.work.wait_for(&mut state, REST);
                        state.asleep = false;
                    }
                }
            }
            if let Err(error) = writer.finish() {
                shared.watch.trouble(&error);
            }
            shared.lock().closed = true;
            shared.told.notify_all();
        };
        let thread = thread::Builder::new().name("linkspan-log".into()).spawn(run);
        let thread = thread.map_err(|error| LogError::io("cannot start", "the log's writer", error))?;
        Ok(Self { thread })
    }

    pub(crate) fn join(self) {
        // A panic of the writer has been printed; there is nothing left to do for it.
        let _ = self.thread.join();
    }
}
