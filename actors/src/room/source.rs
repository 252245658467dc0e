//! A room's events as state resolution wants to see them.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use parlour_event::{EventNum, Pdu, StateKeyNum, resolve::EventSource};
use parlour_storage::schema::EventMeta;

use super::{core::RoomCore, messages::RoomError};

/// Reads through the room's core and remembers what it has read for the time of one resolution.
pub(crate) struct CoreEvents<'a> {
    core: &'a RoomCore,
    read: RefCell<HashMap<EventNum, Known>>,
}

/// An event and what is known of it.
type Known = (Arc<Pdu>, Arc<EventMeta>);

impl<'a> CoreEvents<'a> {
    pub(crate) fn new(core: &'a RoomCore) -> Self {
        Self { core, read: RefCell::default() }
    }

    fn read(&self, num: EventNum) -> Result<Known, RoomError> {
        if let Some(known) = self.read.borrow().get(&num) {
            return Ok(known.clone());
        }
        let (pdu, meta) = self.core.stored(num)?;
        let known = (pdu, Arc::new(meta));
        self.read.borrow_mut().insert(num, known.clone());
        Ok(known)
    }
}

impl EventSource for CoreEvents<'_> {
    type Error = RoomError;

    fn event(&self, num: EventNum) -> Result<Option<Arc<Pdu>>, RoomError> {
        Ok(Some(self.read(num)?.0))
    }

    fn auth_events(&self, num: EventNum) -> Result<Arc<[EventNum]>, RoomError> {
        Ok(self.read(num)?.1.auth_events.as_slice().into())
    }

    fn rejected(&self, num: EventNum) -> Result<bool, RoomError> {
        Ok(self.read(num)?.1.flags.rejected)
    }

    fn state_key(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<StateKeyNum>, RoomError> {
        Ok(self.core.deps.interner.state_key(event_type, state_key)?)
    }
}
