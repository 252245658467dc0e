//! Disks that are slow or refuse, on purpose: a file system in front of another one, which does to
//! the log's segments what it is told. For tests, and for servers in test mode.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::{
    fs::{FileLock, FileSystem, StorageFile},
    log::format::parse_file_name,
};

/// How often something fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// The next so many times.
    Next(u32),
    /// Until something else is said.
    Always,
}

impl Default for Failing {
    fn default() -> Self {
        Self::Next(0)
    }
}

impl Failing {
    /// Whether it fails this time.
    fn strikes(&mut self) -> bool {
        match self {
            Self::Always => true,
            Self::Next(0) => false,
            Self::Next(left) => {
                *left -= 1;
                true
            }
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// What each flush takes longer.
    pub flush_delay: Duration,
    /// Flushes that fail. After one of them the log takes nothing more until the next start: see
    /// [`crate::Writer::commit`].
    pub failing_flushes: Failing,
    /// Writes that fail in the middle, as on a full disk. The log takes them back and goes on.
    pub failing_writes: Failing,
}

/// The plan of a file system, which can be changed at any time. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    plan: Mutex<FaultPlan>,
    gate: Mutex<()>,
}

impl Faults {
    /// With this plan to begin with.
    #[must_use]
    pub fn new(plan: FaultPlan) -> Self {
        Self(Arc::new(Inner { plan: Mutex::new(plan), gate: Mutex::default() }))
    }

    /// What is left of the plan.
    #[must_use]
    pub fn plan(&self) -> FaultPlan {
        *self.lock()
    }

    /// Another plan, from now on.
    pub fn set(&self, plan: FaultPlan) {
        *self.lock() = plan;
    }

    /// No flush begins until what this gives is dropped.
    pub fn hold_flushes(&self) -> HeldFlushes<'_> {
        HeldFlushes { _gate: self.0.gate.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Puts the faults in front of a file system.
    #[must_use]
    pub fn of(&self, files: Arc<dyn FileSystem>) -> Arc<dyn FileSystem> {
        Arc::new(FaultyFiles { files, faults: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, FaultPlan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Flushes wait while this is there.
#[derive(Debug)]
#[must_use]
pub struct HeldFlushes<'a> {
    _gate: MutexGuard<'a, ()>,
}

#[derive(Debug)]
struct FaultyFiles {
    files: Arc<dyn FileSystem>,
    faults: Faults,
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn StorageFile>,
    faults: Faults,
}

impl FaultyFiles {
    fn wrap(&self, path: &Path, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        let name = path.file_name().and_then(|name| name.to_str());
        match name.and_then(parse_file_name) {
            Some(_) => Arc::new(FaultyFile { file, faults: self.faults.clone() }),
            None => file,
        }
    }
}

impl FileSystem for FaultyFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.files.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.files.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.wrap(path, self.files.create(path)?))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.wrap(path, self.files.open(path, write)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.files.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.files.lock(path)
    }
}

impl StorageFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        if !self.faults.lock().failing_writes.strikes() {
            return self.file.write_at(data, offset);
        }
        let half = data.get(..data.len() / 2).unwrap_or_default();
        self.file.write_at(half, offset)?;
        Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is full, on purpose"))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        drop(self.faults.hold_flushes());
        let (delay, fails) = {
            let mut plan = self.faults.lock();
            (plan.flush_delay, plan.failing_flushes.strikes())
        };
        // Whoever flushes waits for the disk, and nobody for whoever flushes but through it.
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        match fails {
            true => Err(io::Error::other("the flush fails on purpose")),
            false => self.file.sync(),
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
