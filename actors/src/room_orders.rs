//! Operators' orders about rooms: blocking them, and deleting them.
//!
//! A deletion is written down before it begins, and after each step how far it has come; one task
//! carries them out one after the other, and goes on with them after a restart.

mod evict;
mod purge;
mod work;

use std::sync::Arc;

use parlour_event::{RoomNum, RoomVersion};
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{BlockedRoom, Deletion, DeletionStatus, Replacement, Stored, keys, keys::KeyReader},
};
use ruma::{OwnedRoomId, OwnedServerName, RoomId};
use tokio::sync::{Notify, watch};

use crate::{
    commit::{Announcement, Ops},
    delayed::Delayed,
    directory::Directory,
    env::Env,
    interner::Interner,
    nodes::Nodes,
    persister::Persister,
    registry::Rooms,
    users::{Decision, UserError, Users},
};

/// How many deletions are remembered, finished ones included.
const MAX_DELETIONS: usize = 1_000;

/// How long a finished deletion is remembered, in milliseconds.
const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1_000;

/// Length of a deletion's id.
const ID_LEN: usize = 16;

/// What orders are carried out with.
#[derive(Debug, Clone)]
pub(crate) struct OrderParts {
    pub(crate) store: Store,
    pub(crate) nodes: Nodes,
    pub(crate) rooms: Rooms,
    /// Its actors serialise the changes of one order.
    pub(crate) users: Users,
    pub(crate) directory: Directory,
    pub(crate) delayed: Delayed,
    pub(crate) persister: Persister,
    pub(crate) interner: Arc<Interner>,
    pub(crate) server_name: OwnedServerName,
    pub(crate) env: Env,
    /// Told when somebody may not be found by everybody any more.
    pub(crate) people: Arc<Notify>,
}

/// How others give orders about rooms. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RoomOrders {
    parts: OrderParts,
    wake: Arc<Notify>,
    /// Changes whenever a deletion has come further.
    progress: Arc<watch::Sender<u64>>,
}

/// A deletion that is to be made.
#[derive(Debug, Clone)]
pub struct DeletionOrder {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Where its members go, if anywhere.
    pub replacement: Option<Replacement>,
    /// Who blocks the room for good, if somebody does.
    pub blocked_by: Option<String>,
    /// Whether nothing shall be left of the room.
    pub purge: bool,
    /// Whether members who cannot be removed are no hindrance to that.
    pub force_purge: bool,
}

/// Why an order was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// There is no such room.
    #[error("the room is not known here")]
    UnknownRoom,
    /// Very many deletions are under way or were made lately.
    #[error("too many rooms are being deleted")]
    TooMany,
    /// The room is being deleted already.
    #[error("the room is being deleted already")]
    UnderWay,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

impl From<StorageError> for OrderError {
    fn from(error: StorageError) -> Self {
        Self::User(error.into())
    }
}

impl DeletionOrder {
    fn begin(self, room: RoomNum, now: u64) -> Deletion {
        Deletion {
            room_id: self.room_id.into(),
            room,
            replacement: self.replacement,
            purge: self.purge,
            force_purge: self.force_purge,
            status: DeletionStatus::Scheduled,
            kicked: Vec::new(),
            failed: Vec::new(),
            aliases: Vec::new(),
            new_room_id: None,
            ts: now,
        }
    }
}

impl RoomOrders {
    /// Begins with what was left undone when the server stopped. `version` is that of rooms which
    /// replace deleted ones.
    pub(crate) fn start(parts: OrderParts, version: &'static RoomVersion) -> Self {
        let orders =
            Self { parts, wake: Arc::default(), progress: Arc::new(watch::Sender::new(0)) };
        orders.wake.notify_one();
        let worker = work::Worker { orders: orders.clone(), version };
        orders.parts.users.spawn(worker.run());
        orders
    }

    /// Who blocked a room, if it is blocked.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn blocked_by(&self, room: &RoomId) -> Result<Option<String>, StorageError> {
        let entry = self.parts.store.typed::<BlockedRoom>(&keys::blocked_room(room.as_str()))?;
        Ok(entry.map(|entry| entry.by))
    }

    /// Blocks a room in an administrator's name, or lifts the block.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn block(&self, room: &RoomId, by: Option<String>) -> Result<(), UserError> {
        let op = block(room, by);
        let decide = move |_: &Store| Ok::<_, UserError>(write(vec![op], ()));
        self.parts.users.change(room.as_str(), decide).await
    }

    /// Orders a deletion and gives its id.
    ///
    /// # Errors
    ///
    /// [`OrderError`]
    pub async fn delete(&self, order: DeletionOrder) -> Result<String, OrderError> {
        let room = self.parts.store.room_num(order.room_id.as_str())?;
        let room = room.ok_or(OrderError::UnknownRoom)?;
        let now = self.parts.env.clock.now_ms();
        let id = self.parts.env.random_string(ID_LEN);
        let (orders, key) = (self.clone(), keys::deletion(&id));
        let room_id = order.room_id.clone();
        let decide = move |_: &Store| {
            let mut ops = orders.make_room(&order.room_id, now)?;
            if order.blocked_by.is_some() {
                ops.push(block(&order.room_id, order.blocked_by.clone()));
            }
            ops.push(Op::Put { key, value: order.begin(room, now).encode() });
            Ok::<_, OrderError>(write(ops, ()))
        };
        self.parts.users.change(room_id.as_str(), decide).await?;
        self.wake.notify_one();
        Ok(id)
    }

    /// Checks that one more deletion can be remembered; forgets old ones.
    fn make_room(&self, room: &RoomId, now: u64) -> Result<Vec<Op>, OrderError> {
        let is_old = |deletion: &Deletion| {
            deletion.status.is_over() && now.saturating_sub(deletion.ts) > REMEMBERED_MS
        };
        let all = self.deletions()?.into_iter();
        let (old, known): (Vec<_>, Vec<_>) = all.partition(|(_, deletion)| is_old(deletion));
        let is_same = |known: &Deletion| known.room_id == room.as_str() && !known.status.is_over();
        if known.iter().any(|(_, known)| is_same(known)) {
            return Err(OrderError::UnderWay);
        }
        if known.len() >= MAX_DELETIONS {
            return Err(OrderError::TooMany);
        }
        let keys = old.iter().flat_map(|(id, _)| [keys::deletion(id), keys::replacement_room(id)]);
        Ok(keys.map(|key| Op::Delete { key }).collect())
    }

    /// How far a deletion has come.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn deletion(&self, id: &str) -> Result<Option<Deletion>, StorageError> {
        self.parts.store.typed(&keys::deletion(id))
    }

    /// All deletions that are under way or were made lately, with their ids.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn deletions(&self) -> Result<Vec<(String, Deletion)>, StorageError> {
        let found =
            self.parts.store.scan_prefix(&keys::deletions(), Direction::Forward, MAX_DELETIONS)?;
        found
            .into_iter()
            .map(|(key, entry)| {
                let mut reader = KeyReader::new(&key);
                let id = reader.text().and_then(|_kind| reader.text()).unwrap_or_default();
                Ok((id, Deletion::decode(&key, &entry.value)?))
            })
            .collect()
    }

    /// Waits until a deletion is over.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub async fn finished(&self, id: &str) -> Result<Option<Deletion>, StorageError> {
        let mut progress = self.progress.subscribe();
        loop {
            match self.deletion(id)? {
                Some(deletion) if !deletion.status.is_over() => {}
                over => return Ok(over),
            }
            // The sender lives as long as this does.
            let _ = progress.changed().await;
        }
    }
}

fn block(room: &RoomId, by: Option<String>) -> Op {
    let key = keys::blocked_room(room.as_str());
    match by {
        Some(by) => Op::Put { key, value: BlockedRoom { by }.encode() },
        None => Op::Delete { key },
    }
}

fn write<T>(ops: Vec<Op>, value: T) -> Decision<T> {
    Decision::Write(Box::new(Ops { ops, announcement: Announcement::Nothing }), value)
}
