//! State resolution v2 and v2.1.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use ruma::room_version_rules::StateResolutionV2Rules;

use super::{
    AuthCover, EventSource,
    conflict::{Changes, Conflict},
    context::{Context, Result},
    mainline,
    partial::Partial,
    power, subgraph,
};
use crate::{
    EventNum, StateKeyNum,
    auth::types,
    pdu::Pdu,
    state::{NodeStore, ReadState, StateError, StateRoot},
};

/// Resolves what is in conflict.
pub(super) fn resolve<S: EventSource, N: NodeStore>(
    context: &Context<'_, S>,
    rules: &StateResolutionV2Rules,
    nodes: &N,
    states: &[StateRoot],
    conflict: &Conflict,
    cover: &mut AuthCover,
) -> Result<Changes, S, N::Error> {
    let first = states.first().copied().unwrap_or_default();
    let create = create_event(context, nodes, states)?;

    // The full conflicted set: the conflicted state set, since v2.1 the conflicted state
    // subgraph, and the auth difference.
    let conflicted: HashSet<_> = conflict.values().flatten().flatten().copied().collect();
    let mut full: BTreeSet<_> = cover.difference(context, nodes, states)?.into_iter().collect();
    if rules.consider_conflicted_state_subgraph {
        full.extend(subgraph::of(context, &conflicted)?);
    }
    full.extend(conflicted);

    // 1. The power events, and what of their auth chains is in the full conflicted set, in
    //    reverse topological power ordering.
    let power_events = power::sorted(context, &full, create.as_ref())?;

    // 2. Iterative auth checks from the unconflicted state map, since v2.1 from an empty one.
    let from_nothing = rules.begin_iterative_auth_checks_with_empty_state_map;
    let cites_create = !context.version.rules().authorization.room_create_event_id_as_room_id;
    let mut partial = Partial {
        nodes,
        unconflicted: (!from_nothing).then_some(first),
        conflict,
        set: BTreeMap::new(),
        implied_create: create.filter(|_| !cites_create),
    };
    partial.apply(context, &power_events)?;

    // 3. All others by mainline ordering based on the power levels resolved so far.
    for event in &power_events {
        full.remove(event);
    }
    let power_levels = match context.state_key(types::POWER_LEVELS, "")? {
        Some(key) => partial.get(key)?,
        None => None,
    };
    let others = mainline::sorted(context, power_levels, full)?;

    // 4. Iterative auth checks on these.
    partial.apply(context, &others)?;

    finish(nodes, first, conflict, &partial.set).map_err(super::ResolveError::State)
}

/// Step 5: whatever is in the unconflicted state map replaces what was resolved for its key.
fn finish<N: NodeStore>(
    nodes: &N,
    first: StateRoot,
    conflict: &Conflict,
    set: &BTreeMap<StateKeyNum, EventNum>,
) -> std::result::Result<Changes, StateError<N::Error>> {
    let mut changes: Vec<_> = conflict.keys().map(|key| (*key, set.get(key).copied())).collect();
    for (key, event) in set {
        if !conflict.contains_key(key) && nodes.get(first, *key)?.is_none() {
            changes.push((*key, Some(*event)));
        }
    }
    Ok(changes)
}

/// The create event, which every state of a room has.
fn create_event<S: EventSource, N: NodeStore>(
    context: &Context<'_, S>,
    nodes: &N,
    states: &[StateRoot],
) -> Result<Option<Arc<Pdu>>, S, N::Error> {
    let Some(key) = context.state_key(types::CREATE, "")? else { return Ok(None) };
    for state in states {
        if let Some(num) = nodes.get(*state, key)?
            && let Some(event) = context.state_event(num)?
        {
            return Ok(Some(event));
        }
    }
    Ok(None)
}
