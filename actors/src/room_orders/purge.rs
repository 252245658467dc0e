//! Removing everything of a room from the index, batch by batch. What has been removed is not met
//! again, so that a purge that was interrupted just begins anew. The log keeps what it has.

use std::{
    collections::{BTreeSet, HashSet},
    mem,
    ops::Bound,
};

use parlour_event::{
    EventNum, RoomNum, StreamPos,
    state::{Node, NodeId, StateRoot},
};
use parlour_storage::{
    Direction, Op, StorageError,
    schema::{
        AccountDataEntry, PeopleNews, Stored as _, StoredEvent, ThreadSubscriptionEntry,
        TimelineEntry, keys, known_keys, outbox, people,
    },
};
use ruma::RoomId;
use serde::Deserialize;

use super::{OrderParts, work::WorkError};
use crate::commit::{Announcement, At};

/// How many events are removed at once.
const EVENTS: usize = 100;

/// How many keys are removed at once, about.
const KEYS: usize = 1_000;

/// See the module.
pub(super) struct Purge<'a> {
    parts: &'a OrderParts,
    room: RoomNum,
    ops: Vec<Op>,
    /// Nodes that `ops` remove.
    nodes: HashSet<NodeId>,
    /// Whose memberships `ops` remove.
    members: BTreeSet<String>,
}

/// What of an event says whose membership it is.
#[derive(Deserialize)]
struct Named {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    state_key: Option<String>,
}

impl<'a> Purge<'a> {
    pub(super) fn new(parts: &'a OrderParts, room: RoomNum) -> Self {
        Self { parts, room, ops: Vec::new(), nodes: HashSet::new(), members: BTreeSet::new() }
    }

    pub(super) async fn run(mut self, room_id: &RoomId) -> Result<(), WorkError> {
        self.parts.rooms.retire(room_id).await;
        // First nobody finds the room any more, so that nobody meets half of it.
        self.ops.extend(self.parts.interner.remember_numbers());
        self.ops.push(Op::Delete { key: keys::room_id(room_id.as_str()) });
        self.ops.push(Op::Delete { key: keys::room(self.room) });
        self.ops.push(Op::Delete { key: known_keys::own_stay(self.room) });
        self.ops.push(Op::Delete { key: people::open_room(self.room) });
        self.flush().await?;
        self.parts.rooms.unretire(room_id);
        while self.next_events().await? {}
        while self.next_off_timeline().await? {}
        self.parts.delayed.cancel_in(room_id).await?;
        for keyspace in keys::OF_ROOM {
            self.sweep(*keyspace).await?;
        }
        Ok(())
    }

    /// Removes the oldest events; says whether there were any.
    async fn next_events(&mut self) -> Result<bool, WorkError> {
        let range = (Bound::<StreamPos>::Unbounded, Bound::Unbounded);
        let store = &self.parts.store;
        let oldest = store.timeline(self.room, range, Direction::Forward, EVENTS)?;
        let nums: Vec<_> = oldest.iter().map(|(_, entry)| entry.event).collect();
        let events = store.events(&nums)?;
        for ((pos, entry), event) in oldest.iter().zip(events) {
            self.remove_state(entry.state_after).await?;
            if let Some(event) = event {
                self.remove_state(event.meta.state_before).await?;
                self.remove_event(&event, *pos)?;
            }
            self.remove_entry(entry, *pos);
            if self.ops.len() >= KEYS {
                self.flush().await?;
            }
        }
        self.flush().await?;
        Ok(!oldest.is_empty())
    }

    /// Removes events that are in no timeline; says whether there were any.
    async fn next_off_timeline(&mut self) -> Result<bool, WorkError> {
        let store = &self.parts.store;
        let nums = store.off_timeline(self.room, EventNum(0), EVENTS)?;
        for (num, event) in nums.iter().zip(store.events(&nums)?) {
            if let Some(event) = event {
                self.remove_state(event.meta.state_before).await?;
                self.remove_event(&event, event.meta.pos)?;
            }
            self.ops.push(Op::Delete { key: keys::event(*num) });
            self.ops.push(Op::Delete { key: keys::off_timeline(self.room, *num) });
        }
        self.flush().await?;
        Ok(!nums.is_empty())
    }

    fn remove_entry(&mut self, entry: &TimelineEntry, pos: StreamPos) {
        self.ops.push(Op::Delete { key: keys::event(entry.event) });
        self.ops.push(Op::Delete { key: keys::timeline(self.room, pos) });
    }

    fn remove_event(&mut self, event: &StoredEvent, pos: StreamPos) -> Result<(), StorageError> {
        self.ops.push(Op::Delete { key: keys::event_id(&event.meta.event_id) });
        self.ops.push(Op::Delete { key: keys::graph(self.room, event.meta.depth, pos) });
        if let Some(sent) = &event.meta.transaction {
            self.ops.push(Op::Delete { key: keys::transaction(&sent.hash) });
        }
        let named = serde_json::from_slice::<Named>(&event.json).ok();
        let member = named.filter(|named| named.event_type == "m.room.member");
        match member.and_then(|named| named.state_key) {
            Some(user) => self.remove_member(&user),
            None => Ok(()),
        }
    }

    /// Removes what a user had to do with the room.
    fn remove_member(&mut self, user: &str) -> Result<(), StorageError> {
        self.members.insert(user.to_owned());
        self.ops.push(Op::Delete { key: keys::membership(user, self.room) });
        self.ops.push(Op::Delete { key: keys::forgotten(user, self.room) });
        self.ops.push(Op::Delete { key: known_keys::remote_member(user, self.room) });
        let prefix = keys::account_data_in(user, self.room);
        for (key, entry) in self.parts.store.scan_prefix(&prefix, Direction::Forward, KEYS)? {
            let AccountDataEntry { pos } = AccountDataEntry::decode(&key, &entry.value)?;
            self.ops.push(Op::Delete { key: keys::account_feed(user, pos) });
            self.ops.push(Op::Delete { key });
        }
        let prefix = keys::thread_subscriptions_in(user, self.room);
        for (key, entry) in self.parts.store.scan_prefix(&prefix, Direction::Forward, KEYS)? {
            let pos = ThreadSubscriptionEntry::decode(&key, &entry.value)?.pos;
            self.ops.push(Op::Delete { key: keys::thread_subscription_feed(user, pos) });
            self.ops.push(Op::Delete { key });
        }
        Ok(())
    }

    /// Removes the nodes of a state, each after those below it: where a node is gone, nothing is
    /// left below. No other room has them, since event numbers are in them.
    async fn remove_state(&mut self, root: StateRoot) -> Result<(), WorkError> {
        let mut path: Vec<(NodeId, bool)> = root.nodes().map(|id| (id, false)).collect();
        while let Some((id, is_below_gone)) = path.pop() {
            if is_below_gone {
                self.nodes.insert(id);
                self.ops.push(Op::Delete { key: keys::node(id) });
                if self.ops.len() >= KEYS {
                    self.flush().await?;
                }
                continue;
            }
            if self.nodes.contains(&id) {
                continue;
            }
            let key = keys::node(id);
            let Some(entry) = self.parts.store.get(&key)? else { continue };
            let node = Node::decode(&entry.value).map_err(|error| StorageError::Value {
                key: keys::readable(&key),
                what: error.to_string(),
            })?;
            path.push((id, true));
            path.extend(node.children().map(|id| (id, false)));
        }
        Ok(())
    }

    /// Removes what a keyspace has of the room.
    async fn sweep(&mut self, keyspace: u8) -> Result<(), WorkError> {
        let prefix = keys::KeyBuilder::new(keyspace).number(self.room.0).build();
        loop {
            let found = self.parts.store.scan_prefix(&prefix, Direction::Forward, KEYS)?;
            if found.is_empty() {
                return Ok(());
            }
            for (key, _) in found {
                if let Some((server, until)) = outbox::read_stay(&key) {
                    let stay = (self.room, until);
                    self.ops.push(Op::Delete { key: outbox::room_of(&server, stay) });
                }
                // Of somebody who was invited from elsewhere the room itself may know nothing.
                if let Some(user) = out_of_band_user(&key) {
                    self.remove_member(&user)?;
                }
                self.ops.push(Op::Delete { key });
            }
            self.flush().await?;
        }
    }

    async fn flush(&mut self) -> Result<(), WorkError> {
        let (removed, members) = (mem::take(&mut self.ops), mem::take(&mut self.members));
        self.nodes.clear();
        if removed.is_empty() {
            return Ok(());
        }
        let has_members = !members.is_empty();
        let change = At(move |pos: StreamPos, ops: &mut Vec<Op>| {
            ops.extend(removed);
            if has_members {
                let news = PeopleNews { rooms: Vec::new(), users: members.into_iter().collect() };
                ops.push(Op::Put { key: people::news(pos), value: news.encode() });
            }
            Announcement::Nothing
        });
        self.parts.persister.commit(Box::new(change)).await?;
        if has_members {
            self.parts.people.notify_one();
        }
        Ok(())
    }
}

/// Whose membership a key of [`keys::OUT_OF_BAND`] is about; `None` for any other key.
fn out_of_band_user(key: &[u8]) -> Option<String> {
    let is_one = key.first() == Some(&keys::OUT_OF_BAND);
    let mut reader = is_one.then(|| keys::KeyReader::new(key))?;
    reader.number()?;
    reader.text()
}
