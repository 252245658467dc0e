//! What the actors report about themselves. The binary turns it into Prometheus metrics.

use std::{fmt, time::Duration};

/// What an event goes through on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A request becomes what its endpoint works with: JSON is read, and checked.
    Parse,
    /// Until the room has time for it.
    RoomWait,
    /// A local event is set up: extremities, the state before it, the auth events.
    Draft,
    /// A local event is hashed and signed.
    Sign,
    /// The auth rules.
    Auth,
    /// The state after it, the new extremities, and how the current state changes.
    State,
    /// Until the persister has written the group before.
    CommitWait,
    /// Its group's record is written and flushed to disk.
    Flush,
    /// Its group is put into the index.
    Index,
    /// Readers and those who wait are told.
    Announce,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Parse,
        Self::RoomWait,
        Self::Draft,
        Self::Sign,
        Self::Auth,
        Self::State,
        Self::CommitWait,
        Self::Flush,
        Self::Index,
        Self::Announce,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::RoomWait => "room_wait",
            Self::Draft => "draft",
            Self::Sign => "sign",
            Self::Auth => "auth",
            Self::State => "state",
            Self::CommitWait => "commit_wait",
            Self::Flush => "flush",
            Self::Index => "index",
            Self::Announce => "announce",
        }
    }
}

/// Receives measurements. Every method has an empty default, so that an embedding program takes
/// what it wants.
pub trait Metrics: Send + Sync + fmt::Debug {
    /// A stage took this long: of an event, or of the group that it was in.
    fn stage(&self, stage: Stage, took: Duration) {
        let _ = (stage, took);
    }

    /// A group of `changes` became durable; the flush and the whole commit took this long.
    fn committed(&self, changes: usize, flush: Duration, total: Duration) {
        let _ = (changes, flush, total);
    }

    /// A request to a room was refused since the room had `queued` requests waiting already.
    fn room_refused(&self, room_id: &str, queued: usize) {
        let _ = (room_id, queued);
    }

    /// A room was woken from storage in this time.
    fn room_woken(&self, took: Duration) {
        let _ = took;
    }

    /// A room's core panicked and was set up again.
    fn room_panicked(&self) {}

    /// State resolution took this long.
    fn resolved(&self, took: Duration) {
        let _ = took;
    }

    /// A transaction to another server came to this: `ok`, `unreachable`, `busy`, `refused`, or
    /// `given_up`.
    fn transaction(&self, outcome: &'static str) {
        let _ = outcome;
    }

    /// Other servers did not want so many of the events in a transaction.
    fn events_refused(&self, events: usize) {
        let _ = events;
    }

    /// So many things were not told to other servers, which cannot be reached or are too slow.
    fn edus_dropped(&self, edus: usize) {
        let _ = edus;
    }

    /// So many EDUs with messages for devices elsewhere were dropped, since their server does not
    /// take them (`refused`), or was never reached (`unreachable`).
    fn posted_dropped(&self, reason: &'static str, edus: usize) {
        let _ = (reason, edus);
    }

    /// So many messages for a device were dropped, since very many wait for it.
    fn messages_dropped(&self, messages: usize) {
        let _ = messages;
    }

    /// Waiting clients were woken.
    fn woken(&self, users: usize) {
        let _ = users;
    }
}

/// Takes no measurements.
#[derive(Debug)]
pub struct NoMetrics;

impl Metrics for NoMetrics {}
