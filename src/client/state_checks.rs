//! What is checked of a state event that a local user sends, beyond the auth rules: contents that
//! would do harm, or none of what they seem to do.

use parlour_event::json::{self, Object, Value};
use ruma::{
    ServerName,
    events::room::{policy::RoomPolicyEventContent, server_acl::RoomServerAclEventContent},
};
use serde::de::DeserializeOwned;

use super::local;
use crate::error::ApiError;

/// Checks a content by its type.
///
/// # Errors
///
/// `M_BAD_JSON` for a content of the wrong shape, `M_INVALID_PARAM` for one that would shut this
/// server out of the room.
pub(crate) fn check_content(
    event_type: &str,
    state_key: &str,
    content: &Object,
    own_name: &ServerName,
) -> Result<(), ApiError> {
    match event_type {
        "m.room.power_levels" => local::check_power_levels(content),
        "m.room.server_acl" if state_key.is_empty() => check_acl(content, own_name),
        "m.room.policy" if state_key.is_empty() => check_policy(content),
        _ => Ok(()),
    }
}

/// Nobody means to deny the own server: from then on nothing more would come of the room.
fn check_acl(content: &Object, own_name: &ServerName) -> Result<(), ApiError> {
    let acl: RoomServerAclEventContent = read(content)?;
    match acl.is_allowed(own_name) {
        true => Ok(()),
        false => Err(ApiError::invalid_param("This server ACL denies the server that you are on")),
    }
}

/// An empty content turns the policy server off.
fn check_policy(content: &Object) -> Result<(), ApiError> {
    if content.is_empty() {
        return Ok(());
    }
    let policy: RoomPolicyEventContent = read(content)?;
    let has_key = |(algorithm, key): (&ruma::SigningKeyAlgorithm, &ruma::serde::Base64)| {
        algorithm.as_str() == "ed25519" && key.as_bytes().len() == 32
    };
    match policy.public_keys.iter().any(has_key) {
        true => Ok(()),
        false => Err(ApiError::bad_json("`public_keys` must have a key for `ed25519`")),
    }
}

fn read<T: DeserializeOwned>(content: &Object) -> Result<T, ApiError> {
    let json = json::to_canonical(&Value::Object(content.clone()));
    serde_json::from_slice(&json).map_err(|error| ApiError::bad_json(error.to_string()))
}
