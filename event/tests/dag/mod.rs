//! Rooms made for tests and benchmarks of state resolution: an event source in memory, a generator
//! of random histories ([`history`]) and of big and expensive ones ([`scale`]).
//!
//! Another crate's benchmark can take it in with `#[path = "../../event/tests/dag/mod.rs"] mod dag;`
//! (it needs `serde_json`, `ruma` and `sha2`, nothing else).
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod history;
pub mod scale;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parlour_event::{
    EventNum, Pdu, RoomVersion, StateKeyNum, auth, json,
    resolve::EventSource,
    state::{MemoryNodes, Overlay, ReadState, StateRoot},
};
use ruma::{EventId, OwnedEventId, UserId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A reproducible source of choices (SplitMix64).
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Whether something of this probability happens.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// A state event to be made.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub sender: String,
    pub event_type: &'static str,
    pub state_key: String,
    pub content: Value,
    pub ts: u64,
    pub depth: u64,
    pub has_prev: bool,
}

/// The events of one room; an event's number is its place in `events`.
#[derive(Debug)]
pub struct Room {
    pub version: &'static RoomVersion,
    pub room_id: String,
    pub events: Vec<Arc<Pdu>>,
    pub auth: Vec<Arc<[EventNum]>>,
    pub rejected: Vec<bool>,
    pub nums: HashMap<OwnedEventId, EventNum>,
    pub keys: HashMap<String, HashMap<String, StateKeyNum>>,
    pub nodes: MemoryNodes,
    /// How often an event or its auth events were asked for.
    pub reads: AtomicU64,
    salt: u64,
}

impl EventSource for Room {
    type Error = Infallible;

    fn event(&self, event: EventNum) -> Result<Option<Arc<Pdu>>, Infallible> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.events.get(event.0 as usize).cloned())
    }

    fn auth_events(&self, event: EventNum) -> Result<Arc<[EventNum]>, Infallible> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.auth.get(event.0 as usize).cloned().unwrap_or_else(|| [].into()))
    }

    fn rejected(&self, event: EventNum) -> Result<bool, Infallible> {
        Ok(self.rejected.get(event.0 as usize).copied().unwrap_or(true))
    }

    fn state_key(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<StateKeyNum>, Infallible> {
        Ok(self.keys.get(event_type).and_then(|keys| keys.get(state_key)).copied())
    }
}

impl Room {
    /// A room without events. `salt` decides about the event ids.
    pub fn new(version: u8, salt: u64) -> Self {
        let version = RoomVersion::parse(&version.to_string()).unwrap();
        Self {
            version,
            room_id: "!room:one.test".to_owned(),
            events: Vec::new(),
            auth: Vec::new(),
            rejected: Vec::new(),
            nums: HashMap::new(),
            keys: HashMap::new(),
            nodes: MemoryNodes::new(),
            reads: AtomicU64::new(0),
            salt,
        }
    }

    /// The number of a state key, made if need be.
    pub fn key(&mut self, event_type: &str, state_key: &str) -> StateKeyNum {
        let sequence = self.keys.values().map(HashMap::len).sum::<usize>() as u64;
        *self
            .keys
            .entry(event_type.to_owned())
            .or_default()
            .entry(state_key.to_owned())
            .or_insert_with(|| StateKeyNum::new(sequence, event_type == "m.room.member"))
    }

    /// Where an event belongs in the state.
    pub fn key_of(&self, num: EventNum) -> StateKeyNum {
        let event = &self.events[num.0 as usize];
        self.keys[event.event_type()][event.state_key().unwrap()]
    }

    fn next_event_id(&self) -> OwnedEventId {
        let mut hasher = Sha256::new();
        hasher.update(self.salt.to_be_bytes());
        hasher.update(self.events.len().to_be_bytes());
        let hash: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let id = match self.version.number() {
            1 | 2 => format!("${}:one.test", &hash[..18]),
            _ => format!("${}", &hash[..43]),
        };
        EventId::parse(id).unwrap()
    }

    fn references(&self, nums: &[EventNum]) -> Vec<Value> {
        let ids = nums.iter().map(|num| self.events[num.0 as usize].event_id().as_str());
        match self.version.number() {
            1 | 2 => ids.map(|id| json!([id, { "sha256": "" }])).collect(),
            _ => ids.map(Value::from).collect(),
        }
    }

    /// The event as it would be, without adding it.
    pub fn make(&self, new: &NewEvent, auth_events: &[EventNum]) -> Pdu {
        let event_id = self.next_event_id();
        let prev = if new.has_prev { self.events.len().checked_sub(1) } else { None };
        let prev: Vec<_> = prev.map(|last| EventNum(last as u64)).into_iter().collect();
        let mut json = json!({
            "room_id": self.room_id, "sender": new.sender, "type": new.event_type,
            "state_key": new.state_key, "content": new.content, "origin_server_ts": new.ts,
            "depth": new.depth, "prev_events": self.references(&prev),
            "auth_events": self.references(auth_events),
        });
        if new.event_type == "m.room.create" && self.version.number() == 12 {
            json.as_object_mut().unwrap().remove("room_id");
        }
        let json = json::parse_object(self.version, json.to_string().as_bytes()).unwrap();
        Pdu::from_trusted(self.version, event_id, json).unwrap()
    }

    /// Adds an event and says its number.
    pub fn add(&mut self, new: &NewEvent, auth_events: &[EventNum], rejected: bool) -> EventNum {
        let event = self.make(new, auth_events);
        let num = EventNum(self.events.len() as u64);
        if new.event_type == "m.room.create" {
            self.room_id = event.room_id().to_string();
        }
        self.key(new.event_type, &new.state_key);
        self.nums.insert(event.event_id().clone(), num);
        self.events.push(Arc::new(event));
        self.auth.push(auth_events.into());
        self.rejected.push(rejected);
        num
    }

    /// The auth events that the selection algorithm takes out of a state.
    pub fn select_auth(
        &self,
        new: &NewEvent,
        state: &dyn Fn(StateKeyNum) -> Option<EventNum>,
    ) -> Vec<EventNum> {
        let content = new.content.to_string();
        let content = json::parse_object(self.version, content.as_bytes()).unwrap();
        let sender = <&UserId>::try_from(new.sender.as_str()).unwrap();
        let selected =
            auth::auth_types(self.version, new.event_type, sender, Some(&new.state_key), &content);
        selected
            .into_iter()
            .filter_map(|(event_type, key)| state(*self.keys.get(event_type)?.get(key)?))
            .collect()
    }

    /// Whether the auth rules allow an event in a state.
    pub fn allows(&self, event: &Pdu, state: &dyn Fn(StateKeyNum) -> Option<EventNum>) -> bool {
        let view = |event_type: &str, key: &str| {
            let num = state(*self.keys.get(event_type)?.get(key)?)?;
            Some(Arc::clone(&self.events[num.0 as usize]))
        };
        auth::check(self.version, event, &view).is_ok()
    }

    /// Stores a state.
    pub fn store(&self, entries: impl IntoIterator<Item = (StateKeyNum, EventNum)>) -> StateRoot {
        let mut overlay = Overlay::new(&self.nodes);
        let root = overlay.from_entries(entries);
        self.nodes.extend(overlay.into_new_nodes(&[root]));
        root
    }

    /// Stores a state that differs from another by some entries.
    pub fn store_change(
        &self,
        root: StateRoot,
        changes: &[(StateKeyNum, Option<EventNum>)],
    ) -> StateRoot {
        let mut overlay = Overlay::new(&self.nodes);
        let root = overlay.insert_many(root, changes).unwrap();
        self.nodes.extend(overlay.into_new_nodes(&[root]));
        root
    }

    /// Adds an event on a stored state, with the auth events selected from it, and says the state
    /// after it. The auth rules must allow it.
    pub fn add_on(&mut self, root: StateRoot, new: &NewEvent) -> (EventNum, StateRoot) {
        let nodes = &self.nodes;
        let state = |key| nodes.get(root, key).unwrap();
        let auth_events = self.select_auth(new, &state);
        let event = self.make(new, &auth_events);
        assert!(self.allows(&event, &state), "{new:?} is not allowed");
        let num = self.add(new, &auth_events, false);
        let key = self.key_of(num);
        (num, self.store_change(root, &[(key, Some(num))]))
    }
}

/// A state event whose content says `body`.
pub fn event(sender: &str, event_type: &'static str, state_key: &str, content: Value) -> NewEvent {
    NewEvent {
        sender: sender.to_owned(),
        event_type,
        state_key: state_key.to_owned(),
        content,
        ts: 1_000,
        depth: 1,
        has_prev: event_type != "m.room.create",
    }
}

/// A member event.
pub fn member(sender: &str, target: &str, membership: &str) -> NewEvent {
    event(sender, "m.room.member", target, json!({ "membership": membership }))
}
