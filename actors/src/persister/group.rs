//! Writing groups of changes, one after the other, on whichever thread.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parlour_event::StreamPos;
use parlour_storage::{Record, Writer};
use tokio::sync::OwnedSemaphorePermit;

use super::{Done, PersistError};
use crate::{
    changes::Changes,
    commit::{Announcement, Change},
    env::Clock,
    metrics::{Metrics, Stage},
    notifier::Announcer,
};

/// A disk that has last taken longer is waited for on the persister's own thread.
const QUICK: Duration = Duration::from_millis(2);

/// A change that is to be written.
pub(super) struct Submit {
    pub(super) change: Box<dyn Change>,
    /// When, on the monotonic clock.
    pub(super) submitted: Duration,
    pub(super) _permit: Option<OwnedSemaphorePermit>,
    pub(super) broken: Option<Arc<AtomicBool>>,
    pub(super) done: Done,
}

impl Submit {
    fn builds_on_a_failure(&self) -> bool {
        self.broken.as_ref().is_some_and(|broken| broken.load(Ordering::Acquire))
    }
}

/// Who writes. Clones are the same.
#[derive(Clone)]
pub(super) struct Groups(Arc<Shared>);

struct Shared {
    writing: Mutex<Writing>,
    /// How many changes are on their way to the persister's thread or wait there. They come first.
    queued: AtomicUsize,
}

/// What writing takes.
struct Writing {
    /// Gone once the persister has been stopped.
    writer: Option<Writer>,
    /// What the last flush took.
    last_flush: Duration,
    notifier: Announcer,
    changes: Arc<Changes>,
    metrics: Arc<dyn Metrics>,
    clock: Arc<dyn Clock>,
}

impl Groups {
    pub(super) fn new(
        writer: Writer,
        notifier: Announcer,
        changes: Arc<Changes>,
        metrics: Arc<dyn Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (writer, last_flush) = (Some(writer), Duration::ZERO);
        let writing = Writing { writer, last_flush, notifier, changes, metrics, clock };
        Self(Arc::new(Shared { writing: Mutex::new(writing), queued: AtomicUsize::new(0) }))
    }

    /// So many changes are about to be sent to the persister's thread.
    pub(super) fn queued(&self, count: usize) {
        self.0.queued.fetch_add(count, Ordering::AcqRel);
    }

    /// Writes what was queued.
    pub(super) fn write_queued(&self, group: Vec<Submit>) {
        let count = group.len();
        let mut writing = self.lock();
        writing.write(group);
        self.0.queued.fetch_sub(count, Ordering::AcqRel);
    }

    /// Writes a group on this thread, or gives it back if others are first, or the disk is slow.
    pub(super) fn write_here(&self, group: Vec<Submit>) -> Option<Vec<Submit>> {
        let mut writing = match self.0.writing.try_lock() {
            Ok(writing) => writing,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Some(group),
        };
        if self.0.queued.load(Ordering::Acquire) > 0 || writing.last_flush > QUICK {
            return Some(group);
        }
        writing.write(group);
        None
    }

    /// Closes the log. What comes after this is refused.
    pub(super) fn close(&self) {
        if let Some(writer) = self.lock().writer.take() {
            writer.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.0.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing {
    fn write(&mut self, group: Vec<Submit>) {
        // Lost to a panic in the middle of a group, it is not there for the next one.
        let Some(mut writer) = self.writer.take() else {
            group.into_iter().for_each(|submit| (submit.done)(Err(PersistError::Stopped)));
            return;
        };
        self.write_group(&mut writer, group);
        self.writer = Some(writer);
    }

    fn write_group(&mut self, writer: &mut Writer, group: Vec<Submit>) {
        let (futile, group): (Vec<_>, Vec<_>) =
            group.into_iter().partition(Submit::builds_on_a_failure);
        for submit in futile {
            (submit.done)(Err(PersistError::Orphaned));
        }
        let lineages: Vec<_> = group.iter().filter_map(|submit| submit.broken.clone()).collect();
        let started = self.clock.monotonic();
        for submit in &group {
            self.metrics.stage(Stage::CommitWait, started.saturating_sub(submit.submitted));
        }
        let (records, announcements, dones) = number(writer.next_pos(), group);
        match writer.commit(&records) {
            Ok(timings) => {
                let durable = self.clock.monotonic();
                self.metrics.committed(records.len(), timings.flush, durable - started);
                self.metrics.stage(Stage::Flush, timings.write + timings.flush);
                self.metrics.stage(Stage::Index, timings.index);
                self.last_flush = timings.flush;
                self.changes.apply(&announcements);
                self.notifier.announce(announcements);
                for (record, done) in records.iter().zip(dones) {
                    done(Ok(record.pos));
                }
                let told = self.clock.monotonic();
                self.metrics.stage(Stage::Announce, told.saturating_sub(durable));
            }
            Err(error) => {
                tracing::error!(%error, changes = records.len(), "changes could not be made durable");
                lineages.iter().for_each(|broken| broken.store(true, Ordering::Release));
                let error = PersistError::Storage(Arc::new(error));
                for done in dones {
                    done(Err(error.clone()));
                }
            }
        }
    }
}

/// Gives each change of the group its position.
fn number(
    mut next: StreamPos,
    group: Vec<Submit>,
) -> (Vec<Record>, Vec<(StreamPos, Announcement)>, Vec<Done>) {
    let mut records = Vec::with_capacity(group.len());
    let mut announcements = Vec::with_capacity(group.len());
    let mut dones = Vec::with_capacity(group.len());
    for submit in group {
        let pos = next;
        next = StreamPos(pos.0 + 1);
        let mut ops = Vec::with_capacity(8);
        let announcement = submit.change.write(pos, &mut ops);
        records.push(Record { pos, ops, announcement: announcement.encode() });
        announcements.push((pos, announcement));
        dones.push(submit.done);
    }
    (records, announcements, dones)
}
