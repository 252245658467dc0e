//! Everything of a user's own: account, devices, tokens, profile, account data, receipts, filters.
//!
//! Changes of one user are serialised: users are spread over a few actors, each of which does one
//! change at a time, from reading what is there to the change being durable. So whoever reads, then
//! decides, then writes (is the name free? is the txn id new?) is never overtaken.

mod account_data;
mod account_list;
mod accounts;
mod bulk;
mod chores;
mod deactivate;
mod dehydrated;
mod devices;
mod edu_outbox;
mod filters;
mod guests;
mod inbox;
mod key_backup;
mod keys;
mod logins;
mod people;
mod presence;
mod profile;
mod push_rules;
mod receipts;
mod rooms;
mod seen;
mod sessions;
mod spread;
mod tags;
mod threads;

use std::{
    fmt,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use actix::{Actor, Addr, AtomicResponse, Context, Handler, Message, WrapFuture};
use parlour_event::StreamPos;
use parlour_storage::{StorageError, Store};
use tokio::sync::{Notify, Semaphore, oneshot};

pub use self::{
    account_data::{AccountDataError, IGNORED_USERS, PREVIOUSLY},
    accounts::{Logout, RegisterError},
    dehydrated::NewDehydrated,
    devices::MAX_DEVICES,
    edu_outbox::OutgoingEdu,
    filters::FilterError,
    guests::Upgrade,
    inbox::{InboxError, Messages, Waiting},
    key_backup::{Backup, BackupError, BackupKey, KeysIn, StoredKey},
    keys::{
        Claimed, CrossSigningKeys, DeviceChange, KEY_USAGES, Kept, KeyError, KeysById,
        MAX_KNOWN_DEVICES, NewKeys, NewSignature, RemoteUserKeys, SigningError, Told,
    },
    profile::{ProfileChange, ProfileError, add_profile},
    push_rules::{PUSH_RULES, PushRulesError, RulePlace},
    receipts::NewReceipt,
    sessions::{AccountStanding, Login, NewDevice, RefreshError, Session, Standing, TokenKind},
    tags::{TAGS, Tags},
    threads::{ThreadChange, ThreadError},
};
use self::{logins::Logins, seen::Seen};
use crate::{
    commit::Change,
    env::Env,
    metrics::Metrics,
    persister::{PersistError, Persister},
    threads::Thread,
};

/// How many users' changes can be under way at the same time.
const SHARDS: usize = 32;

/// How many changes may wait altogether.
const QUEUE: usize = 4_096;

/// Why a change of a user's data was not made. Nothing has changed then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UserError {
    /// Storage cannot be read.
    #[error("storage: {0}")]
    Storage(Arc<StorageError>),
    /// The change could not be made durable.
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// Too many changes wait already.
    #[error("too many changes of user data wait")]
    Busy,
}

impl From<StorageError> for UserError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

/// What a change comes to, once decided.
pub(crate) enum Decision<T> {
    /// Write this, then answer.
    Write(Box<dyn Change>, T),
    /// Nothing needs to be written.
    Keep(T),
}

/// How others reach users' data. Cheap to clone.
#[derive(Clone)]
pub struct Users {
    store: Store,
    env: Env,
    metrics: Arc<dyn Metrics>,
    shards: Arc<[Addr<Shard>]>,
    thread: Thread,
    queue: Arc<Semaphore>,
    /// Wakes the task that carries new profiles into rooms.
    spread: Arc<Notify>,
    /// Wakes the task that leads deactivated users out of rooms.
    departures: Arc<Notify>,
    /// When devices were last heard of.
    seen: Arc<Seen>,
    /// Who comes with which token.
    logins: Arc<Logins>,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Users")
    }
}

impl Users {
    /// Starts the actors on a thread of their own.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub(crate) fn start(
        store: Store,
        env: Env,
        persister: &Persister,
        metrics: Arc<dyn Metrics>,
    ) -> io::Result<Self> {
        let thread = env.threads.start(c"users")?;
        let shards = (0..SHARDS).map(|_| {
            let persister = persister.clone();
            thread.start(move || Shard { persister })
        });
        let shards = shards.collect();
        let queue = Arc::new(Semaphore::new(QUEUE));
        Ok(Self {
            store,
            env,
            metrics,
            shards,
            thread,
            queue,
            spread: Arc::default(),
            departures: Arc::default(),
            seen: Arc::default(),
            logins: Arc::default(),
        })
    }

    /// Runs a task on the actors' thread, until that stops. It must not keep the thread for long.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.thread.spawn(task);
    }

    /// Stops the actors' thread.
    pub(crate) fn stop(&self) {
        self.thread.stop();
    }

    /// Runs `decide` with nobody else changing this user's data, and makes durable what it wants
    /// written.
    pub(crate) async fn change<T, E, F>(&self, user: &str, decide: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<UserError> + Send + 'static,
        F: FnOnce(&Store) -> Result<Decision<T>, E> + Send + 'static,
    {
        self.change_in(shard_of(user), decide).await
    }

    /// The same for all users of a shard.
    async fn change_in<T, E, F>(&self, shard: usize, decide: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<UserError> + Send + 'static,
        F: FnOnce(&Store) -> Result<Decision<T>, E> + Send + 'static,
    {
        let Ok(_permit) = self.queue.clone().try_acquire_owned() else {
            return Err(UserError::Busy.into());
        };
        let (reply, answer) = oneshot::channel();
        let store = self.store.clone();
        // A panic costs one request, not all users of the shard: whoever asked is told that it
        // failed when `reply` is dropped.
        let decide = move || catch_unwind(AssertUnwindSafe(|| decide(&store)));
        let work = move || match decide().ok()? {
            Ok(Decision::Keep(value)) => {
                drop(reply.send(Ok(value)));
                None
            }
            Ok(Decision::Write(change, value)) => {
                let done = move |result: Result<StreamPos, PersistError>| {
                    let result = result.map(|_| value);
                    drop(reply.send(result.map_err(|error| UserError::from(error).into())));
                };
                Some((change, Box::new(done) as DoneWriting))
            }
            Err(error) => {
                drop(reply.send(Err(error)));
                None
            }
        };
        self.shards[shard].do_send(Work(Box::new(work)));
        answer.await.unwrap_or_else(|_| Err(UserError::from(PersistError::Stopped).into()))
    }
}

/// Which actor serialises a user's changes.
fn shard_of(user: &str) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(user);
    usize::try_from(hash % SHARDS as u64).expect("less than the number of shards")
}

type DoneWriting = Box<dyn FnOnce(Result<StreamPos, PersistError>) + Send>;

/// Decides; returns what is to be written.
#[derive(Message)]
#[rtype(result = "()")]
struct Work(Box<dyn FnOnce() -> Option<ToWrite> + Send>);

/// A change, and who is told when it is durable.
type ToWrite = (Box<dyn Change>, DoneWriting);

/// The actor for a part of all users.
struct Shard {
    persister: Persister,
}

impl Actor for Shard {
    type Context = Context<Self>;
}

impl Handler<Work> for Shard {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Work(decide): Work, _: &mut Self::Context) -> Self::Result {
        let persister = self.persister.clone();
        // Atomic: the next change is decided only when this one can be read.
        let write = async move {
            if let Some((change, done)) = decide() {
                done(persister.commit(change).await);
            }
        };
        AtomicResponse::new(Box::pin(write.into_actor(self)))
    }
}
