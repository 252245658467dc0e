//! What a server has missed for which nothing waits in memory any more, from storage.
//!
//! A server that has missed a little gets all of it, in order. One that has missed much gets the
//! newest events of each room and fetches the rest as it likes.

use std::collections::{
    HashMap,
    hash_map::Entry::{Occupied, Vacant},
};

use parlour_event::{EventNum, RoomNum, StreamPos};
use parlour_storage::{
    StorageError, Store,
    schema::{OutboxEntry, ServerStay, outbox::RoomStay},
};

use super::line::{Behind, Goal, MAX_PDUS};

/// How many entries of the outbox are looked through at once.
const SCAN: usize = 2_000;

/// Whoever has missed more events than this gets the newest ones alone.
const MANY: usize = 200;

/// How many rooms are looked at for one transaction.
const ROOMS: usize = 200;

/// How many of a room's newest events are sent: as many as one event may follow.
const TIPS: usize = 20;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) events: Vec<EventNum>,
    pub(super) goal: Goal,
    /// How the server goes on catching up; `None` if it has everything up to the goal and the
    /// queue has the rest.
    pub(super) behind: Option<Behind>,
    /// Rooms that the server was put out of, and hears of on the way to the goal.
    pub(super) over: Vec<RoomStay>,
}

/// A server's way through storage.
#[derive(Debug)]
pub(super) struct CatchUp<'a> {
    pub(super) store: &'a Store,
    pub(super) server: &'a str,
    /// What the server has already.
    pub(super) acknowledged: StreamPos,
    /// Up to here queues in memory know what waits.
    pub(super) dispatched: StreamPos,
    /// The outbox has nothing up to here any more, delivered or not.
    pub(super) floor: StreamPos,
}

impl CatchUp<'_> {
    pub(super) fn next(&self, behind: Behind) -> Result<Found, StorageError> {
        match behind {
            Behind::Unknown if self.has_missed_much()? => {
                self.rooms(self.dispatched, (RoomNum(0), None))
            }
            Behind::Unknown | Behind::Events => self.events(),
            Behind::Rooms { target, last } => self.rooms(target, last),
        }
    }

    fn has_missed_much(&self) -> Result<bool, StorageError> {
        if self.acknowledged < self.floor {
            return Ok(true);
        }
        let entries = self.store.outbox(self.acknowledged, SCAN)?;
        let is_more = entries.len() == SCAN;
        Ok(is_more || self.own(&entries)?.len() > MANY)
    }

    /// The next events for the server.
    fn events(&self) -> Result<Found, StorageError> {
        let entries = self.store.outbox(self.acknowledged, SCAN)?;
        let mut own = self.own(&entries)?;
        let is_more = entries.len() == SCAN || own.len() > MAX_PDUS;
        own.truncate(MAX_PDUS);
        let through = match own.last() {
            Some((pos, _)) if own.len() == MAX_PDUS => *pos,
            _ => entries.last().map_or(self.dispatched, |(pos, _)| *pos),
        };
        let goal = Goal::Through(through.max(self.acknowledged));
        let behind = (is_more || through < self.dispatched).then_some(Behind::Events);
        let events = own.into_iter().map(|(_, event)| event).collect();
        Ok(Found { events, goal, behind, over: Vec::new() })
    }

    /// Those among the entries that are for the server.
    fn own(
        &self,
        entries: &[(StreamPos, OutboxEntry)],
    ) -> Result<Vec<(StreamPos, EventNum)>, StorageError> {
        let mut stays = HashMap::<RoomNum, Vec<ServerStay>>::new();
        let mut own = Vec::new();
        for (pos, entry) in entries {
            if entry.except.as_deref() == Some(self.server) {
                continue;
            }
            let stays = match stays.entry(entry.room) {
                Occupied(known) => known.into_mut(),
                Vacant(place) => place.insert(self.store.stays_of(entry.room, self.server)?),
            };
            let is_own = stays.iter().any(|stay| stay.covers(*pos));
            own.extend(is_own.then_some((*pos, entry.event)));
        }
        Ok(own)
    }

    /// The newest events of the next rooms in which the server has missed something.
    fn rooms(&self, target: StreamPos, mut last: RoomStay) -> Result<Found, StorageError> {
        let rooms = self.store.rooms_of_server(self.server, last, ROOMS)?;
        let mut is_end = rooms.len() < ROOMS;
        let (mut events, mut over) = (Vec::new(), Vec::new());
        for room in rooms {
            let newest = self.newest(room)?;
            if events.len() + newest.len() > MAX_PDUS {
                is_end = false;
                break;
            }
            events.extend(newest);
            over.extend(room.1.is_some().then_some(room));
            last = room;
        }
        let (goal, behind) = match is_end {
            true => (Goal::Through(target), Behind::Events),
            false => (Goal::Rooms, Behind::Rooms { target, last }),
        };
        Ok(Found { events, goal, behind: Some(behind), over })
    }

    /// A room's newest events, if the server has missed one that it should have had from here.
    fn newest(&self, (room, until): RoomStay) -> Result<Vec<EventNum>, StorageError> {
        if let Some(until) = until {
            // The event with which it was put out.
            let is_missed = until > self.acknowledged;
            let last = is_missed.then(|| self.store.timeline_at(room, until)).transpose()?;
            return Ok(last.flatten().map(|(_, entry)| entry.event).into_iter().collect());
        }
        if self.store.newest_outgoing(room)? <= self.acknowledged {
            return Ok(Vec::new());
        }
        let head = self.store.room_head(room)?;
        let mut tips = head.map(|head| head.extremities).unwrap_or_default();
        tips.truncate(TIPS);
        Ok(tips)
    }
}
