//! What a user may read of a room as a whole.

use parlour_event::{
    StreamPos, content::Membership, state::StateRoot, visibility::HistoryVisibility,
};
use ruma::{DeviceId, RoomId, UserId};

use super::{
    GraphToken, Reader, View, ViewError,
    reader::{LastJoin, Place},
};

/// Why a user may read a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The user is in it.
    Joined,
    /// The user was in it once.
    Departed {
        /// When the user's last join ended.
        left: StreamPos,
        /// Behind this there is nothing that the user could see; `None` if there may be.
        until: Option<GraphToken>,
    },
    /// Anybody may read it.
    Anybody,
    /// The user is invited, and who is invited may see messages, but not the room's state.
    Invited,
}

/// What a user may read of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Why.
    pub standing: Standing,
    /// The newest state that counts for the user.
    pub state: StateRoot,
}

impl Access {
    /// Whether the room's state may be read, and not messages alone.
    #[must_use]
    pub fn to_state(&self) -> bool {
        self.standing != Standing::Invited
    }

    /// Behind this place in the history there is nothing that the user could see.
    #[must_use]
    pub fn until(&self) -> Option<GraphToken> {
        match self.standing {
            Standing::Departed { until, .. } => until,
            Standing::Joined | Standing::Anybody | Standing::Invited => None,
        }
    }
}

impl View {
    /// A user's eyes on a room; `None` if the room is not known here.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn reader(
        &self,
        room_id: &RoomId,
        user: &UserId,
        device: Option<&DeviceId>,
    ) -> Result<Option<Reader>, ViewError> {
        self.room(room_id)?.map(|room| Reader::new(self, room, user, device)).transpose()
    }
}

impl Reader {
    /// What the user may read of the room as a whole; `None` if nothing. Single events may still
    /// be visible then, from a time when anybody could read the room.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn access(&mut self) -> Result<Option<Access>, ViewError> {
        let state = self.room().head.state;
        let visibility = self.visibility_in(state)?;
        let standing = match self.last_join()? {
            LastJoin::Now => Standing::Joined,
            LastJoin::Ended(place) => return self.departed(place, visibility).map(Some),
            LastJoin::Never if visibility == HistoryVisibility::WorldReadable => Standing::Anybody,
            LastJoin::Never => {
                let invited = self.membership_in(state)? == Some(Membership::Invite);
                if !invited || visibility != HistoryVisibility::Invited {
                    return Ok(None);
                }
                Standing::Invited
            }
        };
        Ok(Some(Access { standing, state }))
    }

    fn departed(&self, end: Place, visibility: HistoryVisibility) -> Result<Access, ViewError> {
        let (_, left) = end;
        let room = self.room().num;
        let entry = self.view().room_at(room, left)?;
        let until = match visibility {
            HistoryVisibility::WorldReadable => None,
            _ => Some(self.view().graph_point_at(room, left)?),
        };
        Ok(Access {
            standing: Standing::Departed { left, until },
            state: entry.map_or(StateRoot::EMPTY, |(_, entry)| entry.state_after),
        })
    }
}
