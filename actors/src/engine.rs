//! The whole engine: every actor, started in the right order.

use std::{io, path::PathBuf, sync::Arc};

use parlour_event::{RoomVersion, StreamPos};
use parlour_storage::{
    Direction, Op, Recovery, StorageError, Store, StoreOptions, Writer, schema::keys,
};
use ruma::OwnedServerName;
use tokio::sync::Notify;

use crate::{
    changes::Changes,
    commit::{Announcement, Ops},
    delayed::Delayed,
    directory::Directory,
    env::Env,
    interner::Interner,
    metrics::Metrics,
    nodes::Nodes,
    notifier::{Feeds, Notifier},
    out_of_band::OutOfBand,
    persister::{PersistError, Persister},
    presence::{Presence, PresenceOptions},
    registry::{RoomLimits, Rooms},
    reports::Reports,
    room::RoomDeps,
    room_orders::{OrderParts, RoomOrders},
    server_keys::{ServerKeys, ServerKeysError},
    stored_tokens::StoredTokens,
    threads::Threads,
    typing::Typing,
    users::Users,
    workers::Workers,
};

/// How many changes of users' data and the like may wait for the persister.
const PERSISTER_QUEUE: usize = 8_192;

/// What the engine needs to know.
#[derive(Debug)]
pub struct EngineOptions {
    /// The server's name.
    pub server_name: OwnedServerName,
    /// Where the data are; `None` for memory only.
    pub storage: Option<StoreOptions>,
    /// Bytes for the cache of state map nodes.
    pub state_cache_bytes: u64,
    /// Limits of the rooms.
    pub rooms: RoomLimits,
    /// Whether and when users are told who is online.
    pub presence: Option<PresenceOptions>,
    /// The version of rooms that the server makes by itself.
    pub room_version: &'static RoomVersion,
    /// Time, randomness and threads.
    pub env: Env,
    /// Where measurements go.
    pub metrics: Arc<dyn Metrics>,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Storage did not open.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The first write failed.
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// The data directory belongs to another server.
    #[error(
        "the data in {} belong to the server {found}, not to {wanted}: use another data directory, \
         or the old server name", .dir.display()
    )]
    WrongServer {
        /// The data directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// The configured name.
        wanted: OwnedServerName,
    },
    /// There is no key to sign with.
    #[error(transparent)]
    Keys(#[from] ServerKeysError),
    /// The system gives no threads.
    #[error("cannot start threads: {0}; check the limits of this user")]
    Threads(#[from] io::Error),
}

/// Handles to everything that runs. Each part of the server takes the handles that it needs, not
/// the whole.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Reads.
    pub store: Store,
    /// Nodes of room states.
    pub nodes: Nodes,
    /// Rooms.
    pub rooms: Rooms,
    /// Users' data.
    pub users: Users,
    /// Room aliases and published rooms.
    pub directory: Directory,
    /// Memberships of rooms that this server is not in.
    pub out_of_band: OutOfBand,
    /// Events that are to be sent later.
    pub delayed: Delayed,
    /// What users find inappropriate.
    pub reports: Reports,
    /// Rooms that operators block or delete.
    pub room_orders: RoomOrders,
    /// Registration tokens that operators hand out.
    pub stored_tokens: StoredTokens,
    /// Typing notifications.
    pub typing: Typing,
    /// Who is online.
    pub presence: Presence,
    /// Who waits for what.
    pub feeds: Feeds,
    /// What has changed lately.
    pub changes: Arc<Changes>,
    /// The write path.
    pub persister: Persister,
    /// The keys with which the server signs.
    pub keys: Arc<ServerKeys>,
    /// What all of it runs on.
    pub threads: Threads,
}

impl Engine {
    /// Opens storage and starts all actors. Must be called on a thread with an actix system.
    ///
    /// # Errors
    ///
    /// [`StartError`]
    pub async fn start(options: EngineOptions) -> Result<Self, StartError> {
        let dir = options.storage.as_ref().map(|storage| storage.dir.clone());
        let (store, writer) = open(options.storage.clone())?;
        options.env.entropy.resume(store.applied().0);
        // Before anything is written: a directory that has a log has its keys.
        let has_events = !store.scan_prefix(&[keys::EVENT], Direction::Forward, 1)?.is_empty();
        let keys = Arc::new(ServerKeys::load(dir.as_deref(), has_events, &options.env)?);
        let changes = Arc::new(Changes::new(store.applied()));
        let (notifier, announcer, feeds) =
            Notifier::start_here(store.clone(), options.metrics.clone());
        let persister = Persister::start(
            writer,
            announcer,
            changes.clone(),
            options.metrics.clone(),
            options.env.clone(),
            PERSISTER_QUEUE,
        )?;
        let base = Base { store, keys, changes, notifier, feeds, persister: persister.clone() };
        let started = base.start_rest(options, dir).await;
        if started.is_err() {
            // The data are free for the next try at once.
            persister.stop().await;
        }
        started
    }

    /// Makes everything durable that was accepted, and stops all threads.
    pub async fn stop(&self) {
        self.users.last_seen_at_stop().await;
        self.rooms.stop();
        self.users.stop();
        self.persister.stop().await;
    }
}

/// What everything else is built on.
struct Base {
    store: Store,
    keys: Arc<ServerKeys>,
    changes: Arc<Changes>,
    notifier: actix::Addr<Notifier>,
    feeds: Feeds,
    persister: Persister,
}

impl Base {
    async fn start_rest(
        self,
        options: EngineOptions,
        dir: Option<PathBuf>,
    ) -> Result<Engine, StartError> {
        let Self { store, keys, changes, notifier, feeds, persister } = self;
        check_server_name(&store, &persister, &options.server_name, dir).await?;
        let nodes = Nodes::new(store.clone(), options.state_cache_bytes);
        let (closed_to_guests, people) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let interner = Arc::new(Interner::new(store.clone())?);
        let env = options.env;
        let deps = RoomDeps {
            store: store.clone(),
            nodes: nodes.clone(),
            interner: interner.clone(),
            server_name: options.server_name.clone(),
            key: keys.signing().clone(),
            env: env.clone(),
            metrics: options.metrics.clone(),
            memory: options.rooms.memory.clone(),
            closed_to_guests: closed_to_guests.clone(),
            people: people.clone(),
        };
        let resolvers = Workers::start(&env.threads, "resolver", options.rooms.resolvers)?;
        let rooms = Rooms::start(deps, persister.clone(), resolvers, options.rooms)?;
        let users = Users::start(store.clone(), env.clone(), &persister, options.metrics)?;
        users.spread_profiles(rooms.clone());
        let delayed =
            Delayed::start(store.clone(), nodes.clone(), env.clone(), users.clone(), rooms.clone());
        let presence = options.presence.map_or_else(Presence::default, |presence| {
            Presence::start(presence, users.clone(), notifier.clone(), env.clone())
        });
        users.lead_out(rooms.clone(), presence.clone());
        users.watch_guests(rooms.clone(), nodes.clone(), &closed_to_guests);
        users.follow_people(nodes.clone(), options.server_name.clone(), &people);
        users.keep_last_seen();
        let directory = Directory::new(store.clone(), users.clone());
        let out_of_band = OutOfBand::new(store.clone(), users.clone(), interner.clone());
        let parts = OrderParts {
            store: store.clone(),
            nodes: nodes.clone(),
            rooms: rooms.clone(),
            users: users.clone(),
            directory: directory.clone(),
            delayed: delayed.clone(),
            persister: persister.clone(),
            interner,
            server_name: options.server_name,
            env: env.clone(),
            people,
        };
        Ok(Engine {
            presence,
            rooms,
            delayed,
            out_of_band,
            directory,
            room_orders: RoomOrders::start(parts, options.room_version),
            stored_tokens: StoredTokens::new(store.clone(), users.clone(), env.clone()),
            reports: Reports::new(store.clone(), users.clone(), env.clone())?,
            users,
            typing: Typing::start(notifier.clone(), env.clone()),
            store,
            nodes,
            feeds,
            changes,
            persister,
            keys,
            threads: env.threads,
        })
    }
}

fn open(options: Option<StoreOptions>) -> Result<(Store, Writer), StorageError> {
    match options {
        Some(options) => {
            Store::open(options).inspect(|(store, _)| tell(store.applied(), store.recovery()))
        }
        None => Ok(Store::in_memory()),
    }
}

/// Logs what the start found and did: whoever runs the server must be able to see it later.
fn tell(through: StreamPos, recovery: &Recovery) {
    let Recovery { torn_bytes, replayed, rebuilt, index_was_ahead } = recovery;
    if let Some(known) = index_was_ahead {
        tracing::error!(
            known = known.0,
            through = through.0,
            lost = known.0.saturating_sub(through.0),
            "the event log has lost commits that the index knew of: it was replaced by an older \
             copy, or the disk has lost what it had acknowledged"
        );
    }
    if let Some(torn_bytes) = torn_bytes {
        tracing::warn!(
            torn_bytes,
            "cut off the end of the event log, which was being written at the last stop; nothing \
             of it was acknowledged"
        );
    }
    if let Some(why) = rebuilt {
        tracing::warn!(why, replayed, "the index was rebuilt from the event log");
    } else if *replayed > 0 {
        tracing::info!(replayed, "the index was brought up to the event log");
    }
    tracing::debug!(through = through.0, "storage is open");
}

async fn check_server_name(
    store: &Store,
    persister: &Persister,
    wanted: &OwnedServerName,
    dir: Option<PathBuf>,
) -> Result<(), StartError> {
    let found = setting(store, persister, "server_name", || wanted.as_bytes().to_vec()).await?;
    if found == wanted.as_bytes() {
        return Ok(());
    }
    let found = String::from_utf8_lossy(&found).into_owned();
    let dir = dir.unwrap_or_default();
    Err(StartError::WrongServer { dir, found, wanted: wanted.clone() })
}

/// Reads a server-wide value, or makes it.
async fn setting(
    store: &Store,
    persister: &Persister,
    name: &str,
    make: impl FnOnce() -> Vec<u8>,
) -> Result<Vec<u8>, StartError> {
    let key = keys::setting(name);
    if let Some(entry) = store.get(&key)? {
        return Ok(entry.value.to_vec());
    }
    let value = make();
    let ops = vec![Op::Put { key, value: value.clone().into() }];
    persister.commit(Box::new(Ops { ops, announcement: Announcement::Nothing })).await?;
    Ok(value)
}
