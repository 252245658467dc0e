//! v2.1: the conflicted state subgraph.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    EventSource,
    context::{Context, Result},
};
use crate::EventNum;

/// An event on the way down the auth chains.
struct Visit {
    event: EventNum,
    auth_events: Arc<[EventNum]>,
    next: usize,
}

/// All events on paths along auth events from one conflicted event to another.
///
/// A depth-first walk from the conflicted events: an event is on such a path if it is conflicted
/// or one of its auth events is on a path. Each event is visited once.
pub(super) fn of<S: EventSource, N>(
    context: &Context<'_, S>,
    conflicted: &HashSet<EventNum>,
) -> Result<HashSet<EventNum>, S, N> {
    let mut on_path: HashMap<EventNum, bool> = HashMap::new();
    for start in conflicted {
        let mut path = Vec::new();
        enter(context, conflicted, *start, &mut on_path, &mut path)?;
        while let Some(visit) = path.last_mut() {
            let below = visit.auth_events.get(visit.next).copied();
            visit.next += 1;
            match below {
                Some(below) if !on_path.contains_key(&below) => {
                    enter(context, conflicted, below, &mut on_path, &mut path)?;
                }
                Some(_) => {}
                None => {
                    let reaches =
                        visit.auth_events.iter().any(|auth| on_path.get(auth) == Some(&true));
                    if reaches {
                        on_path.insert(visit.event, true);
                    }
                    path.pop();
                }
            }
        }
    }
    Ok(on_path.into_iter().filter_map(|(event, on)| on.then_some(event)).collect())
}

fn enter<S: EventSource, N>(
    context: &Context<'_, S>,
    conflicted: &HashSet<EventNum>,
    event: EventNum,
    on_path: &mut HashMap<EventNum, bool>,
    path: &mut Vec<Visit>,
) -> Result<(), S, N> {
    if on_path.contains_key(&event) {
        return Ok(());
    }
    context.step()?;
    on_path.insert(event, conflicted.contains(&event));
    path.push(Visit { event, auth_events: context.auth_events(event)?, next: 0 });
    Ok(())
}
