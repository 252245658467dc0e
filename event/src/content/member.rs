use ruma::UserId;

use super::{text, third_party::SignedInvite, valid_user};
use crate::json::{Object, Value};

/// The `membership` of a user in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Membership {
    /// `join`
    Join,
    /// `invite`
    Invite,
    /// `leave`, and whoever never had a membership
    Leave,
    /// `ban`
    Ban,
    /// `knock`: room version 7 and later
    Knock,
}

impl Membership {
    /// The value with this text, or `None` if it is unknown.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "join" => Some(Self::Join),
            "invite" => Some(Self::Invite),
            "leave" => Some(Self::Leave),
            "ban" => Some(Self::Ban),
            "knock" => Some(Self::Knock),
            _ => None,
        }
    }

    /// The value of the `membership` property.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Leave => "leave",
            Self::Ban => "ban",
            Self::Knock => "knock",
        }
    }
}

/// The content of `m.room.member`.
///
/// Specification: <https://spec.matrix.org/v1.19/client-server-api/#mroommember>
#[derive(Debug, Clone, Copy)]
pub struct MemberContent<'a>(&'a Object);

impl<'a> MemberContent<'a> {
    /// The view of this content.
    #[must_use]
    pub fn new(content: &'a Object) -> Self {
        Self(content)
    }

    /// The `membership` as it stands there; `None` if it is missing or not a string.
    #[must_use]
    pub fn membership_text(&self) -> Option<&'a str> {
        text(self.0, "membership")
    }

    /// The membership; `None` if it is missing, not a string, or unknown.
    #[must_use]
    pub fn membership(&self) -> Option<Membership> {
        self.membership_text().and_then(Membership::parse)
    }

    /// Whether there is a `third_party_invite` property, of whatever type.
    #[must_use]
    pub fn has_third_party_invite(&self) -> bool {
        self.0.contains_key("third_party_invite")
    }

    /// The object `third_party_invite.signed`, if it is one.
    #[must_use]
    pub fn signed_invite(&self) -> Option<SignedInvite<'a>> {
        let Some(Value::Object(invite)) = self.0.get("third_party_invite") else { return None };
        match invite.get("signed") {
            Some(Value::Object(signed)) => Some(SignedInvite::new(signed)),
            _ => None,
        }
    }

    /// Whether there is a `join_authorised_via_users_server` property, of whatever type.
    #[must_use]
    pub fn has_authorising_user(&self) -> bool {
        self.0.contains_key("join_authorised_via_users_server")
    }

    /// The user in `join_authorised_via_users_server`; `None` if it is missing or not a user id.
    #[must_use]
    pub fn authorising_user(&self) -> Option<&'a UserId> {
        text(self.0, "join_authorised_via_users_server").and_then(valid_user)
    }
}
