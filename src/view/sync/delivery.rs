//! Answers to clients for whom nothing is new but a few messages and receipts. In a large room these
//! are nearly all answers, so they are made without a look into storage: what is the same for all
//! receivers is made once (a [`Parcel`]), and what a user wants to hear is remembered.
//!
//! Whatever is not simple is left to [`Syncs::build`], which gives the same answer.

mod members;
mod parcel;

use std::{collections::BTreeMap, sync::Arc};

use parlour_actors::notifier::Arrival;
use parlour_event::{RoomNum, StreamPos};
use quick_cache::{Weighter, sync::Cache};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId,
    api::client::{
        filter::{EventFormat, LazyLoadOptions},
        sync::sync_events::v3::{JoinedRoom, Response},
    },
    serde::Raw,
};

use self::parcel::{Message, Parcel};
use super::{Ask, Syncs, ephemeral};
use crate::{
    push::Listener,
    view::{EventFilter, SyncToken, ViewError},
};

/// Which part of the memory is for parcels: those of the last seconds are enough.
const PARCELS: u64 = 3;

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
        64 + parcel.as_ref().map_or(0, |parcel| parcel.size())
    }
}

impl Weighter<OwnedUserId, Arc<Listener>> for BySize {
    fn weight(&self, _: &OwnedUserId, listener: &Arc<Listener>) -> u64 {
        64 + listener.size()
    }
}

impl Deliveries {
    /// Which keep so many bytes at most.
    pub(super) fn new(bytes: u64) -> Self {
        let items = |bytes| usize::try_from(bytes / USUAL).unwrap_or(usize::MAX);
        let (parcels, listeners) = (bytes / PARCELS, bytes - bytes / PARCELS);
        Self {
            parcels: Cache::with_weighter(items(parcels), parcels, BySize),
            listeners: Cache::with_weighter(items(listeners), listeners, BySize),
        }
    }

    /// How many bytes they keep.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.parcels.weight() + self.listeners.weight()
    }
}

/// What has arrived in one room.
#[derive(Default)]
struct Delivered<'a> {
    arrivals: Vec<Arrival>,
    parcels: Vec<&'a Parcel>,
}

impl Syncs {
    /// Tells a device of what has arrived, where nothing else has happened for its user after
    /// `seen`, and there was nothing for it until then. Needs no storage, but for the first who
    /// gets something, to see how many keys are left, and for senders whom the client doesn't know.
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
        let Some(last) = arrivals.last().filter(|_| ask.is_simple()) else {
            return Ok(Delivery::Unknown);
        };
        let Some(parcels) = self.parcels(ask, arrivals)? else { return Ok(Delivery::Unknown) };
        let mut by_room = BTreeMap::<RoomNum, Delivered<'_>>::new();
        for (arrival, parcel) in arrivals.iter().zip(&parcels) {
            let delivered = by_room.entry(arrival.room).or_default();
            delivered.arrivals.push(*arrival);
            delivered.parcels.push(parcel);
        }
        let listener = self.listener(ask)?;
        let next = SyncToken { pos: last.pos, ..seen };
        let mut rooms = BTreeMap::new();
        for delivered in by_room.into_values() {
            match self.deliver_in_room(ask, (seen, next), &listener, &delivered)? {
                None => return Ok(Delivery::Unknown),
                Some(section) => rooms.extend(section),
            }
        }
        if rooms.is_empty() {
            return Ok(Delivery::Unwanted(next));
        }
        let mut response = Box::new(self.nothing(ask, next)?);
        response.rooms.join = rooms;
        Ok(Delivery::Answer(response))
    }

    /// A room's section, if there is anything in it that the client wants; `None` if storage has to
    /// be asked.
    fn deliver_in_room(
        &self,
        ask: &Ask,
        (seen, next): (SyncToken, SyncToken),
        listener: &Listener,
        delivered: &Delivered<'_>,
    ) -> Result<Option<Option<(OwnedRoomId, JoinedRoom)>>, ViewError> {
        let Delivered { arrivals, parcels } = delivered;
        let (Some(first), Some(last), Some(parcel)) =
            (arrivals.first(), arrivals.last(), parcels.first())
        else {
            return Ok(Some(None));
        };
        let messages: Vec<_> = parcels.iter().filter_map(|parcel| parcel.message()).collect();
        let receipts = || parcels.iter().flat_map(|parcel| parcel.receipts());
        let wanted: Vec<_> = messages.iter().filter(|message| ask.wants(message)).collect();
        let concerns_user = receipts().any(|receipt| receipt.user == ask.user.as_str())
            || messages.iter().any(|message| listener.ignored.contains(message.sender()));
        let fit = messages.len() <= ask.timeline_limit()
            && (messages.len() <= 1 || !messages.iter().any(|message| message.relates));
        if concerns_user || !fit {
            return Ok(None);
        }
        let mut joined = JoinedRoom::new();
        if ask.wants_receipts(&parcel.room_id) {
            joined.ephemeral.events = ephemeral::receipts(receipts().cloned());
        }
        self.tell_messages(ask, &wanted, &mut joined)?;
        if joined.is_empty() {
            return Ok(Some(None));
        }
        let is_good = |settled| {
            let is_quiet = || !self.changes.user_changed(ask.user.as_str(), settled);
            settled >= seen.pos || settled >= first.after && is_quiet()
        };
        let heard: Vec<_> = messages.iter().map(|message| &message.heard).collect();
        let place = (first.room, last.pos);
        let Some(unread) = self.counts.of_arrived(listener, place, &heard, is_good) else {
            return Ok(None);
        };
        ask.tell_counts(unread, &mut joined);
        joined.state = ask.section(self.unknown_senders(ask, first.room, &wanted, next.pos)?);
        Ok(Some(Some((parcel.room_id.clone(), joined))))
    }

    fn tell_messages(
        &self,
        ask: &Ask,
        messages: &[&&Message],
        joined: &mut JoinedRoom,
    ) -> Result<(), ViewError> {
        if let Some(oldest) = messages.first() {
            let before = SyncToken::at(StreamPos(oldest.pos.0.saturating_sub(1)));
            joined.timeline.prev_batch = Some(before.to_string());
        }
        for message in messages {
            joined.timeline.events.push(self.addressed(ask, message)?);
        }
        Ok(())
    }

    /// The parcels of some arrivals; `None` if one of them is not the same for all.
    fn parcels(
        &self,
        ask: &Ask,
        arrivals: &[Arrival],
    ) -> Result<Option<Vec<Arc<Parcel>>>, ViewError> {
        let mut parcels = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            let parcel = self.deliveries.parcels.get_or_insert_with(&arrival.pos, || {
                Ok::<_, ViewError>(self.pack(ask, arrival)?.map(Arc::new))
            });
            let Some(parcel) = parcel? else { return Ok(None) };
            parcels.push(parcel);
        }
        Ok(Some(parcels))
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
    fn knows_sender(&self, ask: &Ask, room: RoomNum, message: &Message) -> bool {
        if ask.filter.room.state.lazy_load_options.is_disabled() {
            return true;
        }
        let (key, num) = message.member;
        let has =
            |since: SyncToken| self.sent.has(&ask.user, &ask.device, room, key, num, since.pos);
        ask.since.is_some_and(has)
    }

    fn addressed<T>(&self, ask: &Ask, message: &Message) -> Result<Raw<T>, ViewError> {
        let is_own = message.sender() == ask.user.as_str();
        let sent = message.transaction.as_ref();
        let sent = sent.filter(|sent| is_own && sent.device == ask.device.as_str());
        let transaction = sent.map(|sent| sent.txn_id.as_str());
        let age = self.view.age_of(message.origin_server_ts);
        message.json.addressed(age, transaction).map_err(|error| {
            let event_id = format!("at {}", message.pos.0);
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

    fn wants(&self, message: &Message) -> bool {
        let filter = EventFilter::new(&self.filter.room.timeline);
        filter.wants_type(&message.event_type) && filter.wants_sender(message.sender())
    }

    fn wants_receipts(&self, room: &RoomId) -> bool {
        let filter = EventFilter::new(&self.filter.room.ephemeral);
        filter.wants_room(room) && filter.wants_type("m.receipt")
    }
}
