//! One server's eyes on one room that it is in.
//!
//! A server gets what any of its users may see, and of other events what a redaction leaves: their
//! places in the graph, and hashes and signatures that can be checked. State goes out whole, since
//! `/state` gives it to the same server at any event.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

use std::collections::HashMap;

use bytes::Bytes;
use parlour_event::{
    EventNum, StateKeyNum,
    content::Membership,
    json, redaction,
    state::{ReadState as _, StateRoot},
    visibility::{self, AtEvent, HistoryVisibility},
};
use parlour_storage::{
    Direction,
    schema::{
        EventMeta, Stored as _, StoredEvent,
        keys::{self, KeyReader},
    },
};
use ruma::{OwnedServerName, ServerName};
use serde_json::value::RawValue;

use super::{
    Fields, RoomView, View, ViewError,
    reader::{membership_of, visibility_of},
    time,
};

/// How many keys are read at once.
const BATCH: usize = 500;

/// How many of a server's users in one room are looked at. What none of them may see comes redacted.
const MAX_USERS: usize = 5_000;

/// How many events are looked at on the way to one that may be seen.
const MAX_LOOKED_AT: usize = 4_096;

/// Judges events of one room for one server that is in it. Remembers what it has looked up, so make
/// one per request.
#[derive(Debug)]
pub struct Resident {
    pub(super) view: View,
    pub(super) room: RoomView,
    server: OwnedServerName,
    visibility_key: Option<StateKeyNum>,
    /// Where in a state the memberships of the server's users are; looked up when needed.
    users: Option<Vec<StateKeyNum>>,
    visibilities: HashMap<StateRoot, HistoryVisibility>,
    /// The best membership that a user of the server has in a state.
    standings: HashMap<StateRoot, Option<Membership>>,
    memberships: HashMap<EventNum, Option<Membership>>,
    erased: HashMap<String, bool>,
}

impl View {
    /// A server's eyes on a room.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn resident(&self, room: RoomView, server: &ServerName) -> Result<Resident, ViewError> {
        Ok(Resident {
            view: self.clone(),
            room,
            server: server.to_owned(),
            visibility_key: self.store.state_key_num("m.room.history_visibility", "")?,
            users: None,
            visibilities: HashMap::new(),
            standings: HashMap::new(),
            memberships: HashMap::new(),
            erased: HashMap::new(),
        })
    }
}

impl Resident {
    /// The room.
    #[must_use]
    pub fn room(&self) -> &RoomView {
        &self.room
    }

    /// What it reads with.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Whether an event may go out at all: it belongs to the room and was not rejected. What is
    /// known without its place in the graph is state, or nobody could ask for it.
    #[must_use]
    pub fn may_have(&self, meta: &EventMeta) -> bool {
        meta.room == self.room.num
            && !meta.flags.rejected
            && (!meta.flags.outlier || meta.state_key.is_some())
    }

    /// Whether a user of the server may see an event.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn may_see(&mut self, event: &StoredEvent) -> Result<bool, ViewError> {
        if event.meta.state_key.is_some() {
            return Ok(true);
        }
        let state = event.meta.state_before;
        let visibility = AtEvent::unchanged(self.visibility_in(state)?);
        // The server is in the room, so somebody has joined since.
        if visibility::may_see(visibility, AtEvent::unchanged(None), true) {
            return Ok(true);
        }
        let membership = AtEvent::unchanged(self.standing_in(state)?);
        Ok(visibility::may_see(visibility, membership, true))
    }

    /// An event as the server gets it.
    ///
    /// # Errors
    ///
    /// If storage cannot be read or the event is not one.
    pub fn pdu(&mut self, event: &StoredEvent) -> Result<Box<RawValue>, ViewError> {
        let whole = event.meta.state_key.is_some()
            || (self.may_see(event)? && !self.is_erased(&Fields::of(event)?.sender)?);
        if whole {
            let bytes = wire_bytes(event)?;
            return serde_json::from_slice(&bytes).map_err(|error| unreadable(event, error));
        }
        let object = parse(&self.room, event)?;
        raw(event, json::Value::Object(redaction::redact(self.room.version, object)))
    }

    /// The event nearest to a time, in milliseconds since the epoch, of those that the server may
    /// see, with the time that it bears.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn nearest(
        &mut self,
        at: u64,
        direction: Direction,
    ) -> Result<Option<(StoredEvent, u64)>, ViewError> {
        let mut from = std::ops::Bound::Included(time::edge(at, direction));
        for _ in 0..MAX_LOOKED_AT / time::BATCH {
            let range = time::range(from, direction);
            let store = self.view.store.clone();
            let places = store.events_by_time(self.room.num, range, direction, time::BATCH)?;
            let nums: Vec<_> = places.iter().map(|(_, num)| *num).collect();
            for ((at, _), event) in places.iter().zip(store.events(&nums)?) {
                let Some(event) = event else { continue };
                if event.meta.flags.is_visible() && self.may_see(&event)? {
                    return Ok(Some((event, *at)));
                }
            }
            match places.last() {
                Some(last) if places.len() == time::BATCH => {
                    from = std::ops::Bound::Excluded(*last)
                }
                _ => break,
            }
        }
        Ok(None)
    }

    /// Whether a user of the server is invited now.
    pub(super) fn is_invited(&mut self) -> Result<bool, ViewError> {
        if self.room.head.invited == 0 {
            return Ok(false);
        }
        Ok(self.standing_in(self.room.head.state)? == Some(Membership::Invite))
    }

    fn visibility_in(&mut self, state: StateRoot) -> Result<HistoryVisibility, ViewError> {
        if let Some(known) = self.visibilities.get(&state) {
            return Ok(*known);
        }
        let num = self.num_in(state, self.visibility_key)?;
        let event = num.map(|num| self.view.store.event(num)).transpose()?.flatten();
        let found = event.as_ref().map(visibility_of).transpose()?.unwrap_or_default();
        self.visibilities.insert(state, found);
        Ok(found)
    }

    /// Joined, invited, or nothing that matters.
    fn standing_in(&mut self, state: StateRoot) -> Result<Option<Membership>, ViewError> {
        if let Some(known) = self.standings.get(&state) {
            return Ok(*known);
        }
        let users = match self.users.take() {
            Some(known) => known,
            None => self.find_users()?,
        };
        let mut best = None;
        for key in &users {
            match self.membership_in(state, *key)? {
                Some(Membership::Join) => {
                    best = Some(Membership::Join);
                    break;
                }
                Some(Membership::Invite) => best = Some(Membership::Invite),
                _ => {}
            }
        }
        self.users = Some(users);
        self.standings.insert(state, best);
        Ok(best)
    }

    fn membership_in(
        &mut self,
        state: StateRoot,
        key: StateKeyNum,
    ) -> Result<Option<Membership>, ViewError> {
        let Some(num) = self.num_in(state, Some(key))? else { return Ok(None) };
        if let Some(known) = self.memberships.get(&num) {
            return Ok(*known);
        }
        let event = self.view.store.event(num)?;
        let membership = event.as_ref().map(membership_of).transpose()?.flatten();
        self.memberships.insert(num, membership);
        Ok(membership)
    }

    fn num_in(
        &self,
        state: StateRoot,
        key: Option<StateKeyNum>,
    ) -> Result<Option<EventNum>, ViewError> {
        key.map_or(Ok(None), |key| Ok(self.view.nodes.get(state, key)?))
    }

    /// The server's users who are or were in the room: a membership never leaves the state again.
    fn find_users(&self) -> Result<Vec<StateKeyNum>, ViewError> {
        let members = self.view.nodes.iter_members(self.room.head.state);
        let members = members.map(|entry| entry.map(|(key, _)| key));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        let mut users = Vec::new();
        for batch in members.chunks(BATCH) {
            let keys: Vec<_> = batch.iter().map(|key| keys::state_key_name(*key)).collect();
            for (key, name) in batch.iter().zip(self.view.store.multi_get(&keys)?) {
                let name = name.map(|name| [&[keys::STATE_KEY], &name.value[..]].concat());
                let user = name.and_then(|name| {
                    let mut reader = KeyReader::new(&name);
                    reader.text().and_then(|_type| reader.text())
                });
                let server = user.as_deref().and_then(|user| user.split_once(':'));
                if server.is_some_and(|(_, server)| server == self.server.as_str()) {
                    users.push(*key);
                }
            }
            if users.len() >= MAX_USERS {
                break;
            }
        }
        Ok(users)
    }

    fn is_erased(&mut self, user: &str) -> Result<bool, ViewError> {
        if let Some(known) = self.erased.get(user) {
            return Ok(*known);
        }
        let is_erased = self.view.store.get(&keys::erased(user))?.is_some();
        self.erased.insert(user.to_owned(), is_erased);
        Ok(is_erased)
    }

    /// Those of some events that have a place in the room's graph here.
    pub(super) fn placed<'a>(
        &self,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<StoredEvent>, ViewError> {
        let keys: Vec<_> = ids.map(keys::event_id).collect();
        let found = self.view.store.multi_get(&keys)?;
        let nums = found.iter().flatten().filter_map(|entry| entry.value.first_chunk::<8>());
        let nums: Vec<_> = nums.map(|bytes| EventNum(u64::from_be_bytes(*bytes))).collect();
        let events = self.view.store.events(&nums)?.into_iter().flatten();
        let here = |meta: &EventMeta| meta.room == self.room.num && !meta.flags.outlier;
        Ok(events.filter(|event| here(&event.meta)).collect())
    }
}

impl View {
    /// All events that have to do with these being allowed, without themselves (unless they allow
    /// one another): the auth events, theirs, and so on.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn auth_chain(&self, room: &RoomView, of: &[EventNum]) -> Result<Vec<EventNum>, ViewError> {
        let mut chain = std::collections::BTreeSet::new();
        let mut next = of.to_vec();
        while !next.is_empty() {
            let mut found = Vec::new();
            for batch in next.chunks(BATCH) {
                let keys: Vec<_> = batch.iter().map(|num| keys::event(*num)).collect();
                for (key, entry) in keys.iter().zip(self.store.multi_get(&keys)?) {
                    let Some(entry) = entry else { continue };
                    let meta = EventMeta::decode(key, &entry.value)?;
                    found.extend(meta.auth_events.into_iter().filter(|num| chain.insert(*num)));
                }
            }
            next = found;
        }
        // The create event need not be named where the room's id names it.
        let is_implied = room.version.rules().authorization.room_create_event_id_as_room_id;
        if is_implied && of.iter().any(|num| *num != room.head.create) {
            chain.insert(room.head.create);
        }
        Ok(chain.into_iter().collect())
    }
}

/// A stored event in federation format, byte by byte, without what servers add for themselves.
///
/// # Errors
///
/// If it is not an event.
pub fn wire_bytes(event: &StoredEvent) -> Result<Bytes, ViewError> {
    // Few have the word at all.
    if !event.json.windows(UNSIGNED.len()).any(|bytes| bytes == UNSIGNED) {
        return Ok(event.json.clone());
    }
    // What was taken in was strict enough for its room version.
    let parsed = json::parse_lax(&event.json).map_err(|error| unreadable(event, error))?;
    let json::Value::Object(mut object) = parsed else {
        return Err(unreadable(event, "it is no object"));
    };
    object.remove("unsigned");
    Ok(json::to_canonical(&json::Value::Object(object)).into())
}

const UNSIGNED: &[u8] = br#""unsigned""#;

fn parse(room: &RoomView, event: &StoredEvent) -> Result<json::Object, ViewError> {
    json::parse_object(room.version, &event.json).map_err(|error| unreadable(event, error))
}

fn raw(event: &StoredEvent, value: json::Value) -> Result<Box<RawValue>, ViewError> {
    RawValue::from_string(json::to_canonical_string(&value))
        .map_err(|error| unreadable(event, error))
}

fn unreadable(event: &StoredEvent, error: impl std::fmt::Display) -> ViewError {
    ViewError::Event { event_id: event.meta.event_id.clone(), what: error.to_string() }
}

#[cfg(test)]
mod tests;
