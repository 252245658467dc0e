//! The rooms that two users share.

use parlour_event::{RoomNum, content::Membership};
use ruma::{OwnedRoomId, ServerName, UserId};

use super::{View, ViewError};

/// Some of the rooms that two users share.
#[derive(Debug)]
pub struct MutualRooms {
    /// These.
    pub rooms: Vec<OwnedRoomId>,
    /// How many there are altogether.
    pub count: usize,
    /// The room after which the others come, if there are any.
    pub next: Option<RoomNum>,
}

impl View {
    /// At most `limit` of the rooms that both users are joined to, those after `from`, in the
    /// order in which this server got to know them. `own_name` is this server's.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn mutual_rooms(
        &self,
        user: &UserId,
        other: &UserId,
        own_name: &ServerName,
        (from, limit): (RoomNum, usize),
    ) -> Result<MutualRooms, ViewError> {
        let mut shared = self.joined_rooms_of(user)?;
        if other.server_name() == own_name {
            let others = self.joined_rooms_of(other)?;
            shared.retain(|room| others.binary_search(room).is_ok());
        } else {
            let mut found = Vec::new();
            for room in shared {
                if self.is_joined_to(room, other)? {
                    found.push(room);
                }
            }
            shared = found;
        }
        let start = shared.partition_point(|room| *room <= from);
        let rest = shared.get(start..).unwrap_or_default();
        let page = rest.get(..limit.min(rest.len())).unwrap_or_default();
        let mut rooms = Vec::with_capacity(page.len());
        for num in page {
            rooms.extend(self.room_by_num(*num)?.map(|room| room.room_id));
        }
        let next = page.last().copied().filter(|_| rest.len() > limit);
        Ok(MutualRooms { rooms, count: shared.len(), next })
    }

    /// A local user's rooms, by number.
    fn joined_rooms_of(&self, user: &UserId) -> Result<Vec<RoomNum>, ViewError> {
        let all = self.store.memberships(user.as_str())?.into_iter();
        let joined = all.filter(|(_, entry)| entry.membership == "join");
        let mut rooms: Vec<_> = joined.map(|(room, _)| room).collect();
        rooms.sort_unstable();
        Ok(rooms)
    }

    fn is_joined_to(&self, room: RoomNum, user: &UserId) -> Result<bool, ViewError> {
        let Some(room) = self.room_by_num(room)? else { return Ok(false) };
        Ok(self.membership_of(&room, user)? == Some(Membership::Join))
    }
}
