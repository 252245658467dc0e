//! What goes wrong inside: a room that panics, a disk that refuses. Other rooms never notice, and
//! nothing is acknowledged that is not there.

mod support;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parlour_actors::{
    Engine, RoomError, RoomLimits,
    env::{Clock, Env, SystemClock, SystemEntropy},
};
use parlour_storage::{
    StoreOptions,
    fs::{FileLock, FileSystem, RealFiles, StorageFile},
};
use support::{create, member, message, options};

/// A clock that panics when a test tells it to: the next event that asks for the time is lost.
#[derive(Debug, Default)]
struct PanickyClock {
    inner: SystemClock,
    armed: AtomicBool,
}

impl Clock for PanickyClock {
    fn now_ms(&self) -> u64 {
        assert!(!self.armed.swap(false, Ordering::SeqCst), "the clock is broken on purpose");
        self.inner.now_ms()
    }

    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }
}

#[actix::test]
async fn a_panic_costs_one_request_and_no_other() {
    let clock = Arc::new(PanickyClock::default());
    let mut with_clock = options(None, RoomLimits::default());
    with_clock.env = Env::new(clock.clone(), Arc::new(SystemEntropy));
    let engine = Engine::start(with_clock).await.unwrap();
    let (room, other) = (create(&engine, "12").await, create(&engine, "12").await);
    let acknowledged = engine.rooms.send(&room, message("alice", "before")).await.unwrap();

    clock.armed.store(true, Ordering::SeqCst);
    let sends =
        (0..20).map(|number| engine.rooms.send(&room, message("alice", &format!("{number}"))));
    let results = futures_util::future::join_all(sends).await;
    let panicked =
        results.iter().filter(|result| matches!(result, Err(RoomError::Panicked))).count();
    let sent = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!((panicked, sent), (1, 19), "{results:?}");

    engine.rooms.send(&other, message("alice", "nothing happened here")).await.unwrap();
    assert!(engine.store.event_num(acknowledged.event_id.as_str()).unwrap().is_some());
    engine.rooms.send(&room, member("bob", "bob", "join")).await.unwrap();
    engine.stop().await;
}

/// A disk that refuses to make anything durable when a test tells it to.
#[derive(Debug, Clone, Default)]
struct FailingFiles {
    failing: Arc<AtomicBool>,
}

#[derive(Debug)]
struct FailingFile {
    inner: Arc<dyn StorageFile>,
    failing: Arc<AtomicBool>,
}

impl FailingFiles {
    fn wrap(&self, inner: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(FailingFile { inner, failing: self.failing.clone() })
    }
}

impl FileSystem for FailingFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealFiles.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealFiles.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.wrap(RealFiles.create(path)?))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.wrap(RealFiles.open(path, write)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFiles.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFiles.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealFiles.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        RealFiles.lock(path)
    }
}

impl StorageFile for FailingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        match self.failing.load(Ordering::SeqCst) {
            true => Err(io::Error::from(io::ErrorKind::StorageFull)),
            false => self.inner.write_at(data, offset),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

#[actix::test]
async fn a_full_disk_refuses_loudly_and_the_room_goes_on_when_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let files = FailingFiles::default();
    let mut failing = options(None, RoomLimits::default());
    failing.storage =
        Some(StoreOptions { files: Arc::new(files.clone()), ..StoreOptions::new(dir.path()) });
    let engine = Engine::start(failing).await.unwrap();
    let room = create(&engine, "12").await;
    let before = engine.rooms.send(&room, message("alice", "before")).await.unwrap();

    files.failing.store(true, Ordering::SeqCst);
    let sends =
        (0..10).map(|number| engine.rooms.send(&room, message("alice", &format!("{number}"))));
    for result in futures_util::future::join_all(sends).await {
        assert!(matches!(result, Err(RoomError::Persist(_))), "{result:?}");
    }
    assert_eq!(engine.changes.current(), before.pos, "nothing was announced");

    files.failing.store(false, Ordering::SeqCst);
    let after = engine.rooms.send(&room, message("alice", "after")).await.unwrap();
    assert_eq!(after.pos.0, before.pos.0 + 1);
    let num = engine.store.event_num(after.event_id.as_str()).unwrap().unwrap();
    let event = engine.store.event(num).unwrap().unwrap();
    let json = String::from_utf8_lossy(&event.json).into_owned();
    assert!(json.contains(before.event_id.as_str()), "it follows the last durable event: {json}");
    engine.stop().await;
}
