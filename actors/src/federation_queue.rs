//! What goes to other servers: for each of them its events in order, one transaction at a time.
//!
//! Rooms leave what is made here in the outbox, in the record of the event itself
//! (`room/change.rs`). One task follows the outbox and puts each event into the lines of the
//! servers that were in the room (`dispatch.rs`, `audience.rs`). A server that something waits for
//! has a task of its own (`deliver.rs`), no actor: it does one thing after the other, is asked nothing, and ends
//! when nothing waits or the server cannot be reached; what it has to remember stands in the line
//! (`line.rs`). How far each server has got is made durable a little later, many servers at once,
//! and what everybody has got leaves the outbox then (`sweep.rs`). After a crash a server gets what
//! it got in the last seconds once more, which its event ids tell it.
//!
//! A server that cannot be reached costs a line of a few numbers, and an event nothing; what it
//! misses is looked up when it is back (`catch_up.rs`). Of what is not an event the newest state
//! waits, and nothing of it for a server that is away (`edus.rs`, `ephemeral.rs`); but messages for devices wait in storage
//! until their server has them (`posted.rs`), and so does that somebody's devices or keys have
//! changed (`key_news.rs`, `unheard.rs`); servers that were never reached are given up some day
//! (`strangers.rs`). Both are read for one transaction after the other
//! (`owed.rs`, `reading.rs`).

mod audience;
mod catch_up;
mod courier;
mod deliver;
mod dispatch;
mod edus;
mod ephemeral;
mod health;
mod key_news;
mod line;
mod owed;
mod posted;
mod presence;
mod reading;
mod strangers;
mod sweep;
mod table;
mod teller;
mod unheard;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use parlour_event::StreamPos;
use parlour_storage::{
    StorageError, Store,
    schema::{DestinationEntry, outbox},
};
use ruma::{OwnedServerName, ServerName};
use tokio::sync::{Notify, Semaphore};

pub use self::courier::{Courier, Delivered, Failure, Transaction};
pub use self::teller::KeyTeller;
use self::{audience::Audiences, table::Table};
use crate::{
    changes::Changes,
    engine::{Engine, StartError},
    env::Env,
    metrics::Metrics,
    persister::Persister,
    presence::Presence,
    threads::Thread,
    typing::Typing,
};

/// How many transactions are under way to servers that answered last time, and to others: those
/// that are away must not keep the rest waiting.
const AT_ONCE: usize = 192;
const AT_ONCE_TO_FAILING: usize = 64;

/// How many destinations are read from storage at once.
const PAGE: usize = 1_000;

/// What the queues need besides the engine.
#[derive(Debug)]
pub struct QueueOptions {
    /// This server.
    pub server_name: OwnedServerName,
    /// Who carries transactions.
    pub courier: Arc<dyn Courier>,
    /// What is said of users' keys.
    pub teller: Arc<dyn KeyTeller>,
    /// The longest pause between two attempts to reach a server.
    pub longest_pause: Duration,
    /// Whether other servers are told who is online here.
    pub tells_presence: bool,
    /// Time and randomness.
    pub env: Env,
    /// Where measurements go.
    pub metrics: Arc<dyn Metrics>,
}

/// How the queues are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overview {
    /// Servers for which events wait.
    pub waiting: usize,
    /// Servers that could not be reached the last time.
    pub failing: usize,
    /// How long the oldest event has waited.
    pub oldest_wait: Duration,
}

/// How others reach the queues. Cheap to clone.
#[derive(Clone)]
pub struct FederationQueues(Arc<Queues>);

struct Queues {
    options: QueueOptions,
    store: Store,
    persister: Persister,
    changes: Arc<Changes>,
    typing: Typing,
    presence: Presence,
    /// Taken before `table` where both are needed.
    audiences: Mutex<Audiences>,
    table: Mutex<Table>,
    /// There is something to do for the task that looks after everything.
    wake: Notify,
    healthy: Semaphore,
    failing: Semaphore,
    thread: Thread,
}

impl fmt::Debug for FederationQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FederationQueues")
    }
}

impl FederationQueues {
    /// Starts the queues on a thread of their own. What waits since before the start begins to go
    /// out by itself.
    ///
    /// # Errors
    ///
    /// If storage cannot be read, or the system gives no thread.
    pub fn start(engine: &Engine, options: QueueOptions) -> Result<Self, StartError> {
        let thread = options.env.threads.start(c"sending")?;
        let queues = Queues {
            store: engine.store.clone(),
            persister: engine.persister.clone(),
            changes: engine.changes.clone(),
            typing: engine.typing.clone(),
            presence: engine.presence.clone(),
            audiences: Mutex::default(),
            table: Mutex::new(Table::load(&engine.store, &options)?),
            wake: Notify::new(),
            healthy: Semaphore::new(AT_ONCE),
            failing: Semaphore::new(AT_ONCE_TO_FAILING),
            thread,
            options,
        };
        let queues = Arc::new(queues);
        queues.thread.spawn(queues.clone().follow());
        queues.thread.spawn(queues.clone().follow_posted());
        queues.thread.spawn(queues.clone().tell_news());
        Ok(Self(queues))
    }

    /// A server has contacted this one: what waits for it is sent at once.
    pub fn is_back(&self, server: &ServerName) {
        let now = self.0.now();
        if self.0.lock().is_back(server, now) {
            self.0.wake.notify_one();
        }
    }

    /// Whether nobody should wait for an answer of a server: it could not be reached more than once,
    /// is not tried now, and has not been heard of meanwhile.
    #[must_use]
    pub fn is_silent(&self, server: &ServerName) -> bool {
        let now = self.0.now();
        self.0.lock().lines.get(server).is_some_and(|line| line.is_silent(now))
    }

    /// An operator wants a server to be tried at once. Returns whether it could not be reached so
    /// far.
    #[must_use]
    pub fn reset(&self, server: &ServerName) -> bool {
        let was_failing = self.0.lock().reset(server, self.0.now());
        self.0.wake.notify_one();
        was_failing
    }

    /// Looks at the clock again, which may have been moved by hand.
    pub fn look_again(&self) {
        self.0.wake.notify_one();
    }

    /// How the queues are.
    #[must_use]
    pub fn overview(&self) -> Overview {
        self.0.lock().overview(self.0.now())
    }

    /// What is known of a server to which something was sent.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn destination(
        &self,
        server: &ServerName,
    ) -> Result<Option<DestinationEntry>, StorageError> {
        match self.0.lock().destination(server) {
            Some(entry) => Ok(Some(entry)),
            None => self.0.store.typed(&outbox::destination(server.as_str())),
        }
    }

    /// Shows all servers to which something was sent, in no particular order.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn each_destination(
        &self,
        mut see: impl FnMut(String, DestinationEntry),
    ) -> Result<(), StorageError> {
        let fresh = self.0.lock().destinations();
        let mut last = String::new();
        loop {
            let page = self.0.store.destinations(&last, PAGE)?;
            let Some((name, _)) = page.last() else { break };
            last.clone_from(name);
            for (name, entry) in page {
                if !fresh.contains_key(name.as_str()) {
                    see(name, entry);
                }
            }
        }
        fresh.into_iter().for_each(|(name, entry)| see(name, entry));
        Ok(())
    }

    /// Makes durable how far everybody has got, and stops.
    pub async fn stop(&self) {
        self.0.lock().is_stopped = true;
        self.0.sweep(true).await;
        self.0.thread.stop();
    }
}

impl Queues {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn audiences(&self) -> MutexGuard<'_, Audiences> {
        self.audiences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.options.env.clock.now_ms()
    }

    /// A random byte.
    fn jitter(&self) -> u8 {
        let mut byte = [0];
        self.options.env.entropy.fill(&mut byte);
        byte[0]
    }

    /// Up to where queues in memory know what waits.
    fn dispatched(&self) -> StreamPos {
        self.lock().dispatched
    }
}
