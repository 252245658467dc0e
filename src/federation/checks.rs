//! What is checked of events from elsewhere before a room sees them: format, signatures, hashes.
//!
//! Keys are asked for once for all events of a call; everything that costs is done on worker
//! threads, a few events at a time, so that the events of one call don't hold up those of others.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use parlour_actors::{
    keyring::{KeyRing, Purpose, Wanted},
    workers::Workers,
};
use parlour_event::{
    Pdu, RoomVersion,
    json::{self, Object},
    pdu::FormatError,
    signing::{self, SignatureError, Verified},
};
use parlour_storage::StorageError;
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use serde_json::value::RawValue;
use tokio::time::timeout;

/// How many events one task of a worker thread checks: some milliseconds of work.
const CHUNK: usize = 16;

/// How many such tasks of one call are with the worker threads at the same time.
const TASKS: usize = 4;

/// With how many of a server's signatures on one event it is tried to find the keys.
const MAX_KEYS_OF_SERVER: usize = 8;

/// How long keys are asked for. Events whose keys are not there then have none.
const PATIENCE: Duration = Duration::from_secs(45);

/// Checks events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventChecker {
    ring: KeyRing,
    workers: Workers,
}

/// Why an event from elsewhere is dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct CheckError {
    /// Which event it is, if that can be said.
    pub event_id: Option<OwnedEventId>,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What can be wrong with an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no event of this room version, or too large.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A signature that it needs is missing, wrong, or of a key that nobody knows.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The check itself failed.
    #[error("the event could not be checked")]
    Unchecked,
}

/// What came of an event's format, with the servers that must have signed it.
type Parsed = Result<(Pdu, BTreeSet<OwnedServerName>), CheckError>;

/// What an event's format has to be.
type Format = fn(&RoomVersion, Object) -> Result<Pdu, FormatError>;

/// An event that has come through, or why it has not.
pub type Checked = Result<Arc<Pdu>, CheckError>;

impl EventChecker {
    /// Checks with these keys, on these threads.
    #[must_use]
    pub fn new(ring: KeyRing, workers: Workers) -> Self {
        Self { ring, workers }
    }

    /// Whether a server may tell keys that it has not told when it was last asked.
    #[must_use]
    pub fn awaits_keys_of(&self, server: &ServerName) -> bool {
        self.ring.awaits(server)
    }

    /// Checks 1 to 3 on receipt: the format that the room version wants, signatures, hashes. Where
    /// the hash does not match, the event is taken for its redacted form. The order is kept.
    ///
    /// Whether the events are of the right room is for the caller to see.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub async fn check(
        &self,
        version: &'static RoomVersion,
        events: Vec<Box<RawValue>>,
    ) -> Result<Vec<Checked>, StorageError> {
        self.check_as(version, events, Pdu::from_wire).await
    }

    /// The same for an answer to `/backfill`: how many events one builds on does not matter there.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub async fn check_history(
        &self,
        version: &'static RoomVersion,
        events: Vec<Box<RawValue>>,
    ) -> Result<Vec<Checked>, StorageError> {
        self.check_as(version, events, Pdu::from_history).await
    }

    async fn check_as(
        &self,
        version: &'static RoomVersion,
        events: Vec<Box<RawValue>>,
        format: Format,
    ) -> Result<Vec<Checked>, StorageError> {
        let parsed = self.work(events, move |event| parse(version, &event, format)).await;
        let parsed: Vec<Parsed> =
            parsed.into_iter().map(|parsed| parsed.unwrap_or_else(|| Err(unchecked()))).collect();
        // Who has many servers' keys to wait for goes on with those that are there.
        if let Ok(found) = timeout(PATIENCE, self.ring.find(wanted(version, &parsed))).await {
            found?;
        }
        let ring = self.ring.clone();
        let verified = self
            .work(parsed, move |parsed| parsed.and_then(|(pdu, _)| verify(&ring, version, pdu)));
        let verified = verified.await.into_iter();
        Ok(verified.map(|checked| checked.unwrap_or_else(|| Err(unchecked()))).collect())
    }

    /// Does something with each of many on worker threads. `None` for what shared its task with
    /// one that panicked.
    async fn work<I, O>(
        &self,
        items: Vec<I>,
        work: impl Fn(I) -> O + Clone + Send + 'static,
    ) -> Vec<Option<O>>
    where
        I: Send + 'static,
        O: Send + 'static,
    {
        let mut chunks = Vec::with_capacity(items.len().div_ceil(CHUNK));
        let mut items = items.into_iter();
        while items.len() > 0 {
            chunks.push(items.by_ref().take(CHUNK).collect::<Vec<_>>());
        }
        let tasks = chunks.into_iter().map(|chunk| {
            let (work, count) = (work.clone(), chunk.len());
            async move {
                let task = move || chunk.into_iter().map(work).map(Some).collect::<Vec<_>>();
                let none = || std::iter::repeat_with(|| None).take(count).collect();
                self.workers.run(task).await.unwrap_or_else(none)
            }
        });
        let done: Vec<Vec<_>> = stream::iter(tasks).buffered(TASKS).collect().await;
        done.into_iter().flatten().collect()
    }
}

fn unchecked() -> CheckError {
    CheckError { event_id: None, fault: Fault::Unchecked }
}

/// Check 1.
fn parse(version: &RoomVersion, event: &RawValue, format: Format) -> Parsed {
    let refused = |fault| CheckError { event_id: id_of(version, event), fault };
    let json = read(version, event).map_err(|error| refused(error.into()))?;
    let pdu = format(version, json).map_err(|error| refused(error.into()))?;
    match signing::required_servers(version, pdu.json()) {
        Ok(servers) => Ok((pdu, servers)),
        Err(error) => Err(refused(error.into())),
    }
}

/// An event without what every server may change of it: that says nothing, and must not count for
/// the size.
fn read(version: &RoomVersion, event: &RawValue) -> Result<Object, FormatError> {
    let mut json = json::parse_object(version, event.get().as_bytes())?;
    json.remove("unsigned");
    Ok(json)
}

/// The id that an event would have in a room of this version, if one can be found out.
pub(super) fn id_of(version: &RoomVersion, event: &RawValue) -> Option<OwnedEventId> {
    Pdu::id_of(version, &read(version, event).ok()?).ok()
}

/// The keys that are needed. One that is good for a server's oldest and newest event here is good
/// for those between, so no more are asked for, however many events there are.
fn wanted(version: &RoomVersion, parsed: &[Parsed]) -> Vec<Wanted> {
    let mut spans = BTreeMap::<(&ServerName, &str), (u64, u64)>::new();
    for (pdu, servers) in parsed.iter().flatten() {
        let time = pdu.origin_server_ts();
        for server in servers {
            let ids = signing::server_key_ids(pdu.json(), server.as_str());
            for key_id in ids.take(MAX_KEYS_OF_SERVER) {
                let span = spans.entry((server, key_id)).or_insert((time, time));
                *span = (span.0.min(time), span.1.max(time));
            }
        }
    }
    let wanted = |server: &ServerName, key_id: &str, time| Wanted {
        server: server.to_owned(),
        key_id: key_id.to_owned(),
        purpose: purpose(version, time),
    };
    let mut all = Vec::with_capacity(spans.len());
    for ((server, key_id), (first, last)) in spans {
        all.push(wanted(server, key_id, last));
        if first < last {
            all.push(wanted(server, key_id, first));
        }
    }
    all
}

fn purpose(version: &RoomVersion, origin_server_ts: u64) -> Purpose {
    let enforce_validity = version.rules().enforce_key_validity;
    Purpose::Event { origin_server_ts, enforce_validity }
}

/// Checks 2 and 3.
fn verify(ring: &KeyRing, version: &RoomVersion, pdu: Pdu) -> Checked {
    let purpose = purpose(version, pdu.origin_server_ts());
    let mut unreadable = None;
    let key = |server: &str, key_id: &str| {
        let server = <&ServerName>::try_from(server).ok()?;
        let key = ring.known(server, key_id, purpose);
        key.unwrap_or_else(|error| {
            unreadable = Some(error);
            None
        })
    };
    let verified = signing::verify_event(version, pdu.json(), key);
    if let Some(error) = unreadable {
        tracing::error!(%error, "a server's keys cannot be read");
        return Err(CheckError { event_id: Some(pdu.event_id().clone()), fault: Fault::Unchecked });
    }
    match verified {
        Ok(Verified::All) => Ok(Arc::new(pdu)),
        Ok(Verified::SignaturesOnly) => Ok(Arc::new(pdu.redacted(version))),
        Err(error) => {
            Err(CheckError { event_id: Some(pdu.event_id().clone()), fault: error.into() })
        }
    }
}

#[cfg(test)]
#[path = "checks/tests.rs"]
mod tests;
