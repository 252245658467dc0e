//! Asks anew about users whose keys have changed in a way that is not known.
//!
//! Who they are is durable (`users/keys/known.rs`); here is when their servers are asked. Each of
//! those servers has a task, which ends when nobody is left to ask about: all of its users in turn,
//! a few at a time, then a pause that grows while some are left. A server that contacts this one is
//! asked at once.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use parlour_actors::users::Kept;
use parlour_storage::{StorageError, Store};
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use tokio::{
    sync::{Notify, Semaphore},
    task::yield_now,
    time::{sleep, timeout},
};

use crate::federation::outbound::user_keys::UserKeysClient;

/// How many users of a server, and how many altogether, are asked about at the same time.
const OF_ONE: usize = 4;
const OF_ALL: usize = 32;

/// How many users are read at once.
const PAGE: usize = 200;

/// The first pause where some are left, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// A server that contacts this one, but does not answer, is not asked again sooner.
const IF_THERE: Duration = Duration::from_secs(15);

/// How often it is looked for users with whom no room is shared any more.
const SWEEP: Duration = Duration::from_secs(900);

/// Asks anew about users. Cheap to clone.
#[derive(Clone)]
pub struct Resync(Arc<Inner>);

struct Inner {
    keys: UserKeysClient,
    store: Store,
    places: Semaphore,
    /// Servers with a task, and what wakes it.
    servers: Mutex<HashMap<OwnedServerName, Arc<Wake>>>,
}

/// What a server's task waits for.
#[derive(Default)]
struct Wake {
    notify: Notify,
}

impl fmt::Debug for Resync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resync").finish_non_exhaustive()
    }
}

impl Resync {
    /// Asks nobody yet.
    #[must_use]
    pub fn new(keys: UserKeysClient, store: Store) -> Self {
        let places = Semaphore::new(OF_ALL);
        Self(Arc::new(Inner { keys, store, places, servers: Mutex::default() }))
    }

    /// Goes on with what was left at the last stop, and forgets, now and then, whom nobody has to
    /// follow any more.
    pub(super) async fn run(self) {
        let mut last: Option<OwnedServerName> = None;
        loop {
            match self.0.store.stale_server(last.as_deref().map(ServerName::as_str)) {
                Ok(Some(server)) => match OwnedServerName::try_from(server) {
                    Ok(server) => {
                        self.ask(&server);
                        last = Some(server);
                    }
                    Err(error) => return tracing::error!(%error, "a stored name is none"),
                },
                Ok(None) => break,
                Err(error) => return tracing::error!(%error, "keys are not kept fresh"),
            }
        }
        loop {
            if let Err(error) = self.sweep().await {
                tracing::error!(%error, "users are not forgotten");
            }
            sleep(SWEEP).await;
        }
    }

    /// There is somebody to ask a server about. To be called within a tokio runtime, which the
    /// server's task stays on.
    pub(super) fn ask(&self, server: &ServerName) {
        let mut servers = self.servers();
        if let Some(wake) = servers.get(server) {
            return wake.notify.notify_one();
        }
        let wake = Arc::<Wake>::default();
        servers.insert(server.to_owned(), wake.clone());
        let (resync, server) = (self.clone(), server.to_owned());
        tokio::spawn(async move { resync.work(&server, &wake).await });
    }

    /// A server has contacted this one.
    pub fn is_back(&self, server: &ServerName) {
        if let Some(wake) = self.servers().get(server) {
            wake.notify.notify_one();
        }
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<OwnedServerName, Arc<Wake>>> {
        self.0.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(&self, server: &ServerName, wake: &Wake) {
        let mut pause = FIRST_PAUSE;
        loop {
            let left = self.round(server).await.unwrap_or_else(|error| {
                tracing::error!(%error, "keys are not kept fresh");
                true
            });
            if left {
                // Whoever speaks to us may still be unable to answer.
                sleep(pause.min(IF_THERE)).await;
                let _ = timeout(pause, wake.notify.notified()).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            pause = FIRST_PAUSE;
            let mut servers = self.servers();
            match self.0.store.stale_users(server.as_str(), "", 1) {
                Ok(some) if !some.is_empty() => {}
                _ => return drop(servers.remove(server)),
            }
        }
    }

    /// Asks about all of a server's users once; says whether some are left.
    async fn round(&self, server: &ServerName) -> Result<bool, StorageError> {
        let (mut after, mut are_left) = (String::new(), false);
        loop {
            let page = self.0.store.stale_users(server.as_str(), &after, PAGE)?;
            let Some(last) = page.last() else { return Ok(are_left) };
            after = last.clone();
            let asked = stream::iter(page).map(|user| self.refresh(user)).buffer_unordered(OF_ONE);
            let done: Vec<bool> = asked.collect().await;
            are_left |= done.contains(&false);
        }
    }

    /// Asks about one user; says whether nothing is left to do.
    async fn refresh(&self, user: String) -> bool {
        let Ok(_place) = self.0.places.acquire().await else { return false };
        let Ok(user) = OwnedUserId::try_from(user) else { return true };
        let is_shared = self.0.store.rooms_with(user.as_str()).is_ok_and(|rooms| !rooms.is_empty());
        if !is_shared || !self.0.keys.may_ask(user.server_name()) {
            return self.forget(&user).await;
        }
        match self.0.keys.refresh(&user).await {
            Ok(kept) => kept == Kept::Fresh,
            Err(error) => {
                tracing::debug!(%user, %error, "keys are not known");
                false
            }
        }
    }

    async fn forget(&self, user: &UserId) -> bool {
        let forgotten = self.0.keys.forget(user.as_str()).await;
        forgotten.inspect_err(|error| tracing::warn!(%error, "a user is not forgotten")).is_ok()
    }

    /// Forgets users with whom no room is shared, and those whose servers are not spoken to.
    async fn sweep(&self) -> Result<(), StorageError> {
        let mut after = String::new();
        loop {
            let page = self.0.store.known_users(&after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.clone();
            for user in page {
                let Ok(user) = <&UserId>::try_from(&*user) else { continue };
                let may_ask = self.0.keys.may_ask(user.server_name());
                if !may_ask || self.0.store.rooms_with(user.as_str())?.is_empty() {
                    self.forget(user).await;
                }
            }
            yield_now().await;
        }
    }
}
