//! What another server tells of a room to a user who is invited to it, or knocks at it.

use parlour_event::{Pdu, RoomVersion};
use parlour_storage::StorageError;
use ruma::{RoomId, api::federation::membership::RawStrippedState};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use super::checks::EventChecker;

/// How many events are kept.
const MAX_EVENTS: usize = 50;

/// How long they may be together, in bytes.
const MAX_BYTES: usize = 256 << 10;

/// What was told, as far as it can be believed.
#[derive(Debug, Default)]
pub struct Told {
    /// Stripped state events, JSON each.
    pub events: Vec<String>,
    /// Whether there is a create event.
    pub has_create: bool,
    /// How many events were left out, since they are not validly signed events of this room.
    pub faults: usize,
}

/// An event as clients get it: four fields and no more.
#[derive(Deserialize, serde::Serialize)]
struct Stripped<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
    sender: String,
    state_key: String,
    #[serde(rename = "type")]
    event_type: String,
}

impl Told {
    /// Reads what was told: whole events, whose signatures are checked, or from older servers
    /// stripped ones.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub async fn read(
        checker: &EventChecker,
        version: &'static RoomVersion,
        room: &RoomId,
        events: Vec<RawStrippedState>,
    ) -> Result<Self, StorageError> {
        let mut told = Self::default();
        let mut whole = Vec::new();
        for event in events.into_iter().take(MAX_EVENTS) {
            match event {
                RawStrippedState::Pdu(event) => whole.push(event),
                #[expect(deprecated, reason = "what older servers send")]
                RawStrippedState::Stripped(event) => told.add(event.json()),
                _ => told.faults += 1,
            }
        }
        for checked in checker.check(version, whole).await? {
            let of_room = checked.ok().filter(|pdu| pdu.room_id() == room);
            match of_room.and_then(|pdu| json_of(&pdu)) {
                Some(json) => told.add(&json),
                None => told.faults += 1,
            }
        }
        Ok(told)
    }

    fn add(&mut self, event: &RawValue) {
        let Ok(event) = serde_json::from_str::<Stripped<'_>>(event.get()) else {
            self.faults += 1;
            return;
        };
        let is_create = event.event_type == "m.room.create" && event.state_key.is_empty();
        let bytes: usize = self.events.iter().map(String::len).sum();
        match to_raw_value(&event) {
            Ok(json) if bytes + json.get().len() <= MAX_BYTES => {
                self.has_create |= is_create;
                self.events.push(json.get().to_owned());
            }
            _ => self.faults += 1,
        }
    }
}

fn json_of(pdu: &Pdu) -> Option<Box<RawValue>> {
    RawValue::from_string(String::from_utf8(pdu.to_bytes()).ok()?).ok()
}
