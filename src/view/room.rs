//! A room as it was at a position.

use std::ops::Bound;

use parlour_event::{
    EventNum, RoomNum, RoomVersion, StateKeyNum, StreamPos,
    state::{self, ReadState as _, StateRoot},
};
use parlour_storage::{
    Direction,
    schema::{EventMeta, RoomHead, StoredEvent, TimelineEntry},
};
use ruma::{OwnedRoomId, RoomId};

use super::{GraphToken, SyncToken, Token, View, ViewError};

/// A room that exists here.
#[derive(Debug, Clone)]
pub struct RoomView {
    /// Its number.
    pub num: RoomNum,
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its version.
    pub version: &'static RoomVersion,
    /// Its newest durable head.
    pub head: RoomHead,
}

/// A room's state: a stored one, or a stored one and what one event changes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateAt {
    /// The stored state.
    pub root: StateRoot,
    /// The event that takes its place in it.
    pub with: Option<(StateKeyNum, EventNum)>,
}

impl View {
    /// The room with this id, if it is known here.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn room(&self, room_id: &RoomId) -> Result<Option<RoomView>, ViewError> {
        match self.store.room_num(room_id.as_str())? {
            Some(num) => self.room_by_num(num),
            None => Ok(None),
        }
    }

    /// The room with this number.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn room_by_num(&self, num: RoomNum) -> Result<Option<RoomView>, ViewError> {
        let Some(head) = self.store.room_head(num)? else { return Ok(None) };
        let Ok(room_id) = OwnedRoomId::try_from(head.room_id.as_str()) else { return Ok(None) };
        let Some(version) = RoomVersion::parse(&head.version) else { return Ok(None) };
        Ok(Some(RoomView { num, room_id, version, head }))
    }

    /// The room's newest timeline entry at or before a position: it has the room's current state
    /// then. `None` before the room's first event.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn room_at(
        &self,
        room: RoomNum,
        pos: StreamPos,
    ) -> Result<Option<(StreamPos, TimelineEntry)>, ViewError> {
        Ok(self.store.timeline_at(room, pos)?)
    }

    /// The number of the event that a state has for a type and state key.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn state_num(
        &self,
        root: StateRoot,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<EventNum>, ViewError> {
        match self.store.state_key_num(event_type, state_key)? {
            Some(key) => Ok(self.nodes.get(root, key)?),
            None => Ok(None),
        }
    }

    /// Whether what is said in a room is to be encrypted.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn is_encrypted(&self, room: &RoomView) -> Result<bool, ViewError> {
        Ok(self.state_num(room.head.state, "m.room.encryption", "")?.is_some())
    }

    /// The event that a state has for a type and state key.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn state_event(
        &self,
        root: StateRoot,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<StoredEvent>, ViewError> {
        match self.state_num(root, event_type, state_key)? {
            Some(num) => Ok(self.store.event(num)?),
            None => Ok(None),
        }
    }

    /// The numbers of all events of a state, members last.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn state_nums(&self, state: impl Into<StateAt>) -> Result<Vec<EventNum>, ViewError> {
        let state = state.into();
        let entries = self.nodes.iter_others(state.root).chain(self.nodes.iter_members(state.root));
        state.collect(entries, |_| true)
    }

    /// The numbers of all `m.room.member` events of a state.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn member_nums(&self, state: impl Into<StateAt>) -> Result<Vec<EventNum>, ViewError> {
        let state = state.into();
        state.collect(self.nodes.iter_members(state.root), StateKeyNum::is_member)
    }

    /// The numbers of all events of a state but the `m.room.member` events.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn other_nums(&self, state: impl Into<StateAt>) -> Result<Vec<EventNum>, ViewError> {
        let state = state.into();
        state.collect(self.nodes.iter_others(state.root), |key| !key.is_member())
    }

    /// The number of the `m.room.member` event that a state has for a user.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn member_num(
        &self,
        state: impl Into<StateAt>,
        user: &str,
    ) -> Result<Option<EventNum>, ViewError> {
        let Some(key) = self.store.state_key_num("m.room.member", user)? else { return Ok(None) };
        let state = state.into();
        match state.with {
            Some((changed, num)) if changed == key => Ok(Some(num)),
            _ => Ok(self.nodes.get(state.root, key)?),
        }
    }

    /// The place in a room's history to which a token points.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn graph_point(&self, room: RoomNum, token: Token) -> Result<GraphToken, ViewError> {
        match token {
            Token::Graph(token) => Ok(token),
            Token::Sync(token) => self.graph_point_at(room, token.pos),
        }
    }

    /// The same for going back from there: as far as what arrived next, so that nothing is passed
    /// over that has been brought in between the two since.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn graph_point_back(&self, room: RoomNum, token: Token) -> Result<GraphToken, ViewError> {
        let point = self.graph_point(room, token)?;
        let Token::Sync(SyncToken { pos, .. }) = token else { return Ok(point) };
        let range = (Bound::Excluded(pos), Bound::Unbounded);
        let next = self.store.timeline(room, range, Direction::Forward, 1)?.pop();
        let next = next.map(|(_, entry)| self.store.event_meta(entry.event)).transpose()?.flatten();
        Ok(next.map_or(point, |next| point.max(GraphToken::before(next.depth, next.pos))))
    }

    /// The place in a room's history that has all on its older side that had arrived at a
    /// position.
    pub(super) fn graph_point_at(
        &self,
        room: RoomNum,
        pos: StreamPos,
    ) -> Result<GraphToken, ViewError> {
        let Some((pos, newest)) = self.store.timeline_at(room, pos)? else {
            return self.before_timeline(room);
        };
        let meta = self.store.event_meta(newest.event)?;
        Ok(meta.map_or(GraphToken::default(), |meta| GraphToken::after(meta.depth, pos)))
    }

    /// The place just before a room's first event here. What happened in the room before this
    /// server came into it is on its older side.
    fn before_timeline(&self, room: RoomNum) -> Result<GraphToken, ViewError> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let first = self.store.timeline(room, all, Direction::Forward, 1)?.pop();
        let Some((_, first)) = first else { return Ok(GraphToken::default()) };
        let meta = self.store.event_meta(first.event)?;
        Ok(meta.map_or(GraphToken::default(), |meta| GraphToken::before(meta.depth, meta.pos)))
    }
}

impl StateAt {
    /// The state after an event along its own branch of history.
    #[must_use]
    pub fn after(num: EventNum, meta: &EventMeta) -> Self {
        let counts = !meta.flags.rejected;
        let with = meta.state_key.filter(|_| counts).map(|key| (key, num));
        Self { root: meta.state_before, with }
    }

    fn collect<E>(
        self,
        entries: impl Iterator<Item = Result<state::Entry, E>>,
        wanted: impl Fn(StateKeyNum) -> bool,
    ) -> Result<Vec<EventNum>, ViewError>
    where
        ViewError: From<E>,
    {
        let changed = self.with.filter(|(key, _)| wanted(*key));
        let kept = entries.filter_map(|entry| match entry {
            Ok((key, _)) if changed.is_some_and(|(changed, _)| changed == key) => None,
            Ok((_, num)) => Some(Ok(num)),
            Err(error) => Some(Err(error.into())),
        });
        kept.chain(changed.map(|(_, num)| Ok(num))).collect()
    }
}

impl From<StateRoot> for StateAt {
    fn from(root: StateRoot) -> Self {
        Self { root, with: None }
    }
}
