//! Transactions: each is processed once, one of a server at a time, within bounds.
//!
//! A repeated transaction gets the answer of the first, also while that is under way. This is
//! remembered in memory alone, for the last few transactions of each server: a server repeats only
//! the one that it had no answer to, and events that come again after a restart are known by their
//! ids.
//!
//! The answer waits for events for a few seconds. Those that are not decided then (since others are
//! missing, or keys) are reported as taken in and go on behind it: a sender does nothing about the
//! result of an event but log it, and would hold back everything else meanwhile. Synapse answers
//! as soon as events are put into its staging area, Dendrite hands them to a queue.

use std::{
    fmt,
    num::NonZero,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use parlour_actors::{
    budget::{Part, Share},
    threads::Thread,
};
use ruma::{OwnedServerName, ServerName, TransactionId};
use serde_json::value::RawValue;
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

use super::{
    ReceiveParts, edus::EduReceiver, history::History, pdus::PduReceiver, results::Results,
};
use crate::error::ApiError;

/// How many transactions of one server may be under way or wait. The specification allows one.
const UNDER_WAY: usize = 4;

/// How many transactions of one server are remembered.
const REMEMBERED: NonZero<usize> = NonZero::new(8).expect("it is not zero");

/// Of how many servers they are.
const SERVERS: NonZero<usize> = NonZero::new(2_000).expect("it is not zero");

/// While an event is looked at, it is there as it came and as it was read, which takes twice as much.
const COPIES: u64 = 3;

/// Which part of the memory for all servers one of them may take.
const OF_ONE: u64 = 4;

/// How long the answer waits for what becomes of the events.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long ephemeral data wait for events that came with them: who types may just have come in.
const EDU_PATIENCE: Duration = Duration::from_millis(500);

/// After how long a server that is too quick should try again.
const RETRY: Duration = Duration::from_secs(1);

/// A transaction's contents.
#[derive(Debug)]
pub struct Transaction {
    /// Its events.
    pub pdus: Vec<Box<RawValue>>,
    /// Its ephemeral data.
    pub edus: Vec<Box<RawValue>>,
}

/// Takes transactions in. Cheap to clone.
#[derive(Clone)]
pub struct Inbox(Arc<Inner>);

struct Inner {
    parts: ReceiveParts,
    thread: Thread,
    pdus: Arc<PduReceiver>,
    edus: EduReceiver,
    servers: Mutex<LruCache<OwnedServerName, Arc<Sender>>>,
}

/// A server that sends transactions.
struct Sender {
    places: Arc<Semaphore>,
    memory: Share,
    /// Held by the one transaction that is processed.
    turn: AsyncMutex<()>,
    known: Mutex<LruCache<[u8; 32], Outcome>>,
}

/// What has become of a transaction, as soon as that is known.
type Outcome = watch::Receiver<Option<Arc<Results>>>;

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl Inbox {
    /// Processes transactions on this thread.
    #[must_use]
    pub fn new(parts: ReceiveParts, thread: Thread) -> Self {
        thread.spawn(parts.resync.clone().run());
        Self(Arc::new(Inner {
            thread,
            edus: EduReceiver::new(parts.clone()),
            pdus: Arc::new(PduReceiver::new(parts.clone())),
            parts,
            servers: Mutex::new(LruCache::new(SERVERS)),
        }))
    }

    /// Who asks for older history, on the same thread.
    #[must_use]
    pub fn history(&self) -> History {
        History::new(self.0.parts.clone(), self.0.thread.clone())
    }

    /// Stops the thread. What is under way is given up.
    pub fn stop(&self) {
        self.0.thread.stop();
    }

    /// Processes a transaction, or waits for the result of the same one.
    ///
    /// # Errors
    ///
    /// 429 `M_LIMIT_EXCEEDED` if too much of this server, or of all, is under way; 503 if this
    /// server is stopping.
    pub async fn submit(
        &self,
        origin: &ServerName,
        id: &TransactionId,
        transaction: Transaction,
    ) -> Result<Arc<Results>, ApiError> {
        let sender = self.0.sender(origin);
        let mut outcome = self.0.begin(&sender, origin, id, transaction)?;
        let decided = outcome.wait_for(Option::is_some).await;
        let results = decided.ok().and_then(|decided| decided.clone());
        results.ok_or_else(|| ApiError::unavailable("a transaction was given up"))
    }
}

impl Inner {
    fn sender(&self, origin: &ServerName) -> Arc<Sender> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Sender::new(self.parts.memory.transactions.limit() / OF_ONE));
        servers.get_or_insert(origin.to_owned(), new).clone()
    }

    /// The outcome of a transaction that is known already, or else of this one.
    fn begin(
        self: &Arc<Self>,
        sender: &Arc<Sender>,
        origin: &ServerName,
        id: &TransactionId,
        transaction: Transaction,
    ) -> Result<Outcome, ApiError> {
        use sha2::{Digest as _, Sha256};
        let id: [u8; 32] = Sha256::digest(id.as_bytes()).into();
        let mut known = sender.known.lock().unwrap_or_else(PoisonError::into_inner);
        let given_up =
            |outcome: &Outcome| outcome.has_changed().is_err() && outcome.borrow().is_none();
        if let Some(outcome) = known.get(&id).filter(|outcome| !given_up(outcome)) {
            return Ok(outcome.clone());
        }
        let permits = self.admit(sender, &transaction)?;
        let (decide, outcome) = watch::channel(None);
        known.put(id, outcome.clone());
        let (inner, sender, origin) = (self.clone(), sender.clone(), origin.to_owned());
        self.thread.spawn(async move {
            let results = inner.process(&sender, &origin, transaction, permits).await;
            // Whoever asked may have gone; a repetition finds it.
            decide.send_replace(Some(Arc::new(results)));
        });
        Ok(outcome)
    }

    /// Room for a transaction.
    fn admit(&self, sender: &Sender, new: &Transaction) -> Result<Permits, ApiError> {
        let bytes: usize = new.pdus.iter().map(|event| event.get().len()).sum();
        let bytes = COPIES * bytes as u64;
        let place = sender.places.clone().try_acquire_owned();
        let of_one = sender.memory.take(bytes);
        let of_all = self.parts.memory.transactions.take(bytes);
        match (place, of_one, of_all) {
            (Ok(place), Some(of_one), Some(of_all)) => {
                Ok(Permits { place, events: vec![of_one, of_all] })
            }
            _ => Err(ApiError::limit_exceeded(RETRY)),
        }
    }

    async fn process(
        &self,
        sender: &Sender,
        origin: &ServerName,
        Transaction { pdus, edus }: Transaction,
        permits: Permits,
    ) -> Results {
        let _turn = sender.turn.lock().await;
        let Permits { place: _place, events } = permits;
        let events = self.pdus.begin(origin, pdus, events).collect(PATIENCE);
        tokio::pin!(events);
        let early = timeout(EDU_PATIENCE, &mut events).await;
        self.edus.receive(origin, edus).await;
        match early {
            Ok(results) => results,
            Err(_) => events.await,
        }
    }
}

/// What a transaction holds while it is under way: its place until it is answered, the room for its
/// events until these are in.
struct Permits {
    place: OwnedSemaphorePermit,
    events: Vec<Part>,
}

impl Sender {
    /// Who may take so many bytes of memory.
    fn new(bytes: u64) -> Self {
        Self {
            places: Arc::new(Semaphore::new(UNDER_WAY)),
            memory: Share::new(bytes),
            turn: AsyncMutex::default(),
            known: Mutex::new(LruCache::new(REMEMBERED)),
        }
    }
}
