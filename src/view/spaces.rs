//! Walking through spaces: a room, then the rooms in it, each with all that is in it.
//!
//! A walk only reads. Where it comes to a room that this server is not in it stops, and goes on
//! with what another server has told.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#discovering-rooms-within-spaces>

mod pages;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parlour_event::{EventNum, StateKeyNum, state::ReadState as _};
use parlour_storage::schema::{StoredEvent, keys, keys::KeyReader};
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId,
    api::{
        client::space::SpaceHierarchyRoomsChunk,
        federation::space::get_hierarchy::v1::Response as Hierarchy,
    },
    events::space::child::{HierarchySpaceChildEvent, SpaceChildOrd},
    room::{RoomSummary, RoomType},
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

/// How many servers that may know a room are remembered on the way to it.
const MAX_VIA: usize = 5;

/// A walk that may be interrupted after each room.
#[derive(Debug, Clone, Default)]
pub struct Walk {
    /// Rooms to come, the next one last.
    waiting: Vec<Stop>,
    /// Rooms that have been come by: no room is shown twice, and loops end.
    seen: HashSet<OwnedRoomId>,
}

/// A room on the way.
#[derive(Debug, Clone)]
pub struct Stop {
    /// The room.
    pub room: OwnedRoomId,
    /// Who may know it.
    pub via: Vec<OwnedServerName>,
    depth: u64,
    /// What the server that told of its parent has said of it.
    told: Option<Arc<RoomSummary>>,
}

/// What a walk has come by until it stopped.
#[derive(Debug, Default)]
pub struct Leg {
    /// The rooms that the user may see.
    pub rooms: Vec<SpaceHierarchyRoomsChunk>,
    /// A room of which another server has to tell, if that is why it stopped.
    pub ask: Option<Stop>,
}

/// Who walks.
#[derive(Debug, Clone)]
pub struct Walker {
    /// The user.
    pub user: OwnedUserId,
    /// This server.
    pub home: OwnedServerName,
    /// How far, and along which children.
    pub reach: Reach,
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
    /// A walk that begins at a room; if the room is not known here, these servers may know it.
    #[must_use]
    pub fn from(room: OwnedRoomId, via: Vec<OwnedServerName>) -> Self {
        let first = Stop { room, via, depth: 0, told: None };
        Self { waiting: vec![first], seen: HashSet::new() }
    }

    /// Whether there is nothing more to be seen.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.waiting.iter().all(|stop| self.seen.contains(&stop.room))
    }

    /// Leaves a room that nobody could tell of for later.
    pub fn put_back(&mut self, stop: Stop) {
        self.seen.remove(&stop.room);
        self.waiting.push(stop);
    }

    /// Roughly how much memory it takes, in rooms.
    fn weight(&self) -> usize {
        self.waiting.len() + self.seen.len()
    }

    /// The next room that has not been come by.
    fn next(&mut self) -> Option<Stop> {
        loop {
            let stop = self.waiting.pop()?;
            if self.seen.insert(stop.room.clone()) {
                return Some(stop);
            }
        }
    }

    /// Puts children first, so that the first of them is the next room.
    fn go_deeper(
        &mut self,
        walker: &Walker,
        parent: &Stop,
        children: &[Child],
        told: &[RoomSummary],
    ) {
        if parent.depth >= walker.reach.max_depth {
            return;
        }
        let told: HashMap<_, _> = told.iter().map(|summary| (&summary.room_id, summary)).collect();
        let mut stops = Vec::new();
        for child in children {
            let room = child.event.state_key.clone();
            if self.seen.contains(&room) {
                continue;
            }
            let via = child.event.content.via.iter().filter(|server| **server != walker.home);
            let via = via.take(MAX_VIA).cloned().collect();
            let told = told.get(&room).map(|summary| Arc::new((*summary).clone()));
            stops.push(Stop { room, via, depth: parent.depth + 1, told });
        }
        stops.truncate(MAX_WAITING.saturating_sub(self.waiting.len()));
        self.waiting.extend(stops.into_iter().rev());
    }
}

impl View {
    /// Walks on until there are `limit` rooms of those that the user may see, or another server has
    /// to tell of one.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn walk(&self, walk: &mut Walk, walker: &Walker, limit: usize) -> Result<Leg, ViewError> {
        let mut leg = Leg::default();
        let mut looked_at = 0;
        while leg.rooms.len() < limit && looked_at < MAX_LOOKED_AT {
            let Some(stop) = walk.next() else { break };
            looked_at += 1;
            if stop.via.is_empty() || self.is_home(&stop.room, &walker.home)? {
                leg.rooms.extend(self.show(walk, walker, &stop)?);
                continue;
            }
            match &stop.told {
                // Nothing is in it, so there is nothing more to be told.
                Some(told) if told.room_type != Some(RoomType::Space) => {
                    if self.may_preview_told(told, &walker.user)? {
                        let summary = RoomSummary::clone(told);
                        leg.rooms.push(SpaceHierarchyRoomsChunk::new(summary, Vec::new()));
                    }
                }
                _ => {
                    leg.ask = Some(stop);
                    break;
                }
            }
        }
        Ok(leg)
    }

    /// The room at which a walk stopped, as another server describes it. If none does, what is
    /// known here of the room has to do.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn walk_past(
        &self,
        walk: &mut Walk,
        walker: &Walker,
        stop: &Stop,
        told: Option<&Hierarchy>,
    ) -> Result<Option<SpaceHierarchyRoomsChunk>, ViewError> {
        let Some(told) = told else { return self.show(walk, walker, stop) };
        let summary = told.room.summary.clone();
        if !self.may_preview_told(&summary, &walker.user)? {
            return Ok(None);
        }
        let is_space = summary.room_type == Some(RoomType::Space);
        let events = told.room.children_state.iter().filter(|_| is_space).cloned();
        let children = events.filter_map(Child::told).collect();
        let children = in_order(children, walker.reach.suggested_only);
        let inaccessible = told.inaccessible_children.iter().take(MAX_CHILDREN);
        for room in inaccessible {
            if !self.is_home(room, &walker.home)? {
                walk.seen.insert(room.clone());
            }
        }
        walk.go_deeper(walker, stop, &children, &told.children);
        let children = children.into_iter().map(|child| child.json).collect();
        Ok(Some(SpaceHierarchyRoomsChunk::new(summary, children)))
    }

    /// A room as it is known here, if it is for the user's eyes.
    fn show(
        &self,
        walk: &mut Walk,
        walker: &Walker,
        stop: &Stop,
    ) -> Result<Option<SpaceHierarchyRoomsChunk>, ViewError> {
        let Some(room) = self.room(&stop.room)? else { return Ok(None) };
        let (summary, user) = (self.preview(&room)?, &walker.user);
        if self.is_banned(&room, user)? || !self.may_preview(&room, &summary, Some(user))? {
            return Ok(None);
        }
        let mut children = Vec::new();
        if summary.room_type == Some(RoomType::Space) {
            children = self.children_of(&room, walker.reach.suggested_only)?;
        }
        walk.go_deeper(walker, stop, &children, &[]);
        let children = children.into_iter().map(|child| child.json).collect();
        Ok(Some(SpaceHierarchyRoomsChunk::new(summary, children)))
    }

    /// Whether this server is in a room, so that what it knows of it is the truth.
    fn is_home(&self, room: &RoomId, home: &ServerName) -> Result<bool, ViewError> {
        let Some(num) = self.store.room_num(room.as_str())? else { return Ok(false) };
        Ok(self.store.joined_from(num, home.as_str())? > 0)
    }

    fn is_banned(&self, room: &RoomView, user: &UserId) -> Result<bool, ViewError> {
        use parlour_event::content::Membership;
        Ok(self.membership_of(room, user)? == Some(Membership::Ban))
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

    /// The children of a space in their order: the events, and the rooms' ids.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn children_of_space(
        &self,
        room: &RoomView,
        summary: &RoomSummary,
        suggested_only: bool,
    ) -> Result<Vec<(Raw<HierarchySpaceChildEvent>, OwnedRoomId)>, ViewError> {
        if summary.room_type != Some(RoomType::Space) {
            return Ok(Vec::new());
        }
        let children = self.children_of(room, suggested_only)?.into_iter();
        Ok(children.map(|child| (child.json, child.event.state_key)).collect())
    }

    /// The children of a space in their order.
    fn children_of(&self, room: &RoomView, suggested_only: bool) -> Result<Vec<Child>, ViewError> {
        let mut children = Vec::new();
        for nums in self.child_nums(room)?.chunks(BATCH) {
            let events = self.store.events(nums)?;
            children.extend(events.iter().flatten().filter_map(Child::of));
        }
        Ok(in_order(children, suggested_only))
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

/// The children that count, in their order.
fn in_order(mut children: Vec<Child>, suggested_only: bool) -> Vec<Child> {
    children.retain(|child| child.event.content.suggested || !suggested_only);
    children.sort_by(|a, b| a.event.cmp_space_child(&b.event));
    children.truncate(MAX_CHILDREN);
    children
}

impl Child {
    /// A child that another server tells of.
    fn told(json: Raw<HierarchySpaceChildEvent>) -> Option<Self> {
        Some(Self { event: json.deserialize().ok()?, json })
    }

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
