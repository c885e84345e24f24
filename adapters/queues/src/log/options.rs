//! How a log is written.

/// What a log may be told when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// When what is written is made safe.
    pub sync: SyncMode,
    /// Bytes of records after which the next file begins.
    pub segment_size: u64,
    /// Bytes of dead records that the files may hold beside as much as is live; more is compacted away.
    pub slack: u64,
    /// How many emptied files are kept to be written again.
    pub spare_files: usize,
}

impl Default for Options {
    fn default() -> Self {
        let segment_size = 64 << 20;
        Self { sync: SyncMode::Group, segment_size, slack: 4 * segment_size, spare_files: 2 }
    }
}

/// When what is written is made safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum SyncMode {
    /// One sync for all who wait while the one before is under way.
    #[default]
    Group,
    /// A sync for each commit.
    Always,
    /// Nobody waits for a sync: what is written counts as safe, though the machine may lose it. Files are synced when they
    /// are full.
    Never,
}
