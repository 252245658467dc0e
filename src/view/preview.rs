//! What is told of a room to those who may not be in it yet: in the directory, in spaces, before
//! joining.

use parlour_event::content::Membership;
use ruma::{
    UInt, UserId,
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
use serde::de::DeserializeOwned;

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
        let content: RoomTopicEventContent = self.read(StateEventType::RoomTopic)?;
        match content.topic_block.text.is_empty() {
            true => Some(content.topic),
            false => content.topic_block.text.find_plain().map(str::to_owned),
        }
    }

    fn join_rule(&self) -> JoinRuleSummary {
        match self.read::<RoomJoinRulesEventContent>(StateEventType::RoomJoinRules) {
            None => JoinRuleSummary::Invite,
            Some(content) => match content.join_rule.into() {
                known @ (JoinRuleSummary::Public
                | JoinRuleSummary::Invite
                | JoinRuleSummary::Knock
                | JoinRuleSummary::Restricted(_)
                | JoinRuleSummary::KnockRestricted(_)) => known,
                // What is not known lets nobody in.
                _ => JoinRuleSummary::Private,
            },
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
        let rules = &room.version.rules().authorization;
        let is_open = match &preview.join_rule {
            JoinRuleSummary::Public => true,
            JoinRuleSummary::Knock => rules.knocking,
            JoinRuleSummary::KnockRestricted(_) => rules.knock_restricted_join_rule,
            _ => false,
        };
        if is_open || preview.world_readable {
            return Ok(true);
        }
        let Some(user) = user else { return Ok(false) };
        if let Some(Membership::Join | Membership::Invite) = self.membership_of(room, user)? {
            return Ok(true);
        }
        match &preview.join_rule {
            JoinRuleSummary::Restricted(restricted) if rules.restricted_join_rule => {
                let rooms = restricted.allowed_room_ids.iter().map(|room| room.as_str());
                Ok(self.is_in_one_of(user, rooms)?)
            }
            _ => Ok(false),
        }
    }
}
