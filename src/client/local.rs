//! What clients write, on its way to becoming an event.

use parlour_actors::LocalEvent;
use parlour_event::{
    content::{LevelField, Membership},
    json::{self, JsonError, Object, Value},
};
use parlour_storage::schema::StoredEvent;
use ruma::{EventId, RoomId, UserId};

use crate::{
    error::ApiError,
    http::Caller,
    view::{RoomView, View},
};

/// Checks that other servers may be asked on a caller's behalf: strangers could have them asked
/// for anything.
///
/// # Errors
///
/// 403 `M_FORBIDDEN` for those who have not logged in.
pub(crate) fn may_ask_others(caller: Option<&Caller>) -> Result<(), ApiError> {
    let message = "This server asks others on behalf of its own users alone";
    caller.map(drop).ok_or_else(|| ApiError::forbidden(message))
}

/// A JSON object as strict as our own events must be in every room version.
///
/// # Errors
///
/// `M_NOT_JSON`, `M_BAD_JSON`.
pub(crate) fn object(body: &[u8]) -> Result<Object, ApiError> {
    match json::parse_strict(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(ApiError::bad_json(format!("An object is needed, not {}", other.kind()))),
        Err(error @ JsonError::NotJson { .. }) => Err(ApiError::not_json(error.to_string())),
        Err(error) => Err(ApiError::bad_json(error.to_string())),
    }
}

/// The room, if the user is in it.
///
/// # Errors
///
/// `M_FORBIDDEN`, whether or not there is such a room.
pub(crate) fn joined_room(
    view: &View,
    room_id: &RoomId,
    user: &UserId,
) -> Result<RoomView, ApiError> {
    if let Some(room) = view.room(room_id)?
        && view.membership_of(&room, user)? == Some(Membership::Join)
    {
        return Ok(room);
    }
    Err(ApiError::forbidden("You are not in this room"))
}

/// An event of the room that clients can get.
///
/// # Errors
///
/// `M_NOT_FOUND`
pub(crate) fn event_in(
    view: &View,
    room: &RoomView,
    event_id: &EventId,
) -> Result<StoredEvent, ApiError> {
    let num = view.store.event_num(event_id.as_str())?;
    let event = num.map(|num| view.store.event(num)).transpose()?.flatten();
    let event = event.filter(|event| event.meta.room == room.num && event.meta.flags.is_visible());
    event.ok_or_else(|| ApiError::not_found("The room has no such event"))
}

/// An event that is no state.
pub(crate) fn message_event(sender: &UserId, event_type: &str, content: Object) -> LocalEvent {
    LocalEvent {
        sender: sender.to_owned(),
        event_type: event_type.to_owned(),
        state_key: None,
        content,
        redacts: None,
        transaction: None,
        timestamp: None,
    }
}

/// A state event.
pub(crate) fn state_event(
    sender: &UserId,
    event_type: &str,
    state_key: &str,
    content: Object,
) -> LocalEvent {
    let state_key = Some(state_key.to_owned());
    LocalEvent { state_key, ..message_event(sender, event_type, content) }
}

/// An object of these members.
pub(crate) fn members<const N: usize>(members: [(&str, Value); N]) -> Object {
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Checks that power levels are integers. Old room versions take strings for numbers, but local
/// users must not create such levels any more.
///
/// # Errors
///
/// `M_BAD_JSON`, naming the level.
pub(crate) fn check_power_levels(content: &Object) -> Result<(), ApiError> {
    let wrong = |field: &str| ApiError::bad_json(format!("The power level {field} is no integer"));
    let is_integer = |value: &Value| matches!(value, Value::Integer(_));
    for field in LevelField::ALL {
        let field = field.as_str();
        if content.get(field).is_some_and(|level| !is_integer(level)) {
            return Err(wrong(field));
        }
    }
    for field in ["users", "events", "notifications"] {
        let Some(levels) = content.get(field) else { continue };
        let levels = levels
            .as_object()
            .ok_or_else(|| ApiError::bad_json(format!("{field} must be an object")))?;
        if let Some((key, _)) = levels.iter().find(|(_, level)| !is_integer(level)) {
            return Err(wrong(&format!("{field}.{key}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_levels_are_integers_and_nothing_else() {
        for (content, good) in [
            (r#"{}"#, true),
            (
                r#"{"ban":50,"users":{"@a:x":100},"events":{"t":-1},"notifications":{"room":1}}"#,
                true,
            ),
            (r#"{"ban":"50"}"#, false),
            (r#"{"users_default":null}"#, false),
            (r#"{"users":{"@a:x":"100"}}"#, false),
            (r#"{"users":[]}"#, false),
            (r#"{"events":{"t":true}}"#, false),
            (r#"{"notifications":{"room":"1"}}"#, false),
            (r#"{"org.example":"anything"}"#, true),
        ] {
            let content_object = object(content.as_bytes()).expect("an object");
            assert_eq!(check_power_levels(&content_object).is_ok(), good, "{content}");
        }
    }

    // Checklist 7.2
    #[test]
    fn what_no_event_can_hold_is_refused_as_bad_json() {
        use ruma::api::error::ErrorCode;
        for (body, code) in [
            ("{", ErrorCode::NotJson),
            ("[]", ErrorCode::BadJson),
            (r#"{"a":1.5}"#, ErrorCode::BadJson),
            (r#"{"a":9007199254740992}"#, ErrorCode::BadJson),
        ] {
            let error = object(body.as_bytes()).expect_err(body);
            assert_eq!(error.errcode(), Some(&code), "{body}");
        }
    }
}
