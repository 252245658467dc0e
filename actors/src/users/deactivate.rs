//! The end of an account. The name stays taken; whatever else belongs to the user is deleted, and
//! the user leaves all rooms, in the background.

use std::sync::Arc;

use parlour_event::{StreamPos, content::Membership, json::Value};
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{User, keys, keys::KeyReader},
};
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use tokio::sync::Notify;

use super::{
    Decision, UserError, Users,
    accounts::put_account,
    chores::{Chore, Progress, ask_rooms},
    keys::{KeyNews, Touched},
    sessions::remove_all,
};
use crate::{
    commit::At,
    delayed,
    presence::Presence,
    registry::Rooms,
    room::messages::{LocalEvent, RoomError},
};

/// From where there is something to leave.
const INSIDE: &[Membership] = &[Membership::Join, Membership::Invite, Membership::Knock];

/// Where all that begins with the user's id is the user's own.
const OWN: [u8; 7] = [
    keys::ACCOUNT_DATA,
    keys::ACCOUNT_FEED,
    keys::FILTER,
    keys::THREAD_SUBSCRIPTION,
    keys::THREAD_SUBSCRIPTION_FEED,
    keys::E2EE,
    keys::KEY_BACKUP,
];

impl Users {
    /// Ends an account; says whether there is such an account. Who is `erase`d as well is not
    /// heard by those any more who were not there when it spoke.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn deactivate(&self, user: &str, erase: bool) -> Result<bool, UserError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            let old = store.typed::<User>(&keys::user(&name))?;
            let Some(old) = old else { return Ok(Decision::Keep(false)) };
            let left = User { created_ts: old.created_ts, deactivated: true, ..User::default() };
            let mut deleted = Vec::new();
            delete_data(store, &name, &mut deleted)?;
            let touched = Touched::by(store, &name, &deleted)?;
            let news = KeyNews::of(store, &name, touched)?;
            let open = store.open_words_of(&name)?;
            let change = At(move |pos: StreamPos, ops: &mut Vec<Op>| {
                let mark = || pos.0.to_be_bytes().to_vec().into();
                ops.extend(deleted);
                put_account(&name, Some(&old), &left, open, ops);
                ops.push(Op::Put { key: keys::departure(&name), value: mark() });
                if erase {
                    ops.push(Op::Put { key: keys::erased(&name), value: mark() });
                }
                news.write(pos, ops)
            });
            Ok::<_, UserError>(Decision::Write(Box::new(change), true))
        };
        let is_there = self.change(user, decide).await?;
        self.departures.notify_one();
        Ok(is_there)
    }

    /// Begins to lead deactivated users out of their rooms.
    pub(crate) fn lead_out(&self, rooms: Rooms, presence: Presence) {
        let departures: &Arc<Notify> = &self.departures;
        self.begin(Departures { users: self.clone(), rooms, presence }, departures);
    }
}

/// Devices, account data and the like, and what was to be carried or sent into rooms.
fn delete_data(store: &Store, user: &str, ops: &mut Vec<Op>) -> Result<(), StorageError> {
    remove_all(store, user, None, ops)?;
    delayed::remove_all(store, user, ops)?;
    let own = [keys::profile_spread, keys::guest, keys::presence, keys::online];
    ops.extend(own.map(|key| Op::Delete { key: key(user) }));
    for keyspace in OWN {
        let prefix = keys::KeyBuilder::new(keyspace).text(user).build();
        let entries = store.scan_prefix(&prefix, Direction::Forward, usize::MAX)?;
        ops.extend(entries.into_iter().map(|(key, _)| Op::Delete { key }));
    }
    Ok(())
}

struct Departures {
    users: Users,
    rooms: Rooms,
    presence: Presence,
}

impl Chore for Departures {
    const MARKS: u8 = keys::DEPARTURE;
    const NAME: &'static str = "leading deactivated users out of rooms";

    async fn perform(&self, mark: &[u8]) -> Result<Progress, StorageError> {
        let user = KeyReader::new(mark).text().unwrap_or_default();
        let Ok(user) = UserId::parse(&user) else { return Ok(Progress::Done) };
        // Who is active again stays.
        let account = self.users.account(user.as_str())?;
        if account.is_none_or(|account| !account.deactivated) {
            return Ok(Progress::Done);
        }
        // First, while those who should know are in the same rooms still.
        self.presence.gone(user.as_str());
        let mut inside = Vec::new();
        for (room, entry) in self.users.store.memberships(user.as_str())? {
            if matches!(entry.membership.as_str(), "join" | "invite" | "knock") {
                inside.extend(self.users.room_id(room)?);
            }
        }
        let ask = |room: OwnedRoomId| {
            let (rooms, user) = (self.rooms.clone(), user.clone());
            async move { leave(&rooms, &room, user).await }
        };
        Ok(Progress::of(ask_rooms(inside, ask).await))
    }
}

/// Leaves a room, or rejects its invite.
pub(super) async fn leave(
    rooms: &Rooms,
    room: &OwnedRoomId,
    user: OwnedUserId,
) -> Result<(), RoomError> {
    let membership = Value::from(Membership::Leave.as_str());
    let event = LocalEvent {
        state_key: Some(user.to_string()),
        sender: user,
        event_type: "m.room.member".to_owned(),
        content: [("membership".to_owned(), membership)].into_iter().collect(),
        redacts: None,
        transaction: None,
        timestamp: None,
    };
    match rooms.depart(room, event, INSIDE).await {
        // Left already, or banned.
        Ok(_) | Err(RoomError::WrongMembership { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
