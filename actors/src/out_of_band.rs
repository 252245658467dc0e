//! Out-of-band memberships: invites and knocks of local users at rooms that this server is not in.
//!
//! Nothing of such a room is known but what another server tells. So the user's membership points
//! to no event, and what was told stands beside it. As soon as the server comes into the room, the
//! memberships in the room's state take the place of these.

use std::{fmt, sync::Arc};

use parlour_event::{EventNum, RoomNum, StreamPos, content::Membership};
use parlour_storage::{
    Op, StorageError, Store,
    schema::{MembershipEntry, OutOfBandEntry, Stored as _, keys},
};
use ruma::{RoomId, UserId};

use crate::{
    commit::{Announcement, At, Ops},
    interner::Interner,
    users::{Decision, UserError, Users},
};

/// How others reach these memberships. Cheap to clone.
#[derive(Clone)]
pub struct OutOfBand {
    store: Store,
    /// Its actors serialise the changes of one user, and those of one room's number.
    users: Users,
    interner: Arc<Interner>,
}

impl fmt::Debug for OutOfBand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutOfBand")
    }
}

impl OutOfBand {
    pub(crate) fn new(store: Store, users: Users, interner: Arc<Interner>) -> Self {
        Self { store, users, interner }
    }

    /// A user's membership of a room that this server is not in.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn membership(
        &self,
        user: &UserId,
        room: &RoomId,
    ) -> Result<Option<(Membership, OutOfBandEntry)>, StorageError> {
        let Some(num) = self.store.room_num(room.as_str())? else { return Ok(None) };
        let entry = self.store.membership(user.as_str(), num)?;
        let Some(entry) = entry.filter(MembershipEntry::is_out_of_band) else { return Ok(None) };
        let membership = Membership::parse(&entry.membership);
        Ok(membership.zip(self.store.out_of_band(num, user.as_str())?))
    }

    /// The number of a room; a new one, if nothing here ever had to do with the room.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn room_num(&self, room: &RoomId) -> Result<RoomNum, UserError> {
        let (id, interner) = (room.to_string(), self.interner.clone());
        let decide = move |store: &Store| {
            if let Some(num) = store.room_num(&id)? {
                return Ok::<_, UserError>(Decision::Keep(num));
            }
            let num = interner.new_room();
            let change = At(move |_: StreamPos, ops: &mut Vec<Op>| {
                let value = num.0.to_be_bytes().to_vec().into();
                ops.push(Op::Put { key: keys::room_id(&id), value });
                // No head keeps the number from being given out again after a restart.
                ops.extend(interner.remember_numbers());
                Announcement::Nothing
            });
            Ok(Decision::Write(Box::new(change), num))
        };
        self.users.change(room.as_str(), decide).await
    }

    /// Notes what a user's membership of a room now is. The caller sees to it that this server
    /// does not come into the room meanwhile.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn note(
        &self,
        user: &UserId,
        room: &RoomId,
        membership: Membership,
        entry: OutOfBandEntry,
    ) -> Result<(), UserError> {
        let (num, name) = (self.room_num(room).await?, user.to_string());
        let decide = move |_: &Store| {
            let change = At(move |pos: StreamPos, ops: &mut Vec<Op>| {
                let membership = membership.as_str().to_owned();
                let event = EventNum::default();
                let points = MembershipEntry { membership: membership.clone(), event, pos };
                let (key, value) = (keys::membership(&name, num), points.encode());
                ops.extend([entry.put(num, &name), Op::Put { key, value }]);
                Announcement::OutOfBand { room: num, user: name, membership }
            });
            Ok::<_, UserError>(Decision::Write(Box::new(change), ()))
        };
        self.users.change(user.as_str(), decide).await
    }

    /// Lets go of what was told about a room, once the server is in it. Whether that happens makes
    /// no difference to anybody.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn settle(&self, user: &UserId, room: &RoomId) -> Result<(), UserError> {
        let (name, room) = (user.to_string(), room.to_string());
        let decide = move |store: &Store| {
            let Some(num) = store.room_num(&room)? else { return Ok(Decision::Keep(())) };
            let entry = store.membership(&name, num)?;
            let key = keys::out_of_band(num, &name);
            if entry.is_none_or(|entry| entry.is_out_of_band()) || store.get(&key)?.is_none() {
                return Ok::<_, UserError>(Decision::Keep(()));
            }
            let (ops, announcement) = (vec![Op::Delete { key }], Announcement::Nothing);
            Ok(Decision::Write(Box::new(Ops { ops, announcement }), ()))
        };
        self.users.change(user.as_str(), decide).await
    }
}
