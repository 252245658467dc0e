//! Member events of senders whom a client does not know yet that loads members lazily.

use parlour_event::{RoomNum, StreamPos};
use ruma::{events::AnySyncStateEvent, serde::Raw};

use super::{Message, Syncs};
use crate::view::{EventFilter, EventFormat, Fields, Reader, ViewError, sync::Ask};

impl Syncs {
    /// Those that go along with messages of a room, in an answer whose token is of `until`.
    pub(super) fn unknown_senders(
        &self,
        ask: &Ask,
        room: RoomNum,
        messages: &[&&Message],
        until: StreamPos,
    ) -> Result<Vec<Raw<AnySyncStateEvent>>, ViewError> {
        let unknown = messages.iter().filter(|message| !self.knows_sender(ask, room, message));
        let mut members: Vec<_> = unknown.map(|message| message.member).collect();
        let filter = EventFilter::new(&ask.filter.room.state);
        if members.is_empty() || filter.is_closed() {
            return Ok(Vec::new());
        }
        members.sort_unstable_by_key(|(_, num)| *num);
        members.dedup();
        let Some(at) = self.view.room_by_num(room)?.filter(|at| filter.wants_room(&at.room_id))
        else {
            return Ok(Vec::new());
        };
        let mut reader = Reader::new(&self.view, at, &ask.user, Some(&ask.device))?;
        let mut events = Vec::with_capacity(members.len());
        for (_, num) in &members {
            let Some(event) = self.view.store.event(*num)? else { continue };
            if filter.wants(&Fields::of(&event)?) {
                events.push(reader.state_event(&event, EventFormat::Sync)?);
            }
        }
        self.sent.remember(&ask.user, &ask.device, room, members.into_iter(), until);
        Ok(events)
    }
}
