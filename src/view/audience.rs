//! Whom a user may know of: those in the same rooms, and those in rooms that anybody may enter or
//! read.

use std::collections::{HashMap, HashSet};

use parlour_event::{
    RoomNum,
    content::{JoinRule, JoinRulesContent},
    visibility::HistoryVisibility,
};
use parlour_storage::schema::StoredEvent;
use ruma::UserId;

use super::{View, ViewError};

/// How many rooms of one user are looked at to find one that is open.
const MAX_ROOMS: usize = 1_000;

/// How many member events are read to find people of other servers, in one request.
const MAX_LOOKS: usize = 20_000;

/// Why a user may know of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tie {
    /// They share a room, or are the same.
    SharedRoom,
    /// The other is in a room that anybody may enter or read.
    OpenRoom,
}

/// The people around one user. Remembers what it has looked up, so make one per request.
#[derive(Debug)]
pub struct Audience<'a> {
    view: &'a View,
    user: &'a UserId,
    rooms: HashSet<RoomNum>,
    open: HashMap<RoomNum, bool>,
    /// Where other servers are, shared rooms first.
    rooms_of_servers: HashMap<String, Vec<RoomNum>>,
    looks: usize,
}

impl View {
    /// The people around a user.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn audience<'a>(&'a self, user: &'a UserId) -> Result<Audience<'a>, ViewError> {
        let rooms = self.joined_rooms(user.as_str())?.collect();
        let (open, rooms_of_servers) = (HashMap::new(), HashMap::new());
        Ok(Audience { view: self, user, rooms, open, rooms_of_servers, looks: 0 })
    }

    /// The rooms that a user is joined to.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn joined_rooms(
        &self,
        user: &str,
    ) -> Result<impl Iterator<Item = RoomNum> + use<>, ViewError> {
        let memberships = self.store.memberships(user)?.into_iter();
        Ok(memberships.filter(|(_, entry)| entry.membership == "join").map(|(room, _)| room))
    }

    fn is_open(&self, room: RoomNum) -> Result<bool, ViewError> {
        let Some(room) = self.room_by_num(room)? else { return Ok(false) };
        let rules = self.current(&room, "m.room.join_rules", "")?;
        let rules = JoinRulesContent::new(rules.as_ref().map(|rules| rules.content()));
        if rules.join_rule() == JoinRule::Public {
            return Ok(true);
        }
        let visibility = self.current(&room, "m.room.history_visibility", "")?;
        let content = visibility.as_ref().map(|visibility| visibility.content());
        Ok(HistoryVisibility::from_content(content) == HistoryVisibility::WorldReadable)
    }
}

impl Audience<'_> {
    /// Why the user may know of another; `None` if there is no reason.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn tie(&mut self, other: &str) -> Result<Option<Tie>, ViewError> {
        if self.shares_room(other)? {
            return Ok(Some(Tie::SharedRoom));
        }
        for room in self.view.joined_rooms(other)?.take(MAX_ROOMS) {
            if self.is_open(room)? {
                return Ok(Some(Tie::OpenRoom));
            }
        }
        Ok(None)
    }

    /// Why the user may know of somebody of another server, and the event that says what they are
    /// called where they may meet; `None` if there is no reason, or too much has been looked at.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub(super) fn meeting(&mut self, other: &str) -> Result<Option<(Tie, StoredEvent)>, ViewError> {
        let server = other.split_once(':').map_or("", |(_, server)| server);
        for room in self.rooms_of_server(server)? {
            let tie = match self.rooms.contains(&room) {
                true => Tie::SharedRoom,
                false if self.is_open(room)? => Tie::OpenRoom,
                false => continue,
            };
            if self.looks >= MAX_LOOKS {
                break;
            }
            self.looks += 1;
            if let Some(join) = self.view.join_of(room, other)? {
                return Ok(Some((tie, join)));
            }
        }
        Ok(None)
    }

    fn rooms_of_server(&mut self, server: &str) -> Result<Vec<RoomNum>, ViewError> {
        if let Some(rooms) = self.rooms_of_servers.get(server) {
            return Ok(rooms.clone());
        }
        let stays = self.view.store.rooms_of_server(server, (RoomNum(0), None), MAX_ROOMS)?;
        let there = stays.into_iter().filter(|(_, until)| until.is_none());
        let mut rooms: Vec<_> = there.map(|(room, _)| room).collect();
        rooms.sort_by_key(|room| !self.rooms.contains(room));
        self.rooms_of_servers.insert(server.to_owned(), rooms.clone());
        Ok(rooms)
    }

    fn is_open(&mut self, room: RoomNum) -> Result<bool, ViewError> {
        if let Some(open) = self.open.get(&room) {
            return Ok(*open);
        }
        let open = self.view.is_open(room)?;
        self.open.insert(room, open);
        Ok(open)
    }

    /// Whether the user shares a room with another, or is the same.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn shares_room(&self, other: &str) -> Result<bool, ViewError> {
        let view = self.view;
        if self.user.as_str() == other
            || view.joined_rooms(other)?.any(|room| self.rooms.contains(&room))
        {
            return Ok(true);
        }
        let is_ours = |other: &UserId| other.server_name() == self.user.server_name();
        if <&UserId>::try_from(other).map_or(true, is_ours)
            || view.store.state_key_num("m.room.member", other)?.is_none()
        {
            return Ok(false);
        }
        let mut rooms = self.rooms.iter().take(MAX_ROOMS);
        rooms.try_fold(false, |found, room| Ok(found || view.is_joined(*room, other)?))
    }
}
