//! What operators keep: reports, tokens, rooms for notices, and orders about rooms.

use parlour_event::RoomNum;
use serde::{Deserialize, Serialize};

use super::codec::Stored;

/// A room that was made for something: to talk to a user, to take another's place. It is written
/// in the record with which the room comes to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeRoom {
    /// The room id.
    pub room_id: String,
}

impl Stored for MadeRoom {}

/// Something that a user finds inappropriate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What.
    pub subject: ReportSubject,
    /// Who finds it so.
    pub reporter: String,
    /// Why.
    pub reason: Option<String>,
    /// When, milliseconds since the epoch.
    pub ts: u64,
}

impl Stored for Report {}

/// What a report is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReportSubject {
    /// An event.
    Event {
        /// Its room.
        room_id: String,
        /// The event.
        event_id: String,
        /// Who sent it.
        sender: String,
    },
    /// A whole room.
    Room {
        /// The room.
        room_id: String,
    },
    /// A user.
    User {
        /// The user.
        user_id: String,
    },
}

impl ReportSubject {
    /// The room that it is about, if there is one.
    #[must_use]
    pub fn room_id(&self) -> Option<&str> {
        match self {
            Self::Event { room_id, .. } | Self::Room { room_id } => Some(room_id),
            Self::User { .. } => None,
        }
    }

    /// The event that it is about, if there is one.
    #[must_use]
    pub fn event_id(&self) -> Option<&str> {
        match self {
            Self::Event { event_id, .. } => Some(event_id),
            Self::Room { .. } | Self::User { .. } => None,
        }
    }

    /// The user who is reported, if there is one.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        match self {
            Self::Event { sender, .. } => Some(sender),
            Self::User { user_id } => Some(user_id),
            Self::Room { .. } => None,
        }
    }
}

/// A token that opens the registration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationToken {
    /// For how many accounts, if not for any number.
    pub uses_allowed: Option<u64>,
    /// Until when, in milliseconds since the epoch, if not for ever.
    pub expiry_time: Option<u64>,
    /// For how many accounts it has been used.
    pub completed: u64,
}

impl Stored for RegistrationToken {}

/// A room that nobody may enter from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedRoom {
    /// The administrator who blocked it.
    pub by: String,
}

impl Stored for BlockedRoom {}

/// An order to delete a room, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// The room's id.
    pub room_id: String,
    /// The room's number.
    pub room: RoomNum,
    /// Where its members go, if anywhere.
    pub replacement: Option<Replacement>,
    /// Whether nothing shall be left of it.
    pub purge: bool,
    /// Whether members who cannot be removed are no hindrance to that.
    pub force_purge: bool,
    /// How far it has come.
    pub status: DeletionStatus,
    /// The users who were removed.
    pub kicked: Vec<String>,
    /// The users who could not be.
    pub failed: Vec<String>,
    /// The aliases that led to the room.
    pub aliases: Vec<String>,
    /// The room that took its place.
    pub new_room_id: Option<String>,
    /// When it was ordered, and later when it was over, milliseconds since the epoch.
    pub ts: u64,
}

impl Stored for Deletion {}

/// A room that takes the place of a deleted one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// Who makes it.
    pub creator: String,
    /// Its name.
    pub name: String,
    /// What its members are told.
    pub message: String,
}

/// How far a deletion has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletionStatus {
    /// It has not begun.
    Scheduled,
    /// It is under way.
    Active,
    /// It is done.
    Complete,
    /// It could not be done, and why.
    Failed(String),
}

impl DeletionStatus {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Complete | Self::Failed(_))
    }
}
