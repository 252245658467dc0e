//! What waits for one server, in memory: a few numbers for each event, and for a server that
//! cannot be reached not even those. Time and storage come from outside.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parlour_event::{EventNum, StreamPos};
use parlour_storage::schema::{DestinationEntry, outbox::RoomStay};

use super::{
    catch_up::Found,
    courier::Failure,
    edus::Edus,
    health::Health,
    owed::{Owed, Parcel, Wanted},
    unheard::Unheard,
};

/// How many events and how many EDUs a transaction may have.
/// <https://spec.matrix.org/v1.19/server-server-api/#transactions>
pub(super) const MAX_PDUS: usize = 50;
const MAX_EDUS: usize = 100;

/// How many events wait in memory for a server; from then on they are looked up in storage.
const MAX_QUEUE: usize = 1_000;

/// After so many failures in a row a server counts as dead.
const DEAD_AFTER: u32 = 6;

/// How often a transaction is tried that the other server refuses as such.
const MAX_REFUSALS: u32 = 8;

/// An event that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) pos: StreamPos,
    pub(super) event: EventNum,
    /// Since when, milliseconds since the epoch.
    pub(super) since: u64,
}

/// What a transaction is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) id: String,
    /// When it was first made.
    pub(super) time: u64,
    pub(super) events: Vec<EventNum>,
    /// EDUs that must not be lost.
    pub(super) parcel: Parcel,
    /// The other ones.
    pub(super) edus: Vec<Bytes>,
    /// How far the server has got when it has this.
    pub(super) goal: Goal,
    refusals: u32,
}

impl Attempt {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.parcel.is_empty() && self.edus.is_empty()
    }
}

/// Where delivering something leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Everything up to here is delivered.
    Through(StreamPos),
    /// In some rooms the newest events are delivered.
    Rooms,
}

/// How a server catches up that is behind what the queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// It is not known yet how much it has missed.
    Unknown,
    /// It gets all events, which are read from the outbox.
    Events,
    /// It gets the newest events of each room, after `last`; then it is as far as `target`.
    Rooms { target: StreamPos, last: RoomStay },
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) health: Health,
    /// The server has everything for it up to here.
    pub(super) acknowledged: StreamPos,
    /// Whether there is more to say of the server than storage has.
    pub(super) is_unsaved: bool,
    /// Somebody is sending to it.
    pub(super) is_running: bool,
    /// It has ever shown that it is there.
    pub(super) was_reached: bool,
    /// It has contacted this server since it could not be reached.
    pub(super) was_heard: bool,
    /// EDUs that must not be lost.
    pub(super) owed: Owed,
    /// All that comes after `acknowledged`, unless the server is behind.
    queue: VecDeque<Waiting>,
    behind: Option<Behind>,
    /// Since when the server has been behind, milliseconds since the epoch.
    behind_since: u64,
    edus: Edus,
    attempt: Option<Arc<Attempt>>,
    /// Rooms that the server was put out of, which it hears of while it catches up.
    over: Vec<RoomStay>,
}

/// What was in a transaction that is given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct GivenUp {
    pub(super) events: usize,
    /// EDUs that should not have been lost.
    pub(super) edus: usize,
}

/// What there is to be sent next.
#[derive(Debug)]
pub(super) enum Next {
    /// This.
    Attempt(Arc<Attempt>),
    /// Events have to be looked up in storage.
    LookUp(Behind, StreamPos),
    /// EDUs that must not be lost have to be read.
    Read(Wanted),
    /// Nothing.
    Nothing,
}

impl Line {
    /// The line of a server of which this was kept.
    pub(super) fn new(entry: &DestinationEntry, health: Health) -> Self {
        let behind = (health.is_failing() || entry.misses_events).then_some(Behind::Unknown);
        let unheard = Unheard::new(entry.keys, entry.is_behind || health.is_failing());
        Self {
            acknowledged: entry.acknowledged,
            was_reached: entry.was_reached,
            health,
            behind,
            behind_since: health.since,
            owed: Owed::new(unheard),
            ..Self::default()
        }
    }

    /// What is kept of it, where the queues know of changes of keys up to `dispatched`.
    pub(super) fn entry(&mut self, dispatched: StreamPos) -> DestinationEntry {
        let unheard = &mut self.owed.unheard;
        let (keys, is_behind) = (unheard.heard(dispatched), unheard.is_behind());
        self.health.entry(DestinationEntry {
            acknowledged: self.acknowledged,
            keys,
            is_behind,
            misses_events: self.behind.is_some(),
            was_reached: self.was_reached,
            ..DestinationEntry::default()
        })
    }

    /// An event is to go to the server. Returns whether that is news: one that has been delivered
    /// is not.
    pub(super) fn push(&mut self, waiting: Waiting) -> bool {
        let last = self.queue.back().map_or(self.acknowledged, |last| last.pos);
        if waiting.pos <= last {
            return false;
        }
        if self.behind.is_none() {
            match self.queue.len() < MAX_QUEUE {
                true => self.queue.push_back(waiting),
                false => self.fall_behind(),
            }
        }
        true
    }

    fn fall_behind(&mut self) {
        if self.behind.is_none() {
            // Storage must know: what is missed may be thrown away.
            self.is_unsaved = true;
            self.behind = Some(Behind::Unknown);
            self.behind_since = self.queue.front().map_or(self.health.since, |first| first.since);
        }
        self.queue = VecDeque::new();
    }

    /// Has something wait that may be lost; returns whether it does.
    pub(super) fn tell(&mut self, edu: super::edus::Edu) -> bool {
        !self.health.is_failing() && self.edus.put(edu)
    }

    /// Whether the server cannot be reached and what it misses is looked up when it can: then nothing
    /// needs to be put into its line.
    pub(super) fn is_away(&self) -> bool {
        self.health.is_failing() && self.behind.is_some()
    }

    /// Whether nobody should wait for an answer of the server: it could not be reached more than
    /// once, is not tried now, and has not been heard of meanwhile.
    pub(super) fn is_silent(&self, now: u64) -> bool {
        self.health.failures > 1 && now < self.health.retry_at && !self.was_heard
    }

    pub(super) fn has_work(&self) -> bool {
        self.attempt.is_some()
            || self.behind.is_some()
            || !self.queue.is_empty()
            || !self.edus.is_empty()
            || self.owed.has_work()
    }

    /// Since when the oldest thing has waited that must not be lost.
    pub(super) fn oldest(&self) -> Option<u64> {
        let oldest_event = match self.behind {
            Some(_) => Some(self.behind_since),
            None => self.queue.front().map(|first| first.since),
        };
        oldest_event.into_iter().chain(self.owed.since()).min()
    }

    /// The transaction that is to be sent: the one that has failed, again, or a new one. If there
    /// is nothing, nobody sends to the server any more.
    pub(super) fn next(&mut self, now: u64, new_id: impl FnOnce() -> String) -> Next {
        if let Some(attempt) = &self.attempt {
            return Next::Attempt(attempt.clone());
        }
        let are_events_read = self.behind.is_none() && self.queue.len() <= MAX_PDUS;
        if let Some(wanted) = self.owed.begin_reading(are_events_read) {
            return Next::Read(wanted);
        }
        if let Some(behind) = self.behind {
            return Next::LookUp(behind, self.acknowledged);
        }
        let events: Vec<_> = self.queue.iter().take(MAX_PDUS).copied().collect();
        let through = events.last().map_or(self.acknowledged, |last| last.pos);
        let events: Vec<_> = events.iter().map(|waiting| waiting.event).collect();
        let parcel = self.owed.take();
        let edus = self.edus.take(MAX_EDUS - parcel.len(), now);
        if events.is_empty() && edus.is_empty() && parcel.is_empty() {
            self.is_running = false;
            return Next::Nothing;
        }
        let (id, goal) = (new_id(), Goal::Through(through));
        Next::Attempt(self.begin(Attempt {
            id,
            time: now,
            events,
            parcel,
            edus,
            goal,
            refusals: 0,
        }))
    }

    /// What was looked up is to be sent, unless there is nothing on the way to the goal.
    pub(super) fn found(&mut self, found: Found, now: u64, new_id: impl FnOnce() -> String) {
        let Found { events, goal, behind, over } = found;
        self.over.extend(over);
        self.behind = behind;
        match events.is_empty() {
            true => self.reached(goal),
            false => {
                let (id, parcel, edus) = (new_id(), self.owed.take(), Vec::new());
                self.begin(Attempt { id, time: now, events, parcel, edus, goal, refusals: 0 });
            }
        }
    }

    /// The rooms that the server was put out of, and has heard of it.
    pub(super) fn take_over(&mut self) -> Vec<RoomStay> {
        let acknowledged = self.acknowledged;
        let is_over = |stay: &mut RoomStay| stay.1.is_some_and(|until| until <= acknowledged);
        self.over.extract_if(.., is_over).collect()
    }

    /// What storage must keep from here on for the server, if anything.
    pub(super) fn needs_after(&self) -> Option<StreamPos> {
        let has_events = self.attempt.as_ref().is_some_and(|attempt| !attempt.events.is_empty());
        let needs = has_events || self.behind.is_some() || !self.queue.is_empty();
        needs.then_some(self.acknowledged)
    }

    fn begin(&mut self, attempt: Attempt) -> Arc<Attempt> {
        let attempt = Arc::new(attempt);
        self.attempt = Some(attempt.clone());
        attempt
    }

    /// The transaction has been delivered.
    pub(super) fn delivered(&mut self) {
        self.health = Health::default();
        self.was_reached = true;
        self.strike_off();
    }

    /// The transaction is over; returns what was in it that must not be lost.
    fn strike_off(&mut self) -> GivenUp {
        self.is_unsaved = true;
        let Some(attempt) = self.attempt.take() else { return GivenUp::default() };
        self.reached(attempt.goal);
        self.owed.delivered(&attempt.parcel);
        GivenUp { events: attempt.events.len(), edus: attempt.parcel.edus.len() }
    }

    fn reached(&mut self, goal: Goal) {
        match goal {
            Goal::Through(pos) => {
                self.acknowledged = self.acknowledged.max(pos);
                while self.queue.front().is_some_and(|first| first.pos <= pos) {
                    self.queue.pop_front();
                }
                self.is_unsaved = true;
            }
            // How it goes on from there is known since it was looked up.
            Goal::Rooms => {}
        }
    }

    /// The transaction has not been delivered; nobody sends to the server until it is time to try
    /// again. If the transaction is given up, returns what was in it.
    pub(super) fn failed(
        &mut self,
        failure: &Failure,
        now: u64,
        jitter: u8,
        longest: std::time::Duration,
    ) -> Option<GivenUp> {
        let wants = match failure {
            Failure::Busy(wants) => *wants,
            Failure::Unreachable(_) | Failure::Refused(_) => None,
        };
        self.health.failed(now, wants, jitter, longest);
        self.was_heard = false;
        self.is_running = false;
        self.is_unsaved = true;
        self.edus = Edus::default();
        let is_refused = matches!(failure, Failure::Refused(_));
        let is_dead = self.health.failures >= DEAD_AFTER;
        let mut refusals = 0;
        if let Some(attempt) = self.attempt.as_mut().map(Arc::make_mut) {
            attempt.refusals += u32::from(is_refused);
            refusals = attempt.refusals;
            if is_dead {
                // What must not be lost is what it is made of; the rest is stale by now.
                attempt.edus = Vec::new();
                // It is looked up again.
                attempt.parcel.updates = Vec::new();
            }
        }
        self.attempt = self.attempt.take().filter(|attempt| !attempt.is_empty());
        if is_dead {
            self.fall_behind();
            self.owed.unheard.fall_behind();
        }
        (refusals >= MAX_REFUSALS).then(|| self.strike_off())
    }
}

#[cfg(test)]
mod tests;
