//! The persister: the one write path.
//!
//! It numbers changes, appends them to the log, makes many of them durable with one flush, applies
//! them to the index, tells the notifier, and only then answers whoever waits. It runs on a thread
//! of its own, since waiting for the disk is its job.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use parlour_event::StreamPos;
use parlour_storage::{Record, StorageError, Writer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    changes::Changes,
    commit::{Announcement, Change},
    env::{Clock, Env},
    metrics::{Metrics, Stage},
    notifier::{Announce, Notifier},
    threads::Thread,
};

/// The most changes that one flush makes durable; bounds the latency of the first of them.
const MAX_GROUP: usize = 512;

/// Why a change did not become durable. Nothing of it was announced.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PersistError {
    /// Storage refused.
    #[error("storage: {0}")]
    Storage(Arc<StorageError>),
    /// An earlier change that this one builds on could not be made durable.
    #[error("an earlier change could not be written")]
    Orphaned,
    /// The persister is gone: the server is stopping.
    #[error("the server is stopping")]
    Stopped,
    /// Too much waits to be written already.
    #[error("too many changes wait to be written")]
    Busy,
}

/// Called once a change is durable and readable, or has failed.
pub type Done = Box<dyn FnOnce(Result<StreamPos, PersistError>) + Send>;

/// How others reach the persister.
#[derive(Clone)]
pub struct Persister {
    addr: Addr<PersisterActor>,
    thread: Thread,
    permits: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Persister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Persister")
    }
}

impl Persister {
    /// Starts the persister on a thread of its own. At most `capacity` changes wait in it.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn start(
        writer: Writer,
        notifier: Addr<Notifier>,
        changes: Arc<Changes>,
        metrics: Arc<dyn Metrics>,
        env: Env,
        capacity: usize,
    ) -> io::Result<Self> {
        let (writer, thread) = (Some(writer), env.threads.start()?);
        let clock = env.clock.clone();
        let actor = PersisterActor { writer, notifier, changes, metrics, env, waiting: Vec::new() };
        let addr = thread.start(|| actor);
        Ok(Self { addr, thread, permits: Arc::new(Semaphore::new(capacity)), clock })
    }

    /// Takes a place in the queue. Whoever holds one may call [`Persister::submit`].
    ///
    /// # Errors
    ///
    /// [`PersistError::Busy`] when the queue is full.
    pub fn reserve(&self) -> Result<OwnedSemaphorePermit, PersistError> {
        self.permits.clone().try_acquire_owned().map_err(|_| PersistError::Busy)
    }

    /// Queues a change. Changes submitted from one place keep their order.
    pub fn submit(&self, change: Box<dyn Change>, permit: OwnedSemaphorePermit, done: Done) {
        // The mailbox bounds nothing; the permit does.
        let submitted = self.clock.monotonic();
        let submit = Submit { change, submitted, _permit: Some(permit), broken: None, done };
        self.addr.do_send(Submits(vec![submit]));
    }

    /// Queues changes of a room that belong together; admission to the room bounds how many there
    /// are. They become durable with one flush, and readable all at once.
    pub(crate) fn submit_of_room(&self, changes: Vec<RoomChange>) {
        let submitted = self.clock.monotonic();
        let submits = changes.into_iter().map(|RoomChange { change, broken, done }| Submit {
            change,
            submitted,
            _permit: None,
            broken: Some(broken),
            done,
        });
        self.addr.do_send(Submits(submits.collect()));
    }

    /// Queues a change and waits until it is durable and readable.
    ///
    /// # Errors
    ///
    /// If the queue is full or the change could not be made durable.
    pub async fn commit(&self, change: Box<dyn Change>) -> Result<StreamPos, PersistError> {
        let permit = self.reserve()?;
        let (sender, receiver) = oneshot::channel();
        // Nobody may wait any more; then nobody needs the answer either.
        let done: Done = Box::new(move |result| drop(sender.send(result)));
        self.submit(change, permit, done);
        receiver.await.unwrap_or(Err(PersistError::Stopped))
    }

    /// Waits until everything submitted so far is durable, then stops the persister's thread and
    /// closes the log.
    pub async fn stop(&self) {
        // A closed mailbox means that it has stopped already.
        let _stopped = self.addr.send(Stop).await;
        self.thread.stop();
    }
}

/// The actor behind [`Persister`].
struct PersisterActor {
    /// Gone once the persister has been stopped.
    writer: Option<Writer>,
    notifier: Addr<Notifier>,
    changes: Arc<Changes>,
    metrics: Arc<dyn Metrics>,
    env: Env,
    waiting: Vec<Submit>,
}

impl Actor for PersisterActor {
    type Context = Context<Self>;
}

/// A room's change. Each builds on the ones before: when one fails, `broken` is set, and later ones
/// that carry it fail too.
pub(crate) struct RoomChange {
    pub(crate) change: Box<dyn Change>,
    pub(crate) broken: Arc<AtomicBool>,
    pub(crate) done: Done,
}

/// Changes that are not parted.
#[derive(Message)]
#[rtype(result = "()")]
struct Submits(Vec<Submit>);

struct Submit {
    change: Box<dyn Change>,
    /// When, on the monotonic clock.
    submitted: Duration,
    _permit: Option<OwnedSemaphorePermit>,
    broken: Option<Arc<AtomicBool>>,
    done: Done,
}

impl Submit {
    fn builds_on_a_failure(&self) -> bool {
        self.broken.as_ref().is_some_and(|broken| broken.load(Ordering::Acquire))
    }
}

/// Sent to itself: runs after everything that is in the mailbox now has been collected, which is
/// what forms the group.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Submits> for PersisterActor {
    type Result = ();

    fn handle(&mut self, Submits(submits): Submits, ctx: &mut Self::Context) {
        if self.waiting.is_empty() {
            ctx.notify(Flush);
        }
        self.waiting.extend(submits);
        if self.waiting.len() >= MAX_GROUP {
            self.flush();
        }
    }
}

impl Handler<Flush> for PersisterActor {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        self.flush();
    }
}

impl Handler<Stop> for PersisterActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        use actix::ActorContext;
        self.flush();
        if let Some(writer) = self.writer.take() {
            writer.close();
        }
        ctx.stop();
    }
}

impl PersisterActor {
    fn flush(&mut self) {
        let Some(mut writer) = self.writer.take() else {
            let waiting = std::mem::take(&mut self.waiting);
            waiting.into_iter().for_each(|submit| (submit.done)(Err(PersistError::Stopped)));
            return;
        };
        if !self.waiting.is_empty() {
            self.write_group(&mut writer);
        }
        self.writer = Some(writer);
    }

    fn write_group(&mut self, writer: &mut Writer) {
        let (futile, group): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(Submit::builds_on_a_failure);
        for submit in futile {
            (submit.done)(Err(PersistError::Orphaned));
        }
        let lineages: Vec<_> = group.iter().filter_map(|submit| submit.broken.clone()).collect();
        let started = self.env.clock.monotonic();
        for submit in &group {
            self.metrics.stage(Stage::CommitWait, started.saturating_sub(submit.submitted));
        }
        let (records, announcements, dones) = number(writer.next_pos(), group);
        match writer.commit(&records) {
            Ok(timings) => {
                let durable = self.env.clock.monotonic();
                self.metrics.committed(records.len(), timings.flush, durable - started);
                self.metrics.stage(Stage::Flush, timings.write + timings.flush);
                self.metrics.stage(Stage::Index, timings.index);
                self.changes.apply(&announcements);
                self.notifier.do_send(Announce(announcements));
                for (record, done) in records.iter().zip(dones) {
                    done(Ok(record.pos));
                }
                let told = self.env.clock.monotonic();
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
