//! Account data, global and per room.

use std::collections::BTreeMap;

use bytes::Bytes;
use parlour_actors::users::{PUSH_RULES, Users};
use parlour_event::{RoomNum, StreamPos};
use ruma::{
    events::{AnyGlobalAccountDataEvent, AnyRoomAccountDataEvent},
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Ask, Round, rooms::Relation};
use crate::view::{EventFilter, ViewError, filter::wants_type};

/// Where global account data are, among the rooms.
const GLOBAL: RoomNum = RoomNum(0);

/// What of a user's account data is new, by room: type and content.
#[derive(Debug)]
pub(super) struct AccountData(BTreeMap<RoomNum, Vec<(String, Bytes)>>);

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    content: &'a RawValue,
}

impl AccountData {
    /// Reads what is new for a device.
    pub(super) fn read(users: &Users, ask: &Ask, now: StreamPos) -> Result<Self, ViewError> {
        let after = ask.since.map_or(StreamPos(0), |since| since.pos);
        let first = ask.since.is_none();
        let mut by_room = BTreeMap::<_, Vec<_>>::new();
        let mut rules = first;
        for (room, data_type, content) in
            users.account_data_changes(ask.user.as_str(), after, now)?
        {
            if room == GLOBAL && data_type == PUSH_RULES {
                rules = true;
            } else if !(first && is_deleted(&content)) {
                by_room.entry(room).or_default().push((data_type, content));
            }
        }
        if rules {
            // Not as they are stored: the server's own rules may have become others since.
            let content = users.push_rules_content(&ask.user)?;
            by_room.entry(GLOBAL).or_default().push((PUSH_RULES.to_owned(), content));
        }
        Ok(Self(by_room))
    }

    /// The rooms in which something is new.
    pub(super) fn rooms(&self) -> impl Iterator<Item = RoomNum> {
        self.0.keys().copied().filter(|room| *room != GLOBAL)
    }

    fn of(&self, room: RoomNum) -> &[(String, Bytes)] {
        self.0.get(&room).map_or(&[], Vec::as_slice)
    }
}

impl Round<'_> {
    pub(super) fn global_account_data(
        &self,
    ) -> Result<Vec<Raw<AnyGlobalAccountDataEvent>>, ViewError> {
        let filter = &self.ask.filter.account_data;
        let data = self.account.of(GLOBAL).iter();
        Ok(data.filter(|(kind, _)| wants_type(filter, kind)).filter_map(event).collect())
    }

    /// `known`: whether the client has what was there at the last sync.
    pub(super) fn room_account_data(
        &self,
        relation: &Relation,
        known: bool,
    ) -> Result<Vec<Raw<AnyRoomAccountDataEvent>>, ViewError> {
        let filter = EventFilter::new(&self.ask.filter.room.account_data);
        if !filter.wants_room(&relation.room.room_id) {
            return Ok(Vec::new());
        }
        let room = relation.room.num;
        let wanted = |(kind, _): &&(String, Bytes)| filter.wants_type(kind);
        if known || self.ask.since.is_none() {
            return Ok(self.account.of(room).iter().filter(wanted).filter_map(event).collect());
        }
        let data = self.syncs.users.account_data_of_room(self.user(), room, self.now.pos)?;
        let there = data.iter().filter(|(_, content)| !is_deleted(content));
        Ok(there.filter(wanted).filter_map(event).collect())
    }
}

/// Whether a piece says that it has been deleted: it is an empty object (MSC3391). Clients that
/// never knew it need not be told.
fn is_deleted(content: &Bytes) -> bool {
    content.iter().filter(|byte| !byte.is_ascii_whitespace()).eq(b"{}")
}

/// A piece as an event; `None` if what is stored is not JSON, which it was when it was stored.
fn event<T>((event_type, content): &(String, Bytes)) -> Option<Raw<T>> {
    let content: &RawValue = serde_json::from_slice(content).ok()?;
    to_raw_value(&Event { event_type, content }).ok().map(Raw::from_json)
}
