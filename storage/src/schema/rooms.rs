//! Rooms and events in the index, and the reads that everyone needs.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;
use parlour_event::{
    EventNum, Pdu, RoomNum, RoomVersion, StateKeyNum, StreamPos, json, state::StateRoot,
};
use ruma::OwnedEventId;
use serde::{Deserialize, Serialize};

use super::{
    codec::{Stored, decode_number},
    keys::{self, KeyReader},
};
use crate::{Direction, Entry, StorageError, Store, events::Known};

/// What came of the checks on an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFlags {
    /// The auth rules refused it: it is in no state and in no client's timeline.
    pub rejected: bool,
    /// Allowed where it stands, refused by the current state: kept, but not shown to clients.
    pub soft_failed: bool,
    /// Known without its place in the graph, as part of somebody's auth chain.
    pub outlier: bool,
    /// A redaction that is not carried out, or whose target is not here: kept from clients, which
    /// would carry it out.
    pub withheld: bool,
}

impl EventFlags {
    /// Whether clients may get the event at all.
    #[must_use]
    pub fn is_visible(self) -> bool {
        !(self.rejected || self.soft_failed || self.outlier)
    }
}

/// What Parlour knows of an event besides the event itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventMeta {
    /// The event id.
    pub event_id: String,
    /// The room.
    pub room: RoomNum,
    /// When it arrived; 0 for an outlier.
    pub pos: StreamPos,
    /// Where it stands in the room's history, before its position: its depth in the graph, but
    /// for an event of the timeline no less than that of what had arrived before.
    pub depth: u64,
    /// The room's state before the event, along its own branch of history.
    pub state_before: StateRoot,
    /// Its place in the state, if it is a state event.
    pub state_key: Option<StateKeyNum>,
    /// The events that allow it.
    pub auth_events: Vec<EventNum>,
    /// What came of the checks.
    pub flags: EventFlags,
    /// The redaction that was applied to it; the stored body is the redacted form then.
    pub redacted_because: Option<EventNum>,
    /// What the client that sent it has said, to be shown to that device alone.
    pub transaction: Option<SentAs>,
}

/// The client's transaction that made an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentAs {
    /// The device.
    pub device: String,
    /// The client's id of it.
    pub txn_id: String,
    /// Under which its answer is kept.
    pub hash: [u8; 16],
}

impl Stored for EventMeta {}

/// An event as the index gives it.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its number.
    pub num: EventNum,
    /// What is known of it.
    pub meta: EventMeta,
    /// The PDU in federation format, canonical JSON.
    pub json: Bytes,
}

impl StoredEvent {
    /// The event, parsed.
    ///
    /// # Errors
    ///
    /// [`StorageError::Value`] if what is stored is not an event of this room version.
    pub fn pdu(&self, version: &RoomVersion) -> Result<Pdu, StorageError> {
        let unreadable = |what: String| StorageError::Value {
            key: keys::readable(&keys::event(self.num)),
            what,
        };
        let event_id = OwnedEventId::try_from(self.meta.event_id.as_str())
            .map_err(|error| unreadable(error.to_string()))?;
        let json = json::parse_object(version, &self.json)
            .map_err(|error| unreadable(error.to_string()))?;
        Pdu::from_trusted(version, event_id, json).map_err(|error| unreadable(error.to_string()))
    }
}

/// A room's event in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// The event.
    pub event: EventNum,
    /// The room's current state once this event was taken in (all branches merged).
    pub state_after: StateRoot,
    /// Joined members then.
    pub joined: u64,
    /// Invited members then.
    pub invited: u64,
    /// Whether events before it were missing when it arrived: what stands before it in the timeline
    /// is not all that came before it.
    pub after_gap: bool,
}

impl Stored for TimelineEntry {}

/// What a room actor needs to go on after a sleep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomHead {
    /// The room id.
    pub room_id: String,
    /// The room version.
    pub version: String,
    /// The create event.
    pub create: EventNum,
    /// The events that nothing follows yet.
    pub extremities: Vec<EventNum>,
    /// The room's current state.
    pub state: StateRoot,
    /// Joined members.
    pub joined: u64,
    /// Invited members.
    pub invited: u64,
    /// The [depth](EventMeta::depth) of the timeline's newest event.
    pub depth: u64,
    /// The position of the room's newest commit.
    pub pos: StreamPos,
    /// Whether parts of the state are still unknown after a join with omitted members.
    pub partial_state: bool,
}

impl Stored for RoomHead {}

/// A user's relation to a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipEntry {
    /// The `membership` of the user's current member event.
    pub membership: String,
    /// That event; 0 if this server has none because it is not in the room.
    pub event: EventNum,
    /// When it became current.
    pub pos: StreamPos,
}

impl Stored for MembershipEntry {}

/// Where a room alias leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasEntry {
    /// The room.
    pub room: RoomNum,
    /// Who made the alias.
    pub creator: String,
}

impl Stored for AliasEntry {}

/// A place in a room's graph order: depth, then position.
pub type GraphPlace = (u64, StreamPos);

/// Decodes an entry's inline part.
pub(super) fn decode_entry<T: Stored>(
    key: &[u8],
    entry: Option<Entry>,
) -> Result<Option<T>, StorageError> {
    entry.map(|entry| T::decode(key, &entry.value)).transpose()
}

impl Store {
    /// Reads a typed value.
    ///
    /// # Errors
    ///
    /// If the index cannot be read or holds something else there.
    pub fn typed<T: Stored>(&self, key: &[u8]) -> Result<Option<T>, StorageError> {
        decode_entry(key, self.get(key)?)
    }

    /// The number of an event id.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn event_num(&self, event_id: &str) -> Result<Option<EventNum>, StorageError> {
        let key = keys::event_id(event_id);
        let entry = self.get(&key)?;
        Ok(entry.map(|entry| decode_number(&key, &entry.value)).transpose()?.map(EventNum))
    }

    /// What is known of an event, without its body.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn event_meta(&self, num: EventNum) -> Result<Option<EventMeta>, StorageError> {
        self.typed(&keys::event(num))
    }

    /// An event with its body.
    ///
    /// # Errors
    ///
    /// If the index or the log cannot be read.
    pub fn event(&self, num: EventNum) -> Result<Option<StoredEvent>, StorageError> {
        Ok(self.events(&[num])?.pop().flatten())
    }

    /// Several events with their bodies, in the order asked for.
    ///
    /// # Errors
    ///
    /// If the index or the log cannot be read.
    pub fn events(&self, nums: &[EventNum]) -> Result<Vec<Option<StoredEvent>>, StorageError> {
        let cache = &self.shared.events;
        let mut found = Vec::with_capacity(nums.len());
        let mut missing = Vec::new();
        for (index, num) in nums.iter().enumerate() {
            found.push(match cache.get(*num) {
                Known::Event(event) => Some(StoredEvent::clone(&event)),
                Known::Nothing(ticket) => {
                    missing.push((index, *num, ticket));
                    None
                }
            });
        }
        let read: Vec<_> = missing.iter().map(|(_, num, _)| *num).collect();
        for ((index, _, ticket), event) in missing.into_iter().zip(self.read_events(&read)?) {
            if let (Some(ticket), Some(event)) = (ticket, &event) {
                // By itself: the body may be a piece of something larger. Without effect if the event
                // has been written meanwhile.
                let json = Bytes::copy_from_slice(&event.json);
                drop(ticket.insert(Arc::new(StoredEvent { json, ..event.clone() })));
            }
            if let Some(place) = found.get_mut(index) {
                *place = event;
            }
        }
        Ok(found)
    }

    fn read_events(&self, nums: &[EventNum]) -> Result<Vec<Option<StoredEvent>>, StorageError> {
        let keys: Vec<_> = nums.iter().map(|num| keys::event(*num)).collect();
        let entries = self.multi_get(&keys)?;
        let places: Vec<_> = entries.iter().flatten().filter_map(|entry| entry.blob).collect();
        let mut bodies = self.blobs(&places)?.into_iter();
        nums.iter()
            .zip(&keys)
            .zip(entries)
            .map(|((num, key), entry)| {
                let Some(entry) = entry else { return Ok(None) };
                let json =
                    entry.blob.and_then(|_| bodies.next()).ok_or_else(|| StorageError::Value {
                        key: keys::readable(key),
                        what: "the event has no body".to_owned(),
                    })?;
                Ok(Some(StoredEvent {
                    num: *num,
                    meta: EventMeta::decode(key, &entry.value)?,
                    json,
                }))
            })
            .collect()
    }

    /// The number of a room id.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn room_num(&self, room_id: &str) -> Result<Option<RoomNum>, StorageError> {
        let key = keys::room_id(room_id);
        let entry = self.get(&key)?;
        Ok(entry.map(|entry| decode_number(&key, &entry.value)).transpose()?.map(RoomNum))
    }

    /// A room's head.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn room_head(&self, room: RoomNum) -> Result<Option<RoomHead>, StorageError> {
        self.typed(&keys::room(room))
    }

    /// The number of a `(type, state_key)` pair, if any event ever had it.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn state_key_num(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<StateKeyNum>, StorageError> {
        let key = keys::state_key(event_type, state_key);
        let entry = self.get(&key)?;
        Ok(entry.map(|entry| decode_number(&key, &entry.value)).transpose()?.map(StateKeyNum))
    }

    /// A user's relation to a room.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn membership(
        &self,
        user: &str,
        room: RoomNum,
    ) -> Result<Option<MembershipEntry>, StorageError> {
        self.typed(&keys::membership(user, room))
    }

    /// The position of the membership that the user has forgotten, if the user has forgotten the
    /// room. A newer membership makes it void.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn forgotten(&self, user: &str, room: RoomNum) -> Result<Option<StreamPos>, StorageError> {
        let key = keys::forgotten(user, room);
        let entry = self.get(&key)?;
        Ok(entry.map(|entry| decode_number(&key, &entry.value)).transpose()?.map(StreamPos))
    }

    /// All rooms that a user has a relation to.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn memberships(&self, user: &str) -> Result<Vec<(RoomNum, MembershipEntry)>, StorageError> {
        let prefix = keys::memberships_of(user);
        self.scan_prefix(&prefix, Direction::Forward, usize::MAX)?
            .into_iter()
            .map(|(key, entry)| {
                let room = KeyReader::new(key.get(prefix.len() - 1..).unwrap_or_default()).number();
                Ok((
                    RoomNum(room.unwrap_or_default()),
                    MembershipEntry::decode(&key, &entry.value)?,
                ))
            })
            .collect()
    }

    /// The servers that have joined members in a room, in alphabetical order, with how many each:
    /// at most `most`.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn servers_in_room(
        &self,
        room: RoomNum,
        most: usize,
    ) -> Result<Vec<(String, u64)>, StorageError> {
        let prefix = keys::servers_in_room(room);
        let entries = self.scan_prefix(&prefix, Direction::Forward, most)?.into_iter();
        entries
            .map(|(key, entry)| {
                let mut reader = KeyReader::new(&key);
                let server = reader.number().and_then(|_room| reader.text()).unwrap_or_default();
                Ok((server, decode_number(&key, &entry.value)?))
            })
            .collect()
    }

    /// How many users of a server are joined to a room.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn joined_from(&self, room: RoomNum, server: &str) -> Result<u64, StorageError> {
        let key = keys::server_in_room(room, server);
        let entry = self.get(&key)?;
        entry.map_or(Ok(0), |entry| decode_number(&key, &entry.value))
    }

    /// A room's events in the order of arrival (or against it), positions within `range`.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn timeline(
        &self,
        room: RoomNum,
        range: (Bound<StreamPos>, Bound<StreamPos>),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(StreamPos, TimelineEntry)>, StorageError> {
        let low = position_bound(range.0, StreamPos(0), |pos| keys::timeline(room, pos));
        let high = position_bound(range.1, StreamPos(u64::MAX), |pos| keys::timeline(room, pos));
        let range = (low.as_ref().map(|key| &key[..]), high.as_ref().map(|key| &key[..]));
        self.scan(range, direction, limit)?
            .into_iter()
            .map(|(key, entry)| {
                let mut reader = KeyReader::new(&key);
                let pos = reader.number().and_then(|_room| reader.number()).unwrap_or_default();
                Ok((StreamPos(pos), TimelineEntry::decode(&key, &entry.value)?))
            })
            .collect()
    }

    /// What a room's timeline has at positions, in their order.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn timeline_of(
        &self,
        room: RoomNum,
        positions: &[StreamPos],
    ) -> Result<Vec<(StreamPos, TimelineEntry)>, StorageError> {
        let keys: Vec<_> = positions.iter().map(|pos| keys::timeline(room, *pos)).collect();
        let entries = self.multi_get(&keys)?.into_iter();
        let entries = positions.iter().zip(&keys).zip(entries).filter_map(|((pos, key), entry)| {
            entry.map(|entry| Ok((*pos, TimelineEntry::decode(key, &entry.value)?)))
        });
        entries.collect()
    }

    /// The newest entry of a room's timeline at or before a position.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn timeline_at(
        &self,
        room: RoomNum,
        pos: StreamPos,
    ) -> Result<Option<(StreamPos, TimelineEntry)>, StorageError> {
        let range = (Bound::Unbounded, Bound::Included(pos));
        Ok(self.timeline(room, range, Direction::Backward, 1)?.pop())
    }

    /// A room's events in the order of its history (or against it): `(depth, position)` within
    /// `range`.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn graph(
        &self,
        room: RoomNum,
        range: (Bound<GraphPlace>, Bound<GraphPlace>),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(GraphPlace, EventNum)>, StorageError> {
        let build = |(depth, pos)| keys::graph(room, depth, pos);
        let low = position_bound(range.0, (0, StreamPos(0)), build);
        let high = position_bound(range.1, (u64::MAX, StreamPos(u64::MAX)), build);
        let range = (low.as_ref().map(|key| &key[..]), high.as_ref().map(|key| &key[..]));
        self.scan(range, direction, limit)?
            .into_iter()
            .map(|(key, entry)| {
                let mut reader = KeyReader::new(&key);
                let mut next = || reader.number().unwrap_or_default();
                let (_room, depth, pos) = (next(), next(), next());
                Ok(((depth, StreamPos(pos)), EventNum(decode_number(&key, &entry.value)?)))
            })
            .collect()
    }
}

/// Turns a bound on positions into a bound on keys; an open end stays within the room.
fn position_bound<P>(bound: Bound<P>, end: P, key: impl Fn(P) -> Bytes) -> Bound<Bytes> {
    match bound {
        Bound::Included(pos) => Bound::Included(key(pos)),
        Bound::Excluded(pos) => Bound::Excluded(key(pos)),
        Bound::Unbounded => Bound::Included(key(end)),
    }
}
