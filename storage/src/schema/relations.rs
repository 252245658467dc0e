//! Events that relate to others, and threads, in the index.
//!
//! Parents are named by event id and not by number: a child may be known before its parent. Children
//! are ordered as the graph is, by depth and position, so that one token leads through both. Threads
//! are ordered by depth and number of their latest reply: nothing else has that order, and a room
//! knows it before the reply has a position.

use std::ops::Bound;

use bytes::Bytes;
use parlour_event::{EventNum, RoomNum, StreamPos, content::RelationKind};
use serde::{Deserialize, Serialize};

use super::{
    codec::{Stored, decode_number},
    keys::{self, KeyBuilder},
    rooms::GraphPlace,
};
use crate::{Direction, StorageError, Store};

/// A place among events that stand under a number, their depth or their time, and then under their
/// own.
pub type NumberedPlace = (u64, EventNum);

type Range<P> = (Bound<P>, Bound<P>);

/// A place, the whole key and the value.
type Found<P> = (P, Bytes, Bytes);

/// How an event's children are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationGroup {
    /// Those that relate to it with this kind of relation.
    Direct(RelationKind),
    /// Those that relate to one of its children, and so on.
    Indirect,
}

impl RelationGroup {
    /// All groups of direct children.
    pub const DIRECT: [Self; 5] = [
        Self::Direct(RelationKind::Replace),
        Self::Direct(RelationKind::Annotation),
        Self::Direct(RelationKind::Thread),
        Self::Direct(RelationKind::Reference),
        Self::Direct(RelationKind::Other),
    ];

    fn byte(self) -> u8 {
        match self {
            Self::Direct(RelationKind::Replace) => b'e',
            Self::Direct(RelationKind::Annotation) => b'a',
            Self::Direct(RelationKind::Thread) => b't',
            Self::Direct(RelationKind::Reference) => b'r',
            Self::Direct(RelationKind::Other) => b'o',
            Self::Indirect => b'i',
        }
    }
}

/// An event that relates to another one, perhaps by way of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationEntry {
    /// The event.
    pub event: EventNum,
    /// Who sent it.
    pub sender: String,
    /// Its `rel_type`.
    pub rel_type: String,
    /// Its `type`.
    pub event_type: String,
    /// The events between it and the ancestor, nearest to the ancestor first.
    pub via: Vec<Hop>,
}

impl Stored for RelationEntry {}

/// An event between another one and its ancestor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The event.
    pub event: EventNum,
    /// Its `rel_type`.
    pub rel_type: String,
    /// Its `type`.
    pub event_type: String,
}

/// What is known of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadEntry {
    /// How many replies there are.
    pub count: u64,
    /// Depth and number of the latest reply.
    pub latest: NumberedPlace,
}

impl Stored for ThreadEntry {}

/// [`keys::RELATION`]: whether an event has children that are aggregated.
#[must_use]
pub fn aggregated(room: RoomNum, parent: &str) -> Bytes {
    children(room, parent).build()
}

/// [`keys::RELATION`]: one child, in the [group](relations) whose keys begin like this.
#[must_use]
pub fn relation(group: &[u8], (depth, pos): GraphPlace) -> Bytes {
    KeyBuilder::within(group).number(depth).number(pos.0).build()
}

/// The common start of the keys of a group of children.
#[must_use]
pub fn relations(room: RoomNum, parent: &str, group: RelationGroup) -> Bytes {
    children(room, parent).kind(group.byte()).build()
}

fn children(room: RoomNum, parent: &str) -> KeyBuilder {
    KeyBuilder::new(keys::RELATION).number(room.0).text(parent)
}

/// [`keys::RELATION_OF_USER`]: a user's edit of an event.
#[must_use]
pub fn edit(room: RoomNum, parent: &str, user: &str, time: u64, event_id: &str) -> Bytes {
    of_user(room, parent, user).kind(b'e').number(time).raw(event_id.as_bytes()).build()
}

/// The common start of the keys of a user's edits of an event, which are in the order in which
/// later ones win.
#[must_use]
pub fn edits(room: RoomNum, parent: &str, user: &str) -> Bytes {
    of_user(room, parent, user).kind(b'e').build()
}

/// [`keys::RELATION_OF_USER`]: a user's annotation of an event.
#[must_use]
pub fn annotation(
    room: RoomNum,
    parent: &str,
    user: &str,
    hash: &[u8; 16],
    num: EventNum,
) -> Bytes {
    of_user(room, parent, user).kind(b'a').raw(hash).number(num.0).build()
}

/// The common start of the keys of all annotations that say the same.
#[must_use]
pub fn annotations(room: RoomNum, parent: &str, user: &str, hash: &[u8; 16]) -> Bytes {
    of_user(room, parent, user).kind(b'a').raw(hash).build()
}

/// [`keys::RELATION_OF_USER`]: how many replies a user has in a thread.
#[must_use]
pub fn replies_of_user(room: RoomNum, root: &str, user: &str) -> Bytes {
    of_user(room, root, user).kind(b't').build()
}

fn of_user(room: RoomNum, parent: &str, user: &str) -> KeyBuilder {
    KeyBuilder::new(keys::RELATION_OF_USER).number(room.0).text(parent).text(user)
}

/// [`keys::THREAD`], by root.
#[must_use]
pub fn thread(room: RoomNum, root: &str) -> Bytes {
    KeyBuilder::new(keys::THREAD).number(room.0).kind(b'r').text(root).build()
}

/// [`keys::THREAD`], by the latest reply.
#[must_use]
pub fn thread_order(room: RoomNum, (depth, num): NumberedPlace) -> Bytes {
    KeyBuilder::new(keys::THREAD).number(room.0).kind(b'o').number(depth).number(num.0).build()
}

/// [`keys::EVENT_TIME`]
#[must_use]
pub fn event_time(room: RoomNum, time: u64, num: EventNum) -> Bytes {
    KeyBuilder::new(keys::EVENT_TIME).number(room.0).number(time).number(num.0).build()
}

impl Store {
    /// A group of an event's children within `range`, in the order of history or against it.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn relations(
        &self,
        (room, parent): (RoomNum, &str),
        group: RelationGroup,
        range: Range<GraphPlace>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(GraphPlace, RelationEntry)>, StorageError> {
        let group = relations(room, parent, group);
        let key = |place| relation(&group, place);
        let found = self.places(StreamPos, key, range, direction, limit)?.into_iter();
        found.map(|(place, key, value)| Ok((place, RelationEntry::decode(&key, &value)?))).collect()
    }

    /// A room's threads with their roots, in the order of their latest replies or against it.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn threads(
        &self,
        room: RoomNum,
        range: Range<NumberedPlace>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(NumberedPlace, String)>, StorageError> {
        let key = |place| thread_order(room, place);
        let found = self.places(EventNum, key, range, direction, limit)?;
        let root = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        Ok(found.into_iter().map(|(place, _, value)| (place, root(&value))).collect())
    }

    /// A room's events by the time that they bear, within `range` of times.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn events_by_time(
        &self,
        room: RoomNum,
        range: Range<NumberedPlace>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<NumberedPlace>, StorageError> {
        let key = |(time, num)| event_time(room, time, num);
        let found = self.places(EventNum, key, range, direction, limit)?;
        Ok(found.into_iter().map(|(place, ..)| place).collect())
    }

    /// A user's valid edits of an event, the one that counts first.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn newest_edits(
        &self,
        room: RoomNum,
        parent: &str,
        user: &str,
        limit: usize,
    ) -> Result<Vec<EventNum>, StorageError> {
        let found = self.scan_prefix(&edits(room, parent, user), Direction::Backward, limit)?;
        let num = |(key, entry): (Bytes, crate::Entry)| decode_number(&key, &entry.value);
        found.into_iter().map(|found| num(found).map(EventNum)).collect()
    }

    /// Keys that end with a number and what a second one stands for.
    fn places<T>(
        &self,
        second: fn(u64) -> T,
        key: impl Fn((u64, T)) -> Bytes,
        range: Range<(u64, T)>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Found<(u64, T)>>, StorageError> {
        let bound = |bound: Bound<(u64, T)>, end| match bound {
            Bound::Unbounded => Bound::Included(key((end, second(end)))),
            bound => bound.map(&key),
        };
        let (low, high) = (bound(range.0, 0), bound(range.1, u64::MAX));
        let range = (low.as_ref().map(|key| &key[..]), high.as_ref().map(|key| &key[..]));
        let found = self.scan(range, direction, limit)?.into_iter();
        let place = |key: &Bytes| {
            let (first, last) = keys::last_numbers(key).unwrap_or_default();
            (first, second(last))
        };
        Ok(found.map(|(key, entry)| (place(&key), key, entry.value)).collect())
    }
}
