//! The rooms that two users share.

use parlour_event::RoomNum;
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
        let mut shared = self.store.joined_rooms(user.as_str())?;
        let others = match other.server_name() == own_name {
            true => self.store.joined_rooms(other.as_str())?,
            false => self.store.rooms_with(other.as_str())?,
        };
        shared.retain(|room| others.binary_search(room).is_ok());
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
}
