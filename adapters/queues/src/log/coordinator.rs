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
            shared.store.release();
            shared.lock().closed = true;
            shared.told.notify_all();
        };
        let thread = thread::Builder::new().name("linkspan-log".into()).spawn(run);
        let thread = thread.map_err(|error| LogError::io("cannot start", "the log's writer", error))?;
        Ok(Self { thread })
    }

    /// Waits until it has written what it can and given the directory free; who calls from the thread itself, because it
    /// was the last who had the log, is not waited for.
    pub(crate) fn join(self) {
        if self.thread.thread().id() != thread::current().id() {
            // A panic of the writer has been printed; there is nothing left to do for it.
            let _ = self.thread.join();
        }
    }
}
