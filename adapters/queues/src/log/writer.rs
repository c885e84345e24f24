//! Who brings the tail to the disk.

use std::io;
use std::sync::Arc;

use crate::log::compaction::{Compaction, Fruitless};
use crate::log::record::HEADER;
use crate::log::segment::{Name, SEGMENT_HEADER, Segment};
use crate::log::store::{StoreFile, sync_timed, write_full};
use crate::log::tail::{Buffer, records};
use crate::log::{LogError, Lsn, Shared, SyncMode};

/// Bytes that are written, when there is always something to write, before a piece is done of what makes room.
const ROOM_AFTER: u64 = 1 << 20;

/// Writes and syncs what was committed, and makes room; one for a log.
pub struct Writer {
    pub(crate) shared: Arc<Shared>,
    current: Option<Current>,
    /// Files that wait to be written: emptied ones, and one that is set aside for when the disk is full. While there is
    /// none, the log takes nothing that needs room, so that what makes room can always be written.
    pub(crate) spares: Vec<(String, Arc<dyn StoreFile>)>,
    /// Files that hold nothing that counts, and could not be removed yet.
    void: Vec<String>,
    /// Something is safe that no record says is.
    untold: bool,
    pub(crate) compaction: Option<Compaction>,
    /// Segments that could not be made away with.
    pub(crate) stuck: Vec<u64>,
    /// Every segment that begins before it is to be emptied, unless next to all in it is live.
    pub(crate) sweep: Option<Lsn>,
    pub(crate) fruitless: Fruitless,
    /// Bytes written since something was done to make room.
    busy: u64,
}

/// The file that is written.
struct Current {
    name: Name,
    file: Arc<dyn StoreFile>,
    /// Where what was written to it ends.
    end: Lsn,
    /// Something was written since its last sync.
    dirty: bool,
}

/// What a turn of the writer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// There was something to do; perhaps there is more.
    Worked,
    /// There was nothing to do.
    Idle,
    /// The disk refused; try again in a while.
    Failed,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            current: None,
            spares: Vec::new(),
            void: Vec::new(),
            untold: false,
            compaction: None,
            stuck: Vec::new(),
            sweep: None,
            fruitless: Fruitless::default(),
            busy: 0,
        }
    }

    /// Writes and syncs what there is; when there is nothing, or there was much, makes room.
    pub fn turn(&mut self) -> Turn {
        let (buffers, refused) = {
            let mut state = self.shared.lock();
            let durable = state.durable;
            state.tail.close(durable);
            (state.tail.unwritten(), state.failed.is_some())
        };
        if buffers.is_empty() {
            if self.untold {
                return self.tell_on_disk();
            }
            if refused && self.resume() {
                return Turn::Worked;
            }
            return match self.make_room() {
                Turn::Idle if refused => Turn::Failed,
                turn => turn,
            };
        }
        if let Err(error) = self.bring(&buffers) {
            return self.fail(&error);
        }
        self.busy += buffers.iter().map(|buffer| buffer.bytes.len() as u64).sum::<u64>();
        if self.busy >= ROOM_AFTER {
            self.busy = 0;
            self.make_room();
        }
        Turn::Worked
    }

    fn bring(&mut self, buffers: &[Arc<Buffer>]) -> Result<(), LogError> {
        let mode = self.shared.options.sync;
        for buffer in buffers {
            self.open_for(buffer)?;
            if mode == SyncMode::Always {
                for commit in commits(&buffer.bytes) {
                    self.write(buffer, commit)?;
                    self.sync()?;
                }
            } else {
                self.write(buffer, 0..buffer.bytes.len())?;
            }
        }
        self.note_written(buffers);
        match mode {
            SyncMode::Never => self.tell(false),
            SyncMode::Group => self.sync()?,
            SyncMode::Always => {}
        }
        Ok(())
    }

    /// Notes on the disk up to where everything is safe, for who finds damage there. Nobody waits for it.
    fn tell_on_disk(&mut self) -> Turn {
        let buffers = {
            let mut state = self.shared.lock();
            if state.tail.has_work() {
                return Turn::Worked;
            }
            self.untold = false;
            let durable = state.durable;
            state.begin_buffer();
            state.tail.close(durable);
            state.tail.unwritten()
        };
        for buffer in &buffers {
            if let Err(error) = self.open_for(buffer).and_then(|()| self.write(buffer, 0..buffer.bytes.len()))
            {
                return self.fail(&error);
            }
        }
        self.note_written(&buffers);
        Turn::Worked
    }

    fn note_written(&self, buffers: &[Arc<Buffer>]) {
        if let Some(last) = buffers.last() {
            self.shared.lock().tail.note_written(last.end());
        }
    }

    fn write(&mut self, buffer: &Buffer, part: std::ops::Range<usize>) -> Result<(), LogError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let lsn = buffer.base.saturating_add(part.start as u64);
        let bytes = buffer.bytes.get(part).unwrap_or_default();
        let offset = SEGMENT_HEADER.saturating_add(lsn.saturating_sub(current.name.base));
        current.dirty = true;
        write_full(&*current.file, bytes, offset)
            .map_err(|error| LogError::io("cannot write", current.name.file(), error))?;
        self.shared.figures.written(bytes.len() as u64);
        current.end = lsn.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Makes safe what was written, and tells.
    pub(crate) fn sync(&mut self) -> Result<(), LogError> {
        if let Some(current) = self.current.as_mut().filter(|current| current.dirty) {
            let failed = |error| LogError::io("cannot sync", current.name.file(), error);
            let (synced, took) = sync_timed(&*current.file);
            self.shared.figures.synced(took);
            synced.map_err(failed)?;
            current.dirty = false;
            self.untold = true;
            self.tell(true);
        }
        Ok(())
    }

    /// What was written counts as safe, and is when `durable`.
    fn tell(&mut self, durable: bool) {
        let Some(end) = self.current.as_ref().map(|current| current.end) else { return };
        let mut state = self.shared.lock();
        state.synced = state.synced.max(end);
        let synced = state.synced;
        if durable {
            state.durable = state.durable.max(end);
        }
        state.tail.release(synced);
        let refused = state.failed.is_some();
        drop(state);
        self.shared.told.notify_all();
        self.shared.watch.synced(synced);
        if refused {
            self.resume();
        }
        if durable && !self.void.is_empty() {
            self.clear_void();
        }
    }

    /// Takes what needs room again, when there is some; true when it does.
    fn resume(&mut self) -> bool {
        if self.reserve().is_err() {
            return false;
        }
        let resumed = self.shared.lock().failed.take().is_some();
        if resumed {
            self.shared.watch.resumed();
        }
        resumed
    }

    /// Sees to it that there is a file for when the disk is full.
    fn reserve(&mut self) -> Result<(), LogError> {
        if self.spares.is_empty() {
            let name = self.shared.lock().catalog.segments.spare();
            let size = self.shared.options.segment_size.saturating_add(SEGMENT_HEADER);
            let file = self.shared.store.create(&name.free(), size);
            let file = file.map_err(|error| LogError::io("cannot set aside room for", name.file(), error))?;
            self.spares.push((name.free(), file));
        }
        Ok(())
    }

    /// Makes the file of the buffer's segment the one that is written.
    fn open_for(&mut self, buffer: &Buffer) -> Result<(), LogError> {
        if self.current.as_ref().is_some_and(|current| current.name.id == buffer.segment) {
            return Ok(());
        }
        self.sync()?;
        let name = self.shared.lock().catalog.segments.by_id(buffer.segment).map(|segment| segment.name);
        let Some(name) = name else { return Ok(()) };
        let size = self.shared.options.segment_size.max(buffer.bytes.len() as u64);
        let file = self.create(name, size.saturating_add(SEGMENT_HEADER))?;
        if let Some(segment) = self.shared.lock().catalog.segments.by_id_mut(name.id) {
            segment.file = Some(Arc::clone(&file));
        }
        self.current = Some(Current { name, file, end: name.base, dirty: true });
        Ok(())
    }

    fn create(&mut self, name: Name, size: u64) -> Result<Arc<dyn StoreFile>, LogError> {
        let failed = |error: io::Error| LogError::io("cannot begin", name.file(), error);
        let large = size > self.shared.options.segment_size.saturating_add(SEGMENT_HEADER);
        let refused = self.shared.lock().failed.is_some();
        if !refused {
            self.reserve()?;
        }
        let is_reserve = self.spares.len() == 1 && !refused;
        let store = &self.shared.store;
        let (as_now, file) = match self.spares.pop_if(|_| !large && !is_reserve) {
            Some(spare) => spare,
            None => (name.file(), store.create(&name.file(), size).map_err(failed)?),
        };
        // From here on it is neither a spare nor in use, until it is.
        let begin = || {
            write_full(&*file, &name.header(), 0)?;
            if as_now != name.file() {
                store.rename(&as_now, &name.file())?;
            }
            store.sync()
        };
        if let Err(error) = begin() {
            self.void.extend([as_now, name.file()]);
            return Err(failed(error));
        }
        Ok(file)
    }

    /// Nothing that was not synced is: it is told so, and will be written anew elsewhere.
    fn fail(&mut self, error: &LogError) -> Turn {
        self.current = None;
        self.compaction = None;
        self.untold = false;
        let why: Arc<str> = error.to_string().into();
        let mut state = self.shared.lock();
        let again = state.failed.is_some();
        // Told already, when it is not the first time in a row.
        let from = if again { state.failure.1.max(state.synced) } else { state.synced };
        let to = state.end;
        let first = if again && state.synced < state.failure.1 { state.failure.0 } else { from };
        self.shared.figures.failed(to.saturating_sub(state.synced));
        state.failure = (first, to);
        state.failed = Some(Arc::clone(&why));
        self.void.extend(
            state
                .start_anew()
                .into_iter()
                .filter_map(|segment| segment.file.is_some().then(|| segment.name.file())),
        );
        drop(state);
        self.shared.told.notify_all();
        if from < to || !again {
            self.shared.watch.failed(from, to, &why);
        }
        self.clear_void();
        Turn::Failed
    }

    /// Removes files that hold nothing; those that cannot be are tried again later.
    fn clear_void(&mut self) {
        let store = &self.shared.store;
        self.void.retain(|name| match store.remove(name) {
            Ok(()) => false,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        });
    }

    /// True when the segment is the one that is written.
    pub(crate) fn is_current(&self, id: u64) -> bool {
        self.current.as_ref().is_some_and(|current| current.name.id == id)
    }

    /// A last word before the end: everything safe, and a record that says so.
    pub(crate) fn finish(&mut self) -> Result<(), LogError> {
        if self.untold {
            self.tell_on_disk();
        }
        self.sync()?;
        if let Some(Current { name, file, end, .. }) = &self.current {
            // The next to open it writes one more record into it. When it cannot be cut, that costs nothing but room.
            let _ = file.cut(Segment::new(*name).offset(*end).saturating_add(HEADER as u64));
        }
        Ok(())
    }
}

/// Where the commits in `bytes` lie.
fn commits(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut from = 0;
    let mut all = Vec::new();
    for (at, header, _) in records(bytes) {
        if header.last {
            let end = at.saturating_add(usize::try_from(header.size()).unwrap_or(HEADER));
            all.push(from..end);
            from = end;
        }
    }
    all
}
