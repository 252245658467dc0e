//! Users whose messages somebody does not want to see.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use parlour_event::RoomNum;
use parlour_storage::{StorageError, schema::keys};
use ruma::UserId;
use serde::{Deserialize, de::IgnoredAny};

use super::{Fields, View, ViewError};

/// The account data type of the list.
pub const IGNORED_USERS: &str = "m.ignored_user_list";

/// The users whom one user ignores.
#[derive(Debug, Clone, Default)]
pub struct Ignored(HashSet<String>);

#[derive(Deserialize)]
struct Content {
    ignored_users: BTreeMap<String, IgnoredAny>,
}

impl Ignored {
    /// Whether an event is to be kept from the user. State events never are.
    #[must_use]
    pub fn hides(&self, event: &Fields<'_>) -> bool {
        event.state_key.is_none() && self.0.contains(&*event.sender)
    }

    /// All of them.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether this user is ignored; invites by such users are not shown.
    #[must_use]
    pub fn contains(&self, user: &str) -> bool {
        self.0.contains(user)
    }
}

impl View {
    /// The users whom a user ignores now.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn ignored_by(&self, user: &UserId) -> Result<Ignored, ViewError> {
        let Some(list) = self.global_account_data(user, IGNORED_USERS)? else {
            return Ok(Ignored::default());
        };
        // The list is the client's own writing; one that makes no sense ignores nobody.
        let content = serde_json::from_slice::<Content>(&list);
        let mut users: HashSet<_> = content
            .map_or_else(|_| HashSet::new(), |list| list.ignored_users.into_keys().collect());
        users.remove(user.as_str());
        Ok(Ignored(users))
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
