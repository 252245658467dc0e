//! Files in memory that behave as a disk does when the power goes: what was not synced may be
//! there, or not, or in parts, in no order.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use parlour_storage::fs::{FileLock, FileSystem, StorageFile};
use rand::{RngExt, rngs::StdRng};

const SECTOR: usize = 64;

#[derive(Debug, Clone, Default)]
pub struct SimFs {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<FileState>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names that are not durable, in order.
    pending_names: Vec<NameChange>,
    /// Operations until the power goes; `None`: it stays.
    fuse: Option<u64>,
    fault: Option<Fault>,
    /// Counts power cuts: what was opened before is dead.
    epoch: u64,
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Debug, Clone, Default)]
struct FileState {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// What goes wrong at the next occasion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A write stops in the middle: the disk is full.
    Write,
    /// As `Write`, and what was written cannot be taken back.
    WriteAndTruncate,
    /// A flush fails.
    Sync,
    /// No file can be created.
    Create,
}

#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    id: usize,
    epoch: u64,
}

#[derive(Debug)]
struct SimLock;
impl FileLock for SimLock {}

impl SimFs {
    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The power goes after that many more operations that change something.
    pub fn cut_after(&self, operations: u64) {
        self.lock_state().fuse = Some(operations);
    }

    pub fn fail_next(&self, fault: Fault) {
        self.lock_state().fault = Some(fault);
    }

    /// The machine comes back: of what was not synced, random parts are there.
    pub fn power_cut(&self, rng: &mut StdRng) {
        let mut state = self.lock_state();
        state.epoch += 1;
        state.fuse = None;
        state.fault = None;
        for file in &mut state.files {
            for change in std::mem::take(&mut file.pending) {
                survive(&mut file.durable, change, rng);
            }
            file.now = file.durable.clone();
        }
        // A journal keeps the order of names.
        let kept = rng.random_range(0..=state.pending_names.len());
        let changes: Vec<_> = state.pending_names.drain(..).take(kept).collect();
        let mut names = std::mem::take(&mut state.durable_names);
        changes.into_iter().for_each(|change| change.apply(&mut names));
        state.names = names.clone();
        state.durable_names = names;
    }

    pub fn read(&self, path: &Path) -> Vec<u8> {
        let state = self.lock_state();
        state.files[state.names[path]].now.clone()
    }

    pub fn write(&self, path: &Path, content: Vec<u8>) {
        let mut state = self.lock_state();
        let id = state.names[path];
        state.files[id] = FileState { now: content.clone(), durable: content, pending: Vec::new() };
    }

    /// An independent copy of everything.
    pub fn fork(&self) -> Self {
        let state = self.lock_state();
        let copy = State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            pending_names: state.pending_names.clone(),
            fuse: None,
            fault: None,
            epoch: state.epoch,
        };
        Self { state: Arc::new(Mutex::new(copy)) }
    }
}

/// Carries a change out on what is durable: wholly, in part, or not at all.
fn survive(durable: &mut Vec<u8>, change: Change, rng: &mut StdRng) {
    match change {
        Change::Truncate(len) => {
            if rng.random() {
                durable.resize(len, 0);
            }
        }
        Change::Write(offset, data) => match rng.random_range(0..4) {
            0 => {}
            1 => write(durable, offset, &data),
            2 => write(durable, offset, &data[..rng.random_range(0..=data.len())]),
            _ => {
                // The length came through, the sectors in no order.
                let end = durable.len().max(offset + data.len());
                durable.resize(end, 0);
                for (at, sector) in data.chunks(SECTOR).enumerate() {
                    if rng.random() {
                        write(durable, offset + at * SECTOR, sector);
                    }
                }
            }
        },
    }
}

fn write(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = content.len().max(offset + data.len());
    content.resize(end, 0);
    content[offset..offset + data.len()].copy_from_slice(data);
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, id) => drop(names.insert(path, id)),
            Self::Unlink(path) => drop(names.remove(&path)),
            Self::Rename(from, to) => {
                if let Some(id) = names.remove(&from) {
                    names.insert(to, id);
                }
            }
        }
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

impl State {
    /// Counts an operation that changes something.
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => return Err(broken("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn fails(&mut self, faults: &[Fault]) -> bool {
        let fails = self.fault.is_some_and(|fault| faults.contains(&fault));
        if fails && self.fault != Some(Fault::WriteAndTruncate) {
            self.fault = None;
        }
        fails
    }

    fn change_name(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.pending_names.push(change);
    }
}

impl FileSystem for SimFs {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.lock_state();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let mut state = self.lock_state();
        state.spend()?;
        if state.fails(&[Fault::Create]) {
            return Err(broken("no space"));
        }
        let id = state.files.len();
        state.files.push(FileState::default());
        state.change_name(NameChange::Link(path.to_owned(), id));
        Ok(Arc::new(SimFile { fs: self.clone(), id, epoch: state.epoch }))
    }

    fn open(&self, path: &Path, _write: bool) -> io::Result<Arc<dyn StorageFile>> {
        let state = self.lock_state();
        let id = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { fs: self.clone(), id, epoch: state.epoch }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.spend()?;
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.spend()?;
        state.change_name(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.spend()?;
        state.pending_names.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn FileLock>> {
        Ok(Box::new(SimLock))
    }
}

impl SimFile {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.fs.lock_state();
        if state.epoch != self.epoch {
            return Err(broken("opened before the power went"));
        }
        work(&mut state)
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.with(|state| {
            let file = &mut state.files[self.id];
            match &change {
                Change::Write(offset, data) => write(&mut file.now, *offset, data),
                Change::Truncate(len) => file.now.resize(*len, 0),
            }
            file.pending.push(change);
            Ok(())
        })
    }
}

impl StorageFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|state| {
            let from = usize::try_from(offset).unwrap();
            let content = state.files[self.id].now.get(from..from + buffer.len());
            buffer.copy_from_slice(content.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let torn = self.with(|state| {
            let spent = state.spend();
            Ok(spent.is_err() || state.fails(&[Fault::Write, Fault::WriteAndTruncate]))
        })?;
        let kept = if torn { data.len() / 2 } else { data.len() };
        self.change(Change::Write(offset, data[..kept].to_vec()))?;
        if torn { Err(broken("no space")) } else { Ok(()) }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.with(|state| {
            state.spend()?;
            if state.fails(&[Fault::WriteAndTruncate]) {
                return Err(broken("no truncation"));
            }
            Ok(())
        })?;
        self.change(Change::Truncate(usize::try_from(len).unwrap()))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state| {
            state.spend()?;
            if state.fails(&[Fault::Sync]) {
                return Err(broken("the flush failed"));
            }
            let file = &mut state.files[self.id];
            file.pending.clear();
            file.durable = file.now.clone();
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|state| Ok(state.files[self.id].now.len() as u64))
    }
}
