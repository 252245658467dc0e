use std::sync::Arc;

use ruma::UserId;

use super::{AuthError, types};
use crate::content::{MemberContent, Membership};
use crate::json::Object;
use crate::pdu::Pdu;
use crate::version::RoomVersion;

/// Which `(type, state_key)` pairs of the room state an event must select as its auth events.
///
/// In this order: create (not in version 12), power levels, sender, target, join rules, third-party
/// invite, authorising user; each pair once. Empty for `m.room.create`. What is malformed selects
/// nothing: [`super::check`] refuses it.
///
/// Specification: <https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection>
#[must_use]
pub fn auth_types<'a>(
    version: &RoomVersion,
    event_type: &str,
    sender: &'a UserId,
    state_key: Option<&'a str>,
    content: &'a Object,
) -> Vec<(&'static str, &'a str)> {
    if event_type == types::CREATE {
        return Vec::new();
    }
    let rules = &version.rules().authorization;
    let mut selected = Vec::with_capacity(7);
    if !rules.room_create_event_id_as_room_id {
        selected.push((types::CREATE, ""));
    }
    selected.push((types::POWER_LEVELS, ""));
    selected.push((types::MEMBER, sender.as_str()));
    if event_type == types::MEMBER {
        select_for_member(
            &mut selected,
            MemberContent::new(content),
            state_key,
            rules.restricted_join_rule,
        );
    }
    selected
}

/// "If type is `m.room.member`"
fn select_for_member<'a>(
    selected: &mut Vec<(&'static str, &'a str)>,
    content: MemberContent<'a>,
    target: Option<&'a str>,
    restricted_rooms: bool,
) {
    let add_member = |selected: &mut Vec<_>, user| {
        if !selected.contains(&(types::MEMBER, user)) {
            selected.push((types::MEMBER, user));
        }
    };
    // The target's current m.room.member event, if any.
    if let Some(target) = target {
        add_member(selected, target);
    }
    let membership = content.membership();
    // If membership is join, invite or knock, the current m.room.join_rules event, if any.
    if matches!(membership, Some(Membership::Join | Membership::Invite | Membership::Knock)) {
        selected.push((types::JOIN_RULES, ""));
    }
    // If membership is invite and content contains a third_party_invite property, the current
    // m.room.third_party_invite event with state_key matching
    // content.third_party_invite.signed.token, if any.
    if membership == Some(Membership::Invite)
        && let Some(token) = content.signed_invite().and_then(|signed| signed.token())
    {
        selected.push((types::THIRD_PARTY_INVITE, token));
    }
    // If membership is join, content.join_authorised_via_users_server is present, and the room
    // version supports restricted rooms, then the m.room.member event with state_key matching
    // content.join_authorised_via_users_server.
    if membership == Some(Membership::Join)
        && restricted_rooms
        && let Some(user) = content.authorising_user()
    {
        add_member(selected, user.as_str());
    }
}

/// The rule on the event's own list: "Considering the event's `auth_events`".
///
/// `auth_events` are all the events that the list names, each with whether it was rejected. Does
/// not look at the state: in version 12, that the room id names an accepted create event is part
/// of [`super::check`]. A create event has no list to consider: the rule on it comes first, and
/// allows or rejects.
///
/// # Errors
///
/// The part of the rule that the list breaks.
pub fn check_auth_events(
    version: &RoomVersion,
    event: &Pdu,
    auth_events: &[(Arc<Pdu>, bool)],
) -> Result<(), AuthError> {
    if event.event_type() == types::CREATE {
        return Ok(());
    }
    let selection =
        auth_types(version, event.event_type(), event.sender(), event.state_key(), event.content());
    let mut seen = vec![false; selection.len()];
    for (auth_event, rejected) in auth_events {
        let place = selection.iter().position(|&(event_type, state_key)| {
            event_type == auth_event.event_type() && Some(state_key) == auth_event.state_key()
        });
        match place.and_then(|place| seen.get_mut(place)) {
            // If there are entries whose type and state_key don't match those specified by the
            // auth events selection algorithm, reject.
            None => return Err(unexpected(auth_event)),
            // If there are duplicate entries for a given type and state_key pair, reject.
            Some(seen) if *seen => return Err(duplicate(auth_event)),
            Some(seen) => *seen = true,
        }
        // If there are entries which were themselves rejected, reject.
        if *rejected {
            let event_id = auth_event.event_id().to_string();
            return Err(AuthError::RejectedAuthEvent { event_id });
        }
        // If any event in auth_events has a room_id which does not match that of the event being
        // authorised, reject.
        if auth_event.room_id() != event.room_id() {
            let event_id = auth_event.event_id().to_string();
            return Err(AuthError::AuthEventOfOtherRoom { event_id });
        }
    }
    // Versions 1 to 11. If there is no m.room.create event among the entries, reject.
    let lacks_create = selection
        .iter()
        .zip(&seen)
        .any(|((event_type, _), seen)| *event_type == types::CREATE && !seen);
    if lacks_create { Err(AuthError::AuthEventsWithoutCreate) } else { Ok(()) }
}

fn unexpected(auth_event: &Pdu) -> AuthError {
    AuthError::UnexpectedAuthEvent {
        event_id: auth_event.event_id().to_string(),
        event_type: auth_event.event_type().to_owned(),
    }
}

fn duplicate(auth_event: &Pdu) -> AuthError {
    AuthError::DuplicateAuthEvent {
        event_type: auth_event.event_type().to_owned(),
        state_key: auth_event.state_key().unwrap_or_default().to_owned(),
    }
}
