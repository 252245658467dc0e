//! Numbers for events, rooms and state keys.
//!
//! Numbers are handed out when an event is computed, before it is durable. If it never becomes
//! durable, its numbers are lost, which does no harm.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parlour_event::{EventNum, RoomNum, StateKeyNum};
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::keys::{self, KeyReader},
};
use ruma::{OwnedRoomId, RoomId};

/// How many state keys are remembered; beyond that the index is asked.
const CACHED_STATE_KEYS: usize = 65_536;

/// How many numbers of rooms are remembered that storage may not have yet.
const MAX_UNSTORED_ROOMS: usize = 1_024;

/// The settings under which the next numbers are kept, since purged rooms leave gaps at the end.
const NEXT_EVENT: &str = "next_event";
const NEXT_ROOM: &str = "next_room";

/// Hands out numbers. One per process.
#[derive(Debug)]
pub struct Interner {
    store: Store,
    next_event: AtomicU64,
    next_room: AtomicU64,
    next_state_key: AtomicU64,
    state_keys: Mutex<StateKeys>,
    /// Numbers of rooms elsewhere that storage may not have yet.
    unstored_rooms: Mutex<HashMap<OwnedRoomId, RoomNum>>,
}

/// State keys by `type \0 state_key` as in the index key.
#[derive(Debug, Default)]
struct StateKeys {
    /// In the index already; a cache.
    stored: HashMap<Bytes, StateKeyNum>,
    /// Not known to be in the index: whoever uses one writes it again, which is harmless. With how
    /// many are about to.
    unstored: HashMap<Bytes, (StateKeyNum, usize)>,
}

impl Interner {
    /// Continues after the highest numbers in the index.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn new(store: Store) -> Result<Self, StorageError> {
        Ok(Self {
            next_event: AtomicU64::new(next_number(&store, keys::EVENT, NEXT_EVENT)?),
            // A birth or an entrance that was cut off leaves events and no room.
            next_room: AtomicU64::new(
                next_number(&store, keys::ROOM, NEXT_ROOM)?
                    .max(highest(&store, keys::TIMELINE)? + 1)
                    .max(highest(&store, keys::OFF_TIMELINE)? + 1),
            ),
            next_state_key: AtomicU64::new(
                StateKeyNum(highest(&store, keys::STATE_KEY_NAME)?).sequence() + 1,
            ),
            state_keys: Mutex::default(),
            unstored_rooms: Mutex::default(),
            store,
        })
    }

    /// What keeps numbers from being given out again that have been, although what had them is
    /// about to leave the index.
    pub(crate) fn remember_numbers(&self) -> [Op; 2] {
        let next = [(NEXT_EVENT, &self.next_event), (NEXT_ROOM, &self.next_room)];
        next.map(|(name, next)| {
            let value = next.load(Ordering::Relaxed).to_be_bytes().to_vec().into();
            Op::Put { key: keys::setting(name), value }
        })
    }

    /// A number for a new event.
    pub fn new_event(&self) -> EventNum {
        EventNum(self.next_event.fetch_add(1, Ordering::Relaxed))
    }

    /// A number for a new room.
    pub fn new_room(&self) -> RoomNum {
        RoomNum(self.next_room.fetch_add(1, Ordering::Relaxed))
    }

    /// The number of a room, made if need be, with the operations that store it. Until storage has
    /// it everybody who asks gets the same one.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn room(&self, room: &RoomId) -> Result<(RoomNum, Vec<Op>), StorageError> {
        let mut unstored = self.unstored_rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(num) = self.store.room_num(room.as_str())? {
            unstored.remove(room);
            return Ok((num, Vec::new()));
        }
        if unstored.len() >= MAX_UNSTORED_ROOMS {
            let is_stored = |room: &OwnedRoomId| self.store.room_num(room.as_str());
            unstored.retain(|room, _| !matches!(is_stored(room), Ok(Some(_))));
        }
        let num = *unstored.entry(room.to_owned()).or_insert_with(|| self.new_room());
        let value = num.0.to_be_bytes().to_vec().into();
        Ok((
            num,
            vec![
                Op::Put { key: keys::room_id(room.as_str()), value },
                // The number is taken, although no room has it.
                Op::Put { key: keys::off_timeline(num, EventNum(0)), value: Bytes::new() },
            ],
        ))
    }

    /// The number of a state key, if there is one already.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn state_key(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<StateKeyNum>, StorageError> {
        let key = keys::state_key(event_type, state_key);
        let mut known = self.state_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(num) = known.find(&key) {
            return Ok(Some(num));
        }
        let num = self.store.state_key_num(event_type, state_key)?;
        if let Some(num) = num {
            known.remember(key, num);
        }
        Ok(num)
    }

    /// The number of a state key, made if need be; adds the operations that store it.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn intern_state_key(
        &self,
        event_type: &str,
        state_key: &str,
        ops: &mut Vec<Op>,
    ) -> Result<StateKeyNum, StorageError> {
        let known = self.state_key(event_type, state_key)?;
        let key = keys::state_key(event_type, state_key);
        let mut state_keys = self.state_keys.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.or_else(|| state_keys.stored.get(&key).copied());
        if let Some(num) = known
            && !state_keys.unstored.contains_key(&key)
        {
            return Ok(num);
        }
        let (num, writers) = state_keys.unstored.entry(key.clone()).or_insert_with(|| {
            let sequence = self.next_state_key.fetch_add(1, Ordering::Relaxed);
            (StateKeyNum::new(sequence, event_type == "m.room.member"), 0)
        });
        *writers += 1;
        let num = *num;
        let value = num.0.to_be_bytes().to_vec().into();
        let name = key.slice(1..);
        ops.push(Op::Put { key, value });
        ops.push(Op::Put { key: keys::state_key_name(num), value: name });
        Ok(num)
    }

    /// Says that a state key is in the index now.
    pub fn stored_state_key(&self, event_type: &str, state_key: &str) {
        let key = keys::state_key(event_type, state_key);
        let mut known = self.state_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((num, _)) = known.unstored.remove(&key) {
            known.remember(key, num);
        }
    }

    /// Says that one who was about to write a state key will not. When nobody else is, its number
    /// is lost, so that what is refused leaves nothing in memory.
    pub fn abandoned_state_key(&self, event_type: &str, state_key: &str) {
        let key = keys::state_key(event_type, state_key);
        let mut known = self.state_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, writers)) = known.unstored.get_mut(&key) {
            *writers = writers.saturating_sub(1);
            if *writers == 0 {
                known.unstored.remove(&key);
            }
        }
    }
}

impl StateKeys {
    fn find(&self, key: &Bytes) -> Option<StateKeyNum> {
        let unstored = || self.unstored.get(key).map(|(num, _)| num);
        self.stored.get(key).or_else(unstored).copied()
    }

    fn remember(&mut self, key: Bytes, num: StateKeyNum) {
        if self.stored.len() >= CACHED_STATE_KEYS {
            // Rare, and what is needed comes back from the index: no order of use is kept.
            self.stored.clear();
        }
        self.stored.insert(key, num);
    }
}

/// The number behind all that are in the index or have been.
fn next_number(store: &Store, keyspace: u8, setting: &str) -> Result<u64, StorageError> {
    let remembered = store.get(&keys::setting(setting))?;
    let remembered = remembered.and_then(|entry| entry.value.as_ref().try_into().ok());
    Ok((highest(store, keyspace)? + 1).max(remembered.map_or(0, u64::from_be_bytes)))
}

/// The highest number that is a key of this keyspace; 0 if there is none.
fn highest(store: &Store, keyspace: u8) -> Result<u64, StorageError> {
    let last = store.scan_prefix(&[keyspace], Direction::Backward, 1)?.pop();
    Ok(last.and_then(|(key, _)| KeyReader::new(&key).number()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intern(interner: &Interner, key: &str) -> StateKeyNum {
        interner.intern_state_key("m.x", key, &mut Vec::new()).expect("memory can be read")
    }

    fn known(interner: &Interner, key: &str) -> Option<StateKeyNum> {
        interner.state_key("m.x", key).expect("memory can be read")
    }

    #[test]
    fn a_state_key_that_nobody_writes_is_forgotten() {
        let (store, _writer) = Store::in_memory();
        let interner = Interner::new(store).expect("memory can be read");
        let first = intern(&interner, "a");
        assert_eq!(intern(&interner, "a"), first, "two are about to write it");
        interner.abandoned_state_key("m.x", "a");
        assert_eq!(known(&interner, "a"), Some(first), "one still is");
        interner.abandoned_state_key("m.x", "a");
        assert_eq!(known(&interner, "a"), None);
        let second = intern(&interner, "a");
        assert_ne!(second, first, "numbers are never given twice");
        interner.stored_state_key("m.x", "a");
        interner.abandoned_state_key("m.x", "a");
        assert_eq!(known(&interner, "a"), Some(second), "what is stored stays");
    }
}
