//! The room directory: aliases of this server, and which rooms are published.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use parlour_event::RoomNum;
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{AliasEntry, Stored, keys, keys::KeyReader},
};

use crate::{
    commit::{Announcement, Ops},
    users::{Decision, UserError, Users},
};

/// How many aliases a room may have here.
const MAX_PER_ROOM: usize = 1_000;

/// Why an alias was not made.
#[derive(Debug, thiserror::Error)]
pub enum AliasError {
    /// It leads to a room already, or is about to.
    #[error("the room alias is taken")]
    Taken,
    /// The room has very many already.
    #[error("the room has too many aliases")]
    TooMany,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

impl From<StorageError> for AliasError {
    fn from(error: StorageError) -> Self {
        Self::User(error.into())
    }
}

/// How others reach the directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory {
    store: Store,
    /// Its actors serialise the changes of one alias.
    users: Users,
    claimed: Arc<Mutex<HashSet<String>>>,
}

/// An alias that nobody else gets while this is held. A new room needs its alias before it exists.
#[derive(Debug)]
pub struct AliasClaim {
    alias: String,
    claimed: Arc<Mutex<HashSet<String>>>,
}

impl AliasClaim {
    /// The alias.
    #[must_use]
    pub fn alias(&self) -> &str {
        &self.alias
    }
}

impl Drop for AliasClaim {
    fn drop(&mut self) {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.alias);
    }
}

impl Directory {
    pub(crate) fn new(store: Store, users: Users) -> Self {
        Self { store, users, claimed: Arc::default() }
    }

    /// Where an alias leads.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn alias(&self, alias: &str) -> Result<Option<AliasEntry>, StorageError> {
        self.store.typed(&keys::alias(alias))
    }

    /// The aliases of a room, in alphabetical order.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn aliases_of(&self, room: RoomNum) -> Result<Vec<String>, StorageError> {
        let prefix = keys::aliases_of_room(room);
        let found = self.store.scan_prefix(&prefix, Direction::Forward, usize::MAX)?;
        let alias = |key: &[u8]| {
            let mut reader = KeyReader::new(key);
            reader.number().and_then(|_room| reader.text())
        };
        Ok(found.iter().filter_map(|(key, _)| alias(key)).collect())
    }

    /// Takes hold of an alias that is free.
    ///
    /// # Errors
    ///
    /// [`AliasError::Taken`], or if storage cannot be read.
    pub fn claim(&self, alias: &str) -> Result<AliasClaim, AliasError> {
        let is_new =
            self.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(alias.to_owned());
        if !is_new {
            return Err(AliasError::Taken);
        }
        // Looked up behind the claim: who held one before has written by now.
        let claim = AliasClaim { alias: alias.to_owned(), claimed: self.claimed.clone() };
        match self.alias(alias)? {
            Some(_) => Err(AliasError::Taken),
            None => Ok(claim),
        }
    }

    /// Lets a claimed alias lead to a room.
    ///
    /// # Errors
    ///
    /// [`AliasError`]
    pub async fn add(
        &self,
        claim: AliasClaim,
        room: RoomNum,
        creator: &str,
    ) -> Result<(), AliasError> {
        let (alias, creator) = (claim.alias.clone(), creator.to_owned());
        let decide = move |store: &Store| {
            let prefix = keys::aliases_of_room(room);
            if store.scan_prefix(&prefix, Direction::Forward, MAX_PER_ROOM)?.len() >= MAX_PER_ROOM {
                return Err(AliasError::TooMany);
            }
            Ok(write(alias_ops(&alias, room, &creator).into()))
        };
        self.users.change(&claim.alias, decide).await
    }

    /// Removes an alias if it still leads to this room.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn remove(&self, alias: &str, room: RoomNum) -> Result<(), UserError> {
        let name = alias.to_owned();
        let decide = move |store: &Store| {
            let key = keys::alias(&name);
            let entry = store.typed::<AliasEntry>(&key)?;
            if entry.is_none_or(|entry| entry.room != room) {
                return Ok::<_, UserError>(Decision::Keep(()));
            }
            let of_room = keys::alias_of_room(room, &name);
            Ok(write(vec![Op::Delete { key }, Op::Delete { key: of_room }]))
        };
        self.users.change(alias, decide).await
    }

    /// Lets an alias lead from one room to another, with its creator; does nothing if it leads
    /// elsewhere by now.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn move_alias(
        &self,
        alias: &str,
        from: RoomNum,
        to: RoomNum,
    ) -> Result<(), UserError> {
        let name = alias.to_owned();
        let decide = move |store: &Store| {
            let entry = store.typed::<AliasEntry>(&keys::alias(&name))?;
            let Some(AliasEntry { creator, .. }) = entry.filter(|entry| entry.room == from) else {
                return Ok::<_, UserError>(Decision::Keep(()));
            };
            let mut ops = vec![Op::Delete { key: keys::alias_of_room(from, &name) }];
            ops.extend(alias_ops(&name, to, &creator));
            Ok(write(ops))
        };
        self.users.change(alias, decide).await
    }

    /// Puts a room into the published directory, or takes it out.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn publish(&self, room: RoomNum, published: bool) -> Result<(), UserError> {
        let decide = move |_: &Store| {
            let ops = vec![publish_op(room, published)];
            let change = Ops { ops, announcement: Announcement::Published { room } };
            Ok::<_, UserError>(Decision::Write(Box::new(change), ()))
        };
        self.users.change(&room.0.to_string(), decide).await
    }

    /// Whether a room is in the published directory.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn is_published(&self, room: RoomNum) -> Result<bool, StorageError> {
        Ok(self.store.get(&keys::published(room))?.is_some())
    }

    /// All rooms in the published directory.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn published(&self) -> Result<Vec<RoomNum>, StorageError> {
        let found = self.store.scan_prefix(&[keys::PUBLISHED], Direction::Forward, usize::MAX)?;
        Ok(found.iter().filter_map(|(key, _)| KeyReader::new(key).number().map(RoomNum)).collect())
    }
}

/// Lets an alias lead to a room.
pub(crate) fn alias_ops(alias: &str, room: RoomNum, creator: &str) -> [Op; 2] {
    let entry = AliasEntry { room, creator: creator.to_owned() };
    [
        Op::Put { key: keys::alias(alias), value: entry.encode() },
        Op::Put { key: keys::alias_of_room(room, alias), value: Bytes::new() },
    ]
}

/// Puts a room into the published directory, or takes it out.
pub(crate) fn publish_op(room: RoomNum, published: bool) -> Op {
    let key = keys::published(room);
    match published {
        true => Op::Put { key, value: Bytes::new() },
        false => Op::Delete { key },
    }
}

fn write(ops: Vec<Op>) -> Decision<()> {
    Decision::Write(Box::new(Ops { ops, announcement: Announcement::Nothing }), ())
}
