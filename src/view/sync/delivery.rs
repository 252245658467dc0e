//! Answers to clients for whom nothing is new but a few messages. In a large room these are nearly
//! all answers, so they are made without a look into storage: what is the same for all receivers
//! of an event is made once (a [`Parcel`]), and what a user wants to hear is remembered.
//!
//! Whatever is not simple is left to [`Syncs::build`], which gives the same answer.

use std::{collections::BTreeMap, sync::Arc};

use parlour_actors::notifier::Arrival;
use parlour_event::{EventNum, RoomNum, StateKeyNum, StreamPos};
use parlour_storage::{
    Direction,
    schema::{SentAs, StoredEvent, TimelineEntry},
};
use quick_cache::{Weighter, sync::Cache};
use ruma::{
    OwnedRoomId, OwnedUserId,
    api::client::{
        filter::{EventFormat, LazyLoadOptions},
        sync::sync_events::v3::{JoinedRoom, Response, State, StateEvents},
    },
};

use super::{Ask, Syncs};
use crate::{
    push::{Heard, Listener},
    view::{EventFilter, Fields, Reader, RoomView, SyncToken, ViewError, event::Common},
};

/// How many bytes of parcels are kept: those of the last seconds.
const PARCELS: u64 = 4 << 20;

/// How many bytes of listeners are kept.
const LISTENERS: u64 = 8 << 20;

/// What usually becomes of one in its cache, in bytes.
const USUAL: u64 = 1_024;

/// What became of a try.
#[derive(Debug)]
pub enum Delivery {
    /// Here it is.
    Answer(Box<Response>),
    /// Until here, there is nothing that the client wants.
    Unwanted(SyncToken),
    /// Storage has to be asked.
    Unknown,
}

/// An event that is the same for all who are in the room, but for a few bytes.
#[derive(Debug)]
struct Parcel {
    pos: StreamPos,
    room_id: OwnedRoomId,
    event_type: String,
    heard: Heard,
    /// Where in the state the sender's member event is, and which it is.
    sender: (StateKeyNum, EventNum),
    json: Common,
    origin_server_ts: u64,
    transaction: Option<SentAs>,
    /// Whether it may change how another event looks that comes along with it.
    relates: bool,
    size: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Deliveries {
    /// By position; `None` for what is not the same for all.
    parcels: Cache<StreamPos, Option<Arc<Parcel>>, BySize>,
    listeners: Cache<OwnedUserId, Arc<Listener>, BySize>,
}

#[derive(Debug, Clone)]
struct BySize;

impl Weighter<StreamPos, Option<Arc<Parcel>>> for BySize {
    fn weight(&self, _: &StreamPos, parcel: &Option<Arc<Parcel>>) -> u64 {
        64 + parcel.as_ref().map_or(0, |parcel| parcel.size)
    }
}

impl Weighter<OwnedUserId, Arc<Listener>> for BySize {
    fn weight(&self, _: &OwnedUserId, listener: &Arc<Listener>) -> u64 {
        64 + listener.size()
    }
}

impl Default for Deliveries {
    fn default() -> Self {
        let items = |bytes| usize::try_from(bytes / USUAL).unwrap_or(usize::MAX);
        Self {
            parcels: Cache::with_weighter(items(PARCELS), PARCELS, BySize),
            listeners: Cache::with_weighter(items(LISTENERS), LISTENERS, BySize),
        }
    }
}

/// By room.
type Parcels = BTreeMap<RoomNum, Vec<Arc<Parcel>>>;

impl Syncs {
    /// Tells a device of some events, where nothing else has happened for its user after `seen`,
    /// and there was nothing for it until then. Needs no storage, but for the first who gets an
    /// event, and to see how many keys are left.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn deliver(
        &self,
        ask: &Ask,
        seen: SyncToken,
        arrivals: &[Arrival],
    ) -> Result<Delivery, ViewError> {
        let (Some(since), Some(last)) = (ask.since, arrivals.last()) else {
            return Ok(Delivery::Unknown);
        };
        if !ask.is_simple() {
            return Ok(Delivery::Unknown);
        }
        let Some(parcels) = self.parcels(ask, arrivals)? else { return Ok(Delivery::Unknown) };
        let listener = self.listener(ask)?;
        let next = SyncToken { pos: last.pos, ..seen };
        let mut rooms = BTreeMap::new();
        for (room, parcels) in parcels {
            let wanted = parcels.iter().filter(|parcel| ask.wants(parcel));
            let wanted: Vec<_> = wanted.map(|parcel| &**parcel).collect();
            let Some(first) = wanted.first() else { continue };
            if parcels.iter().any(|parcel| listener.ignored.contains(parcel.heard.sender.as_str()))
                || !wanted.iter().all(|parcel| self.knows_sender(ask, since, room, parcel))
            {
                return Ok(Delivery::Unknown);
            }
            let heard: Vec<_> = parcels.iter().map(|parcel| &parcel.heard).collect();
            let before = arrivals.iter().find(|arrival| arrival.room == room);
            let before = before.map_or(seen.pos, |arrival| arrival.after);
            let is_good = |settled| {
                let is_quiet = || !self.changes.user_changed(ask.user.as_str(), settled);
                settled >= seen.pos || settled >= before && is_quiet()
            };
            let unread = self.counts.of_arrived(&listener, room, &heard, is_good);
            let Some(unread) = unread else { return Ok(Delivery::Unknown) };
            let mut joined = JoinedRoom::new();
            let before = StreamPos(first.pos.0.saturating_sub(1));
            joined.timeline.prev_batch = Some(SyncToken::at(before).to_string());
            for parcel in &wanted {
                joined.timeline.events.push(self.addressed(ask, parcel)?);
            }
            if ask.state_after {
                joined.state = State::After(StateEvents::new());
            }
            ask.tell_counts(unread, &mut joined);
            rooms.insert(first.room_id.clone(), joined);
        }
        if rooms.is_empty() {
            return Ok(Delivery::Unwanted(next));
        }
        let mut response = Box::new(self.nothing(ask, next)?);
        response.rooms.join = rooms;
        Ok(Delivery::Answer(response))
    }

    /// The parcels of some events; `None` if one of them is not the same for all.
    fn parcels(&self, ask: &Ask, arrivals: &[Arrival]) -> Result<Option<Parcels>, ViewError> {
        let mut parcels = Parcels::new();
        for arrival in arrivals {
            let parcel = self.deliveries.parcels.get_or_insert_with(&arrival.pos, || {
                Ok::<_, ViewError>(self.pack(ask, arrival)?.map(Arc::new))
            });
            let Some(parcel) = parcel? else { return Ok(None) };
            parcels.entry(arrival.room).or_default().push(parcel);
        }
        let limit = ask.timeline_limit();
        let fits = |parcels: &Vec<Arc<Parcel>>| {
            parcels.len() <= limit
                && (parcels.len() == 1 || !parcels.iter().any(|parcel| parcel.relates))
        };
        let fit = parcels.values().all(fits);
        Ok(Some(parcels).filter(|_| fit))
    }

    /// Makes an event's parcel for the first who gets it.
    fn pack(&self, ask: &Ask, arrival: &Arrival) -> Result<Option<Parcel>, ViewError> {
        let view = &self.view;
        let range = (std::ops::Bound::Unbounded, std::ops::Bound::Included(arrival.pos));
        let newest = view.store.timeline(arrival.room, range, Direction::Backward, 2)?;
        let [(pos, entry), (_, before)] = &newest[..] else { return Ok(None) };
        let (Some(event), Some(room)) =
            (view.store.event(arrival.event)?, view.room_by_num(arrival.room)?)
        else {
            return Ok(None);
        };
        let is_in_place = (*pos, entry.event) == (arrival.pos, event.num);
        if !is_in_place || !is_common(&event, &room, entry, before) {
            return Ok(None);
        }
        self.wrap(ask, room, entry, &event)
    }

    fn wrap(
        &self,
        ask: &Ask,
        room: RoomView,
        entry: &TimelineEntry,
        event: &StoredEvent,
    ) -> Result<Option<Parcel>, ViewError> {
        let (view, fields) = (&self.view, Fields::of(event)?);
        let mut reader = Reader::new(view, room.clone(), &ask.user, None)?;
        reader.note_parents([event])?;
        let is_alone = !reader.is_parent(event.num) && view.thread_place(event)?.root.is_none();
        let Some(key) = view.store.state_key_num("m.room.member", &fields.sender)? else {
            return Ok(None);
        };
        let member = view.member_num(entry.state_after, &fields.sender)?;
        let Some(member) = member.filter(|_| is_alone && fields.event_type != "m.room.redaction")
        else {
            return Ok(None);
        };
        let (at, from) = ((event.meta.pos, event), (&*fields.sender, ask.user.server_name()));
        let Some(heard) = Heard::new(view, &room, entry, at, from)? else { return Ok(None) };
        let json = Common::of(event, &fields)?;
        Ok(Some(Parcel {
            pos: event.meta.pos,
            room_id: room.room_id,
            event_type: fields.event_type.to_string(),
            size: heard.size(event) + json.len() as u64,
            heard,
            sender: (key, member),
            json,
            origin_server_ts: fields.origin_server_ts,
            transaction: event.meta.transaction.clone(),
            relates: fields.relates(),
        }))
    }

    /// What the user wants to hear.
    fn listener(&self, ask: &Ask) -> Result<Arc<Listener>, ViewError> {
        let (listeners, changes) = (&self.deliveries.listeners, &self.changes);
        let is_good = |listener: &Arc<Listener>| {
            !changes.user_changed(listener.user.as_str(), listener.as_of)
        };
        if let Some(known) = listeners.get(&ask.user).filter(is_good) {
            return Ok(known);
        }
        // Before it is read: what changes meanwhile makes it void.
        let as_of = changes.current();
        let listener = Arc::new(self.counts.listener(&self.view, &ask.user, as_of)?);
        listeners.insert(ask.user.clone(), listener.clone());
        Ok(listener)
    }

    /// Whether the device has the sender's member event, or doesn't need it.
    fn knows_sender(&self, ask: &Ask, since: SyncToken, room: RoomNum, parcel: &Parcel) -> bool {
        if ask.filter.room.state.lazy_load_options.is_disabled() {
            return true;
        }
        let (key, num) = parcel.sender;
        self.sent.has(&ask.user, &ask.device, room, key, num, since.pos)
    }

    fn addressed<T>(&self, ask: &Ask, parcel: &Parcel) -> Result<ruma::serde::Raw<T>, ViewError> {
        let is_own = parcel.heard.sender == ask.user;
        let sent = parcel.transaction.as_ref();
        let sent = sent.filter(|sent| is_own && sent.device == ask.device.as_str());
        let transaction = sent.map(|sent| sent.txn_id.as_str());
        let age = self.view.age_of(parcel.origin_server_ts);
        parcel.json.addressed(age, transaction).map_err(|error| {
            let event_id = format!("at {}", parcel.pos.0);
            ViewError::Event { event_id, what: error.to_string() }
        })
    }
}

impl Ask {
    /// Whether the filter looks at nothing of events but type and sender, and not at rooms, and
    /// events are wanted as they usually look.
    fn is_simple(&self) -> bool {
        let (filter, room) = (&self.filter, &self.filter.room);
        let sends_again = LazyLoadOptions::Enabled { include_redundant_members: true };
        filter.event_fields.is_none()
            && filter.event_format == EventFormat::Client
            && room.rooms.is_none()
            && room.not_rooms.is_empty()
            && room.state.lazy_load_options != sends_again
            && EventFilter::new(&room.timeline).with_relations(&self.relations).is_simple()
    }

    fn wants(&self, parcel: &Parcel) -> bool {
        let filter = EventFilter::new(&self.filter.room.timeline);
        filter.wants_type(&parcel.event_type) && filter.wants_sender(parcel.heard.sender.as_str())
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
