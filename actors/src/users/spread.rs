//! Carries new names and avatars into the rooms of their users, in the background.
//!
//! What has to be done stands in storage, written together with the change of the profile, and is
//! struck off when every room has it. So nothing is lost in a crash, many changes of one user
//! cost one pass, and there is no queue that could overflow.

use std::{cmp, sync::Arc, time::Duration};

use parlour_event::RoomNum;
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{User, keys, keys::KeyReader},
};
use ruma::{OwnedRoomId, UserId};
use serde::Deserialize;
use tokio::{sync::Notify, task::JoinSet};

use super::{Decision, UserError, Users};
use crate::{
    commit::{Announcement, Ops},
    registry::Rooms,
    room::messages::{ProfileUpdate, RoomError},
};

/// How many users are looked up at once.
const USERS_PER_PASS: usize = 100;

/// How many rooms of a user are asked at the same time.
const ROOMS_AT_ONCE: usize = 16;

/// How long a room may take. One that takes longer, since it resolves its state, is asked again
/// later: it must not keep all other users waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first pause before what has failed is tried again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

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
    /// Begins carrying profiles into rooms, with what was left undone when the server stopped.
    pub(crate) fn spread_profiles(&self, rooms: Rooms) {
        let spreader = Spreader { users: self.clone(), rooms };
        self.spread.notify_one();
        self.thread.spawn(spreader.run(self.spread.clone()));
    }
}

struct Spreader {
    users: Users,
    rooms: Rooms,
}

impl Spreader {
    async fn run(self, wake: Arc<Notify>) {
        let mut pause = None;
        loop {
            match pause {
                None => wake.notified().await,
                Some(pause) => drop(tokio::time::timeout(pause, wake.notified()).await),
            }
            let all_done = self.pass().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "profiles cannot be carried into rooms now");
                false
            });
            pause = match pause {
                _ if all_done => None,
                None => Some(PAUSES.0),
                Some(pause) => Some(cmp::min(pause * 2, PAUSES.1)),
            };
        }
    }

    /// Goes once over all users that are marked; says whether all is done.
    async fn pass(&self) -> Result<bool, UserError> {
        let mut all_done = true;
        let mut after = keys::KeyBuilder::new(keys::PROFILE_SPREAD).build();
        loop {
            let marks = self.marks(&after)?;
            let Some((last, ..)) = marks.last() else { return Ok(all_done) };
            after = keys::profile_spread(last);
            for (user, mark) in marks {
                if self.spread(&user).await? {
                    self.strike_off(user, mark).await?;
                } else {
                    all_done = false;
                }
            }
        }
    }

    /// The next marked users, with the marks.
    fn marks(&self, after: &[u8]) -> Result<Vec<(String, bytes::Bytes)>, StorageError> {
        use std::ops::Bound::Excluded;
        let end = [keys::PROFILE_SPREAD + 1];
        let range = (Excluded(after), Excluded(&end[..]));
        let marks = self.users.store.scan(range, Direction::Forward, USERS_PER_PASS)?;
        let user = |key: &[u8]| KeyReader::new(key).text().unwrap_or_default();
        Ok(marks.into_iter().map(|(key, entry)| (user(&key), entry.value)).collect())
    }

    /// Removes a mark, unless the profile has changed again meanwhile.
    async fn strike_off(&self, user: String, mark: bytes::Bytes) -> Result<(), UserError> {
        let name = user.clone();
        let decide = move |store: &Store| {
            let key = keys::profile_spread(&name);
            if store.get(&key)?.is_none_or(|entry| entry.value != mark) {
                return Ok(Decision::Keep(()));
            }
            let change = Ops { ops: vec![Op::Delete { key }], announcement: Announcement::Nothing };
            Ok::<_, UserError>(Decision::Write(Box::new(change), ()))
        };
        self.users.change(&user, decide).await
    }

    /// Brings one user's profile into all rooms; says whether none has to be tried again.
    async fn spread(&self, user: &str) -> Result<bool, StorageError> {
        let (Some(account), Ok(user)) = (self.users.account(user)?, UserId::parse(user)) else {
            return Ok(true);
        };
        let update = ProfileUpdate {
            user,
            display_name: account.display_name.clone(),
            avatar_url: account.avatar_url.clone(),
        };
        let mut rooms = self.rooms_to_tell(&update.user, &account)?.into_iter();
        let mut asked = JoinSet::new();
        let mut all_done = true;
        loop {
            while asked.len() < ROOMS_AT_ONCE
                && let Some(room) = rooms.next()
            {
                let (all_rooms, update) = (self.rooms.clone(), update.clone());
                asked.spawn(async move {
                    let asked = all_rooms.update_profile(&room, update);
                    let answer = tokio::time::timeout(PATIENCE, asked).await;
                    answer.is_ok_and(|result| is_settled(&room, result))
                });
            }
            match asked.join_next().await {
                Some(settled) => all_done &= settled.unwrap_or(false),
                None => return Ok(all_done),
            }
        }
    }

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
        for batch in joined.chunks(USERS_PER_PASS) {
            let events: Vec<_> = batch.iter().map(|(_, entry)| entry.event).collect();
            for ((room, _), event) in batch.iter().zip(store.events(&events)?) {
                let said =
                    event.and_then(|event| serde_json::from_slice::<Member>(&event.json).ok());
                if said.is_none_or(|said| said.content != now) {
                    rooms.extend(self.room_id(*room)?);
                }
            }
        }
        Ok(rooms)
    }

    fn room_id(&self, room: RoomNum) -> Result<Option<OwnedRoomId>, StorageError> {
        let head = self.users.store.room_head(room)?;
        Ok(head.and_then(|head| OwnedRoomId::try_from(head.room_id).ok()))
    }
}

/// Whether a room need not be asked again.
fn is_settled(room: &OwnedRoomId, result: Result<(), RoomError>) -> bool {
    match result {
        Ok(()) => true,
        Err(RoomError::Busy | RoomError::Gone | RoomError::Persist(_) | RoomError::Storage(_)) => {
            false
        }
        Err(error) => {
            tracing::warn!(%room, %error, "the room does not take a member's new profile");
            true
        }
    }
}
