//! What goes over the simulated network, and what that does to it.

use std::collections::BTreeMap;

use bytes::Bytes;
use parlour_event::json::Object;
use ruma::OwnedEventId;

use crate::room::messages::LocalEvent;

/// Draws that a seed determines (SplitMix64).
#[derive(Debug, Clone)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())].clone()
    }
}

/// What a server asks another one.
#[derive(Debug, Clone)]
pub(super) enum Question {
    /// `get_missing_events`
    Missing { latest: OwnedEventId, earliest: Vec<OwnedEventId> },
    /// `state_ids`, and the events with their auth chain.
    StateAt(OwnedEventId),
    /// `backfill`, with the state before what hangs in the air.
    Backfill(Vec<OwnedEventId>),
    /// `make_join`
    MakeJoin(Box<LocalEvent>),
    /// `send_join`
    SendJoin(Bytes),
}

/// An older event with the state before it, if it is told.
pub(super) type PastEvent = (Bytes, Option<Vec<OwnedEventId>>);

/// What it is answered.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Events(Vec<Bytes>),
    State {
        ids: Vec<OwnedEventId>,
        events: Vec<Bytes>,
    },
    Past {
        events: Vec<PastEvent>,
        outliers: Vec<Bytes>,
    },
    Template(Box<Object>),
    Entrance {
        state: Vec<Bytes>,
        auth_chain: Vec<Bytes>,
    },
    /// It cannot or will not.
    Nothing,
}

/// What goes from one server to another.
#[derive(Debug, Clone)]
pub(super) enum Packet {
    /// A transaction of events.
    Push {
        txn: u64,
        events: Vec<Bytes>,
    },
    /// It has been taken in.
    Ack {
        txn: u64,
    },
    Ask {
        id: u64,
        question: Question,
    },
    Answer {
        id: u64,
        answer: Answer,
    },
}

/// What happens at some time.
#[derive(Debug)]
pub(super) enum Happening {
    Arrives {
        from: usize,
        to: usize,
        packet: Packet,
    },
    /// A server looks at what has to be sent again.
    Tick(usize),
    /// Somebody does something.
    Act(usize),
    /// What a server has written becomes durable.
    Flush(usize),
    /// A server loses what is not durable, and starts again.
    Crash(usize),
    /// The network falls into two parts.
    Cut,
    /// It is one again.
    Mend,
}

/// The network: everything that is under way, in the order of time.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) now: u64,
    due: BTreeMap<(u64, u64), Happening>,
    count: u64,
    /// Of a hundred packets so many are lost, and so many come twice.
    pub(super) loss: u64,
    pub(super) doubling: u64,
    /// The longest that a packet is under way, in milliseconds.
    pub(super) delay: u64,
    /// On which side of a cut the servers are.
    pub(super) sides: Vec<bool>,
    /// Packets that are under way.
    pub(super) packets: usize,
}

impl Network {
    pub(super) fn new(servers: usize, rng: &mut Rng) -> Self {
        Self {
            now: 0,
            due: BTreeMap::new(),
            count: 0,
            loss: rng.pick(&[0, 2, 10, 25]),
            doubling: rng.pick(&[0, 2, 20]),
            delay: rng.pick(&[10, 200, 3_000]),
            sides: vec![false; servers],
            packets: 0,
        }
    }

    /// Nothing is lost or late any more.
    pub(super) fn heal(&mut self) {
        (self.loss, self.doubling, self.delay) = (0, 0, 20);
        self.sides.fill(false);
    }

    pub(super) fn at(&mut self, time: u64, what: Happening) {
        self.count += 1;
        self.due.insert((time, self.count), what);
    }

    pub(super) fn send(&mut self, from: usize, to: usize, packet: Packet, rng: &mut Rng) {
        if self.sides[from] != self.sides[to] || rng.percent(self.loss) {
            return;
        }
        let copies = if rng.percent(self.doubling) { 2 } else { 1 };
        for _ in 0..copies {
            let time = self.now + 1 + rng.below(self.delay);
            self.packets += 1;
            self.at(time, Happening::Arrives { from, to, packet: packet.clone() });
        }
    }

    /// The next that happens.
    pub(super) fn next(&mut self) -> Option<Happening> {
        let ((time, _), what) = self.due.pop_first()?;
        self.now = time;
        if matches!(what, Happening::Arrives { .. }) {
            self.packets -= 1;
        }
        Some(what)
    }
}
