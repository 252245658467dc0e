//! What a user has set down for a room moves on with the user to the room that replaces it: tags,
//! the mark of a direct chat, push rules.

use bytes::Bytes;
use parlour_actors::users::{PushRulesError, Users};
use parlour_event::{RoomNum, content::Membership, json::Value};
use ruma::{
    OwnedRoomId, RoomId, UserId,
    events::direct::DirectEventContent,
    push::{ConditionalPushRule, NewPushRule, NewSimplePushRule, PushCondition, Ruleset},
};
use serde::Serialize;

use crate::{
    error::ApiError,
    view::{RoomView, View, ViewError},
};

/// Where global account data are, among the rooms.
const GLOBAL: RoomNum = RoomNum(0);

/// Brings a user's settings along who has just joined a room, if it has replaced one in which the
/// user was.
pub(crate) async fn after_join(view: &View, users: &Users, user: &UserId, room_id: &RoomId) {
    let replaced = || {
        let Some(new) = view.room(room_id)? else { return Ok(None) };
        Ok::<_, ViewError>(predecessor(view, user, &new)?.map(|old| (old, new)))
    };
    match replaced() {
        Ok(Some((old, new))) => carry_over(view, users, user, &old, &new).await,
        Ok(None) => {}
        Err(error) => tracing::error!(%error, %room_id, "nobody knows whether it replaced a room"),
    }
}

/// The room that this one has replaced: both must say so, else anybody could get at the settings.
fn predecessor(view: &View, user: &UserId, new: &RoomView) -> Result<Option<RoomView>, ViewError> {
    let create = view.current(new, "m.room.create", "")?;
    let named = create.as_ref().and_then(|create| create.content().get("predecessor"));
    let named = named.and_then(|predecessor| predecessor.get("room_id")).and_then(Value::as_str);
    let Some(Ok(old)) = named.map(<&RoomId>::try_from) else { return Ok(None) };
    let Some(old) = view.room(old)? else { return Ok(None) };
    if !matches!(view.membership_of(&old, user)?, Some(Membership::Join | Membership::Leave)) {
        return Ok(None);
    }
    let tombstone = view.current(&old, "m.room.tombstone", "")?;
    let replacement = tombstone.as_ref().and_then(|event| event.content().get("replacement_room"));
    let is_it = replacement.and_then(Value::as_str) == Some(new.room_id.as_str());
    Ok(is_it.then_some(old))
}

/// Brings a user's settings from one room to another. What the new room has already stays. The join
/// or the upgrade counts, whatever becomes of the settings.
pub(crate) async fn carry_over(
    view: &View,
    users: &Users,
    user: &UserId,
    old: &RoomView,
    new: &RoomView,
) {
    if let Err(error) = try_to_carry_over(view, users, user, old, new).await {
        let room_id = &new.room_id;
        tracing::warn!(%error, %room_id, "the settings of a replaced room were not carried over");
    }
}

async fn try_to_carry_over(
    view: &View,
    users: &Users,
    user: &UserId,
    old: &RoomView,
    new: &RoomView,
) -> Result<(), ApiError> {
    if let Some(tags) = users.account_data(user.as_str(), old.num, "m.tag")? {
        let keep_new = move |present: Option<Bytes>| Ok(present.is_none().then_some(tags));
        users.update_account_data(user.as_str(), new.num, "m.tag", keep_new).await?;
    }
    let ids = || (old.room_id.clone(), new.room_id.clone());
    if view.global_account_data(user, "m.direct")?.is_some() {
        let (old, new) = ids();
        let change =
            move |present: Option<Bytes>| Ok(present.and_then(|list| direct(&list, &old, &new)));
        users.update_account_data(user.as_str(), GLOBAL, "m.direct", change).await?;
    }
    let (old, new) = ids();
    users.change_push_rules(user, move |rules| copy_rules(rules, &old, &new)).await?;
    Ok(())
}

fn json(content: &impl Serialize) -> Option<Bytes> {
    serde_json::to_vec(content).ok().map(Bytes::from)
}

/// `m.direct` with the new room beside the old one; `None` if nothing changes.
fn direct(content: &[u8], old: &OwnedRoomId, new: &OwnedRoomId) -> Option<Bytes> {
    let mut content: DirectEventContent = serde_json::from_slice(content).ok()?;
    let mut changed = false;
    for (_, rooms) in content.iter_mut() {
        if rooms.contains(old) && !rooms.contains(new) {
            rooms.push(new.clone());
            changed = true;
        }
    }
    if changed { json(&content) } else { None }
}

/// Makes the rules for the old room once more for the new one.
fn copy_rules(
    rules: &mut Ruleset,
    old: &OwnedRoomId,
    new: &OwnedRoomId,
) -> Result<(), PushRulesError> {
    if let Some(rule) = rules.room.get(old.as_str()).cloned()
        && rules.room.get(new.as_str()).is_none()
    {
        let copy = NewSimplePushRule::new(new.clone(), rule.actions);
        rules.insert(NewPushRule::Room(copy), None, None)?;
    }
    copy_conditional(rules, old, new);
    Ok(())
}

/// Rules with the room among their conditions.
fn copy_conditional(rules: &mut Ruleset, old: &OwnedRoomId, new: &OwnedRoomId) {
    for set in [&mut rules.override_, &mut rules.underride] {
        let copies: Vec<_> = set.iter().filter_map(|rule| copied(rule, old, new)).collect();
        for copy in copies {
            if set.get(copy.rule_id.as_str()).is_none() {
                // Behind the rules that the user has made, before the defaults.
                let place =
                    set.iter().position(|rule| rule.default && rule.rule_id != ".m.rule.master");
                set.shift_insert(place.unwrap_or(set.len()), copy);
            }
        }
    }
}

fn copied(
    rule: &ConditionalPushRule,
    old: &OwnedRoomId,
    new: &OwnedRoomId,
) -> Option<ConditionalPushRule> {
    let mut copy = rule.clone();
    let mut found = false;
    for condition in &mut copy.conditions {
        if let PushCondition::EventMatch(data) = condition
            && data.key == "room_id"
            && data.pattern == old.as_str()
        {
            data.pattern = new.to_string();
            found = true;
        }
    }
    copy.rule_id = match copy.rule_id.contains(old.as_str()) {
        true => copy.rule_id.replace(old.as_str(), new.as_str()),
        false => format!("{} {new}", copy.rule_id),
    };
    (found && !rule.default).then_some(copy)
}
