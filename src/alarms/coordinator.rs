//! Looks at memory and disk, and raises and lowers alarms: the only file here that reads files and knows the time.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::StatVfs;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Alarms;
use super::level::{Level, Standing, enough_free, enough_used, margin};
use super::machine;
use super::shortage::{Shortage, Size};
use super::spare::Spare;
use crate::config::Amount;

/// Between two looks at the process's memory: what may come in meanwhile has to find room above the limit.
const MEMORY_PAUSE: Duration = Duration::from_millis(250);

/// Between two looks at the disks.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// How long what machine and control groups allow is remembered: it is changed seldom, but can be at any time.
const ALLOWED_FOR: Duration = Duration::from_secs(10);

/// What alarms are raised by; can be changed while they are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of the memory that the process uses, a share of what the machine has or its control groups allow.
    pub memory: Amount,
    /// Of what has to be free on each disk, a share of its size.
    pub free: Amount,
}

/// Where a back end writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// The back end's name.
    pub backend: Arc<str>,
    /// Its directory, which need not be there yet: then it is the nearest one above.
    pub path: PathBuf,
}

/// Who raises and lowers alarms.
#[derive(Debug)]
pub struct Watch {
    memory: Memory,
    disks: Disks,
    limits: watch::Receiver<Limits>,
}

impl Watch {
    /// Will raise and lower `alarms`, by `limits`, for the process's memory and the disks under `directories`.
    pub fn new(alarms: &Arc<Alarms>, limits: watch::Receiver<Limits>, directories: Vec<Directory>) -> Self {
        let disks = directories.into_iter().map(|directory| Disk { directory, level: Level::default() });
        Self {
            memory: Memory {
                alarms: Arc::clone(alarms),
                level: Level::default(),
                allowed: None,
                spare: None,
                warned: BTreeSet::new(),
            },
            disks: Disks { alarms: Arc::clone(alarms), disks: disks.collect(), warned: BTreeSet::new() },
            limits,
        }
    }

    /// Looks once: so that nobody publishes before it is known how things stand.
    pub async fn look(&mut self) {
        let limits = *self.limits.borrow_and_update();
        self.memory.look(limits.memory).await;
        self.disks.look(limits.free).await;
    }

    /// Goes on looking for ever. New limits are in force at once.
    pub async fn run(self) {
        let Self { mut memory, mut disks, limits } = self;
        let mut of_memory = limits.clone();
        let mut of_disks = limits;
        let memory = async {
            loop {
                if changed(&mut of_memory, MEMORY_PAUSE).await {
                    memory.level.renew();
                    memory.spare = None;
                }
                let limit = of_memory.borrow_and_update().memory;
                memory.look(limit).await;
            }
        };
        let disks = async {
            loop {
                if changed(&mut of_disks, DISK_PAUSE).await {
                    disks.disks.iter_mut().for_each(|disk| disk.level.renew());
                }
                let limit = of_disks.borrow_and_update().free;
                disks.look(limit).await;
            }
        };
        tokio::join!(memory, disks);
    }
}

/// Waits for the next look; true when it comes early, for limits were changed.
async fn changed(limits: &mut watch::Receiver<Limits>, pause: Duration) -> bool {
    tokio::select! {
        Ok(()) = limits.changed() => true,
        () = sleep(pause) => false,
    }
}

#[derive(Debug)]
struct Memory {
    alarms: Arc<Alarms>,
    level: Level,
    /// What may be had at most, and when that was found.
    allowed: Option<(u64, Instant)>,
    spare: Option<Spare>,
    warned: BTreeSet<String>,
}

impl Memory {
    async fn look(&mut self, limit: Amount) {
        let (resident, allowed) = match (resident(), self.allowed(Instant::now())) {
            (Ok(resident), Ok(allowed)) => (resident, allowed),
            (Err(why), _) | (_, Err(why)) => {
                let text = format!("memory is not watched, and memory.limit is without effect: {why}");
                return warn_once(&mut self.warned, text);
            }
        };
        let bytes = limit.of(allowed);
        if bytes > allowed {
            let text = format!(
                "memory.limit ({limit}) is more than there is ({}): memory runs out before the alarm is raised",
                Size(allowed)
            );
            warn_once(&mut self.warned, text);
        }
        // What is well with all of it is well without a part.
        let used = match Standing::of_used(resident, bytes) {
            Standing::Well => resident,
            Standing::Near | Standing::Short => self.used(resident, margin(bytes)).await,
        };
        metrics::gauge!("linkspan_memory_resident_bytes").set(resident as f64);
        metrics::gauge!("linkspan_memory_used_bytes").set(used as f64);
        metrics::gauge!("linkspan_memory_limit_bytes").set(bytes as f64);
        let shortage = Shortage::Memory { used, limit: bytes };
        match self.level.step(Standing::of_used(used, bytes), Instant::now()) {
            Some(true) => tracing::warn!(
                "{shortage}. Publishers are held until less than {} is used; consumers drain on: add some, raise \
                 memory.limit, or give the machine more memory",
                Size(enough_used(bytes))
            ),
            Some(false) => tracing::info!("memory suffices again: {} used; publishers go on", Size(used)),
            None => {}
        }
        put(&self.alarms, &self.level, &shortage);
    }

    /// Bytes that are resident without those that are free. When `more` are resident than before, these are looked for again.
    async fn used(&mut self, resident: u64, more: u64) -> u64 {
        let begin = Instant::now();
        let spare = match self.spare {
            Some(spare) if spare.holds(resident, more, begin) => spare,
            _ => {
                let bytes = tokio::task::spawn_blocking(spare).await.unwrap_or(0);
                let now = Instant::now();
                Spare::new(bytes, resident, now - begin, now)
            }
        };
        self.spare = Some(spare);
        spare.used(resident)
    }

    /// Bytes that the machine has or the control groups allow, whichever is less.
    fn allowed(&mut self, now: Instant) -> io::Result<u64> {
        if let Some((allowed, found)) = self.allowed
            && now - found < ALLOWED_FOR
        {
            return Ok(allowed);
        }
        let allowed = allowed()?;
        self.allowed = Some((allowed, now));
        Ok(allowed)
    }
}

/// Bytes of memory that the machine has or the process's control groups allow, whichever is less.
///
/// # Errors
/// When the system does not say it.
pub fn allowed() -> io::Result<u64> {
    let total = machine::total(&read("/proc/meminfo")?).ok_or_else(|| unreadable("/proc/meminfo"))?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let files = machine::limit_files(&groups).into_iter();
    let limits = files.filter_map(|file| machine::allowed(&std::fs::read_to_string(file).ok()?));
    Ok(limits.fold(total, u64::min))
}

/// Bytes of memory that the process has.
fn resident() -> io::Result<u64> {
    let pages =
        machine::resident_pages(&read("/proc/self/statm")?).ok_or_else(|| unreadable("/proc/self/statm"))?;
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// Bytes of these that are free: the allocator keeps them for what comes next, and does not give them back to the system.
#[cfg(target_env = "gnu")]
fn spare() -> u64 {
    use malloc_info::info::TotalType;
    let Ok(info) = malloc_info::malloc_info() else { return 0 };
    let free = info.total.iter().filter(|total| matches!(total.r#type, TotalType::Fast | TotalType::Rest));
    free.map(|total| total.size as u64).sum()
}

/// Other allocators give back what is free.
#[cfg(not(target_env = "gnu"))]
fn spare() -> u64 {
    0
}

fn read(file: &str) -> io::Result<String> {
    std::fs::read_to_string(file).map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))
}

fn unreadable(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{file} does not say what it should"))
}

#[derive(Debug)]
struct Disks {
    alarms: Arc<Alarms>,
    disks: Vec<Disk>,
    warned: BTreeSet<String>,
}

#[derive(Debug)]
struct Disk {
    directory: Directory,
    level: Level,
}

impl Disks {
    async fn look(&mut self, limit: Amount) {
        for disk in &mut self.disks {
            let path = disk.directory.path.clone();
            // A disk behind a network may let us wait.
            let looked = tokio::task::spawn_blocking(move || volume(&path)).await;
            let volume = match looked {
                Ok(Ok(volume)) => volume,
                Ok(Err(why)) => {
                    let (backend, path) = (&disk.directory.backend, disk.directory.path.display());
                    let text = format!(
                        "the disk of back end `{backend}` is not watched, and disk.free-limit is without effect there: \
                         {path}: {why}"
                    );
                    warn_once(&mut self.warned, text);
                    continue;
                }
                // The runtime goes down.
                Err(_) => return,
            };
            disk.judge(&volume, limit, &self.alarms);
        }
    }
}

impl Disk {
    fn judge(&mut self, volume: &StatVfs, limit: Amount, alarms: &Alarms) {
        let backend = &self.directory.backend;
        let free = volume.f_bavail.saturating_mul(volume.f_frsize);
        let bytes = limit.of(volume.f_blocks.saturating_mul(volume.f_frsize));
        let gauge = |name: &'static str| metrics::gauge!(name, "backend" => backend.to_string());
        gauge("linkspan_disk_free_bytes").set(free as f64);
        gauge("linkspan_disk_free_limit_bytes").set(bytes as f64);
        let shortage = Shortage::Disk { backend: Arc::clone(backend), free, limit: bytes };
        match self.level.step(Standing::of_free(free, bytes), Instant::now()) {
            Some(true) => tracing::warn!(
                "{shortage}. Publishers are held until {} is free; consumers drain on: make room on the volume of {}, or \
                 lower disk.free-limit",
                Size(enough_free(bytes)),
                self.directory.path.display()
            ),
            Some(false) => tracing::info!(
                "the disk of back end `{backend}` has room again: {} free; publishers go on",
                Size(free)
            ),
            None => {}
        }
        put(alarms, &self.level, &shortage);
    }
}

/// The volume that `path` is on, or will be.
fn volume(path: &Path) -> io::Result<StatVfs> {
    let mut above = path.ancestors();
    loop {
        let Some(path) = above.next() else { return Err(io::ErrorKind::NotFound.into()) };
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match rustix::fs::statvfs(path) {
            Ok(volume) => return Ok(volume),
            Err(error) if error == rustix::io::Errno::NOENT => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Has `alarms` say what the level says.
fn put(alarms: &Alarms, level: &Level, shortage: &Shortage) {
    if level.is_raised() {
        alarms.raise(shortage);
    } else {
        alarms.lower(&shortage.subject());
    }
}

fn warn_once(warned: &mut BTreeSet<String>, text: String) {
    if !warned.contains(&text) {
        tracing::warn!("{text}");
        warned.insert(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarms::Subject;

    fn limits(memory: Amount, free: Amount) -> Limits {
        Limits { memory, free }
    }

    fn watching(limits: Limits) -> (Arc<Alarms>, watch::Sender<Limits>, Watch) {
        let alarms = Arc::new(Alarms::default());
        let (sender, receiver) = watch::channel(limits);
        let directory = Directory { backend: "local".into(), path: "not/there/yet".into() };
        let watch = Watch::new(&alarms, receiver, vec![directory]);
        (alarms, sender, watch)
    }

    const PLENTY: Amount = Amount::percent(100);
    const NONE: Amount = Amount::Bytes(0);

    #[tokio::test]
    async fn the_first_look_raises_what_is_short() {
        let (alarms, _sender, mut watch) = watching(limits(PLENTY, NONE));
        watch.look().await;
        assert_eq!(alarms.raised(), []);
        let (alarms, _sender, mut watch) = watching(limits(Amount::Bytes(4096), Amount::Bytes(u64::MAX)));
        watch.look().await;
        let subjects: Vec<_> = alarms.raised().into_iter().map(|(subject, _)| subject).collect();
        assert_eq!(subjects, [Subject::Memory, Subject::Disk("local".into())]);
    }

    #[tokio::test(start_paused = true)]
    async fn new_limits_are_in_force_at_once() {
        let (alarms, sender, watch) = watching(limits(PLENTY, NONE));
        tokio::spawn(watch.run());
        sender.send(limits(Amount::Bytes(4096), NONE)).unwrap();
        let raised = async {
            while !alarms.is_on() {
                tokio::task::yield_now().await;
            }
        };
        raised.await;
        let mut hold = alarms.hold("amqp").unwrap();
        let start = Instant::now();
        sender.send(limits(PLENTY, NONE)).unwrap();
        std::future::poll_fn(|cx| hold.poll(cx)).await;
        assert!(start.elapsed() < MEMORY_PAUSE, "not by the next look");
    }

    #[test]
    fn more_is_allowed_than_the_process_has() {
        let mut memory = watching(limits(PLENTY, NONE)).2.memory;
        let (used, allowed) = (resident().unwrap(), memory.allowed(Instant::now()).unwrap());
        assert!(used > 100 << 10 && allowed > used, "{used} of {allowed}");
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_was_freed_is_not_used() {
        let before = resident().unwrap() - spare();
        // Too small to be given back each by itself, and not all at the end of the heap.
        let mut held: Vec<Vec<u8>> = (0..256 << 10).map(|_| vec![1; 1 << 10]).collect();
        let with = resident().unwrap() - spare();
        let last = held.pop();
        drop(held);
        let after = resident().unwrap().saturating_sub(spare());
        assert!(with > before + (128 << 20), "256 MiB are used: {before} before, {with} now");
        assert!(after < with - (128 << 20), "and are free again: {with} with, {after} without");
        drop(last);
    }

    #[test]
    fn a_directory_that_is_not_there_is_on_the_volume_of_the_nearest_above() {
        let here = volume(Path::new(".")).unwrap();
        assert_eq!(volume(Path::new("not/there")).unwrap().f_fsid, here.f_fsid);
        assert!(volume(Path::new("Cargo.toml/no/directory")).is_err());
    }
}
