//! The full auth chain of a state, kept while the state changes.

use std::collections::{HashMap, HashSet};

use super::{
    EventSource,
    context::{Context, Result},
};
use crate::{
    EventNum,
    state::{NodeStore, ReadState, StateRoot},
};

/// Set for events that are in the state itself; the bits below count citations.
const IN_STATE: u32 = 1 << 31;

/// The full auth chain of one state: which events the entries of the state cite as auth events,
/// which those cite, and so on.
///
/// The auth difference is defined over the auth chains of whole states, so it depends on the
/// unconflicted entries too: an event is in no difference if any of them rests on it. A cover
/// knows, for every event, how many of the state and of the chain cite it. So it can be moved to
/// another state by what differs, like reference counts: what is cited no more leaves the chain
/// together with what it alone cited.
///
/// A cover is a cache. A new one is always correct and is built by one walk over the state; keep
/// one per room that has conflicts and drop it when memory is short. It takes about 20 bytes per
/// event of the state and its chain.
#[derive(Debug, Default)]
pub struct AuthCover {
    root: StateRoot,
    live: HashMap<EventNum, u32>,
}

impl AuthCover {
    /// The cover of the empty state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// About how many bytes of memory the cover takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.live.capacity() * (size_of::<(EventNum, u32)>() + 1)
    }

    /// The auth difference: all events that are in the auth chains of some of the states but not
    /// of all. An event that is in some but not all enters or leaves the chain on the way from
    /// the first state to the last, so those are collected.
    pub(super) fn difference<S: EventSource, N: NodeStore>(
        &mut self,
        context: &Context<'_, S>,
        nodes: &N,
        states: &[StateRoot],
    ) -> Result<HashSet<EventNum>, S, N::Error> {
        let mut difference = HashSet::new();
        for (index, state) in states.iter().enumerate() {
            match self.move_to(context, nodes, *state) {
                // The way to the first state says nothing.
                Ok(_) if index == 0 => {}
                Ok(flipped) => difference.extend(flipped),
                Err(error) => {
                    // It stopped half-way: only a fresh start is correct now.
                    *self = Self::new();
                    return Err(error);
                }
            }
        }
        Ok(difference)
    }

    /// Moves to another state and says which events entered or left the chain.
    fn move_to<S: EventSource, N: NodeStore>(
        &mut self,
        context: &Context<'_, S>,
        nodes: &N,
        state: StateRoot,
    ) -> Result<Vec<EventNum>, S, N::Error> {
        let changes = nodes.diff(self.root, state)?;
        let mut before = HashMap::new();
        // First what comes, then what goes: what both rest on is not taken down in between.
        for event in changes.iter().filter_map(|(_, _, new)| *new) {
            self.enter(context, event, &mut before)?;
        }
        for event in changes.iter().filter_map(|(_, old, _)| *old) {
            self.leave(context, event, &mut before)?;
        }
        self.root = state;
        let flipped = before.into_iter().filter(|(event, was)| self.in_chain(*event) != *was);
        Ok(flipped.map(|(event, _)| event).collect())
    }

    fn in_chain(&self, event: EventNum) -> bool {
        self.live.get(&event).is_some_and(|count| count & !IN_STATE > 0)
    }

    /// Takes an event into the state, and what it cites into the chain.
    fn enter<S: EventSource, N>(
        &mut self,
        context: &Context<'_, S>,
        event: EventNum,
        before: &mut HashMap<EventNum, bool>,
    ) -> Result<(), S, N> {
        let count = self.live.entry(event).or_default();
        let mut new = if *count == 0 { vec![event] } else { Vec::new() };
        *count |= IN_STATE;
        while let Some(event) = new.pop() {
            context.step()?;
            for cited in context.auth_events(event)?.iter() {
                let count = self.live.entry(*cited).or_default();
                before.entry(*cited).or_insert(*count & !IN_STATE > 0);
                if *count == 0 {
                    new.push(*cited);
                }
                *count += 1;
            }
        }
        Ok(())
    }

    /// Takes an event out of the state, and out of the chain what nothing else cites.
    fn leave<S: EventSource, N>(
        &mut self,
        context: &Context<'_, S>,
        event: EventNum,
        before: &mut HashMap<EventNum, bool>,
    ) -> Result<(), S, N> {
        let Some(count) = self.live.get_mut(&event) else { return Ok(()) };
        *count &= !IN_STATE;
        let mut gone = if *count == 0 { vec![event] } else { Vec::new() };
        while let Some(event) = gone.pop() {
            context.step()?;
            self.live.remove(&event);
            for cited in context.auth_events(event)?.iter() {
                let Some(count) = self.live.get_mut(cited) else { continue };
                before.entry(*cited).or_insert(*count & !IN_STATE > 0);
                *count -= 1;
                if *count == 0 {
                    gone.push(*cited);
                }
            }
        }
        Ok(())
    }
}
