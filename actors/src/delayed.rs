//! Events that users have sent for later (MSC4140).
//!
//! They belong to their user, as account data do, so changes of one user's are serialised. What is
//! due is found by a key in storage: a restart forgets nothing, and there is no queue to overflow.
//!
//! A delayed state event is void once somebody else has set the same state. That is not noted when
//! it happens, since rooms need not know of delayed events; it is seen in the room's history by
//! whoever looks at one.

mod run;

use std::{fmt, ops::Bound, sync::Arc, time::Duration};

use bytes::Bytes;
use parlour_event::{StreamPos, state::ReadState as _};
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{
        DelayedEntry, MadeRoom, Stored as _, TransactionEntry, delayed as keys,
        keys::{notice_room, transaction},
    },
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde::Deserialize;
use tokio::sync::Notify;

use crate::{
    commit::{Announcement, At, Ops},
    env::Env,
    nodes::Nodes,
    registry::Rooms,
    room::messages::RoomError,
    users::{Decision, UserError, Users},
};

/// How many delayed events a user may have.
pub const MAX_PER_USER: usize = 100;

/// How many letters and digits an id has: who knows it may send or cancel the event.
const ID_LEN: usize = 32;

/// How many events are looked at at once.
const BATCH: usize = 100;

/// How far back the history of a piece of state is followed.
const MAX_CHANGES: usize = 100;

/// Why something was not done about a delayed event.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DelayedError {
    /// There is none with this id, or it has been sent.
    #[error("there is no such delayed event")]
    Unknown,
    /// The user has very many already.
    #[error("you have {MAX_PER_USER} delayed events already")]
    TooMany,
    /// The user may not send anything any more; the event is gone.
    #[error("the sender may not send anything")]
    Silenced,
    /// The event was to be sent at once, and the room has refused it.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

impl From<StorageError> for DelayedError {
    fn from(error: StorageError) -> Self {
        Self::User(error.into())
    }
}

/// An event that is to be sent later.
#[derive(Debug, Clone)]
pub struct NewDelayed {
    /// Who sends it.
    pub user: OwnedUserId,
    /// From which device.
    pub device: String,
    /// Where to.
    pub room: OwnedRoomId,
    /// The `type`.
    pub event_type: String,
    /// The `state_key`, for a state event.
    pub state_key: Option<String>,
    /// The `content`, as JSON text.
    pub content: Bytes,
    /// How long it is to wait.
    pub delay: Duration,
    /// Hash of the client's transaction, for idempotency.
    pub transaction: Option<[u8; 16]>,
}

/// An event that waits.
#[derive(Debug, Clone)]
pub struct DelayedEvent {
    /// Its id.
    pub id: String,
    /// What is known of it.
    pub entry: DelayedEntry,
    /// The `content`, as JSON text.
    pub content: Bytes,
}

/// How others reach delayed events. Cheap to clone.
#[derive(Clone)]
pub struct Delayed {
    store: Store,
    nodes: Nodes,
    env: Env,
    users: Users,
    rooms: Rooms,
    /// Wakes the task that sends what is due.
    wake: Arc<Notify>,
}

impl fmt::Debug for Delayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Delayed")
    }
}

#[derive(Deserialize)]
struct Sender {
    sender: String,
}

impl Delayed {
    /// Begins sending what is due, with what became due while the server was stopped.
    pub(crate) fn start(store: Store, nodes: Nodes, env: Env, users: Users, rooms: Rooms) -> Self {
        let wake = Arc::new(Notify::new());
        let delayed = Self { store, nodes, env, users, rooms, wake };
        delayed.users.spawn(run::run(delayed.clone()));
        delayed
    }

    /// Schedules an event, and gives its id. The same transaction again gives the same id.
    ///
    /// # Errors
    ///
    /// [`DelayedError`]
    pub async fn schedule(&self, new: NewDelayed) -> Result<String, DelayedError> {
        let (this, user) = (self.clone(), new.user.to_string());
        let decide = move |store: &Store| {
            let known = new.transaction.map(|hash| store.typed(&transaction(&hash))).transpose()?;
            if let Some(TransactionEntry { result, .. }) = known.flatten() {
                return Ok(Decision::Keep(result));
            }
            let mut ops = Vec::new();
            this.make_room_for_one(new.user.as_str(), &mut ops)?;
            let id = this.env.random_string(ID_LEN);
            let (given, now) = (id.clone(), this.env.clock.now_ms());
            let change = At(move |pos: StreamPos, all: &mut Vec<Op>| {
                all.append(&mut ops);
                write_new(new, &id, now, pos, all);
                Announcement::Nothing
            });
            Ok::<_, DelayedError>(Decision::Write(Box::new(change), given))
        };
        let id = self.users.change(&user, decide).await?;
        self.wake.notify_one();
        Ok(id)
    }

    /// The delayed events of a user that still wait, those that are due first in front.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn of_user(&self, user: &str) -> Result<Vec<DelayedEvent>, StorageError> {
        let mut events = Vec::new();
        for id in self.ids_of(user)? {
            events.extend(self.get(&id)?);
        }
        events.sort_by_key(|event| event.entry.due());
        Ok(events)
    }

    /// A delayed event, if it still waits.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn get(&self, id: &str) -> Result<Option<DelayedEvent>, StorageError> {
        let Some(event) = self.stored(id)? else { return Ok(None) };
        let waits = !event.entry.sending && !self.is_void(&event.entry)?;
        Ok(waits.then_some(event))
    }

    /// Cancels a delayed event.
    ///
    /// # Errors
    ///
    /// [`DelayedError`]
    pub async fn cancel(&self, id: &str) -> Result<(), DelayedError> {
        self.change(id, remove).await
    }

    /// Lets a delayed event wait for its whole time once more.
    ///
    /// # Errors
    ///
    /// [`DelayedError`]
    pub async fn restart(&self, id: &str) -> Result<(), DelayedError> {
        let now = self.env.clock.now_ms();
        let event = self.get(id)?.ok_or(DelayedError::Unknown)?;
        let content = event.content;
        let restart = move |id: &str, entry: &DelayedEntry, ops: &mut Vec<Op>| {
            ops.push(Op::Delete { key: keys::due(entry.due(), id) });
            let entry = DelayedEntry { running_since: now, ..entry.clone() };
            put(id, &entry, content, ops);
        };
        self.change(id, restart).await?;
        self.wake.notify_one();
        Ok(())
    }

    /// Sends a delayed event at once. If the room has no time for it now, it is sent soon.
    ///
    /// # Errors
    ///
    /// [`DelayedError`]; if the room refuses the event, it is gone all the same.
    pub async fn send(&self, id: &str) -> Result<(), DelayedError> {
        let event = self.get(id)?.ok_or(DelayedError::Unknown)?;
        self.claim(&event).await?;
        match self.deliver(event).await {
            Err(DelayedError::Room(error)) if may_pass(&error) => {
                self.wake.notify_one();
                Ok(())
            }
            result => result,
        }
    }

    /// Takes an event out of everybody's hands before it is sent. From now on it is due, so that
    /// it will be sent if the server stops here.
    async fn claim(&self, event: &DelayedEvent) -> Result<(), DelayedError> {
        let (content, now) = (event.content.clone(), self.env.clock.now_ms());
        let claim = move |id: &str, entry: &DelayedEntry, ops: &mut Vec<Op>| {
            ops.push(Op::Delete { key: keys::due(entry.due(), id) });
            let running_since = entry.running_since.min(now.saturating_sub(entry.delay));
            let entry = DelayedEntry { sending: true, running_since, ..entry.clone() };
            put(id, &entry, content, ops);
        };
        self.change(&event.id, claim).await
    }

    /// Changes an event that still waits.
    async fn change(
        &self,
        id: &str,
        write: impl FnOnce(&str, &DelayedEntry, &mut Vec<Op>) + Send + 'static,
    ) -> Result<(), DelayedError> {
        let user = self.get(id)?.ok_or(DelayedError::Unknown)?.entry.user;
        let (this, id) = (self.clone(), id.to_owned());
        let decide = move |_: &Store| {
            let event = this.get(&id)?.ok_or(DelayedError::Unknown)?;
            let mut ops = Vec::new();
            write(&id, &event.entry, &mut ops);
            let change = Ops { ops, announcement: Announcement::Nothing };
            Ok::<_, DelayedError>(Decision::Write(Box::new(change), ()))
        };
        self.users.change(&user, decide).await
    }

    /// Cancels whatever is to be sent to a room, which is about to go.
    pub(crate) async fn cancel_in(&self, room: &RoomId) -> Result<(), UserError> {
        let (prefix, end) = (keys::all_delayed(), keys::delayed_of(""));
        let mut after = prefix.clone();
        loop {
            let range = (Bound::Excluded(&after[..]), Bound::Excluded(&end[..]));
            let batch = self.store.scan(range, Direction::Forward, BATCH)?;
            let Some((last, _)) = batch.last() else { return Ok(()) };
            after = last.clone();
            for (key, stored) in batch {
                let entry = DelayedEntry::decode(&key, &stored.value)?;
                if entry.room_id == room.as_str()
                    && let Some(id) = keys::read_delayed(&key)
                {
                    self.strike_off(&id, &entry.user).await?;
                }
            }
        }
    }

    /// Whether a user may send anything to a room. Who is suspended may answer the server.
    fn may_send(&self, user: &str, room: &str) -> Result<bool, StorageError> {
        let Some(account) = self.users.account(user)? else { return Ok(false) };
        if account.deactivated || account.locked {
            return Ok(false);
        }
        if !account.suspended {
            return Ok(true);
        }
        let own = self.store.typed::<MadeRoom>(&notice_room(user))?;
        Ok(own.is_some_and(|own| own.room_id == room))
    }

    /// Strikes off an event that has been sent, or is not to be.
    async fn strike_off(&self, id: &str, user: &str) -> Result<(), UserError> {
        let (this, id) = (self.clone(), id.to_owned());
        let decide = move |_: &Store| {
            let Some(event) = this.stored(&id)? else { return Ok(Decision::Keep(())) };
            let mut ops = Vec::new();
            remove(&id, &event.entry, &mut ops);
            let change = Ops { ops, announcement: Announcement::Nothing };
            Ok::<_, UserError>(Decision::Write(Box::new(change), ()))
        };
        self.users.change(user, decide).await
    }

    fn stored(&self, id: &str) -> Result<Option<DelayedEvent>, StorageError> {
        let key = keys::delayed(id);
        let Some(stored) = self.store.get(&key)? else { return Ok(None) };
        let entry = DelayedEntry::decode(&key, &stored.value)?;
        let content = stored.blob.map(|place| self.store.blob(&place)).transpose()?;
        Ok(Some(DelayedEvent { id: id.to_owned(), entry, content: content.unwrap_or_default() }))
    }

    fn ids_of(&self, user: &str) -> Result<Vec<String>, StorageError> {
        let prefix = keys::delayed_of(user);
        let found = self.store.scan_prefix(&prefix, Direction::Forward, MAX_PER_USER)?;
        Ok(found.iter().filter_map(|(key, _)| keys::read_id(key, prefix.len())).collect())
    }

    /// Makes sure that a user may have one more; what is void makes room.
    fn make_room_for_one(&self, user: &str, ops: &mut Vec<Op>) -> Result<(), DelayedError> {
        let ids = self.ids_of(user)?;
        if ids.len() < MAX_PER_USER {
            return Ok(());
        }
        for id in ids {
            if let Some(event) = self.stored(&id)?
                && self.is_void(&event.entry)?
            {
                remove(&id, &event.entry, ops);
            }
        }
        if ops.is_empty() { Err(DelayedError::TooMany) } else { Ok(()) }
    }

    /// Whether somebody else has set the state that an event would set, since it was scheduled.
    fn is_void(&self, entry: &DelayedEntry) -> Result<bool, StorageError> {
        let Some(state_key) = &entry.state_key else { return Ok(false) };
        let Ok(room) = RoomId::parse(&entry.room_id) else { return Ok(true) };
        let Some(num) = self.store.room_num(room.as_str())? else { return Ok(true) };
        let Some(head) = self.store.room_head(num)? else { return Ok(true) };
        let Some(key) = self.store.state_key_num(&entry.event_type, state_key)? else {
            return Ok(false);
        };
        let mut state = head.state;
        for _ in 0..MAX_CHANGES {
            let num = self.nodes.get(state, key).map_err(unreadable)?;
            let Some(event) = num.map(|num| self.store.event(num)).transpose()?.flatten() else {
                return Ok(false);
            };
            if event.meta.pos <= entry.pos {
                return Ok(false);
            }
            let sender = serde_json::from_slice::<Sender>(&event.json);
            if sender.is_ok_and(|Sender { sender }| sender != entry.user) {
                return Ok(true);
            }
            state = event.meta.state_before;
        }
        Ok(false)
    }
}

/// Removes whatever a user wants to be sent.
pub(crate) fn remove_all(store: &Store, user: &str, ops: &mut Vec<Op>) -> Result<(), StorageError> {
    let prefix = keys::delayed_of(user);
    for (key, _) in store.scan_prefix(&prefix, Direction::Forward, MAX_PER_USER)? {
        let Some(id) = keys::read_id(&key, prefix.len()) else { continue };
        if let Some(entry) = store.typed::<DelayedEntry>(&keys::delayed(&id))? {
            remove(&id, &entry, ops);
        }
    }
    Ok(())
}

/// Whether what has failed may work another time.
fn may_pass(error: &RoomError) -> bool {
    matches!(
        error,
        RoomError::Busy | RoomError::Gone | RoomError::Persist(_) | RoomError::Storage(_)
    )
}

fn unreadable(error: parlour_event::state::StateError<StorageError>) -> StorageError {
    match error {
        parlour_event::state::StateError::Store(error) => error,
        misplaced => StorageError::Value { key: "state".to_owned(), what: misplaced.to_string() },
    }
}

fn write_new(new: NewDelayed, id: &str, now: u64, pos: StreamPos, ops: &mut Vec<Op>) {
    let entry = DelayedEntry {
        user: new.user.to_string(),
        device: new.device,
        room_id: new.room.to_string(),
        event_type: new.event_type,
        state_key: new.state_key,
        delay: u64::try_from(new.delay.as_millis()).unwrap_or(u64::MAX),
        running_since: now,
        pos,
        sending: false,
    };
    put(id, &entry, new.content, ops);
    let key = keys::delayed_of_user(&entry.user, id);
    ops.push(Op::Put { key, value: Bytes::new() });
    if let Some(hash) = new.transaction {
        let value = TransactionEntry { result: id.to_owned(), ts: now }.encode();
        ops.push(Op::Put { key: transaction(&hash), value });
    }
}

fn put(id: &str, entry: &DelayedEntry, content: Bytes, ops: &mut Vec<Op>) {
    ops.push(Op::PutBlob { key: keys::delayed(id), value: entry.encode(), blob: content });
    ops.push(Op::Put { key: keys::due(entry.due(), id), value: Bytes::new() });
}

fn remove(id: &str, entry: &DelayedEntry, ops: &mut Vec<Op>) {
    let all =
        [keys::delayed(id), keys::delayed_of_user(&entry.user, id), keys::due(entry.due(), id)];
    ops.extend(all.map(|key| Op::Delete { key }));
}
