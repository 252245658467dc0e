//! Carries new names and avatars into the rooms of their users, in the background.

use parlour_storage::{
    StorageError,
    schema::{User, keys, keys::KeyReader},
};
use ruma::{OwnedRoomId, UserId};
use serde::Deserialize;

use super::{
    Users,
    chores::{Chore, Progress, ask_rooms},
};
use crate::{registry::Rooms, room::messages::ProfileUpdate};

/// How many rooms are looked at at once.
const BATCH: usize = 100;

/// What of a member event is compared with the profile.
#[derive(Deserialize)]
struct Member {
    content: Names,
}

#[derive(Deserialize, PartialEq, Eq)]
struct Names {
    #[serde(default)]
    displayname: Option<String>,
    #[serde(default)]
    avatar_url: Option<String>,
}

impl Users {
    /// Begins carrying profiles into rooms.
    pub(crate) fn spread_profiles(&self, rooms: Rooms) {
        self.begin(Spreader { users: self.clone(), rooms }, &self.spread);
    }
}

struct Spreader {
    users: Users,
    rooms: Rooms,
}

impl Chore for Spreader {
    const MARKS: u8 = keys::PROFILE_SPREAD;
    const NAME: &'static str = "carrying profiles into rooms";

    async fn perform(&self, mark: &[u8]) -> Result<Progress, StorageError> {
        let user = KeyReader::new(mark).text().unwrap_or_default();
        let (Some(account), Ok(user)) = (self.users.account(&user)?, UserId::parse(&user)) else {
            return Ok(Progress::Done);
        };
        let update = ProfileUpdate {
            user,
            display_name: account.display_name.clone(),
            avatar_url: account.avatar_url.clone(),
        };
        let rooms = self.rooms_to_tell(&update.user, &account)?;
        let ask = |room: OwnedRoomId| {
            let (rooms, update) = (self.rooms.clone(), update.clone());
            async move { rooms.update_profile(&room, update).await }
        };
        Ok(Progress::of(ask_rooms(rooms, ask).await))
    }
}

impl Spreader {
    /// The rooms that the user is joined to, whose member event says something else.
    fn rooms_to_tell(
        &self,
        user: &UserId,
        account: &User,
    ) -> Result<Vec<OwnedRoomId>, StorageError> {
        let store = &self.users.store;
        let now = Names {
            displayname: account.display_name.clone(),
            avatar_url: account.avatar_url.clone(),
        };
        let memberships = store.memberships(user.as_str())?;
        let joined: Vec<_> =
            memberships.into_iter().filter(|(_, entry)| entry.membership == "join").collect();
        let mut rooms = Vec::new();
        for batch in joined.chunks(BATCH) {
            let events: Vec<_> = batch.iter().map(|(_, entry)| entry.event).collect();
            for ((room, _), event) in batch.iter().zip(store.events(&events)?) {
                let said =
                    event.and_then(|event| serde_json::from_slice::<Member>(&event.json).ok());
                if said.is_none_or(|said| said.content != now) {
                    rooms.extend(self.users.room_id(*room)?);
                }
            }
        }
        Ok(rooms)
    }
}
