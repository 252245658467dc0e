//! The key ring: which keys other servers sign with, and since when and until when.
//!
//! What is known stands in memory and in storage. What is not is asked for: the server itself
//! first, then the notaries that the operator trusts, many keys in one request. A server is asked
//! by one request at a time, and after a failure not again for a while.

mod attempts;
mod document;
mod own;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZero,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use lru::LruCache;
use parlour_event::signing::{self, PublicKey};
use parlour_storage::{
    Op, StorageError, Store,
    schema::{RemoteKeys, Stored as _, keys},
};
use ruma::{OwnedServerName, ServerName};
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore},
    task::JoinSet,
};

use self::{
    attempts::{Attempts, LONGEST, LONGEST_IF_THERE},
    document::{Document, good_key},
    own::OwnKeys,
};
pub use self::{
    document::DocumentError,
    own::OldKey,
    source::{BoxFuture, KeySource, NoSource, NotaryQuery, SourceError},
};
use crate::{
    commit::{Announcement, Ops},
    env::Env,
    per_key::PerKey,
    persister::Persister,
    server_keys::ServerKeys,
};

/// How many keys of each kind a document may have.
const MAX_KEYS: usize = 100;

/// How many servers' keys are kept in memory, and of how many it is remembered when they were
/// asked.
const REMEMBERED: NonZero<usize> = NonZero::new(10_000).expect("it is not zero");

/// How many servers are asked at the same time.
const AT_ONCE: usize = 64;

/// How many keys one request to a notary asks for.
const NOTARY_BATCH: usize = 100;

/// What a signature is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A request, or whatever else has just been signed: only keys in use count.
    Request,
    /// An event.
    Event {
        /// When the event says that it was made.
        origin_server_ts: u64,
        /// Whether the room's version limits keys to their time: from version 5 on.
        enforce_validity: bool,
    },
}

/// A key that somebody needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose key.
    pub server: OwnedServerName,
    /// Which key.
    pub key_id: String,
    /// For what.
    pub purpose: Purpose,
}

/// What a key ring is made of.
#[derive(Debug)]
pub struct KeyRingOptions {
    /// This server.
    pub server_name: OwnedServerName,
    /// Keys that it used to sign with.
    pub old_keys: Vec<OldKey>,
    /// Servers that are asked for keys of others.
    pub notaries: Vec<OwnedServerName>,
    /// How others are asked.
    pub source: Arc<dyn KeySource>,
}

/// How others reach the key ring. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KeyRing(Arc<Ring>);

#[derive(Debug)]
struct Ring {
    own: OwnKeys,
    notaries: Vec<OwnedServerName>,
    source: Arc<dyn KeySource>,
    store: Store,
    persister: Persister,
    env: Env,
    known: Mutex<LruCache<OwnedServerName, Arc<RemoteKeys>>>,
    /// Asking servers for their own keys, and asking notaries for those of servers.
    direct: Mutex<Attempts>,
    through_notaries: Mutex<Attempts>,
    /// Held while a server is asked.
    asking: PerKey<OwnedServerName, AsyncMutex<()>>,
    permits: Arc<Semaphore>,
}

impl KeyRing {
    /// A key ring over what storage knows.
    #[must_use]
    pub fn new(
        options: KeyRingOptions,
        own: Arc<ServerKeys>,
        store: Store,
        persister: Persister,
        env: Env,
    ) -> Self {
        let KeyRingOptions { server_name, old_keys, notaries, source } = options;
        let clock = env.clock.clone();
        Self(Arc::new(Ring {
            own: OwnKeys::new(server_name, own, old_keys, clock),
            notaries,
            source,
            store,
            persister,
            env,
            known: Mutex::new(LruCache::new(REMEMBERED)),
            direct: Mutex::new(Attempts::new(REMEMBERED)),
            through_notaries: Mutex::new(Attempts::new(REMEMBERED)),
            asking: PerKey::default(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        }))
    }

    /// The document in which this server publishes its keys: canonical JSON, signed.
    #[must_use]
    pub fn own_document(&self) -> Bytes {
        self.0.own.document()
    }

    /// A key, if it is known and good for this purpose. Asks nobody.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn known(
        &self,
        server: &ServerName,
        key_id: &str,
        purpose: Purpose,
    ) -> Result<Option<PublicKey>, StorageError> {
        if self.0.own.is(server) {
            return Ok(self.0.own.public_key(key_id));
        }
        let now = self.0.now();
        Ok(self.0.remembered(server)?.and_then(|known| good_key(&known, key_id, purpose, now)))
    }

    /// Finds out keys that are not known, as far as possible; [`KeyRing::known`] tells afterwards.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub async fn find(&self, wanted: Vec<Wanted>) -> Result<(), StorageError> {
        let missing = self.missing(wanted)?;
        let servers: BTreeSet<_> = missing.iter().map(|wanted| wanted.server.clone()).collect();
        let mut asked = JoinSet::new();
        for server in servers {
            let of_server = missing.iter().filter(|wanted| wanted.server == server);
            let (ring, wanted) = (self.0.clone(), of_server.cloned().collect::<Vec<_>>());
            let is_there = wanted.iter().any(|wanted| wanted.purpose == Purpose::Request);
            let longest = if is_there { LONGEST_IF_THERE } else { LONGEST };
            asked.spawn(async move {
                ring.ask(&server, longest, |ring| ring.has_all(&wanted)).await;
            });
        }
        asked.join_all().await;
        let missing = self.missing(missing)?;
        self.0.ask_notaries(missing).await;
        Ok(())
    }

    /// A key for this purpose, asking others if need be.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub async fn key(
        &self,
        server: &ServerName,
        key_id: &str,
        purpose: Purpose,
    ) -> Result<Option<PublicKey>, StorageError> {
        if let Some(key) = self.known(server, key_id, purpose)? {
            return Ok(Some(key));
        }
        let (server_owned, key_id_owned) = (server.to_owned(), key_id.to_owned());
        self.find(vec![Wanted { server: server_owned, key_id: key_id_owned, purpose }]).await?;
        self.known(server, key_id, purpose)
    }

    /// Refreshes what is known of a server that should be known until then, unless its newest
    /// document is young: for half of its life it is taken as it is.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub async fn refresh(&self, servers: Vec<(OwnedServerName, u64)>) -> Result<(), StorageError> {
        let mut asked = JoinSet::new();
        for (server, until) in servers {
            if self.0.own.is(&server) || self.0.is_fresh(&server, until)? {
                continue;
            }
            let ring = self.0.clone();
            asked.spawn(async move {
                let enough = |ring: &Ring| ring.is_fresh(&server, until).unwrap_or(false);
                ring.ask(&server, LONGEST, enough).await;
            });
        }
        asked.join_all().await;
        Ok(())
    }

    /// A server's newest document with this server's signature added, as a notary gives it away;
    /// `None` if there has never been one.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn notarised(&self, server: &ServerName) -> Result<Option<Bytes>, StorageError> {
        if self.0.own.is(server) {
            return Ok(Some(self.own_document()));
        }
        let entry = self.0.store.get(&keys::remote_keys(server.as_str()))?;
        let Some(place) = entry.and_then(|entry| entry.blob) else { return Ok(None) };
        let document = Document::check(&self.0.store.blob(&place)?, server);
        Ok(document.ok().map(|mut document| self.0.own.co_sign(&mut document.object)))
    }

    /// Whether a server has not answered when it was last asked for its keys, and that is new: it
    /// may be there again soon. Whoever has been silent for five minutes is not waited for.
    #[must_use]
    pub fn awaits(&self, server: &ServerName) -> bool {
        lock(&self.0.direct).has_just_failed(server, self.0.now())
    }

    /// A server has shown that it is there: it may be asked again at once.
    pub fn is_back(&self, server: &ServerName) {
        lock(&self.0.direct).forget_failures(server);
    }

    /// Those of some keys that are not known.
    fn missing(&self, mut wanted: Vec<Wanted>) -> Result<Vec<Wanted>, StorageError> {
        let mut failed = None;
        wanted.retain(|wanted| match self.known(&wanted.server, &wanted.key_id, wanted.purpose) {
            Ok(known) => known.is_none(),
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        failed.map_or(Ok(wanted), Err)
    }
}

impl Ring {
    fn now(&self) -> u64 {
        self.env.clock.now_ms()
    }

    /// What is known of a server.
    fn remembered(&self, server: &ServerName) -> Result<Option<Arc<RemoteKeys>>, StorageError> {
        if let Some(known) = lock(&self.known).get(server) {
            return Ok(Some(known.clone()));
        }
        let stored = self.store.typed::<RemoteKeys>(&keys::remote_keys(server.as_str()))?;
        let stored = stored.map(Arc::new);
        if let Some(known) = &stored {
            lock(&self.known).put(server.to_owned(), known.clone());
        }
        Ok(stored)
    }

    fn has_all(&self, wanted: &[Wanted]) -> bool {
        let now = self.now();
        wanted.iter().all(|wanted| {
            let known = self.remembered(&wanted.server).ok().flatten();
            known.is_some_and(|known| {
                good_key(&known, &wanted.key_id, wanted.purpose, now).is_some()
            })
        })
    }

    fn is_fresh(&self, server: &ServerName, until: u64) -> Result<bool, StorageError> {
        let now = self.now();
        Ok(self.remembered(server)?.is_some_and(|known| {
            let half = known.valid_until_ts.saturating_sub(known.fetched_ts) / 2;
            known.valid_until_ts >= until && now < known.fetched_ts.saturating_add(half)
        }))
    }

    /// Asks a server for its keys, unless somebody else is doing so and `enough` is true then.
    async fn ask(&self, server: &ServerName, longest: u64, enough: impl Fn(&Self) -> bool) {
        let turn = self.asking.get(server, AsyncMutex::default);
        let _turn = turn.lock().await;
        if enough(self) || !lock(&self.direct).begin(server, self.now(), longest) {
            return;
        }
        let Ok(_permit) = self.permits.acquire().await else { return };
        let document = match self.source.ask_server(server).await {
            Ok(bytes) => Document::check(&bytes, server).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match document {
            Ok(document) => {
                lock(&self.direct).answered(server, self.now());
                self.learn(server, &document).await;
            }
            Err(error) => tracing::debug!(%server, error, "no keys from this server"),
        }
    }

    /// Asks the notaries, one after the other, for what is missing still.
    async fn ask_notaries(&self, mut missing: Vec<Wanted>) {
        if self.notaries.is_empty() || missing.is_empty() {
            return;
        }
        let now = self.now();
        let mut allowed = BTreeMap::new();
        missing.retain(|wanted| {
            let server = &wanted.server;
            *allowed
                .entry(server.clone())
                .or_insert_with(|| lock(&self.through_notaries).begin(server, now, LONGEST))
        });
        for notary in &self.notaries {
            for batch in missing.chunks(NOTARY_BATCH) {
                self.ask_notary(notary, batch).await;
            }
            missing.retain(|wanted| !self.has_all(std::slice::from_ref(wanted)));
            if missing.is_empty() {
                return;
            }
        }
    }

    async fn ask_notary(&self, notary: &ServerName, batch: &[Wanted]) {
        let queries: Vec<_> = batch.iter().map(|wanted| self.query(wanted)).collect();
        let Ok(permit) = self.permits.acquire().await else { return };
        let documents = match self.source.ask_notary(notary, &queries).await {
            Ok(documents) => documents,
            Err(error) => {
                tracing::debug!(%notary, %error, "this notary does not answer");
                return;
            }
        };
        drop(permit);
        // To check the answer, the notary's own key is needed; only the notary is asked for it.
        let enough = |ring: &Self| ring.is_fresh(notary, ring.now()).unwrap_or(true);
        self.ask(notary, LONGEST_IF_THERE, enough).await;
        for bytes in documents {
            let Some(server) = Document::server_in(&bytes) else { continue };
            let Some(wanted) = batch.iter().find(|wanted| wanted.server == server) else {
                continue;
            };
            match self.check_notarised(&bytes, &wanted.server, notary) {
                Ok(document) => {
                    lock(&self.through_notaries).answered(&wanted.server, self.now());
                    self.learn(&wanted.server, &document).await;
                }
                Err(error) => tracing::debug!(%notary, server, %error, "not believed"),
            }
        }
    }

    fn check_notarised(
        &self,
        bytes: &[u8],
        server: &ServerName,
        notary: &ServerName,
    ) -> Result<Document, DocumentError> {
        let document = Document::check(bytes, server)?;
        let (now, known) = (self.now(), self.remembered(notary).ok().flatten());
        signing::verify_json(&document.object, notary.as_str(), |key_id| {
            good_key(known.as_ref()?, key_id, Purpose::Request, now)
        })?;
        Ok(document)
    }

    fn query(&self, wanted: &Wanted) -> NotaryQuery {
        let minimum_valid_until_ts = match wanted.purpose {
            Purpose::Request => self.now(),
            Purpose::Event { enforce_validity: false, .. } => 0,
            Purpose::Event { origin_server_ts, .. } => origin_server_ts,
        };
        let (server, key_id) = (wanted.server.clone(), wanted.key_id.clone());
        NotaryQuery { server, key_id, minimum_valid_until_ts }
    }

    /// Remembers what a document says. If it cannot be written, it is still good until the stop.
    async fn learn(&self, server: &ServerName, document: &Document) {
        let known = match self.remembered(server) {
            Ok(known) => known.unwrap_or_default(),
            Err(error) => {
                tracing::error!(%server, %error, "cannot read what is known of a server's keys");
                return;
            }
        };
        let merged = document.merge_into(&known, self.now());
        let is_newest = merged.valid_until_ts == document.valid_until_ts;
        let merged = Arc::new(merged);
        lock(&self.known).put(server.to_owned(), merged.clone());
        // An old document in the place of a newer one would say less, and the newer is in storage.
        if !is_newest {
            return;
        }
        let mut blob = Vec::with_capacity(1024);
        parlour_event::json::write_canonical(&document.object, &mut blob);
        let key = keys::remote_keys(server.as_str());
        let op = Op::PutBlob { key, value: merged.encode(), blob: blob.into() };
        let change = Ops { ops: vec![op], announcement: Announcement::Nothing };
        if let Err(error) = self.persister.commit(Box::new(change)).await {
            tracing::warn!(%server, %error, "a server's keys could not be stored");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
