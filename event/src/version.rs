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
    owned_state: bool,
}

/// Versions 10 and 11 with owned state, MSC3757.
const OWNED_STATE: [(&str, u8); 2] = [("org.matrix.msc3757.10", 10), ("org.matrix.msc3757.11", 11)];

static VERSIONS: LazyLock<Vec<RoomVersion>> = LazyLock::new(|| {
    let stable = (1..=12).map(|number: u8| (number.to_string(), number, false));
    let unstable = OWNED_STATE.iter().map(|(id, number)| ((*id).to_owned(), *number, true));
    let version = |(id, number, owned_state): (String, u8, bool)| {
        let parse = |id: &str| {
            RoomVersionId::try_from(id).expect("a constant above is a valid room version id")
        };
        let rules = parse(&number.to_string()).rules();
        let rules = rules.expect("ruma knows the rules of room versions 1 to 12");
        RoomVersion { id: parse(&id), rules, number, owned_state }
    };
    stable.chain(unstable).map(version).collect()
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

    /// All supported versions: those of the specification, oldest first, then unstable ones.
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

    /// The version's number, 1 to 12; of an unstable version that of the one it is made from.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Whether the specification has this version.
    #[must_use]
    pub fn is_stable(&self) -> bool {
        !self.owned_state
    }

    /// Whether a state key may be a user's id with an underscore and more behind it, which gives
    /// that user the state event (MSC3757).
    #[must_use]
    pub fn has_owned_state(&self) -> bool {
        self.owned_state
    }
}
