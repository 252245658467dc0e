//! Which member events a device has been sent: with lazy loading they are not sent again.
//!
//! Kept in memory and bounded: what is forgotten is sent once more, which clients accept. An
//! answer may get lost on its way, so an event counts as received only when the device comes back
//! with the token of that answer, or a later one.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
};

use lru::LruCache;
use parlour_event::{EventNum, RoomNum, StateKeyNum, StreamPos};
use ruma::{DeviceId, UserId};

/// How many events are remembered, for all devices; about 100 bytes each.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(100_000).expect("it is not 0");

/// Hash of user and device, the room, the member's place in the state.
type Key = (u64, RoomNum, StateKeyNum);

/// See the module.
#[derive(Debug)]
pub(super) struct SentMembers(Mutex<LruCache<Key, (EventNum, StreamPos)>>);

impl Default for SentMembers {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(CAPACITY)))
    }
}

impl SentMembers {
    /// Whether a device that has seen everything until `since` has got this event.
    pub(super) fn has(
        &self,
        user: &UserId,
        device: &DeviceId,
        room: RoomNum,
        key: StateKeyNum,
        num: EventNum,
        since: StreamPos,
    ) -> bool {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get(&(reader(user, device), room, key))
            .is_some_and(|(sent, pos)| *sent == num && *pos <= since)
    }

    /// Notes that an answer with the token of this position has these events.
    pub(super) fn remember(
        &self,
        user: &UserId,
        device: &DeviceId,
        room: RoomNum,
        events: impl Iterator<Item = (StateKeyNum, EventNum)>,
        pos: StreamPos,
    ) {
        let reader = reader(user, device);
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, num) in events {
            let known = sent.get(&(reader, room, key));
            // What was received earlier stays received.
            if known.is_none_or(|(known, _)| *known != num) {
                sent.put((reader, room, key), (num, pos));
            }
        }
    }
}

fn reader(user: &UserId, device: &DeviceId) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one((user, device))
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};

    use super::*;

    #[test]
    fn an_event_counts_once_its_answer_has_arrived() {
        let sent = SentMembers::default();
        let (alice, phone) = (user_id!("@alice:example.org"), device_id!("PHONE"));
        let (room, key) = (RoomNum(1), StateKeyNum::new(7, true));
        let has = |device, num, since| {
            sent.has(alice, device, room, key, EventNum(num), StreamPos(since))
        };
        let remember = |num, pos| {
            let events = [(key, EventNum(num))].into_iter();
            sent.remember(alice, phone, room, events, StreamPos(pos));
        };
        assert!(!has(phone, 3, 100));
        remember(3, 10);
        assert!(!has(phone, 3, 9), "the answer may have got lost");
        assert!(has(phone, 3, 10));
        assert!(!has(device_id!("OTHER"), 3, 10));
        remember(3, 20);
        assert!(has(phone, 3, 10), "what was received stays received");
        remember(4, 30);
        assert!(!has(phone, 3, 40), "another event has taken its place");
        assert!(has(phone, 4, 30));
    }
}
