//! What all steps of a resolution share: the events, each read once, and the count of steps.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::Arc,
};

use super::{EventSource, ResolveError, ResolveLimits};
use crate::{EventNum, RoomVersion, StateKeyNum, pdu::Pdu};

pub(super) type Result<T, S, N> =
    std::result::Result<T, ResolveError<<S as EventSource>::Error, N>>;

pub(super) struct Context<'a, S> {
    pub(super) version: &'a RoomVersion,
    source: &'a S,
    events: RefCell<HashMap<EventNum, Option<Arc<Pdu>>>>,
    max_steps: u64,
    steps: Cell<u64>,
}

impl<'a, S: EventSource> Context<'a, S> {
    pub(super) fn new(version: &'a RoomVersion, source: &'a S, limits: ResolveLimits) -> Self {
        Self {
            version,
            source,
            events: RefCell::default(),
            max_steps: limits.max_events,
            steps: Cell::new(0),
        }
    }

    /// Counts one step.
    pub(super) fn step<N>(&self) -> Result<(), S, N> {
        let steps = self.steps.get().saturating_add(1);
        self.steps.set(steps);
        if steps > self.max_steps {
            return Err(ResolveError::TooLarge { max_events: self.max_steps });
        }
        Ok(())
    }

    /// The event, if it is known and a state event.
    pub(super) fn state_event<N>(&self, num: EventNum) -> Result<Option<Arc<Pdu>>, S, N> {
        if let Some(known) = self.events.borrow().get(&num) {
            return Ok(known.clone());
        }
        let event = self.source.event(num).map_err(ResolveError::Events)?;
        let event = event.filter(|event| event.state_key().is_some());
        self.events.borrow_mut().insert(num, event.clone());
        Ok(event)
    }

    pub(super) fn auth_events<N>(&self, num: EventNum) -> Result<Arc<[EventNum]>, S, N> {
        self.source.auth_events(num).map_err(ResolveError::Events)
    }

    pub(super) fn rejected<N>(&self, num: EventNum) -> Result<bool, S, N> {
        self.source.rejected(num).map_err(ResolveError::Events)
    }

    pub(super) fn state_key<N>(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<StateKeyNum>, S, N> {
        self.source.state_key(event_type, state_key).map_err(ResolveError::Events)
    }

    /// The place of a state event in the state.
    pub(super) fn place<N>(&self, num: EventNum, event: &Pdu) -> Result<StateKeyNum, S, N> {
        let state_key = event.state_key().unwrap_or_default();
        self.state_key(event.event_type(), state_key)?.ok_or(ResolveError::NoStateKey(num))
    }

    /// The first of the event's auth events with this type and an empty state key.
    pub(super) fn auth_event_of_type<N>(
        &self,
        num: EventNum,
        event_type: &str,
    ) -> Result<Option<(EventNum, Arc<Pdu>)>, S, N> {
        for auth in self.auth_events(num)?.iter() {
            if let Some(event) = self.state_event(*auth)?
                && event.event_type() == event_type
                && event.state_key() == Some("")
            {
                return Ok(Some((*auth, event)));
            }
        }
        Ok(None)
    }
}
