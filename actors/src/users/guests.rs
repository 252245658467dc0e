//! Guests: users without a password, who may be in a room only while the room wants them.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#guest-access>

use std::sync::Arc;

use parlour_event::{
    RoomNum,
    state::{ReadState as _, StateError},
};
use parlour_storage::{
    Op, StorageError, Store,
    schema::{Stored, User, keys, keys::KeyReader},
};
use ruma::{OwnedRoomId, UserId};
use serde::Deserialize;
use tokio::sync::Notify;

use super::{
    Decision, NewDevice, RegisterError, Session, UserError, Users,
    chores::{Chore, Progress, ask_rooms},
    deactivate::leave,
    devices::remove,
    keys::with_news,
};
use crate::{commit::Announcement, nodes::Nodes, registry::Rooms};

/// A guest on the way to becoming a user.
#[derive(Debug)]
pub struct Upgrade {
    /// The password's hash, if there is to be a password.
    pub password_hash: Option<String>,
    /// Documents that were accepted: id and version.
    pub accepted_terms: Vec<(String, String)>,
    /// The first login as a user.
    pub device: Option<NewDevice>,
    /// The guest's login, which ends.
    pub exchanged: String,
}

impl Users {
    /// Makes a user of a guest.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Taken`] if it is no guest any more.
    pub async fn upgrade_guest(
        &self,
        user: &str,
        upgrade: Upgrade,
    ) -> Result<Option<Session>, RegisterError> {
        let (users, name) = (self.clone(), user.to_owned());
        let decide = move |store: &Store| {
            let key = keys::user(&name);
            let account = store.typed::<User>(&key).map_err(UserError::from)?;
            let account = account.filter(|account| account.guest && !account.deactivated);
            let mut account = account.ok_or(RegisterError::Taken)?;
            account.guest = false;
            account.password_hash = upgrade.password_hash;
            account.accepted_terms = upgrade.accepted_terms;
            let mut ops = vec![
                Op::Put { key, value: account.encode() },
                Op::Delete { key: keys::guest(&name) },
            ];
            let old = users.device(&name, &upgrade.exchanged).map_err(UserError::from)?;
            let keeps_device = upgrade.device.as_ref().is_some_and(|device| {
                device.device_id.as_deref() == Some(upgrade.exchanged.as_str())
            });
            if let Some(old) = old.filter(|_| !keeps_device) {
                remove(store, &name, &upgrade.exchanged, &old, &mut ops)
                    .map_err(UserError::from)?;
            }
            let session = upgrade
                .device
                .map(|device| users.new_session(store, &name, device, &mut ops))
                .transpose()
                .map_err(UserError::from)?;
            let told = Announcement::User { user: name.clone() };
            let change = with_news(store, &name, ops, told).map_err(UserError::from)?;
            Ok(Decision::Write(change, session))
        };
        self.change(user, decide).await
    }

    /// Begins to lead guests out of rooms that don't want them any more. `closed` tells that a
    /// room has become one of these.
    pub(crate) fn watch_guests(&self, rooms: Rooms, nodes: Nodes, closed: &Arc<Notify>) {
        self.begin(Guests { users: self.clone(), rooms, nodes }, closed);
    }
}

struct Guests {
    users: Users,
    rooms: Rooms,
    nodes: Nodes,
}

/// What of `m.room.guest_access` counts.
#[derive(Deserialize)]
struct GuestAccess {
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    guest_access: String,
}

/// The list of guests is short, and rooms seldom change their mind: each time all are looked at.
impl Chore for Guests {
    const MARKS: u8 = keys::GUEST;
    const NAME: &'static str = "leading guests out of rooms";

    async fn perform(&self, mark: &[u8]) -> Result<Progress, StorageError> {
        let user = KeyReader::new(mark).text().unwrap_or_default();
        let Ok(user) = UserId::parse(&user) else { return Ok(Progress::Kept) };
        let mut unwelcome = Vec::new();
        for (room, entry) in self.users.store.memberships(user.as_str())? {
            if entry.membership == "join" && !self.welcomes_guests(room)? {
                unwelcome.extend(self.users.room_id(room)?);
            }
        }
        let ask = |room: OwnedRoomId| {
            let (rooms, user) = (self.rooms.clone(), user.clone());
            async move { leave(&rooms, &room, user).await }
        };
        Ok(if ask_rooms(unwelcome, ask).await { Progress::Kept } else { Progress::Unfinished })
    }
}

impl Guests {
    fn welcomes_guests(&self, room: RoomNum) -> Result<bool, StorageError> {
        let store = &self.users.store;
        let Some(head) = store.room_head(room)? else { return Ok(true) };
        let Some(key) = store.state_key_num("m.room.guest_access", "")? else { return Ok(false) };
        let num = self.nodes.get(head.state, key).map_err(|error| match error {
            StateError::Store(error) => error,
            misplaced @ StateError::Misplaced(_) => StorageError::Value {
                key: keys::readable(&keys::room(room)),
                what: misplaced.to_string(),
            },
        })?;
        let event = num.map(|num| store.event(num)).transpose()?.flatten();
        let access =
            event.and_then(|event| serde_json::from_slice::<GuestAccess>(&event.json).ok());
        Ok(access.is_some_and(|access| access.content.guest_access == "can_join"))
    }
}
