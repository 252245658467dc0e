//! The room versions that Parlour supports, and their rules.

use std::sync::LazyLock;

use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};

/// A supported room version together with ruma's description of its rules.
///
/// Specification: <https://spec.matrix.org/v1.19/rooms/>
#[derive(Debug, Clone)]
pub struct RoomVersion {
    id: RoomVersionId,
    rules: RoomVersionRules,
    number: u8,
}

static VERSIONS: LazyLock<Vec<RoomVersion>> = LazyLock::new(|| {
    (1..=12)
        .map(|number: u8| {
            let id = RoomVersionId::try_from(number.to_string())
                .expect("a decimal number is a valid room version id");
            let rules = id.rules().expect("ruma knows the rules of room versions 1 to 12");
            RoomVersion { id, rules, number }
        })
        .collect()
});

impl RoomVersion {
    /// The version with this id, or `None` if Parlour does not support it.
    #[must_use]
    pub fn get(id: &RoomVersionId) -> Option<&'static Self> {
        VERSIONS.iter().find(|version| version.id == *id)
    }

    /// The version with this id as text, or `None` if Parlour does not support it.
    #[must_use]
    pub fn parse(id: &str) -> Option<&'static Self> {
        VERSIONS.iter().find(|version| version.id.as_str() == id)
    }

    /// All supported versions, oldest first.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &VERSIONS
    }

    /// The identifier, as in the `room_version` of `m.room.create`.
    #[must_use]
    pub fn id(&self) -> &RoomVersionId {
        &self.id
    }

    /// The rules, as ruma describes them.
    #[must_use]
    pub fn rules(&self) -> &RoomVersionRules {
        &self.rules
    }

    /// The version's number, 1 to 12.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }
}
