//! How rooms look to administrators.

use parlour_event::{
    Pdu,
    content::{MemberContent, Membership},
    json,
};
use parlour_storage::schema::keys;
use ruma::{OwnedServerName, UserId};
use serde::Serialize;
use serde_json::{Value, json};

use crate::view::{RoomView, View, ViewError};

/// How many members are read at once.
const BATCH: usize = 1_000;

/// A room as it stands in lists.
#[derive(Debug, Serialize)]
pub(super) struct RoomSummary {
    pub(super) room_id: String,
    pub(super) name: Option<String>,
    pub(super) canonical_alias: Option<String>,
    pub(super) joined_members: u64,
    pub(super) joined_local_members: u64,
    pub(super) version: String,
    pub(super) creator: String,
    pub(super) encryption: Option<String>,
    pub(super) federatable: bool,
    pub(super) public: bool,
    pub(super) join_rules: Option<String>,
    pub(super) guest_access: Option<String>,
    pub(super) history_visibility: Option<String>,
    pub(super) state_events: u64,
    pub(super) room_type: Option<String>,
}

impl RoomSummary {
    /// Looks a room up.
    pub(super) fn of(
        view: &View,
        room: &RoomView,
        server: &OwnedServerName,
    ) -> Result<Self, ViewError> {
        let text = |event_type: &str, key: &str| -> Result<Option<String>, ViewError> {
            Ok(view.current(room, event_type, "")?.and_then(|event| text_of(&event, key)))
        };
        let create = view.current(room, "m.room.create", "")?;
        let federatable = create.as_ref().and_then(|create| create.content().get("m.federate"));
        Ok(Self {
            room_id: room.room_id.to_string(),
            name: text("m.room.name", "name")?,
            canonical_alias: text("m.room.canonical_alias", "alias")?,
            joined_members: room.head.joined,
            joined_local_members: view.store.joined_from(room.num, server.as_str())?,
            version: room.version.id().to_string(),
            creator: create.as_ref().map_or_else(String::new, |create| create.sender().to_string()),
            encryption: text("m.room.encryption", "algorithm")?,
            federatable: federatable.and_then(json::Value::as_bool).unwrap_or(true),
            public: view.store.get(&keys::published(room.num))?.is_some(),
            join_rules: text("m.room.join_rules", "join_rule")?,
            guest_access: text("m.room.guest_access", "guest_access")?,
            history_visibility: text("m.room.history_visibility", "history_visibility")?,
            state_events: room.head.state.len(),
            room_type: create.as_ref().and_then(|create| text_of(create, "type")),
        })
    }
}

fn text_of(event: &Pdu, key: &str) -> Option<String> {
    event.content().get(key).and_then(json::Value::as_str).map(str::to_owned)
}

/// A room with everything that is known of it.
pub(super) fn details(
    view: &View,
    room: &RoomView,
    server: &OwnedServerName,
) -> Result<Value, ViewError> {
    let summary = RoomSummary::of(view, room, server)?;
    let (devices, forgotten) = local_members(view, room, server)?;
    let text = |event_type: &str, key: &str| -> Result<Option<String>, ViewError> {
        Ok(view.current(room, event_type, "")?.and_then(|event| text_of(&event, key)))
    };
    let tombstone = view.current(room, "m.room.tombstone", "")?;
    let mut shown = json!(summary);
    shown["avatar"] = text("m.room.avatar", "url")?.into();
    shown["topic"] = text("m.room.topic", "topic")?.into();
    shown["joined_local_devices"] = devices.into();
    shown["forgotten"] = forgotten.into();
    shown["tombstoned"] = tombstone.is_some().into();
    shown["replacement_room"] =
        tombstone.as_ref().and_then(|event| text_of(event, "replacement_room")).into();
    Ok(shown)
}

/// How many devices the joined users of this server have, and whether none of its users remembers
/// the room.
fn local_members(
    view: &View,
    room: &RoomView,
    server: &OwnedServerName,
) -> Result<(usize, bool), ViewError> {
    let (mut devices, mut forgotten) = (0, true);
    for nums in view.member_nums(room.head.state)?.chunks(BATCH) {
        for event in view.store.events(nums)?.into_iter().flatten() {
            let pdu = event.pdu(room.version)?;
            let user = pdu.state_key().and_then(|user| <&UserId>::try_from(user).ok());
            let Some(user) = user.filter(|user| user.server_name() == server) else { continue };
            forgotten = forgotten && view.has_forgotten(user.as_str(), room.num)?;
            if MemberContent::new(pdu.content()).membership() == Some(Membership::Join) {
                let prefix = keys::devices_of(user.as_str());
                let forward = parlour_storage::Direction::Forward;
                devices += view.store.scan_prefix(&prefix, forward, usize::MAX)?.len();
            }
        }
    }
    Ok((devices, forgotten))
}
