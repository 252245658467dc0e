//! Events that were found before one that is known, and the order in which to take them in.

use std::{collections::HashMap, sync::Arc};

use parlour_event::Pdu;
use parlour_storage::StorageError;
use ruma::{EventId, OwnedEventId};

use super::PAGE;

/// Events that were found before one that is known.
pub(super) struct Found {
    newest: Arc<Pdu>,
    events: HashMap<OwnedEventId, Arc<Pdu>>,
}

impl Found {
    pub(super) fn new(newest: Arc<Pdu>) -> Self {
        Self { newest, events: HashMap::new() }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Pdu>> {
        std::iter::once(&self.newest).chain(self.events.values())
    }

    /// The events before which some are missing: at most as many as an event may follow.
    pub(super) fn whose_prev_events_are_missing(
        &self,
        is_known: impl Fn(&EventId) -> Result<bool, StorageError>,
    ) -> Result<Vec<OwnedEventId>, StorageError> {
        let mut lacking = Vec::new();
        for pdu in self.all() {
            for prev in pdu.prev_events() {
                if !self.events.contains_key(prev) && !is_known(prev)? {
                    lacking.push(pdu.event_id().clone());
                    break;
                }
            }
        }
        lacking.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
        Ok(lacking)
    }

    /// Adds those of some events that are missing before what is there. Says whether there were any.
    pub(super) fn add(
        &mut self,
        events: Vec<Arc<Pdu>>,
        is_known: impl Fn(&EventId) -> Result<bool, StorageError>,
    ) -> Result<bool, StorageError> {
        let mut new: HashMap<_, _> =
            events.into_iter().map(|pdu| (pdu.event_id().clone(), pdu)).collect();
        let before = self.events.len();
        let mut wanted: Vec<_> = self.all().flat_map(|pdu| pdu.prev_events()).cloned().collect();
        while let Some(id) = wanted.pop() {
            let Some(pdu) = new.remove(&id) else { continue };
            if id == *self.newest.event_id() || is_known(&id)? {
                continue;
            }
            wanted.extend_from_slice(pdu.prev_events());
            self.events.insert(id, pdu);
        }
        Ok(self.events.len() > before)
    }

    /// What was found, each event after those that it follows. In room versions 1 and 2, whose ids
    /// anybody can make up, events may follow each other in a circle: then one of them is first.
    pub(super) fn oldest_first(self) -> Vec<Arc<Pdu>> {
        let Self { newest, mut events } = self;
        let mut sorted = Vec::with_capacity(events.len());
        let mut path = vec![(newest, 0)];
        while let Some((pdu, at)) = path.last_mut() {
            let Some(prev) = pdu.prev_events().get(*at) else {
                sorted.extend(path.pop().map(|(pdu, _)| pdu));
                continue;
            };
            *at += 1;
            let prev = events.remove(prev);
            path.extend(prev.map(|prev| (prev, 0)));
        }
        // The last one is the newest, which was known.
        sorted.pop();
        sorted
    }
}
