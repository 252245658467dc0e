//! What is the same for all receivers.

use std::ops::Bound;

use parlour_actors::notifier::{Arrival, What};
use parlour_event::{EventNum, StateKeyNum, StreamPos};
use parlour_storage::{
    Direction,
    schema::{ReceiptEntry, SentAs, StoredEvent, TimelineEntry},
};
use ruma::OwnedRoomId;

use crate::{
    push::Heard,
    view::{
        Fields, Reader, RoomView, ViewError,
        event::Common,
        sync::{Ask, Syncs},
    },
};

/// Something that has arrived in a room, as all get it who are in the room.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) room_id: OwnedRoomId,
    load: Load,
}

#[derive(Debug)]
enum Load {
    Message(Box<Message>),
    Receipts(Vec<ReceiptEntry>),
}

/// An event that is the same for all, but for a few bytes.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) pos: StreamPos,
    pub(super) event_type: String,
    pub(super) heard: Heard,
    /// Where in the state the sender's member event is, and which it is.
    pub(super) member: (StateKeyNum, EventNum),
    pub(super) json: Common,
    pub(super) origin_server_ts: u64,
    pub(super) transaction: Option<SentAs>,
    /// Whether it may change how another event looks that comes along with it.
    pub(super) relates: bool,
    size: u64,
}

impl Message {
    pub(super) fn sender(&self) -> &str {
        self.heard.sender.as_str()
    }
}

impl Parcel {
    pub(super) fn message(&self) -> Option<&Message> {
        match &self.load {
            Load::Message(message) => Some(message),
            Load::Receipts(_) => None,
        }
    }

    pub(super) fn receipts(&self) -> &[ReceiptEntry] {
        match &self.load {
            Load::Message(_) => &[],
            Load::Receipts(receipts) => receipts,
        }
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> u64 {
        let load = match &self.load {
            Load::Message(message) => message.size,
            Load::Receipts(receipts) => 512 * receipts.len() as u64,
        };
        128 + load
    }
}

impl Syncs {
    /// Makes a parcel for the first who gets it; `None` for what is not the same for all.
    pub(super) fn pack(&self, ask: &Ask, arrival: &Arrival) -> Result<Option<Parcel>, ViewError> {
        let Some(room) = self.view.room_by_num(arrival.room)? else { return Ok(None) };
        let load = match arrival.what {
            What::Event(event) => {
                let message = self.message(ask, &room, arrival.pos, event)?;
                message.map(|message| Load::Message(Box::new(message)))
            }
            What::Receipt => {
                let before = StreamPos(arrival.pos.0.saturating_sub(1));
                let receipts = self.users.receipt_changes(arrival.room, "", before, arrival.pos)?;
                // Without one there is a newer one in its place.
                Some(receipts).filter(|receipts| !receipts.is_empty()).map(Load::Receipts)
            }
        };
        Ok(load.map(|load| Parcel { room_id: room.room_id, load }))
    }

    fn message(
        &self,
        ask: &Ask,
        room: &RoomView,
        pos: StreamPos,
        event: EventNum,
    ) -> Result<Option<Message>, ViewError> {
        let view = &self.view;
        let range = (Bound::Unbounded, Bound::Included(pos));
        let newest = view.store.timeline(room.num, range, Direction::Backward, 2)?;
        let [(at, entry), (_, before)] = &newest[..] else { return Ok(None) };
        let Some(event) = view.store.event(event)? else { return Ok(None) };
        let is_in_place = (*at, entry.event) == (pos, event.num);
        if !is_in_place || !is_common(&event, room, entry, before) {
            return Ok(None);
        }
        let fields = Fields::of(&event)?;
        let mut reader = Reader::new(view, room.clone(), &ask.user, None)?;
        reader.note_parents([&event])?;
        let is_alone = !reader.is_parent(event.num) && view.thread_place(&event)?.root.is_none();
        if !is_alone || fields.event_type == "m.room.redaction" {
            return Ok(None);
        }
        self.wrap(ask, room, entry, (&event, &fields))
    }

    fn wrap(
        &self,
        ask: &Ask,
        room: &RoomView,
        entry: &TimelineEntry,
        (event, fields): (&StoredEvent, &Fields<'_>),
    ) -> Result<Option<Message>, ViewError> {
        let view = &self.view;
        let (at, from) = ((event.meta.pos, event), (&*fields.sender, ask.user.server_name()));
        let (Some(key), Some(member), Some(heard)) = (
            view.store.state_key_num("m.room.member", &fields.sender)?,
            view.member_num(entry.state_after, &fields.sender)?,
            Heard::new(view, room, entry, at, from)?,
        ) else {
            return Ok(None);
        };
        let json = Common::of(event, fields)?;
        Ok(Some(Message {
            pos: event.meta.pos,
            event_type: fields.event_type.to_string(),
            size: heard.size(event) + json.len() as u64,
            heard,
            member: (key, member),
            json,
            origin_server_ts: fields.origin_server_ts,
            transaction: event.meta.transaction.clone(),
            relates: fields.relates(),
        }))
    }
}

/// Whether whoever is joined to the room sees the event, and in the same way: it continues the one
/// line of the room's history, and changes nothing of the state. So the membership at the event is
/// that in the room's current state.
fn is_common(
    event: &StoredEvent,
    room: &RoomView,
    entry: &TimelineEntry,
    before: &TimelineEntry,
) -> bool {
    let meta = &event.meta;
    meta.flags.is_visible()
        && !meta.flags.withheld
        && meta.room == room.num
        && meta.state_key.is_none()
        && meta.redacted_because.is_none()
        && !entry.after_gap
        && entry.state_after == meta.state_before
        && entry.state_after == before.state_after
}
