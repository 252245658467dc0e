//! The persister: the one write path.
//!
//! It numbers changes, appends them to the log, makes many of them durable with one flush, applies
//! them to the index, tells the notifier, and only then answers whoever waits. It runs on a thread
//! of its own, since waiting for the disk is its job.
//!
//! A room that is the only one with something to do writes its change itself, when nothing waits to
//! be written and the disk is quick: to wake another thread would cost as much as all of its work.

mod group;

use std::{
    fmt, io,
    sync::{Arc, atomic::AtomicBool},
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use parlour_event::StreamPos;
use parlour_storage::{StorageError, Writer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::group::{Groups, Submit};
use crate::{
    changes::Changes,
    commit::Change,
    env::{Clock, Env},
    metrics::Metrics,
    notifier::Announcer,
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
    groups: Groups,
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
    pub(crate) fn start(
        writer: Writer,
        notifier: Announcer,
        changes: Arc<Changes>,
        metrics: Arc<dyn Metrics>,
        env: Env,
        capacity: usize,
    ) -> io::Result<Self> {
        let (thread, clock) = (env.threads.start(c"persister")?, env.clock.clone());
        let groups = Groups::new(writer, notifier, changes, metrics, env.clock);
        let actor = PersisterActor { groups: groups.clone(), waiting: Vec::new() };
        let addr = thread.start(|| actor);
        Ok(Self { addr, groups, thread, permits: Arc::new(Semaphore::new(capacity)), clock })
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
        self.queue(vec![submit]);
    }

    /// Queues changes of a room that belong together; admission to the room bounds how many there
    /// are. They become durable with one flush, and readable all at once: before this returns, if
    /// not `others_are_at_work` who would wait for it, and nothing else speaks against it.
    pub(crate) fn submit_of_room(&self, changes: Vec<RoomChange>, others_are_at_work: bool) {
        let submitted = self.clock.monotonic();
        let submits = changes.into_iter().map(|RoomChange { change, broken, done }| Submit {
            change,
            submitted,
            _permit: None,
            broken: Some(broken),
            done,
        });
        let submits = submits.collect();
        let left = if others_are_at_work { Some(submits) } else { self.groups.write_here(submits) };
        if let Some(submits) = left {
            self.queue(submits);
        }
    }

    fn queue(&self, submits: Vec<Submit>) {
        self.groups.queued(submits.len());
        self.addr.do_send(Submits(submits));
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
    groups: Groups,
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
        self.groups.close();
        ctx.stop();
    }
}

impl PersisterActor {
    fn flush(&mut self) {
        if !self.waiting.is_empty() {
            self.groups.write_queued(std::mem::take(&mut self.waiting));
        }
    }
}
