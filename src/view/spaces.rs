//! Walking through spaces: a room, then the rooms in it, each with all that is in it.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#discovering-rooms-within-spaces>

mod pages;

use std::collections::HashSet;

use parlour_event::{EventNum, RoomNum, StateKeyNum, state::ReadState as _};
use parlour_storage::schema::{StoredEvent, keys, keys::KeyReader};
use ruma::{
    OwnedRoomId, UserId,
    api::client::space::SpaceHierarchyRoomsChunk,
    events::space::child::{HierarchySpaceChildEvent, SpaceChildOrd},
    room::RoomType,
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

pub use self::pages::{Pages, Terms, UnknownToken};
use super::{Fields, RoomView, View, ViewError};

/// How many children of one space count, the first in their order.
const MAX_CHILDREN: usize = 1_000;

/// How many rooms may wait to be looked at.
const MAX_WAITING: usize = 10_000;

/// How many rooms are looked at for one page, most of which may not be for the user's eyes.
const MAX_LOOKED_AT: usize = 1_000;

/// How many events or keys are read at once.
const BATCH: usize = 500;

/// A walk that may be interrupted after each room.
#[derive(Debug, Clone)]
pub struct Walk {
    /// Rooms to come, the next one last, with how deep they are.
    waiting: Vec<(RoomNum, u64)>,
    /// Rooms that have been come by: no room is shown twice, and loops end.
    seen: HashSet<RoomNum>,
}

/// How a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// How deep; the first room is at 0.
    pub max_depth: u64,
    /// Whether only children count that are suggested.
    pub suggested_only: bool,
}

/// A child of a space, with its place among the others.
struct Child {
    event: HierarchySpaceChildEvent,
    json: Raw<HierarchySpaceChildEvent>,
}

#[derive(Serialize)]
struct ChildEvent<'a> {
    content: &'a RawValue,
    origin_server_ts: u64,
    sender: &'a str,
    state_key: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
}

impl Walk {
    /// A walk that begins at a room.
    #[must_use]
    pub fn from(room: RoomNum) -> Self {
        Self { waiting: vec![(room, 0)], seen: HashSet::new() }
    }

    /// Whether there is nothing more to be seen.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.waiting.iter().all(|(room, _)| self.seen.contains(room))
    }

    /// Roughly how much memory it takes, in rooms.
    fn weight(&self) -> usize {
        self.waiting.len() + self.seen.len()
    }

    /// The next room that has not been come by.
    fn next(&mut self) -> Option<(RoomNum, u64)> {
        loop {
            let (room, depth) = self.waiting.pop()?;
            if self.seen.insert(room) {
                return Some((room, depth));
            }
        }
    }
}

impl View {
    /// At most `limit` rooms further on a walk, of those that the user may see.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn walk(
        &self,
        walk: &mut Walk,
        user: &UserId,
        reach: Reach,
        limit: usize,
    ) -> Result<Vec<SpaceHierarchyRoomsChunk>, ViewError> {
        let mut rooms = Vec::new();
        let mut looked_at = 0;
        while rooms.len() < limit && looked_at < MAX_LOOKED_AT {
            let Some((num, depth)) = walk.next() else { break };
            looked_at += 1;
            let Some(room) = self.room_by_num(num)? else { continue };
            let summary = self.preview(&room)?;
            if self.is_banned(&room, user)? || !self.may_preview(&room, &summary, Some(user))? {
                continue;
            }
            let mut children = Vec::new();
            if summary.room_type == Some(RoomType::Space) {
                children = self.children_of(&room, reach.suggested_only)?;
            }
            if depth < reach.max_depth {
                self.go_deeper(walk, &children, depth + 1)?;
            }
            let children = children.into_iter().map(|child| child.json).collect();
            rooms.push(SpaceHierarchyRoomsChunk::new(summary, children));
        }
        Ok(rooms)
    }

    fn is_banned(&self, room: &RoomView, user: &UserId) -> Result<bool, ViewError> {
        use parlour_event::content::Membership;
        Ok(self.membership_of(room, user)? == Some(Membership::Ban))
    }

    /// The children that are known here, so that the first of them is the next room.
    fn go_deeper(&self, walk: &mut Walk, children: &[Child], depth: u64) -> Result<(), ViewError> {
        let room_ids = children.iter().map(|child| child.event.state_key.as_str());
        let keys: Vec<_> = room_ids.map(keys::room_id).collect();
        let found = self.store.multi_get(&keys)?;
        let room = found.iter().flatten().filter_map(|entry| entry.value.first_chunk::<8>());
        let rooms = room.map(|bytes| RoomNum(u64::from_be_bytes(*bytes)));
        let mut rooms: Vec<_> = rooms.filter(|room| !walk.seen.contains(room)).collect();
        rooms.truncate(MAX_WAITING.saturating_sub(walk.waiting.len()));
        walk.waiting.extend(rooms.into_iter().rev().map(|room| (room, depth)));
        Ok(())
    }

    /// The events that make rooms the children of this one, at most a thousand; none if it is not
    /// a space.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn space_children(&self, room: &RoomView) -> Result<Vec<StoredEvent>, ViewError> {
        if self.preview(room)?.room_type != Some(RoomType::Space) {
            return Ok(Vec::new());
        }
        let mut nums = self.child_nums(room)?;
        nums.truncate(MAX_CHILDREN);
        let events = self.store.events(&nums)?.into_iter().flatten();
        Ok(events.filter(|event| Child::of(event).is_some()).collect())
    }

    /// The children of a space in their order.
    fn children_of(&self, room: &RoomView, suggested_only: bool) -> Result<Vec<Child>, ViewError> {
        let mut children = Vec::new();
        for nums in self.child_nums(room)?.chunks(BATCH) {
            let events = self.store.events(nums)?;
            children.extend(events.iter().flatten().filter_map(Child::of));
        }
        children.retain(|child| child.event.content.suggested || !suggested_only);
        children.sort_by(|a, b| a.event.cmp_space_child(&b.event));
        children.truncate(MAX_CHILDREN);
        Ok(children)
    }

    /// The numbers of all `m.space.child` events in a room's state: the keys are read for all of
    /// the state, the events for these alone.
    fn child_nums(&self, room: &RoomView) -> Result<Vec<EventNum>, ViewError> {
        let entries = self.nodes.iter_others(room.head.state);
        let entries = entries.collect::<Result<Vec<(StateKeyNum, EventNum)>, _>>()?;
        let mut nums = Vec::new();
        for entries in entries.chunks(BATCH) {
            let keys: Vec<_> = entries.iter().map(|(key, _)| keys::state_key_name(*key)).collect();
            for ((_, num), name) in entries.iter().zip(self.store.multi_get(&keys)?) {
                // The name is the key of the same keyspace the other way round, without its
                // first byte.
                let name = name.map(|name| [&[keys::STATE_KEY], &name.value[..]].concat());
                let event_type = name.and_then(|name| KeyReader::new(&name).text());
                if event_type.as_deref() == Some("m.space.child") {
                    nums.push(*num);
                }
            }
        }
        Ok(nums)
    }
}

impl Child {
    /// A child, if the event makes its room one: it has a `via`, and a room id for its key.
    fn of(event: &StoredEvent) -> Option<Self> {
        let fields = Fields::of(event).ok()?;
        let state_key = fields.state_key.as_deref()?;
        OwnedRoomId::try_from(state_key).ok()?;
        let json = to_raw_value(&ChildEvent {
            content: fields.content,
            origin_server_ts: fields.origin_server_ts,
            sender: &fields.sender,
            state_key,
            event_type: &fields.event_type,
        });
        let json: Raw<HierarchySpaceChildEvent> = Raw::from_json(json.ok()?);
        Some(Self { event: json.deserialize().ok()?, json })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn children_come_in_the_order_of_the_specification() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spec/test-vectors.json");
        let text = std::fs::read_to_string(file).unwrap();
        let vectors: Value = serde_json::from_str(&text).unwrap();
        let vectors = &vectors["space_child_order"];
        let mut children: Vec<_> =
            vectors["children"].as_array().unwrap().iter().map(parse).collect();
        children.sort_by(SpaceChildOrd::cmp_space_child);
        let order: Vec<_> = children.iter().map(|child| json!(child.state_key)).collect();
        assert_eq!(json!(order), vectors["expected_order"]);
    }

    fn parse(child: &Value) -> HierarchySpaceChildEvent {
        let mut child = child.clone();
        child["sender"] = json!("@a:example.org");
        serde_json::from_value(child).unwrap()
    }

    #[test]
    fn orders_that_are_not_valid_count_as_none() {
        let child = |room: &str, order: Value, ts: u64| {
            parse(&json!({ "type": "m.space.child", "state_key": room, "origin_server_ts": ts,
                "content": { "via": ["example.org"], "order": order } }))
        };
        let mut children = [
            child("!late:x", json!("a".repeat(51)), 9),
            child("!number:x", json!(1), 8),
            child("!umlaut:x", json!("\u{e4}"), 7),
            child("!same2:x", json!("m"), 5),
            child("!same1:x", json!("m"), 5),
            child("!tilde:x", json!("~"), 1),
            child("!earlier:x", json!("m"), 4),
        ];
        children.sort_by(SpaceChildOrd::cmp_space_child);
        let order = children.each_ref().map(|child| child.state_key.as_str());
        let expected =
            ["!earlier:x", "!same1:x", "!same2:x", "!tilde:x", "!umlaut:x", "!number:x", "!late:x"];
        assert_eq!(order, expected);
    }
}
