//! The event that is nearest to a time.
//!
//! Specification:
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event>

use std::ops::Bound;

use parlour_event::{EventNum, StateKeyNum};
use parlour_storage::{
    Direction,
    schema::{NumberedPlace, StoredEvent},
};

use super::{Fields, Reader, ViewError};

/// How many events are looked at on the way to one that may be seen.
const MAX_LOOKED_AT: usize = 4_096;

/// How many events are read at once.
pub(super) const BATCH: usize = 64;

/// How many changes of what the reader may see are looked up, of each kind the newest.
const MAX_TURNS: usize = 50;

impl Reader {
    /// The event nearest to a time, in milliseconds since the epoch, in a direction of time, with
    /// the time that it bears.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn nearest(
        &mut self,
        time: u64,
        direction: Direction,
    ) -> Result<Option<(StoredEvent, u64)>, ViewError> {
        let room = self.room().num;
        let mut from = Bound::Included(edge(time, direction));
        let (mut budget, mut batch) = (MAX_LOOKED_AT, 1);
        let mut turns = None;
        while budget > 0 {
            let range = range(from, direction);
            let places = self.view().store.events_by_time(room, range, direction, batch)?;
            let (found, any_visible) = self.first_heard(&places)?;
            let last = places.last().filter(|_| places.len() == batch);
            let (None, Some(last)) = (&found, last) else { return Ok(found) };
            from = Bound::Excluded(*last);
            if !any_visible {
                // Nothing can be seen before what may be seen changes: a long way, perhaps.
                if turns.is_none() {
                    turns = Some(self.turns()?);
                }
                let turns = turns.as_deref().unwrap_or_default();
                let turn = next_turn(turns, last.0, direction);
                from = turn.map_or(from, |turn| Bound::Included(edge(turn, direction)));
            }
            budget = budget.saturating_sub(batch);
            batch = BATCH;
        }
        Ok(None)
    }

    /// The first of these events that the reader may see and wants to hear, and whether any of
    /// those before it may be seen.
    fn first_heard(
        &mut self,
        places: &[NumberedPlace],
    ) -> Result<(Option<(StoredEvent, u64)>, bool), ViewError> {
        let nums: Vec<_> = places.iter().map(|(_, num)| *num).collect();
        let mut any_visible = false;
        for ((time, _), event) in places.iter().zip(self.view().store.events(&nums)?) {
            let Some(event) = event else { continue };
            if !self.judge(&event)?.visible {
                continue;
            }
            any_visible = true;
            if !self.ignored()?.hides(&Fields::of(&event)?) {
                return Ok((Some((event, *time)), true));
            }
        }
        Ok((None, any_visible))
    }

    /// The times of the events that change what the reader may see.
    fn turns(&self) -> Result<Vec<u64>, ViewError> {
        let mut turns = Vec::new();
        for key in [self.visibility_key, self.member_key].into_iter().flatten() {
            self.add_turns(key, &mut turns)?;
        }
        Ok(turns)
    }

    fn add_turns(&self, key: StateKeyNum, turns: &mut Vec<u64>) -> Result<(), ViewError> {
        let mut state = self.room().head.state;
        for _ in 0..MAX_TURNS {
            let Some(num) = self.num_in(state, Some(key))? else { return Ok(()) };
            let Some(event) = self.view().store.event(num)? else { return Ok(()) };
            turns.push(Fields::of(&event)?.origin_server_ts);
            state = event.meta.state_before;
        }
        Ok(())
    }
}

/// Where a search begins at a time.
pub(super) fn edge(time: u64, direction: Direction) -> NumberedPlace {
    match direction {
        Direction::Forward => (time, EventNum(0)),
        Direction::Backward => (time, EventNum(u64::MAX)),
    }
}

/// The part of the order of time that lies in a direction.
pub(super) fn range(
    from: Bound<NumberedPlace>,
    direction: Direction,
) -> (Bound<NumberedPlace>, Bound<NumberedPlace>) {
    match direction {
        Direction::Forward => (from, Bound::Unbounded),
        Direction::Backward => (Bound::Unbounded, from),
    }
}

fn next_turn(turns: &[u64], time: u64, direction: Direction) -> Option<u64> {
    let turns = turns.iter().copied();
    match direction {
        Direction::Forward => turns.filter(|turn| *turn > time).min(),
        Direction::Backward => turns.filter(|turn| *turn < time).max(),
    }
}
