//! The store: the log and its index as one thing, for its readers and its one writer.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parlour_event::{EventNum, StreamPos};

use crate::{
    BlobRef, Direction, Entry, Index, KeyRange, Log, Op, Record, StorageError,
    codec::{self, Value},
    events::EventCache,
    fs::FileLock,
    index::{IndexBatch, memory::MemoryIndex, prefix_range},
    log::{End, Located, Placement, file::MonotonicClock, memory::MemoryLog},
    recover::{self, Keep, Recovery},
    schema::keys,
};

use crate::options::StoreOptions;

/// What readers and the writer share.
pub(crate) struct Shared {
    pub(crate) log: Box<dyn Log>,
    /// `None` once the store is closed.
    pub(crate) index: RwLock<Option<Box<dyn Index>>>,
    pub(crate) events: EventCache,
    /// The last position that is durable and readable.
    pub(crate) applied: AtomicU64,
    /// How often accounts, devices or tokens were written since the start.
    pub(crate) login_revision: AtomicU64,
    /// Is created when the index fails, so that the next start rebuilds it.
    pub(crate) suspect: Option<PathBuf>,
    pub(crate) recovery: Recovery,
    pub(crate) clock: Option<MonotonicClock>,
    pub(crate) lock: RwLock<Option<Box<dyn FileLock>>>,
}

/// The readers' side of the store. Clones are cheap and see the same.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

/// The writer's side of the store. There is one.
pub struct Writer {
    shared: Arc<Shared>,
    end: End,
    /// Why nothing more is accepted.
    stopped: Option<String>,
}

/// How long the parts of a commit took; zero without a clock in the options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitTimings {
    /// Writing to the log.
    pub write: Duration,
    /// Flushing the log to disk.
    pub flush: Duration,
    /// Applying to the index.
    pub index: Duration,
}

impl Store {
    /// Opens the store in a directory, which is created if there is none: recovers the log, and
    /// brings the index up to it, or rebuilds it. What was found is in [`Store::recovery`].
    ///
    /// # Errors
    ///
    /// [`StorageError::Locked`] if another process has it open; [`StorageError::Damaged`] if the
    /// log has lost something that had been acknowledged; [`StorageError::Io`].
    pub fn open(options: StoreOptions) -> Result<(Self, Writer), StorageError> {
        recover::open(&options, Keep::Trusted).map(Self::from_shared)
    }

    /// As [`Store::open`], with a new index in any case.
    pub(crate) fn open_anew(options: &StoreOptions) -> Result<(Self, Writer), StorageError> {
        recover::open(options, Keep::Nothing).map(Self::from_shared)
    }

    /// A store that keeps everything in memory and forgets it at the end.
    #[must_use]
    pub fn in_memory() -> (Self, Writer) {
        Self::from_shared(Shared {
            log: Box::new(MemoryLog::default()),
            index: RwLock::new(Some(Box::new(MemoryIndex::default()))),
            events: EventCache::new(0),
            applied: AtomicU64::new(0),
            login_revision: AtomicU64::new(0),
            suspect: None,
            recovery: Recovery::default(),
            clock: None,
            lock: RwLock::new(None),
        })
    }

    fn from_shared(shared: Shared) -> (Self, Writer) {
        let end = shared.log.end();
        let shared = Arc::new(shared);
        (Self { shared: shared.clone() }, Writer { shared, end, stopped: None })
    }

    /// How many bytes of memory the caches of index, log and events take.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let Shared { index, log, events, .. } = &*self.shared;
        let index = index.read().unwrap_or_else(PoisonError::into_inner);
        let index = index.as_ref().map_or(0, |index| index.memory_bytes());
        index + log.memory_bytes() + events.memory_bytes()
    }

    /// What the index says of a key.
    ///
    /// # Errors
    ///
    /// [`StorageError::Index`], or what reading the log says if the value is a long one.
    pub fn get(&self, key: &[u8]) -> Result<Option<Entry>, StorageError> {
        let found = self.shared.with_index(|index| index.get(key))?;
        found.map(|bytes| self.entry(key, &bytes)).transpose()
    }

    /// What the index says of many keys, in their order. This is not one moment: between two keys
    /// a commit may happen.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn multi_get(&self, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Option<Entry>>, StorageError> {
        let keys: Vec<_> = keys.iter().map(AsRef::as_ref).collect();
        let found = self.shared.with_index(|index| index.multi_get(&keys))?;
        let entry = |(key, bytes): (&[u8], Option<Bytes>)| {
            bytes.map(|bytes| self.entry(key, &bytes)).transpose()
        };
        keys.into_iter().zip(found).map(entry).collect()
    }

    /// At most `limit` keys of a range with what the index says of them. This is not one moment:
    /// a commit may happen meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn scan(
        &self,
        range: KeyRange<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Entry)>, StorageError> {
        let found = self.shared.with_index(|index| index.scan(range, direction, limit))?;
        found.into_iter().map(|(key, bytes)| Ok((key.clone(), self.entry(&key, &bytes)?))).collect()
    }

    /// At most `limit` keys that begin with a prefix, as [`Store::scan`].
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub fn scan_prefix(
        &self,
        prefix: &[u8],
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Bytes, Entry)>, StorageError> {
        let mut end = Vec::new();
        self.scan(prefix_range(prefix, &mut end), direction, limit)
    }

    /// Reads a body from the log.
    ///
    /// # Errors
    ///
    /// [`StorageError::Damaged`] if it is not what was written, [`StorageError::Io`].
    pub fn blob(&self, place: &BlobRef) -> Result<Bytes, StorageError> {
        self.shared.log.blob(place)
    }

    /// Reads many bodies from the log, in their order.
    ///
    /// # Errors
    ///
    /// As [`Store::blob`].
    pub fn blobs(&self, places: &[BlobRef]) -> Result<Vec<Bytes>, StorageError> {
        places.iter().map(|place| self.blob(place)).collect()
    }

    /// Everything up to here is durable and readable.
    #[must_use]
    pub fn applied(&self) -> StreamPos {
        StreamPos(self.shared.applied.load(Ordering::Acquire))
    }

    /// A number that is another one after accounts, devices or tokens have been written: what was
    /// read of them is good as long as it stays. It has changed before a commit is acknowledged.
    #[must_use]
    pub fn login_revision(&self) -> u64 {
        self.shared.login_revision.load(Ordering::Acquire)
    }

    /// The records after a position, in order, up to [`Store::applied`] at the time of the call.
    ///
    /// # Errors
    ///
    /// [`StorageError::Io`]; damage is reported by the iterator, which ends with it.
    pub fn records(
        &self,
        after: StreamPos,
    ) -> Result<impl Iterator<Item = Result<Record, StorageError>> + Send + use<>, StorageError>
    {
        let applied = self.applied();
        let records = self.shared.log.replay(after)?;
        let records = records.map(|located| located.map(|located| located.record));
        Ok(records.take_while(move |record| record.as_ref().map_or(true, |r| r.pos <= applied)))
    }

    /// What the start found and did.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.shared.recovery
    }

    fn entry(&self, key: &[u8], bytes: &Bytes) -> Result<Entry, StorageError> {
        let (value, blob) = codec::decode_entry(bytes).map_err(|what| {
            self.shared.suspect_index();
            StorageError::Value { key: key.escape_ascii().to_string(), what }
        })?;
        let value = match value {
            Value::Inline(value) => value,
            Value::Spilled(place) => self.blob(&place)?,
        };
        Ok(Entry { value, blob })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({:?}, applied {})", self.shared.log, self.applied())
    }
}

impl Shared {
    fn with_index<T>(
        &self,
        work: impl FnOnce(&dyn Index) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let index = index.as_deref();
        let index = index.ok_or_else(|| StorageError::Stopped("it was closed".to_owned()))?;
        work(index).inspect_err(|error| {
            if matches!(error, StorageError::Index(_)) {
                self.suspect_index();
            }
        })
    }

    /// Has the index rebuilt at the next start.
    fn suspect_index(&self) {
        if let Some(path) = &self.suspect
            && let Err(error) = std::fs::write(path, b"")
        {
            tracing::error!(%error, "the index failed and could not be marked for a rebuild");
        }
    }

    fn now(&self) -> Duration {
        self.clock.as_ref().map_or(Duration::ZERO, |clock| clock())
    }
}

impl Writer {
    /// The position of the next record.
    #[must_use]
    pub fn next_pos(&self) -> StreamPos {
        StreamPos(self.end.pos.0 + 1)
    }

    /// Makes records durable, all of them, with one flush, and readable with one index batch. Their
    /// positions go on from [`Writer::next_pos`] without a gap.
    ///
    /// # Errors
    ///
    /// [`StorageError::Refused`] (positions, sizes, keys) and [`StorageError::Io`]: none of them
    /// counts, and another try may succeed. [`StorageError::Stopped`] and [`StorageError::Index`]:
    /// nothing more is accepted until a restart, which tells whether they count.
    pub fn commit(&mut self, records: &[Record]) -> Result<CommitTimings, StorageError> {
        if let Some(why) = &self.stopped {
            return Err(StorageError::Stopped(why.clone()));
        }
        let appended = self.shared.log.append(records).inspect_err(|error| {
            if let StorageError::Stopped(why) = error {
                self.stopped = Some(why.clone());
            }
        })?;
        let started = self.shared.now();
        let mut batch = IndexBatch::new();
        for (record, placement) in records.iter().zip(&appended.placements) {
            add_to_batch(record, placement, &mut batch);
        }
        let applied = self.shared.with_index(|index| index.apply(batch, appended.end));
        if let Err(error) = applied {
            self.stopped = Some(error.to_string());
            return Err(error);
        }
        self.end = appended.end;
        for num in records.iter().flat_map(|record| &record.ops).filter_map(event_of) {
            self.shared.events.forget(num);
        }
        if records.iter().flat_map(|record| &record.ops).any(concerns_logins) {
            self.shared.login_revision.fetch_add(1, Ordering::Release);
        }
        self.shared.applied.store(self.end.pos.0, Ordering::Release);
        let index = self.shared.now().saturating_sub(started);
        Ok(CommitTimings { write: appended.write, flush: appended.flush, index })
    }

    /// Closes the store: frees its files and its lock, also where readers are left. What was
    /// committed is durable already.
    pub fn close(self) {
        self.shared.log.close();
        let index = self.shared.index.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(index) = index {
            index.close();
        }
        self.shared.lock.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer(next {})", self.next_pos())
    }
}

/// The event that an operation writes.
fn event_of(op: &Op) -> Option<EventNum> {
    let (Op::Put { key, .. } | Op::PutBlob { key, .. } | Op::Delete { key }) = op;
    let is_event = key.first() == Some(&keys::EVENT);
    is_event.then(|| keys::KeyReader::new(key).number()).flatten().map(EventNum)
}

fn concerns_logins(op: &Op) -> bool {
    let (Op::Put { key, .. } | Op::PutBlob { key, .. } | Op::Delete { key }) = op;
    matches!(key.first(), Some(&(keys::USER | keys::DEVICE | keys::TOKEN)))
}

/// Adds what a record does to the index.
pub(crate) fn add_to_batch(record: &Record, placement: &Placement, batch: &mut IndexBatch) {
    for (op, place) in record.ops.iter().zip(&placement.places) {
        let reference = |bytes: &Bytes, at: u32| BlobRef {
            segment: placement.segment,
            offset: placement.offset + u64::from(at),
            // A record is far shorter than u32 can say.
            len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            crc: crc32c::crc32c(bytes),
        };
        let value_of = |value: &Bytes| {
            if value.len() > codec::MAX_INLINE {
                Value::Spilled(reference(value, place.value))
            } else {
                Value::Inline(value.clone())
            }
        };
        batch.push(match op {
            Op::Put { key, value } => {
                (key.clone(), Some(codec::encode_entry(&value_of(value), None).into()))
            }
            Op::PutBlob { key, value, blob } => {
                let blob = reference(blob, place.blob);
                (key.clone(), Some(codec::encode_entry(&value_of(value), Some(&blob)).into()))
            }
            Op::Delete { key } => (key.clone(), None),
        });
    }
}

/// Adds what a record that was read from the log does to the index.
pub(crate) fn add_located(located: &Located, batch: &mut IndexBatch) {
    add_to_batch(&located.record, &located.placement, batch);
}
