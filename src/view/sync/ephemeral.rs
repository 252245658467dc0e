//! What is not part of a room's history: receipts and typing.

use std::collections::BTreeMap;

use parlour_event::StreamPos;
use parlour_storage::schema::ReceiptEntry;
use ruma::{
    api::client::sync::sync_events::v3::Ephemeral, events::AnySyncEphemeralRoomEvent, serde::Raw,
};
use serde::Serialize;
use serde_json::value::to_raw_value;

use super::{Round, joined::Window, rooms::Relation};
use crate::view::{EventFilter, ViewError};

#[derive(Serialize)]
struct Event<T> {
    #[serde(rename = "type")]
    event_type: &'static str,
    content: T,
}

#[derive(Serialize)]
struct Typing {
    user_ids: Vec<String>,
}

#[derive(Serialize)]
struct Receipt {
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<String>,
}

/// By event, type and user.
type Receipts = BTreeMap<String, BTreeMap<String, BTreeMap<String, Receipt>>>;

impl Round<'_> {
    /// Fills the section in; says whether the user has read on.
    pub(super) fn ephemeral(
        &self,
        relation: &Relation,
        window: &Window,
        section: &mut Ephemeral,
    ) -> Result<bool, ViewError> {
        let filter = EventFilter::new(&self.ask.filter.room.ephemeral);
        let wants_room = filter.wants_room(&relation.room.room_id);
        let wants = |event_type| wants_room && filter.wants_type(event_type);
        let room = relation.room.num;
        let after = window.low.filter(|_| window.known).unwrap_or(StreamPos(0));
        let changes = self.syncs.users.receipt_changes(room, self.user(), after, self.now.pos)?;
        let has_read = changes.iter().any(|receipt| receipt.user == self.user());
        if wants("m.receipt") {
            section.events.extend(receipts(changes.into_iter()));
        }
        let since = self.ask.since.filter(|_| window.known).map(|since| since.typing);
        if let Some(user_ids) = self.syncs.typing.changed_since(room, since.unwrap_or(0))
            && wants("m.typing")
            // To a client that knows of nobody it is no news that nobody types.
            && (window.known || !user_ids.is_empty())
        {
            section.events.extend(raw("m.typing", Typing { user_ids }));
        }
        Ok(has_read)
    }
}

/// Receipts as events.
pub(super) fn receipts(
    receipts: impl Iterator<Item = ReceiptEntry>,
) -> Vec<Raw<AnySyncEphemeralRoomEvent>> {
    merge(receipts).into_iter().filter_map(|content| raw("m.receipt", content)).collect()
}

fn raw<T: Serialize>(
    event_type: &'static str,
    content: T,
) -> Option<Raw<AnySyncEphemeralRoomEvent>> {
    // Strings and numbers under string keys can always be written.
    to_raw_value(&Event { event_type, content }).ok().map(Raw::from_json)
}

/// Merges receipts into as few contents as possible. One content has one receipt of a type for an
/// event and a user; a user who has read the event in several threads needs more than one.
fn merge(receipts: impl Iterator<Item = ReceiptEntry>) -> Vec<Receipts> {
    let mut contents: Vec<Receipts> = Vec::new();
    for ReceiptEntry { user, receipt_type, thread, event_id, ts } in receipts {
        let receipt = Receipt { ts, thread_id: Some(thread).filter(|thread| !thread.is_empty()) };
        let has = |content: &Receipts| {
            let by_type = content.get(&event_id).and_then(|types| types.get(&receipt_type));
            by_type.is_some_and(|users| users.contains_key(&user))
        };
        let index = contents.iter().position(|content| !has(content)).unwrap_or(contents.len());
        if index == contents.len() {
            contents.push(Receipts::new());
        }
        if let Some(content) = contents.get_mut(index) {
            let types = content.entry(event_id).or_default();
            types.entry(receipt_type).or_default().insert(user, receipt);
        }
    }
    contents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(user: &str, thread: &str, event_id: &str) -> ReceiptEntry {
        ReceiptEntry {
            user: user.to_owned(),
            receipt_type: "m.read".to_owned(),
            thread: thread.to_owned(),
            event_id: event_id.to_owned(),
            ts: 5,
        }
    }

    #[test]
    fn receipts_are_merged_by_event_and_none_is_lost() {
        let all = [
            receipt("@a:x", "", "$1"),
            receipt("@b:x", "main", "$1"),
            receipt("@a:x", "main", "$1"),
            receipt("@a:x", "$1", "$2"),
        ];
        let contents = serde_json::to_value(merge(all.into_iter())).expect("JSON");
        let expected = serde_json::json!([
            { "$1": { "m.read": { "@a:x": { "ts": 5 }, "@b:x": { "ts": 5, "thread_id": "main" } } },
              "$2": { "m.read": { "@a:x": { "ts": 5, "thread_id": "$1" } } } },
            { "$1": { "m.read": { "@a:x": { "ts": 5, "thread_id": "main" } } } },
        ]);
        assert_eq!(contents, expected);
    }
}
