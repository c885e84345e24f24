//! How far a command is.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on a terminal; nothing where standard error is none.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar for what is being done.
    pub fn new(doing: &'static str) -> Self {
        let bar = ProgressBar::new(0).with_message(doing);
        if let Ok(style) =
            ProgressStyle::with_template("{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left")
        {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// So many bytes of so many are done.
    pub fn set(&mut self, done: u64, all: u64) {
        self.0.set_length(all);
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
