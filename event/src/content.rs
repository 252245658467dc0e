//! Typed views of the event contents that the server itself reads, most of them in the
//! authorisation rules.
//!
//! A view borrows the content and looks at a field when it is asked for: the checks run on every
//! event, and a power levels event can name thousands of users of whom one matters. What is
//! malformed is reported by the view, never guessed at, and never panics.

mod create;
mod join_rules;
mod member;
mod power_levels;
mod relation;
mod third_party;

pub use create::CreateContent;
pub use join_rules::{JoinRule, JoinRulesContent};
pub use member::{MemberContent, Membership};
pub use power_levels::{LevelError, LevelField, PowerLevel, PowerLevels};
pub use relation::{Relation, RelationKind};
pub use third_party::{SignedInvite, ThirdPartyInviteContent};

use ruma::UserId;

use crate::json::{Object, Value};

/// The length limit of user ids in bytes. The identifier parser is built without it, for old
/// rooms' sake.
const MAX_USER_ID_BYTES: usize = 255;

/// A string property; `None` when it is missing or something else.
fn text<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    match object.get(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// The user id that passes the validation which is applied to `sender`.
fn valid_user(text: &str) -> Option<&UserId> {
    if text.len() > MAX_USER_ID_BYTES {
        return None;
    }
    <&UserId>::try_from(text).ok()
}
