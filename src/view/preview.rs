//! What is told of a room to those who may not be in it yet: in the directory, in spaces, before
//! joining.

use parlour_event::{RoomVersion, content::Membership};
use ruma::{
    ServerName, UInt, UserId,
    events::{
        StateEventType,
        room::{
            avatar::RoomAvatarEventContent,
            canonical_alias::RoomCanonicalAliasEventContent,
            create::RoomCreateEventContent,
            encryption::RoomEncryptionEventContent,
            guest_access::{GuestAccess, RoomGuestAccessEventContent},
            history_visibility::{HistoryVisibility, RoomHistoryVisibilityEventContent},
            join_rules::RoomJoinRulesEventContent,
            name::RoomNameEventContent,
            topic::RoomTopicEventContent,
        },
    },
    room::{JoinRuleSummary, RoomSummary},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Fields, RoomView, View, ViewError};

/// The state that a preview is made of.
const TYPES: [StateEventType; 9] = [
    StateEventType::RoomCreate,
    StateEventType::RoomJoinRules,
    StateEventType::RoomCanonicalAlias,
    StateEventType::RoomName,
    StateEventType::RoomTopic,
    StateEventType::RoomAvatar,
    StateEventType::RoomGuestAccess,
    StateEventType::RoomHistoryVisibility,
    StateEventType::RoomEncryption,
];

/// The contents of some state events, as text.
struct Contents(Vec<(String, String)>);

impl Contents {
    /// A content as a type; what makes no sense counts as missing, since anybody may have sent it.
    fn read<T: DeserializeOwned>(&self, event_type: StateEventType) -> Option<T> {
        let event_type = event_type.to_string();
        let (_, content) = self.0.iter().find(|(found, _)| *found == event_type)?;
        serde_json::from_str(content).ok()
    }

    /// The topic, if it is there as plain text.
    fn topic(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Plain {
            topic: String,
        }
        let content: Option<RoomTopicEventContent> = self.read(StateEventType::RoomTopic);
        match content.map(|content| content.topic_block.text).filter(|text| !text.is_empty()) {
            Some(text) => text.find_plain().map(str::to_owned),
            // Where there is no block, or one that makes no sense.
            None => self.read(StateEventType::RoomTopic).map(|Plain { topic }| topic),
        }
    }

    fn join_rule(&self) -> JoinRuleSummary {
        match self.read::<RoomJoinRulesEventContent>(StateEventType::RoomJoinRules) {
            None => JoinRuleSummary::Invite,
            Some(content) => understood(content.join_rule.into()),
        }
    }

    fn is_world_readable(&self) -> bool {
        let content: Option<RoomHistoryVisibilityEventContent> =
            self.read(StateEventType::RoomHistoryVisibility);
        content.is_some_and(|c| c.history_visibility == HistoryVisibility::WorldReadable)
    }

    fn guest_can_join(&self) -> bool {
        let content: Option<RoomGuestAccessEventContent> =
            self.read(StateEventType::RoomGuestAccess);
        content.is_some_and(|content| content.guest_access == GuestAccess::CanJoin)
    }
}

impl View {
    /// A room as its present state describes it.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn preview(&self, room: &RoomView) -> Result<RoomSummary, ViewError> {
        let state = self.contents(room)?;
        let mut summary = RoomSummary::new(
            room.room_id.clone(),
            state.join_rule(),
            state.guest_can_join(),
            UInt::try_from(room.head.joined).unwrap_or(UInt::MAX),
            state.is_world_readable(),
        );
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let alias = state.read(StateEventType::RoomCanonicalAlias);
        let name = state.read(StateEventType::RoomName);
        let avatar = state.read(StateEventType::RoomAvatar);
        let create = state.read(StateEventType::RoomCreate);
        let encryption = state.read(StateEventType::RoomEncryption);
        summary.canonical_alias = alias.and_then(|c: RoomCanonicalAliasEventContent| c.alias);
        summary.name = name.and_then(|content: RoomNameEventContent| given(content.name));
        summary.topic = state.topic().and_then(given);
        summary.avatar_url = avatar.and_then(|content: RoomAvatarEventContent| content.url);
        summary.room_type = create.and_then(|content: RoomCreateEventContent| content.room_type);
        summary.encryption =
            encryption.map(|content: RoomEncryptionEventContent| content.algorithm);
        summary.room_version = Some(room.version.id().clone());
        Ok(summary)
    }

    fn contents(&self, room: &RoomView) -> Result<Contents, ViewError> {
        let mut nums = Vec::with_capacity(TYPES.len());
        for event_type in TYPES {
            nums.extend(self.state_num(room.head.state, &event_type.to_string(), "")?);
        }
        let mut contents = Vec::with_capacity(nums.len());
        for event in self.store.events(&nums)?.iter().flatten() {
            let fields = Fields::of(event)?;
            contents.push((fields.event_type.into_owned(), fields.content.get().to_owned()));
        }
        Ok(Contents(contents))
    }

    /// Whether somebody may see a room's preview: who is in the room, could join it or knock at
    /// it, or could read it anyway. Without a user, whether a stranger to the server may.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn may_preview(
        &self,
        room: &RoomView,
        preview: &RoomSummary,
        user: Option<&UserId>,
    ) -> Result<bool, ViewError> {
        if is_open(Some(room.version), preview) {
            return Ok(true);
        }
        let Some(user) = user else { return Ok(false) };
        if let Some(Membership::Join | Membership::Invite) = self.membership_of(room, user)? {
            return Ok(true);
        }
        Ok(self.is_in_one_of(user, allowed_rooms(Some(room.version), preview))?)
    }

    /// The same for a room that another server tells of, since its own users may see it.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn may_preview_told(
        &self,
        preview: &RoomSummary,
        user: &UserId,
    ) -> Result<bool, ViewError> {
        let version = preview.room_version.as_ref().and_then(|id| RoomVersion::parse(id.as_str()));
        if is_open(version, preview) {
            return Ok(true);
        }
        if let Some(num) = self.store.room_num(preview.room_id.as_str())? {
            let entry = self.store.membership(user.as_str(), num)?;
            match entry.as_ref().map(|entry| entry.membership.as_str()) {
                Some("invite" | "join") => return Ok(true),
                Some("ban") => return Ok(false),
                _ => {}
            }
        }
        Ok(self.is_in_one_of(user, allowed_rooms(version, preview))?)
    }

    /// A room's preview, if another server may have it: its users are in the room, could join it
    /// or knock at it, or could read it anyway.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn preview_for_server(
        &self,
        room: &RoomView,
        server: &ServerName,
    ) -> Result<Option<RoomSummary>, ViewError> {
        let preview = self.preview(room)?;
        let name = server.as_str();
        if self.store.joined_from(room.num, name)? > 0 {
            return Ok(Some(preview));
        }
        if !self.federates(room)? {
            return Ok(None);
        }
        if is_open(Some(room.version), &preview)
            || self.resident(room.clone(), server)?.is_invited()?
        {
            return Ok(Some(preview));
        }
        let is_in_allowed =
            self.has_users_in_one_of(name, allowed_rooms(Some(room.version), &preview))?;
        Ok(is_in_allowed.then_some(preview))
    }

    fn has_users_in_one_of<'a>(
        &self,
        server: &str,
        rooms: impl Iterator<Item = &'a str>,
    ) -> Result<bool, ViewError> {
        for room in rooms {
            let Some(num) = self.store.room_num(room)? else { continue };
            if self.store.joined_from(num, server)? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A rule, as far as it is known here: what is not lets nobody in.
#[must_use]
pub fn understood(rule: JoinRuleSummary) -> JoinRuleSummary {
    match rule {
        known @ (JoinRuleSummary::Public
        | JoinRuleSummary::Invite
        | JoinRuleSummary::Knock
        | JoinRuleSummary::Restricted(_)
        | JoinRuleSummary::KnockRestricted(_)) => known,
        _ => JoinRuleSummary::Private,
    }
}

/// Whether anybody may come in, knock, or read. What a version that is not known here lets in is
/// for others to say.
fn is_open(version: Option<&RoomVersion>, preview: &RoomSummary) -> bool {
    let rules = version.map(|version| &version.rules().authorization);
    let is_open = match &preview.join_rule {
        JoinRuleSummary::Public => true,
        JoinRuleSummary::Knock => rules.is_none_or(|rules| rules.knocking),
        JoinRuleSummary::KnockRestricted(_) => {
            rules.is_none_or(|rules| rules.knock_restricted_join_rule)
        }
        _ => false,
    };
    is_open || preview.world_readable
}

/// The rooms whose members may join this one.
fn allowed_rooms<'a>(
    version: Option<&RoomVersion>,
    preview: &'a RoomSummary,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let counts = version.is_none_or(|version| version.rules().authorization.restricted_join_rule);
    let restricted = match &preview.join_rule {
        JoinRuleSummary::Restricted(restricted) if counts => Some(restricted),
        _ => None,
    };
    let rooms = restricted.into_iter().flat_map(|restricted| &restricted.allowed_room_ids);
    rooms.map(|room| room.as_str())
}
