//! What of all that was found a user may see.

use std::collections::{BTreeMap, HashSet};

use parlour_event::{RoomNum, StreamPos};
use parlour_storage::schema::StoredEvent;
use ruma::{
    DeviceId, OwnedRoomId, UserId, api::client::filter::RoomEventFilter, events::AnyTimelineEvent,
    serde::Raw,
};
use serde::Deserialize;

use super::{
    Field, Group, Order, SearchError, TextIndex,
    index::{Hit, Lookup, Tally},
};
use crate::view::{EventFilter, EventFormat, Fields, Ignored, Reader, View, ViewError};

/// How many entries are looked at for one page. A page may stay short; its token leads on.
const MAX_LOOKED_AT: u64 = 1_000;

/// How many entries are asked for at once.
const BATCH: usize = 100;

/// How many upgrades of a room are followed back.
const MAX_UPGRADES: usize = 16;

/// A search.
#[derive(Debug)]
pub struct Criteria {
    /// The words, as an expression of the index.
    pub expression: String,
    /// In which texts.
    pub fields: Vec<Field>,
    /// Which events, in which rooms.
    pub filter: RoomEventFilter,
    /// In which order.
    pub order: Order,
    /// Within which group.
    pub group: Option<Group>,
    /// Events until here.
    pub until: StreamPos,
    /// How many entries come before.
    pub offset: u64,
    /// How many results at most.
    pub limit: usize,
    /// Whether the results are to be grouped.
    pub grouped: bool,
}

/// A result.
#[derive(Debug)]
pub struct Found {
    /// Where it was found.
    pub hit: Hit,
    /// The event.
    pub event: StoredEvent,
    /// Who sent it.
    pub sender: String,
    /// What the client gets.
    pub json: Raw<AnyTimelineEvent>,
}

/// Some results.
#[derive(Debug, Default)]
pub struct Page {
    /// In the order that was asked for.
    pub found: Vec<Found>,
    /// How many entries come before the next page; `None` if there is none.
    pub next: Option<u64>,
    /// Of which rooms and senders these entries are, if there is a next page of groups.
    pub before_next: Vec<Tally>,
    /// How many results there are, about.
    pub count: u64,
}

/// One user who searches.
#[derive(Debug)]
pub struct Searcher<'a> {
    view: &'a View,
    index: &'a TextIndex,
    user: &'a UserId,
    device: &'a DeviceId,
    ignored: Ignored,
    readers: BTreeMap<RoomNum, Reader>,
}

#[derive(Deserialize)]
struct Create {
    #[serde(default)]
    predecessor: Option<Predecessor>,
}

#[derive(Deserialize)]
struct Predecessor {
    room_id: OwnedRoomId,
}

impl<'a> Searcher<'a> {
    /// A user, with a device.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn new(
        view: &'a View,
        index: &'a TextIndex,
        user: &'a UserId,
        device: &'a DeviceId,
    ) -> Result<Self, ViewError> {
        let ignored = view.ignored_by(user)?;
        Ok(Self { view, index, user, device, ignored, readers: BTreeMap::new() })
    }

    /// Whose messages the user does not want.
    #[must_use]
    pub fn ignored(&self) -> &Ignored {
        &self.ignored
    }

    /// The user's eyes on a room in which something was found.
    pub fn reader(&mut self, room: RoomNum) -> Option<&mut Reader> {
        self.readers.get_mut(&room)
    }

    /// Searches.
    ///
    /// # Errors
    ///
    /// [`SearchError`]
    pub fn find(&mut self, criteria: &Criteria) -> Result<Page, SearchError> {
        let rooms = self.rooms(&criteria.filter)?;
        let filter = EventFilter::new(&criteria.filter);
        let fields = criteria.fields.iter().copied();
        let fields: Vec<_> = fields.filter(|field| filter.wants_type(field.event_type())).collect();
        let senders = criteria.filter.senders.as_ref();
        let lookup = Lookup {
            expression: &criteria.expression,
            rooms: &rooms,
            fields: &fields,
            senders: senders.map(|users| users.iter().map(|user| user.as_str()).collect()),
            not_senders: criteria.filter.not_senders.iter().map(|user| user.as_str()).collect(),
            order: criteria.order,
            group: criteria.group.as_ref(),
            until: criteria.until,
        };
        let mut page = self.page(&lookup, criteria)?;
        if let Some(next) = page.next.filter(|_| criteria.grouped) {
            page.before_next = self.index.tally(&lookup, next)?;
        }
        page.count = match page.next {
            None if criteria.offset == 0 => page.found.len() as u64,
            _ => self.index.count(&lookup)?,
        };
        Ok(page)
    }

    fn page(&mut self, lookup: &Lookup<'_>, criteria: &Criteria) -> Result<Page, SearchError> {
        let filter = EventFilter::new(&criteria.filter);
        let mut page = Page::default();
        let mut offset = criteria.offset;
        let last = offset.saturating_add(MAX_LOOKED_AT);
        loop {
            let hits = self.index.look_up(lookup, offset, BATCH)?;
            for hit in &hits {
                let seen = self.see(*hit, filter)?;
                if offset == last || (seen.is_some() && page.found.len() == criteria.limit) {
                    // One more than fits tells that there is a next page.
                    page.next = Some(offset);
                    return Ok(page);
                }
                offset = offset.saturating_add(1);
                page.found.extend(seen);
            }
            if hits.len() < BATCH {
                return Ok(page);
            }
        }
    }

    /// The event of an entry as the user sees it, if the user sees it, and also sees the edit that it was
    /// found by.
    fn see(&mut self, hit: Hit, filter: EventFilter<'_>) -> Result<Option<Found>, ViewError> {
        let Some(event) = self.view.store.event(hit.shown)? else { return Ok(None) };
        let fields = Fields::of(&event)?;
        if event.meta.redacted_because.is_some()
            || event.meta.room != hit.room
            || self.ignored.hides(&fields)
            || !filter.wants(&fields)
        {
            return Ok(None);
        }
        let Some(reader) = self.readers.get_mut(&hit.room) else { return Ok(None) };
        let seen = reader.judge(&event)?;
        if hit.num != hit.shown {
            let edit = self.view.store.event(hit.num)?;
            let edit = edit.map(|edit| reader.judge(&edit)).transpose()?;
            if !edit.is_some_and(|edit| edit.visible) {
                return Ok(None);
            }
        }
        if !seen.visible {
            return Ok(None);
        }
        reader.note_parents([&event])?;
        let json = reader.render(&event, &fields, seen, EventFormat::Full)?;
        let sender = fields.sender.into_owned();
        Ok(Some(Found { hit, event, sender, json }))
    }

    /// The rooms in which the user may find something: those that the user is or was in, and that
    /// are not encrypted. Makes a reader for each.
    fn rooms(&mut self, filter: &RoomEventFilter) -> Result<Vec<RoomNum>, ViewError> {
        let wanted = filter.rooms.as_deref().map(|rooms| self.with_predecessors(rooms));
        let wanted = wanted.transpose()?;
        for (num, entry) in self.view.store.memberships(self.user.as_str())? {
            let was_there = matches!(&*entry.membership, "join" | "leave" | "ban");
            let Some(room) = self.view.room_by_num(num)?.filter(|_| was_there) else { continue };
            let is_wanted = wanted.as_ref().is_none_or(|wanted| wanted.contains(&room.room_id));
            if !is_wanted
                || filter.not_rooms.contains(&room.room_id)
                || self.view.is_encrypted(&room)?
                || self.view.has_forgotten(self.user.as_str(), num)?
            {
                continue;
            }
            let reader = Reader::new(self.view, room, self.user, Some(self.device))?;
            self.readers.insert(num, reader);
        }
        Ok(self.readers.keys().copied().collect())
    }

    /// Rooms and those that they were upgraded from: it is one conversation.
    fn with_predecessors(&self, rooms: &[OwnedRoomId]) -> Result<HashSet<OwnedRoomId>, ViewError> {
        let mut all = HashSet::new();
        for room in rooms {
            let mut next = Some(room.clone());
            for _ in 0..MAX_UPGRADES {
                let Some(room_id) = next.take() else { break };
                let room = self.view.room(&room_id)?;
                if !all.insert(room_id) {
                    break;
                }
                let create =
                    room.map(|room| self.view.store.event(room.head.create)).transpose()?;
                let Some(create) = create.flatten() else { break };
                let content = Fields::of(&create)?.content_as::<Create>();
                let before = content.ok().and_then(|content| content.predecessor);
                next = before.map(|before| before.room_id);
            }
        }
        Ok(all)
    }
}
