//! The mainline ordering.

use std::{cmp::Reverse, collections::HashMap};

use ruma::OwnedEventId;

use super::{
    EventSource,
    context::{Context, Result},
};
use crate::{EventNum, auth::types};

/// The position of an event that rests on no power levels of the mainline: infinity.
const NOWHERE: usize = usize::MAX;

/// The mainline of a power levels event, as far as anyone asked for it: position 0 is the event
/// itself, the next is the power levels event among its auth events, and so on.
struct Mainline {
    positions: HashMap<EventNum, usize>,
    /// The oldest event found so far; `None` when the end is reached.
    oldest: Option<EventNum>,
    /// Positions of power levels events aside of the mainline.
    aside: HashMap<EventNum, usize>,
}

/// Orders events by mainline position, the oldest part of the mainline first, then by time, then
/// by event id.
pub(super) fn sorted<S: EventSource, N>(
    context: &Context<'_, S>,
    power_levels: Option<EventNum>,
    events: impl IntoIterator<Item = EventNum>,
) -> Result<Vec<EventNum>, S, N> {
    let mut mainline = Mainline {
        positions: power_levels.into_iter().map(|num| (num, 0)).collect(),
        oldest: power_levels,
        aside: HashMap::new(),
    };
    let mut ranked: Vec<(Reverse<usize>, u64, OwnedEventId, EventNum)> = Vec::new();
    for num in events {
        if let Some(event) = context.state_event(num)? {
            let position = mainline.position(context, num)?;
            let (ts, id) = (event.origin_server_ts(), event.event_id().clone());
            ranked.push((Reverse(position), ts, id, num));
        }
    }
    ranked.sort_unstable();
    Ok(ranked.into_iter().map(|(.., num)| num).collect())
}

impl Mainline {
    /// The position of the nearest power levels event of the mainline below an event.
    ///
    /// Both lines are walked in turn, so that the cost is the distance between the event and the
    /// mainline's start, not the whole history of power levels.
    fn position<S: EventSource, N>(
        &mut self,
        context: &Context<'_, S>,
        event: EventNum,
    ) -> Result<usize, S, N> {
        let mut passed = Vec::new();
        let mut passed_at = HashMap::new();
        let mut current = step(context, event)?;
        let position = loop {
            if let Some(num) = current {
                if let Some(known) = self.known(num) {
                    break known;
                }
                let is_new = passed_at.insert(num, passed.len()).is_none();
                passed.push(num);
                current = if is_new { step(context, num)? } else { None };
            } else if self.oldest.is_none() {
                break NOWHERE;
            }
            if let Some(num) = self.extend(context)?
                && let Some(index) = passed_at.get(&num)
            {
                // What was passed below this event is on the mainline itself, further down.
                passed.truncate(*index);
                break self.known(num).unwrap_or(NOWHERE);
            }
        };
        self.aside.extend(passed.into_iter().map(|num| (num, position)));
        Ok(position)
    }

    fn known(&self, num: EventNum) -> Option<usize> {
        self.positions.get(&num).or_else(|| self.aside.get(&num)).copied()
    }

    /// Finds one more event of the mainline.
    fn extend<S: EventSource, N>(
        &mut self,
        context: &Context<'_, S>,
    ) -> Result<Option<EventNum>, S, N> {
        let Some(oldest) = self.oldest else { return Ok(None) };
        let position = self.positions.len();
        // An event that is there already would be a cycle, which is an end as well.
        self.oldest = step(context, oldest)?.filter(|num| !self.positions.contains_key(num));
        self.positions.extend(self.oldest.map(|num| (num, position)));
        Ok(self.oldest)
    }
}

/// The power levels event among an event's auth events.
fn step<S: EventSource, N>(
    context: &Context<'_, S>,
    num: EventNum,
) -> Result<Option<EventNum>, S, N> {
    context.step()?;
    let found = context.auth_event_of_type(num, types::POWER_LEVELS)?;
    Ok(found.map(|(num, _)| num))
}
