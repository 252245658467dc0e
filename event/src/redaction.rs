//! Redaction: which parts of an event survive, by room version, and when a redaction applies.
//!
//! Hashing and signing need the redacted form of every event, so it can be written out directly
//! ([`signing`](crate::signing) does), without a redacted copy being made first.
//!
//! Specification: <https://spec.matrix.org/v1.19/rooms/v11/#redactions>

use ruma::room_version_rules::RedactionRules;

use crate::{
    Pdu, RoomVersion,
    json::{self, Object, Value},
};

/// What happens to one member of an event's content.
enum Keep {
    Whole,
    /// Only this member of it, if it is an object.
    Only(&'static str),
    Nothing,
}

/// Redacts a whole event.
#[must_use]
pub fn redact(version: &RoomVersion, mut event: Object) -> Object {
    redact_in_place(version, &mut event);
    event
}

/// Redacts a whole event where it is.
pub fn redact_in_place(version: &RoomVersion, event: &mut Object) {
    let rules = &version.rules().redaction;
    event.retain(|key, _| keeps_field(rules, key));
    let event_type = match event.get("type") {
        Some(Value::String(event_type)) => event_type.clone(),
        _ => String::new(),
    };
    match event.get_mut("content") {
        Some(Value::Object(content)) => redact_content(version, &event_type, content),
        Some(other) => *other = Value::Object(Object::new()),
        None => {}
    }
}

/// Redacts the content of an event of a type.
pub fn redact_content(version: &RoomVersion, event_type: &str, content: &mut Object) {
    let rules = &version.rules().redaction;
    content.retain(|key, value| match keeps_content(rules, event_type, key) {
        Keep::Whole => true,
        Keep::Only(inner) => match value {
            Value::Object(members) => {
                members.retain(|key, _| key == inner);
                true
            }
            _ => false,
        },
        Keep::Nothing => false,
    });
}

/// Whether a redaction that the auth rules allowed is to be carried out on `target`.
///
/// `sender_has_redact_level` says whether the redaction's sender has at least the power level
/// `redact` in the room's state before the redaction (creators of version 12 rooms always do).
/// Room versions 1 and 2 settle the question in the auth rules already.
///
/// Specification: <https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions>
#[must_use]
pub fn applies(
    version: &RoomVersion,
    redaction: &Pdu,
    target: &Pdu,
    sender_has_redact_level: bool,
) -> bool {
    let names_target = redaction.redacts() == Some(target.event_id())
        && redaction.event_id() != target.event_id()
        && redaction.room_id() == target.room_id();
    names_target
        && (version.rules().authorization.special_case_room_redaction
            || sender_has_redact_level
            || redaction.sender().server_name() == target.sender().server_name())
}

/// Appends the canonical form of the redacted event, without the members named in `skip_keys`.
pub(crate) fn write_redacted(
    version: &RoomVersion,
    event: &Object,
    skip_keys: &[&str],
    out: &mut Vec<u8>,
) {
    let rules = &version.rules().redaction;
    let mut separator = b'{';
    for (key, value) in event {
        if skip_keys.contains(&key.as_str()) || !keeps_field(rules, key) {
            continue;
        }
        write_key(&mut separator, key, out);
        if key == "content" {
            let event_type = event.get("type").and_then(Value::as_str).unwrap_or_default();
            write_redacted_content(rules, event_type, value, out);
        } else {
            json::write_value(value, out);
        }
    }
    close(separator, out);
}

fn write_redacted_content(
    rules: &RedactionRules,
    event_type: &str,
    content: &Value,
    out: &mut Vec<u8>,
) {
    let mut separator = b'{';
    for (key, value) in content.as_object().into_iter().flatten() {
        match (keeps_content(rules, event_type, key), value) {
            (Keep::Whole, _) => {
                write_key(&mut separator, key, out);
                json::write_value(value, out);
            }
            (Keep::Only(inner), Value::Object(members)) => {
                write_key(&mut separator, key, out);
                let mut separator = b'{';
                if let Some(value) = members.get(inner) {
                    write_key(&mut separator, inner, out);
                    json::write_value(value, out);
                }
                close(separator, out);
            }
            (Keep::Only(_) | Keep::Nothing, _) => {}
        }
    }
    close(separator, out);
}

fn write_key(separator: &mut u8, key: &str, out: &mut Vec<u8>) {
    out.push(*separator);
    *separator = b',';
    json::write_string(key, out);
    out.push(b':');
}

fn close(separator: u8, out: &mut Vec<u8>) {
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

fn keeps_field(rules: &RedactionRules, key: &str) -> bool {
    match key {
        "event_id" | "type" | "room_id" | "sender" | "state_key" | "content" | "hashes"
        | "signatures" | "depth" | "prev_events" | "auth_events" | "origin_server_ts" => true,
        "origin" | "membership" | "prev_state" => rules.keep_origin_membership_prev_state,
        _ => false,
    }
}

fn keeps_content(rules: &RedactionRules, event_type: &str, key: &str) -> Keep {
    let whole = match (event_type, key) {
        ("m.room.member", "membership")
        | ("m.room.create", "creator")
        | ("m.room.join_rules", "join_rule")
        | ("m.room.history_visibility", "history_visibility")
        | (
            "m.room.power_levels",
            "ban" | "events" | "events_default" | "kick" | "redact" | "state_default" | "users"
            | "users_default",
        ) => true,
        ("m.room.member", "join_authorised_via_users_server") => {
            rules.keep_room_member_join_authorised_via_users_server
        }
        ("m.room.member", "third_party_invite")
            if rules.keep_room_member_third_party_invite_signed =>
        {
            return Keep::Only("signed");
        }
        ("m.room.create", _) => rules.keep_room_create_content,
        ("m.room.join_rules", "allow") => rules.keep_room_join_rules_allow,
        ("m.room.power_levels", "invite") => rules.keep_room_power_levels_invite,
        ("m.room.redaction", "redacts") => rules.keep_room_redaction_redacts,
        ("m.room.aliases", "aliases") => rules.keep_room_aliases_aliases,
        _ => false,
    };
    if whole { Keep::Whole } else { Keep::Nothing }
}
