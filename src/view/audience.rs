//! Whom a user may know of: those in the same rooms, and those in rooms that anybody may enter or
//! read.

use std::collections::HashSet;

use parlour_event::RoomNum;
use parlour_storage::{StorageError, schema::StoredEvent};
use ruma::UserId;

use super::{View, ViewError};

/// Why a user may know of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tie {
    /// They share a room, or are the same.
    SharedRoom,
    /// The other is in a room that anybody may enter or read.
    OpenRoom,
}

/// The people around one user of this server, in the rooms that the user was in when it was made.
#[derive(Debug)]
pub struct Audience<'a> {
    view: &'a View,
    user: &'a UserId,
    rooms: HashSet<RoomNum>,
}

impl View {
    /// The people around a user of this server.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn audience<'a>(&'a self, user: &'a UserId) -> Result<Audience<'a>, ViewError> {
        let rooms = self.store.joined_rooms(user.as_str())?.into_iter().collect();
        Ok(Audience { view: self, user, rooms })
    }
}

impl Audience<'_> {
    /// Why the user may know of another; `None` if there is no reason.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn tie(&self, other: &str) -> Result<Option<Tie>, ViewError> {
        let is_same = self.user.as_str() == other;
        Ok(if is_same { Some(Tie::SharedRoom) } else { self.place(other)?.map(|(tie, _)| tie) })
    }

    /// Whether the user shares a room with another, or is the same.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn shares_room(&self, other: &str) -> Result<bool, ViewError> {
        let is_mine = |room| self.rooms.contains(room);
        Ok(self.user.as_str() == other || self.rooms_of(other)?.iter().any(is_mine))
    }

    /// Why the user may know of somebody of another server, and the event that says what they are
    /// called where they may meet; `None` if there is no reason.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub(super) fn meeting(&self, other: &str) -> Result<Option<(Tie, StoredEvent)>, ViewError> {
        let Some((tie, room)) = self.place(other)? else { return Ok(None) };
        Ok(self.view.join_of(room, other)?.map(|join| (tie, join)))
    }

    /// Whether somebody is a user of this server.
    pub(super) fn is_local(&self, other: &str) -> bool {
        let server = other.split_once(':').map(|(_, server)| server);
        server == Some(self.user.server_name().as_str())
    }

    /// The rooms that the user is joined to.
    pub(super) fn rooms(&self) -> &HashSet<RoomNum> {
        &self.rooms
    }

    /// Where the user may meet another, best in a room that they share.
    fn place(&self, other: &str) -> Result<Option<(Tie, RoomNum)>, StorageError> {
        let rooms = self.rooms_of(other)?;
        if let Some(shared) = rooms.iter().find(|room| self.rooms.contains(room)) {
            return Ok(Some((Tie::SharedRoom, *shared)));
        }
        let open = self.view.store.open_room_among(&rooms)?;
        Ok(open.map(|room| (Tie::OpenRoom, room)))
    }

    fn rooms_of(&self, other: &str) -> Result<Vec<RoomNum>, StorageError> {
        match self.is_local(other) {
            true => self.view.store.joined_rooms(other),
            false => self.view.store.rooms_with(other),
        }
    }
}
