use ruma::UserId;

use super::{text, valid_user};
use crate::json::{Object, Value};
use crate::pdu::Pdu;
use crate::version::RoomVersion;

/// The content of `m.room.create`.
///
/// Specification: <https://spec.matrix.org/v1.19/client-server-api/#mroomcreate>
#[derive(Debug, Clone, Copy)]
pub struct CreateContent<'a> {
    content: &'a Object,
    sender: &'a UserId,
}

impl<'a> CreateContent<'a> {
    /// The view of a create event. Its type is not checked.
    #[must_use]
    pub fn of(create: &'a Pdu) -> Self {
        Self { content: create.content(), sender: create.sender() }
    }

    /// Whether users of other servers may take part. Only `m.federate: false` forbids it.
    #[must_use]
    pub fn federates(&self) -> bool {
        !matches!(self.content.get("m.federate"), Some(Value::Bool(false)))
    }

    /// Whether there is a `creator` property, of whatever type.
    #[must_use]
    pub fn has_creator(&self) -> bool {
        self.content.contains_key("creator")
    }

    /// The version that `room_version` names, 1 if it is missing; `None` if it is not a version
    /// that Parlour knows.
    #[must_use]
    pub fn room_version(&self) -> Option<&'static RoomVersion> {
        match self.content.get("room_version") {
            None => RoomVersion::parse("1"),
            Some(Value::String(id)) => RoomVersion::parse(id),
            Some(_) => None,
        }
    }

    /// Whether `additional_creators` is missing, or an array of valid user ids.
    #[must_use]
    pub fn additional_creators_valid(&self) -> bool {
        match self.content.get("additional_creators") {
            None => true,
            Some(Value::Array(users)) => users
                .iter()
                .all(|user| matches!(user, Value::String(user) if valid_user(user).is_some())),
            Some(_) => false,
        }
    }

    /// Whether the user opened the room: the `creator` up to room version 10, from then on the
    /// sender. Does not count additional creators.
    #[must_use]
    pub fn is_creator(&self, version: &RoomVersion, user: &str) -> bool {
        if version.rules().authorization.use_room_create_sender {
            self.sender.as_str() == user
        } else {
            text(self.content, "creator") == Some(user)
        }
    }

    /// Whether the user has infinite power, as the creators do from room version 12 on.
    #[must_use]
    pub fn is_privileged(&self, version: &RoomVersion, user: &str) -> bool {
        let rules = &version.rules().authorization;
        if !rules.explicitly_privilege_room_creators {
            return false;
        }
        self.is_creator(version, user)
            || rules.additional_room_creators && self.is_additional_creator(user)
    }

    fn is_additional_creator(&self, user: &str) -> bool {
        match self.content.get("additional_creators") {
            Some(Value::Array(users)) => {
                users.iter().any(|other| matches!(other, Value::String(other) if other == user))
            }
            _ => false,
        }
    }

    /// The users with infinite power, the sender first; none before room version 12.
    pub fn privileged(&self, version: &RoomVersion) -> impl Iterator<Item = &'a str> + use<'a> {
        let rules = &version.rules().authorization;
        let sender =
            rules.explicitly_privilege_room_creators.then_some(self.sender).map(UserId::as_str);
        let additional = match self.content.get("additional_creators") {
            Some(Value::Array(users)) if rules.additional_room_creators => users.as_slice(),
            _ => &[],
        };
        sender.into_iter().chain(additional.iter().filter_map(|user| match user {
            Value::String(user) => Some(user.as_str()),
            _ => None,
        }))
    }
}
