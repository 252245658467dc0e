use super::text;
use crate::json::Object;

/// The `join_rule` of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JoinRule {
    /// `public`: whoever likes
    Public,
    /// `invite`: whoever is invited
    Invite,
    /// `knock`: whoever is invited; one may ask for it. Room version 7 and later.
    Knock,
    /// `restricted`: whoever is invited or fulfils a condition. Room version 8 and later.
    Restricted,
    /// `knock_restricted`: both. Room version 10 and later.
    KnockRestricted,
    /// `private` and everything unknown: nobody
    Other,
}

impl JoinRule {
    /// The rule as the `join_rule` property has it; [`JoinRule::Other`] is shown as `private`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Restricted => "restricted",
            Self::KnockRestricted => "knock_restricted",
            Self::Other => "private",
        }
    }
}

impl From<&str> for JoinRule {
    fn from(text: &str) -> Self {
        match text {
            "public" => Self::Public,
            "invite" => Self::Invite,
            "knock" => Self::Knock,
            "restricted" => Self::Restricted,
            "knock_restricted" => Self::KnockRestricted,
            _ => Self::Other,
        }
    }
}

/// The content of `m.room.join_rules`, or of a room without that event.
///
/// Specification: <https://spec.matrix.org/v1.19/client-server-api/#mroomjoin_rules>
#[derive(Debug, Clone, Copy)]
pub struct JoinRulesContent<'a>(Option<&'a Object>);

impl<'a> JoinRulesContent<'a> {
    /// The view of this content; `None` if the room has no `m.room.join_rules`.
    #[must_use]
    pub fn new(content: Option<&'a Object>) -> Self {
        Self(content)
    }

    /// The rule. A missing event or property means `invite`: the specification is silent, and this
    /// is what the servers in use agree on. A value that is not a string lets nobody in.
    #[must_use]
    pub fn join_rule(&self) -> JoinRule {
        match self.0 {
            Some(content) if content.contains_key("join_rule") => {
                text(content, "join_rule").map_or(JoinRule::Other, JoinRule::from)
            }
            _ => JoinRule::Invite,
        }
    }
}
