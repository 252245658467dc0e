//! Events that wait for others which they build on. Only bookkeeping: what waits where, within
//! which bounds.
//!
//! Each room has a queue for each server that has sent something for it, so that what one server
//! does not give delays nothing that came from others.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::Duration,
};

use parlour_actors::budget::Part;
use ruma::{OwnedRoomId, OwnedServerName};

use super::{policy::Judged, results::Reply};

/// How many events may wait in one queue, and in all together; the memory for all together is a share
/// of the budget.
const MAX_IN_QUEUE: usize = 100;
const MAX_EVENTS: usize = 5_000;

/// How many bytes of memory may wait in one queue.
const MAX_BYTES_IN_QUEUE: u64 = 4 << 20;

/// Where an event waits: its room, and the server that has sent it.
pub(super) type Place = (OwnedRoomId, OwnedServerName);

/// An event that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) judged: Judged,
    /// What it takes.
    pub(super) memory: Part,
    /// Who is told what has become of it.
    pub(super) reply: Reply,
    /// Since when it waits, on the monotonic clock.
    pub(super) since: Duration,
}

/// What becomes of an event that is to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parking {
    /// It is the first in its queue: somebody must begin to work on that.
    First,
    /// It waits behind others.
    Behind,
    /// There is no room for it.
    Full,
}

/// All events that wait.
#[derive(Debug, Default)]
pub(super) struct Table {
    queues: HashMap<Place, Queue>,
    events: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Parked>,
    bytes: u64,
}

impl Table {
    /// Has an event wait. It is the caller who begins to work on a new queue, and calls
    /// [`Table::next`] until there is nothing more.
    pub(super) fn park(&mut self, place: &Place, parked: Parked) -> Parking {
        let (events, bytes) = self.queues.get(place).map_or((0, 0), |q| (q.waiting.len(), q.bytes));
        let fits = events < MAX_IN_QUEUE
            && self.events < MAX_EVENTS
            && bytes.saturating_add(parked.memory.bytes()) <= MAX_BYTES_IN_QUEUE;
        if !fits {
            return Parking::Full;
        }
        self.events += 1;
        let (queue, parking) = match self.queues.entry(place.clone()) {
            Entry::Occupied(queue) => (queue.into_mut(), Parking::Behind),
            Entry::Vacant(new) => (new.insert(Queue::default()), Parking::First),
        };
        queue.bytes += parked.memory.bytes();
        queue.waiting.push_back(parked);
        parking
    }

    /// The event that has waited longest in a queue. With the last one the queue ends.
    pub(super) fn next(&mut self, place: &Place) -> Option<Parked> {
        let queue = self.queues.get_mut(place)?;
        let Some(parked) = queue.waiting.pop_front() else {
            self.queues.remove(place);
            return None;
        };
        queue.bytes -= parked.memory.bytes();
        self.events -= 1;
        Some(parked)
    }

    /// How many events wait.
    pub(super) fn events(&self) -> usize {
        self.events
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parlour_actors::budget::Share;
    use parlour_event::{Pdu, RoomVersion, json};

    use super::*;

    fn parked(bytes: u64) -> Parked {
        let json = br#"{"room_id":"!r:a.org","sender":"@u:a.org","type":"t","content":{},
            "origin_server_ts":1,"depth":1,"prev_events":[],"auth_events":[],"hashes":{"sha256":""},
            "signatures":{}}"#;
        let version = RoomVersion::parse("11").unwrap();
        let pdu = Pdu::from_wire(version, json::parse_object(version, json).unwrap()).unwrap();
        let (since, judged) = (Duration::ZERO, Judged { pdu: Arc::new(pdu), is_wanted: true });
        let memory = Share::new(bytes).count(bytes);
        Parked { judged, memory, reply: Reply::to_nobody(), since }
    }

    fn place(room: usize, server: &str) -> Place {
        (format!("!{room}:a.org").try_into().unwrap(), server.try_into().unwrap())
    }

    #[test]
    fn a_queue_ends_with_its_last_event() {
        let mut table = Table::default();
        let (here, there) = (place(1, "a.org"), place(1, "b.org"));
        assert_eq!(table.park(&here, parked(1)), Parking::First);
        assert_eq!(table.park(&here, parked(2)), Parking::Behind);
        assert_eq!(table.park(&there, parked(3)), Parking::First);
        assert_eq!(table.next(&here).unwrap().memory.bytes(), 1);
        assert_eq!(table.next(&here).unwrap().memory.bytes(), 2);
        // Whoever works on the queue is not done before it has heard so.
        assert_eq!(table.park(&here, parked(4)), Parking::Behind);
        assert_eq!(table.next(&here).unwrap().memory.bytes(), 4);
        assert!(table.next(&here).is_none());
        assert_eq!(table.park(&here, parked(1)), Parking::First);
        assert_eq!(table.events(), 2);
    }

    #[test]
    fn events_are_bounded_by_queue_and_altogether() {
        let mut table = Table::default();
        let here = place(0, "a.org");
        assert_eq!(table.park(&here, parked(MAX_BYTES_IN_QUEUE)), Parking::First);
        assert_eq!(table.park(&here, parked(1)), Parking::Full);
        assert_eq!(table.park(&place(0, "b.org"), parked(1)), Parking::First);
        let mut table = Table::default();
        let first: Vec<_> = (0..=MAX_IN_QUEUE).map(|_| table.park(&here, parked(1))).collect();
        assert_eq!(first.iter().filter(|parking| **parking == Parking::Full).count(), 1);
        let full =
            (1..).take_while(|n| table.park(&place(*n, "a.org"), parked(1)) == Parking::First);
        assert_eq!(full.count() + MAX_IN_QUEUE, MAX_EVENTS);
        // What is taken out makes room.
        while table.next(&here).is_some() {}
        assert_eq!(table.park(&here, parked(1)), Parking::First);
        assert_eq!(table.events(), MAX_EVENTS - MAX_IN_QUEUE + 1);
    }
}
