//! The partially resolved state, and the iterative auth checks that build it.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use super::{
    EventSource, ResolveError,
    conflict::Conflict,
    context::{Context, Result},
};
use crate::{
    EventNum, StateKeyNum,
    auth::{self, StateView, types},
    pdu::Pdu,
    state::{NodeStore, ReadState, StateError, StateRoot},
};

/// A state that is being resolved: entries set so far, over the unconflicted state map.
pub(super) struct Partial<'a, N: ?Sized> {
    pub(super) nodes: &'a N,
    /// Where unconflicted entries are read from; `None` if the resolution starts from nothing.
    pub(super) unconflicted: Option<StateRoot>,
    pub(super) conflict: &'a Conflict,
    pub(super) set: BTreeMap<StateKeyNum, EventNum>,
    /// The create event, for room versions in which no event cites it.
    pub(super) implied_create: Option<Arc<Pdu>>,
}

impl<N: NodeStore> Partial<'_, N> {
    pub(super) fn get(
        &self,
        key: StateKeyNum,
    ) -> std::result::Result<Option<EventNum>, StateError<N::Error>> {
        match (self.set.get(&key), self.unconflicted) {
            (Some(event), _) => Ok(Some(*event)),
            (None, Some(root)) if !self.conflict.contains_key(&key) => self.nodes.get(root, key),
            _ => Ok(None),
        }
    }

    /// The iterative auth checks: takes each event into the state that is allowed by then.
    pub(super) fn apply<S: EventSource>(
        &mut self,
        context: &Context<'_, S>,
        events: &[EventNum],
    ) -> Result<(), S, N::Error> {
        for num in events {
            let Some(event) = context.state_event(*num)? else { continue };
            let mut cited = Vec::new();
            for auth in context.auth_events(*num)?.iter() {
                if !context.rejected(*auth)? {
                    cited.extend(context.state_event(*auth)?);
                }
            }
            if self.allows(context, &event, cited)? {
                let key = context.place(*num, &event)?;
                self.set.insert(key, *num);
            }
        }
        Ok(())
    }

    /// Whether the auth rules allow the event in this state. `cited` stands in for entries that
    /// the state does not have.
    pub(super) fn allows<S: EventSource>(
        &self,
        context: &Context<'_, S>,
        event: &Pdu,
        cited: Vec<Arc<Pdu>>,
    ) -> Result<bool, S, N::Error> {
        context.step()?;
        let view = View { context, partial: self, cited, error: RefCell::new(None) };
        let allowed = auth::check(context.version, event, &view).is_ok();
        match view.error.into_inner() {
            Some(error) => Err(error),
            None => Ok(allowed),
        }
    }
}

/// What an auth check sees. A look-up cannot fail there, so errors are kept for afterwards.
struct View<'a, S: EventSource, N: NodeStore> {
    context: &'a Context<'a, S>,
    partial: &'a Partial<'a, N>,
    cited: Vec<Arc<Pdu>>,
    error: RefCell<Option<ResolveError<S::Error, N::Error>>>,
}

impl<S: EventSource, N: NodeStore> View<'_, S, N> {
    /// The entry of the state that was not rejected, or else the cited event.
    fn look_up(&self, event_type: &str, state_key: &str) -> Result<Option<Arc<Pdu>>, S, N::Error> {
        if let Some(key) = self.context.state_key(event_type, state_key)?
            && let Some(num) = self.partial.get(key)?
            && !self.context.rejected(num)?
            && let Some(event) = self.context.state_event(num)?
        {
            return Ok(Some(event));
        }
        let cited = self
            .cited
            .iter()
            .find(|event| event.event_type() == event_type && event.state_key() == Some(state_key));
        let implied = self.partial.implied_create.as_ref();
        let implied = implied.filter(|_| event_type == types::CREATE && state_key.is_empty());
        Ok(cited.or(implied).cloned())
    }
}

impl<S: EventSource, N: NodeStore> StateView for View<'_, S, N> {
    fn event(&self, event_type: &str, state_key: &str) -> Option<Arc<Pdu>> {
        self.look_up(event_type, state_key).unwrap_or_else(|error| {
            self.error.borrow_mut().get_or_insert(error);
            None
        })
    }
}
