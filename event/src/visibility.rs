//! Who may see which event.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

use crate::{
    content::Membership,
    json::{Object, Value},
};

/// The `history_visibility` of a room at some event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HistoryVisibility {
    /// Anybody may see the event.
    WorldReadable,
    /// Whoever is or becomes a member may see it. Also what a room without a setting, or with
    /// one that is not understood, has.
    #[default]
    Shared,
    /// Only who was invited or joined at the event may see it.
    Invited,
    /// Only who was joined at the event may see it.
    Joined,
}

impl HistoryVisibility {
    /// The setting in the content of the `m.room.history_visibility` event of the room's state,
    /// if there is one.
    #[must_use]
    pub fn from_content(content: Option<&Object>) -> Self {
        let value = content.and_then(|content| content.get("history_visibility"));
        value.and_then(Value::as_str).map_or(Self::Shared, Self::from_text)
    }

    /// The setting of this name.
    #[must_use]
    pub fn from_text(name: &str) -> Self {
        match name {
            "world_readable" => Self::WorldReadable,
            "invited" => Self::Invited,
            "joined" => Self::Joined,
            _ => Self::Shared,
        }
    }

    /// The setting's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WorldReadable => "world_readable",
            Self::Shared => "shared",
            Self::Invited => "invited",
            Self::Joined => "joined",
        }
    }
}

/// Something in the room's state at an event: before it and after it. The two differ only if the
/// event is itself the one that changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtEvent<T> {
    /// In the state before the event.
    pub before: T,
    /// In the state after the event.
    pub after: T,
}

impl<T: Copy> AtEvent<T> {
    /// What the event does not change.
    #[must_use]
    pub fn unchanged(value: T) -> Self {
        Self { before: value, after: value }
    }
}

/// Whether a user may see an event.
///
/// - `visibility`: the room's setting around the event; of a change either value may allow.
/// - `membership`: the user's membership around the event, `None` for a user without one; of the
///   user's own membership event either value may allow.
/// - `joined_since`: whether the user joined at any time after the event. For users who left,
///   their last join counts as well, so a member of the past sees what was `shared` before.
#[must_use]
pub fn may_see(
    visibility: AtEvent<HistoryVisibility>,
    membership: AtEvent<Option<Membership>>,
    joined_since: bool,
) -> bool {
    let allows = |visibility| {
        allowed(visibility, membership.before, joined_since)
            || allowed(visibility, membership.after, joined_since)
    };
    allows(visibility.before) || allows(visibility.after)
}

/// The specification's rules 1 to 5 for one state.
fn allowed(
    visibility: HistoryVisibility,
    membership: Option<Membership>,
    joined_since: bool,
) -> bool {
    match (visibility, membership) {
        (HistoryVisibility::WorldReadable, _) | (_, Some(Membership::Join)) => true,
        (HistoryVisibility::Shared, _) => joined_since,
        (HistoryVisibility::Invited, Some(Membership::Invite)) => true,
        (HistoryVisibility::Invited | HistoryVisibility::Joined, _) => false,
    }
}
