//! Push rules as a user has them: stored under the account data type `m.push_rules`, the server's
//! defaults where nothing is stored.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#push-rules>

use bytes::Bytes;
use parlour_actors::users::Users;
use parlour_event::RoomNum;
use parlour_storage::StorageError;
use ruma::{UserId, events::push_rules::PushRulesEventContent, push::Ruleset};

/// The account data type of push rules.
pub const PUSH_RULES: &str = "m.push_rules";

/// The rules that hold for a user.
///
/// # Errors
/// Storage cannot be read.
pub fn ruleset_of(users: &Users, user: &UserId) -> Result<Ruleset, StorageError> {
    let stored = users.account_data(user.as_str(), RoomNum(0), PUSH_RULES)?;
    let stored = stored.and_then(|json| match serde_json::from_slice(&json) {
        Ok(PushRulesEventContent { global, .. }) => Some(global),
        Err(error) => {
            tracing::error!(%error, "stored push rules are not readable; the defaults hold");
            None
        }
    });
    Ok(stored.unwrap_or_else(|| Ruleset::server_default(user)))
}

/// The content of a user's `m.push_rules` account data, as JSON text.
///
/// # Errors
/// Storage cannot be read.
pub fn push_rules_content(users: &Users, user: &UserId) -> Result<Bytes, StorageError> {
    let content = PushRulesEventContent::new(ruleset_of(users, user)?);
    let json = serde_json::to_vec(&content).expect("push rules are plain data with string keys");
    Ok(json.into())
}
