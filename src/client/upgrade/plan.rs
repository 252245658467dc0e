//! From the old room to what the new one begins with.

use std::collections::HashSet;

use parlour_actors::{LocalEvent, NewRoom, directory::Directory};
use parlour_event::{
    content::{MemberContent, Membership},
    json::{self, Object, Value},
};
use parlour_storage::StorageError;

use super::{Upgrade, levels};
use crate::{
    client::{aliases, local},
    error::ApiError,
    view::{RoomView, View, ViewError},
};

/// State that the new room has from its beginning, with an empty state key. Power levels come
/// last: until then the creator may do everything.
const COPIED: [&str; 8] = [
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.encryption",
    "m.room.server_acl",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
];

/// How many bans the new room is born with. Those beyond are sent one by one.
const BANS_AT_BIRTH: usize = 500;

/// How many member events are read at once.
const BATCH: usize = 1_000;

/// What is to be made.
pub(super) struct Plan {
    pub(super) room: NewRoom,
    /// What is too much for the birth, in order.
    pub(super) later: Vec<LocalEvent>,
    /// Local aliases that are to move.
    pub(super) aliases: Vec<String>,
}

impl Plan {
    pub(super) fn of(
        view: &View,
        directory: &Directory,
        upgrade: &Upgrade,
    ) -> Result<Self, ApiError> {
        let Upgrade { user, old, version, .. } = upgrade;
        let aliases = directory.aliases_of(old.num)?;
        let mut events = vec![creators_join(view, upgrade)?];
        for event_type in COPIED {
            if let Some(present) = view.current(old, event_type, "")? {
                events.push(local::state_event(user, event_type, "", present.content().clone()));
            }
        }
        if let Some(content) = canonical_alias(view, directory, old)? {
            events.push(local::state_event(user, "m.room.canonical_alias", "", content));
        }
        for child in view.space_children(old)? {
            let child = child.pdu(old.version)?;
            let state_key = child.state_key().unwrap_or_default();
            let content = child.content().clone();
            events.push(local::state_event(user, "m.space.child", state_key, content));
        }
        let mut last = bans(view, upgrade)?;
        last.extend(power_levels(view, upgrade)?);
        // If not everything fits, the power levels are not part of the birth either.
        let later = last.split_off(BANS_AT_BIRTH.min(last.len()));
        events.extend(last);
        // Old rooms may have numbers in their state that no new event can have.
        events.retain(|event| json::check_strict(&Value::Object(event.content.clone())).is_ok());
        let room = NewRoom {
            version,
            creator: user.clone(),
            create_content: create_content(view, upgrade)?,
            events,
            alias: None,
            // It takes the old room's place there once that leads to it.
            published: false,
            made_for: None,
        };
        Ok(Self { room, later, aliases })
    }
}

/// The creator's join, with the name and avatar that the old room shows.
fn creators_join(view: &View, upgrade: &Upgrade) -> Result<LocalEvent, ViewError> {
    let Upgrade { user, old, .. } = upgrade;
    let mut content = local::members([("membership", Membership::Join.as_str().into())]);
    if let Some(member) = view.current(old, "m.room.member", user.as_str())? {
        for key in ["displayname", "avatar_url"] {
            let value = member.content().get(key).cloned();
            content.extend(value.map(|value| (key.to_owned(), value)));
        }
    }
    Ok(local::state_event(user, "m.room.member", user.as_str(), content))
}

fn create_content(view: &View, upgrade: &Upgrade) -> Result<Object, ViewError> {
    let Upgrade { user, old, version, additional_creators } = upgrade;
    let rules = &version.rules().authorization;
    let mut content = local::members([("room_version", version.id().as_str().into())]);
    if let Some(create) = view.current(old, "m.room.create", "")? {
        for key in ["type", "m.federate"] {
            let value = create.content().get(key).cloned();
            content.extend(value.map(|value| (key.to_owned(), value)));
        }
    }
    if !rules.use_room_create_sender {
        content.insert("creator".to_owned(), user.as_str().into());
    }
    let mut others: Vec<&str> = additional_creators.iter().map(|user| user.as_str()).collect();
    let mut seen = HashSet::from([user.as_str()]);
    others.retain(|other| seen.insert(*other));
    if rules.additional_room_creators && !others.is_empty() {
        let others = others.into_iter().map(Value::from).collect();
        content.insert("additional_creators".to_owned(), Value::Array(others));
    }
    content.insert("predecessor".to_owned(), Value::Object(predecessor(view, upgrade)?));
    Ok(content)
}

/// The old room; before room version 12 with its last known event.
fn predecessor(view: &View, upgrade: &Upgrade) -> Result<Object, StorageError> {
    let Upgrade { old, version, .. } = upgrade;
    let mut content = local::members([("room_id", old.room_id.as_str().into())]);
    let names_event = !version.rules().authorization.room_create_event_id_as_room_id;
    let last = old.head.extremities.iter().max().filter(|_| names_event);
    if let Some(meta) = last.map(|num| view.store.event_meta(*num)).transpose()?.flatten() {
        content.insert("event_id".to_owned(), meta.event_id.into());
    }
    Ok(content)
}

/// What the old room says of its aliases, less what does not move with it.
fn canonical_alias(
    view: &View,
    directory: &Directory,
    old: &RoomView,
) -> Result<Option<Object>, ApiError> {
    let Some(present) = view.current(old, "m.room.canonical_alias", "")? else { return Ok(None) };
    let mut content = present.content().clone();
    // What stands there may be anything.
    for alias in aliases::aliases_in(&content).unwrap_or_default() {
        let moves = directory.alias(&alias)?.is_some_and(|entry| entry.room == old.num);
        if !moves {
            content = aliases::without(&content, &alias).unwrap_or(content);
        }
    }
    Ok(Some(content))
}

/// Who is banned in the old room is banned in the new one.
fn bans(view: &View, upgrade: &Upgrade) -> Result<Vec<LocalEvent>, ViewError> {
    let Upgrade { user, old, .. } = upgrade;
    let mut bans = Vec::new();
    for nums in view.member_nums(old.head.state)?.chunks(BATCH) {
        for event in view.store.events(nums)?.into_iter().flatten() {
            let member = event.pdu(old.version)?;
            let content = member.content();
            if MemberContent::new(content).membership() == Some(Membership::Ban)
                && let Some(whom) = member.state_key()
                // Creators cannot be banned.
                && !upgrade.additional_creators.iter().any(|creator| creator == whom)
            {
                bans.push(local::state_event(user, "m.room.member", whom, content.clone()));
            }
        }
    }
    Ok(bans)
}

fn power_levels(view: &View, upgrade: &Upgrade) -> Result<Option<LocalEvent>, ViewError> {
    let Upgrade { user, old, .. } = upgrade;
    let Some(present) = view.current(old, "m.room.power_levels", "")? else { return Ok(None) };
    let create = view.current(old, "m.room.create", "")?;
    let content = levels::carried(present.content(), create.as_ref(), upgrade);
    Ok(Some(local::state_event(user, "m.room.power_levels", "", content)))
}
