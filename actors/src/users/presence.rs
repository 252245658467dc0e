//! What of a user's presence outlives the process.

use parlour_event::RoomNum;
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{PresenceEntry, Stored as _, User, keys, keys::KeyReader},
};

use super::{Decision, UserError, Users};
use crate::commit::{Announcement, Ops};

/// How many users are remembered as online over a restart.
const MAX_ONLINE: usize = 100_000;

impl Users {
    /// What a user last said of its presence.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub(crate) fn presence(&self, user: &str) -> Result<Option<PresenceEntry>, StorageError> {
        self.store.typed(&keys::presence(user))
    }

    /// Keeps what a user says of its presence, and whether it is to be remembered as online.
    pub(crate) async fn keep_presence(
        &self,
        user: &str,
        entry: PresenceEntry,
        is_online: bool,
    ) -> Result<(), UserError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            let account = store.typed::<User>(&keys::user(&name))?;
            if account.is_none_or(|account| account.deactivated) {
                // It was deleted with the account, and is not to come back.
                return Ok(Decision::Keep(()));
            }
            let online = keys::online(&name);
            let online = match is_online {
                true => Op::Put { key: online, value: bytes::Bytes::new() },
                false => Op::Delete { key: online },
            };
            let entry = Op::Put { key: keys::presence(&name), value: entry.encode() };
            let change = Ops { ops: vec![entry, online], announcement: Announcement::Nothing };
            Ok::<_, UserError>(Decision::Write(Box::new(change), ()))
        };
        self.change(user, decide).await
    }

    /// The users who are remembered as online.
    pub(crate) fn online(&self) -> Result<Vec<String>, StorageError> {
        let prefix = keys::KeyBuilder::new(keys::ONLINE).build();
        let users = self.store.scan_prefix(&prefix, Direction::Forward, MAX_ONLINE)?;
        Ok(users.iter().filter_map(|(key, _)| KeyReader::new(key).text()).collect())
    }

    /// The rooms that a user is joined to.
    pub(crate) fn joined_rooms(&self, user: &str) -> Result<Vec<RoomNum>, StorageError> {
        self.store.joined_rooms(user)
    }
}
