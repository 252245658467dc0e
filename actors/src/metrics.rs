//! What the actors report about themselves. The binary turns it into Prometheus metrics.

use std::{fmt, time::Duration};

/// Receives measurements. Every method has an empty default, so that an embedding program takes
/// what it wants.
pub trait Metrics: Send + Sync + fmt::Debug {
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

    /// Waiting clients were woken.
    fn woken(&self, users: usize) {
        let _ = users;
    }
}

/// Takes no measurements.
#[derive(Debug)]
pub struct NoMetrics;

impl Metrics for NoMetrics {}
