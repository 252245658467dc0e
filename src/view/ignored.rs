//! Users whose messages somebody does not want to see.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use parlour_actors::users::{IGNORED_USERS, PREVIOUSLY};
use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{
    StorageError,
    schema::{AccountDataEntry, Stored as _, keys},
};
use ruma::UserId;
use serde::{Deserialize, de::IgnoredAny};

use super::{Fields, View, ViewError};

/// The users whom one user ignores.
#[derive(Debug, Clone, Default)]
pub struct Ignored {
    now: HashSet<String>,
    /// Those who were ignored until `changed`.
    before: HashSet<String>,
    changed: StreamPos,
}

#[derive(Deserialize)]
struct Content {
    ignored_users: BTreeMap<String, IgnoredAny>,
}

impl Ignored {
    /// Whether an event is to be kept from the user. State events never are.
    #[must_use]
    pub fn hides(&self, event: &Fields<'_>) -> bool {
        event.state_key.is_none() && self.now.contains(&*event.sender)
    }

    /// The same for a client that follows the stream: what was sent while its sender was ignored
    /// is not delivered late.
    #[must_use]
    pub fn hides_in_stream(&self, event: &Fields<'_>, pos: StreamPos) -> bool {
        let was_ignored = pos <= self.changed && self.before.contains(&*event.sender);
        self.hides(event) || was_ignored && event.state_key.is_none()
    }

    /// All of them.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.now.iter().map(String::as_str)
    }

    /// Whether this user is ignored; invites by such users are not shown.
    #[must_use]
    pub fn contains(&self, user: &str) -> bool {
        self.now.contains(user)
    }
}

impl View {
    /// The users whom a user ignores now.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn ignored_by(&self, user: &UserId) -> Result<Ignored, ViewError> {
        let now = self.ignored_list(user, RoomNum(0))?.map(|(_, users)| users);
        Ok(Ignored { now: now.unwrap_or_default(), ..Ignored::default() })
    }

    /// The same with those who were ignored at some time after `since`.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn ignored_since(&self, user: &UserId, since: StreamPos) -> Result<Ignored, ViewError> {
        let ignored = self.ignored_by(user)?;
        let before = self.ignored_list(user, PREVIOUSLY)?;
        Ok(match before.filter(|(changed, _)| *changed > since) {
            Some((changed, before)) => Ignored { before, changed, ..ignored },
            None => ignored,
        })
    }

    /// A list, and when it was written.
    fn ignored_list(
        &self,
        user: &UserId,
        place: RoomNum,
    ) -> Result<Option<(StreamPos, HashSet<String>)>, ViewError> {
        let key = keys::account_data(user.as_str(), place, IGNORED_USERS);
        let Some(entry) = self.store.get(&key)? else { return Ok(None) };
        let Some(blob) = entry.blob else { return Ok(None) };
        // The list is the client's own writing; one that makes no sense ignores nobody.
        let content = serde_json::from_slice::<Content>(&self.store.blob(&blob)?);
        let mut users: HashSet<_> = content
            .map_or_else(|_| HashSet::new(), |list| list.ignored_users.into_keys().collect());
        users.remove(user.as_str());
        Ok(Some((AccountDataEntry::decode(&key, &entry.value)?.pos, users)))
    }

    /// A piece of a user's global account data, as JSON text.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn global_account_data(
        &self,
        user: &UserId,
        data_type: &str,
    ) -> Result<Option<Bytes>, StorageError> {
        let key = keys::account_data(user.as_str(), RoomNum(0), data_type);
        let place = self.store.get(&key)?.and_then(|entry| entry.blob);
        place.map(|place| self.store.blob(&place)).transpose()
    }
}
