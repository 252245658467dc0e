//! Walks through a room's graph towards its beginning, for servers that are missing events.
//!
//! Specification:
//! <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>

use std::collections::{BinaryHeap, HashSet};

use parlour_event::{EventNum, StreamPos};
use parlour_storage::schema::StoredEvent;
use ruma::OwnedEventId;
use serde_json::value::RawValue;

use super::{Resident, ViewError};

/// How many events one walk comes by at most; those that don't go out count, too.
const MAX_LOOKED_AT: usize = 1_000;

/// What a server misses between two ends of the graph.
#[derive(Debug)]
pub struct Gap<'a> {
    /// What it knows: neither these nor what is before them.
    pub earliest: &'a [OwnedEventId],
    /// What it knows without knowing what is before.
    pub latest: &'a [OwnedEventId],
    /// Nothing less deep than this.
    pub min_depth: u64,
    /// How many events at most.
    pub limit: usize,
}

/// An event on the way, the deepest first.
struct Step(StoredEvent);

impl Step {
    fn place(&self) -> (u64, StreamPos) {
        (self.0.meta.depth, self.0.meta.pos)
    }
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Step {}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Step {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

impl Resident {
    /// The events in a gap, breadth first from its newer end, given out oldest first.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn missing(&mut self, gap: &Gap<'_>) -> Result<Vec<Box<RawValue>>, ViewError> {
        let known = self.placed(gap.earliest.iter().map(|id| id.as_str()))?;
        let mut layer = self.placed(gap.latest.iter().map(|id| id.as_str()))?;
        let mut seen: HashSet<EventNum> =
            known.iter().chain(&layer).map(|event| event.num).collect();
        let mut found = Vec::new();
        let mut budget = MAX_LOOKED_AT;
        while !layer.is_empty() && found.len() < gap.limit && budget > 0 {
            let mut next = Vec::new();
            for event in &layer {
                let before = self.before(event)?;
                budget = budget.saturating_sub(before.len());
                for event in before {
                    let is_wanted = self.is_as_deep(&event, gap.min_depth)?;
                    next.extend((is_wanted && seen.insert(event.num)).then_some(event));
                }
            }
            found.extend(next.iter().filter(|event| self.may_have(&event.meta)).cloned());
            layer = next;
        }
        found.truncate(gap.limit);
        found.sort_by_key(|event| (event.meta.depth, event.meta.pos));
        found.iter().map(|event| self.pdu(event)).collect()
    }

    /// Events and what is before them, the deepest first: at most `limit` altogether.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn backwards(
        &mut self,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Result<Vec<Box<RawValue>>, ViewError> {
        let mut found = Vec::new();
        let first = self.placed(from.iter().map(|id| id.as_str()))?;
        let mut seen: HashSet<EventNum> = first.iter().map(|event| event.num).collect();
        let mut next: BinaryHeap<_> = first.into_iter().map(Step).collect();
        for _ in 0..MAX_LOOKED_AT {
            let Some(Step(event)) = next.pop() else { break };
            if self.may_have(&event.meta) {
                found.push(self.pdu(&event)?);
            }
            if found.len() >= limit {
                break;
            }
            let before = self.before(&event)?.into_iter();
            next.extend(before.filter(|event| seen.insert(event.num)).map(Step));
        }
        Ok(found)
    }

    /// Whether an event says of itself that it is as deep as that.
    fn is_as_deep(&self, event: &StoredEvent, depth: u64) -> Result<bool, ViewError> {
        Ok(depth == 0 || event.pdu(self.room.version)?.depth() >= depth)
    }

    /// The events that an event follows, as far as they are known here.
    fn before(&self, event: &StoredEvent) -> Result<Vec<StoredEvent>, ViewError> {
        let pdu = event.pdu(self.room.version)?;
        self.placed(pdu.prev_events().iter().map(|id| id.as_str()))
    }
}
