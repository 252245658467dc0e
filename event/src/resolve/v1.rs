//! State resolution v1.
//!
//! Where the specification leaves a choice, this does what the only implementation of this
//! algorithm in use does: members are checked against the state before any member conflict is
//! resolved, so that their order is of no consequence; and if none of several other events passes,
//! the one that would be tried last stays.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use sha1::{Digest, Sha1};

use super::{
    EventSource,
    conflict::{Changes, Conflict},
    context::{Context, Result},
    partial::Partial,
};
use crate::{
    EventNum, StateKeyNum,
    auth::types,
    pdu::Pdu,
    state::{NodeStore, StateRoot},
};

/// A conflicting event with what it is sorted by.
struct Candidate {
    depth: u64,
    hash: [u8; 20],
    num: EventNum,
    event: Arc<Pdu>,
}

type Candidates = BTreeMap<StateKeyNum, Vec<Candidate>>;

/// Resolves what is in conflict.
pub(super) fn resolve<S: EventSource, N: NodeStore>(
    context: &Context<'_, S>,
    nodes: &N,
    first: StateRoot,
    conflict: &Conflict,
) -> Result<Changes, S, N::Error> {
    // Start by setting R to the union of the states, excluding any conflicting events. Unlike in
    // v2 an entry that some states lack is not conflicting.
    let (union, mut candidates) = split(context, conflict)?;
    let mut result =
        Partial { nodes, unconflicted: Some(first), conflict, set: union, implied_create: None };
    for event_type in [types::POWER_LEVELS, types::JOIN_RULES, types::MEMBER] {
        let mut resolved = Vec::new();
        for (key, events) in take_type(&mut candidates, event_type) {
            resolved.extend(resolve_auth_events(context, &mut result, key, events)?);
        }
        result.set.extend(resolved);
    }
    let mut resolved = Vec::new();
    for (key, events) in candidates {
        resolved.extend(resolve_other_events(context, &result, key, events)?);
    }
    result.set.extend(resolved);
    Ok(conflict.keys().map(|key| (*key, result.set.get(key).copied())).collect())
}

/// Tells entries that only some states have from conflicting ones, and orders these by ascending
/// depth, then descending SHA-1 of the event id.
fn split<S: EventSource, N>(
    context: &Context<'_, S>,
    conflict: &Conflict,
) -> Result<(BTreeMap<StateKeyNum, EventNum>, Candidates), S, N> {
    let mut union = BTreeMap::new();
    let mut candidates = Candidates::new();
    for (key, values) in conflict {
        let events: Vec<_> = values.iter().flatten().copied().collect();
        if let [event] = events[..] {
            union.insert(*key, event);
            continue;
        }
        let found = candidates.entry(*key).or_default();
        for num in events {
            context.step()?;
            let Some(event) = context.state_event(num)? else { continue };
            let hash = Sha1::digest(event.event_id().as_bytes()).into();
            found.push(Candidate { depth: event.depth(), hash, num, event });
        }
        found.sort_by_key(|candidate| (candidate.depth, Reverse(candidate.hash)));
    }
    Ok((union, candidates))
}

fn take_type(candidates: &mut Candidates, event_type: &str) -> Candidates {
    let (taken, left) = std::mem::take(candidates).into_iter().partition(|(_, events)| {
        events.first().is_some_and(|first| first.event.event_type() == event_type)
    });
    *candidates = left;
    taken
}

/// Power levels, join rules, members: add the first event; then each next event that the state
/// with its predecessor allows, up to the first that is not allowed.
fn resolve_auth_events<S: EventSource, N: NodeStore>(
    context: &Context<'_, S>,
    result: &mut Partial<'_, N>,
    key: StateKeyNum,
    events: Vec<Candidate>,
) -> Result<Option<(StateKeyNum, EventNum)>, S, N::Error> {
    let mut chosen = None;
    for candidate in events {
        if chosen.is_some() && !result.allows(context, &candidate.event, Vec::new())? {
            break;
        }
        result.set.insert(key, candidate.num);
        chosen = Some((key, candidate.num));
    }
    // Other keys of this type are not to see it yet.
    result.set.remove(&key);
    Ok(chosen)
}

/// All others: the event with the highest depth, then the lowest SHA-1, that passes.
fn resolve_other_events<S: EventSource, N: NodeStore>(
    context: &Context<'_, S>,
    result: &Partial<'_, N>,
    key: StateKeyNum,
    events: Vec<Candidate>,
) -> Result<Option<(StateKeyNum, EventNum)>, S, N::Error> {
    for candidate in events.iter().rev() {
        if result.allows(context, &candidate.event, Vec::new())? {
            return Ok(Some((key, candidate.num)));
        }
    }
    Ok(events.first().map(|candidate| (key, candidate.num)))
}
