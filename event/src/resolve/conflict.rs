//! What differs between the states.

use std::collections::BTreeMap;

use crate::{
    EventNum, StateKeyNum,
    state::{NodeStore, ReadState, StateError, StateRoot},
};

/// The keys that have not the same value in all states, with all their values; `None` is the value
/// in a state without such an entry. Ordered, so that the work is the same on every run.
pub(super) type Conflict = BTreeMap<StateKeyNum, Vec<Option<EventNum>>>;

/// The changes that turn the first state into the resolved one.
pub(super) type Changes = Vec<(StateKeyNum, Option<EventNum>)>;

/// Compares each state with the first: a key that differs between any two states differs from the
/// first in one of them.
pub(super) fn between<N: NodeStore>(
    nodes: &N,
    first: StateRoot,
    states: &[StateRoot],
) -> Result<Conflict, StateError<N::Error>> {
    let mut conflict = Conflict::new();
    for state in states {
        for (key, in_first, here) in nodes.diff(first, *state)? {
            let values = conflict.entry(key).or_insert_with(|| vec![in_first]);
            if !values.contains(&here) {
                values.push(here);
            }
        }
    }
    Ok(conflict)
}
