//! Sending the users of this server out of a room, and perhaps into another.

use bytes::Bytes;
use parlour_event::{
    EventNum, RoomNum, RoomVersion,
    content::Membership,
    json::{Object, Value},
    state::ReadState as _,
};
use parlour_storage::{
    StorageError,
    schema::{MadeRoom, Replacement, keys},
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::Deserialize;

use super::{OrderParts, work::WorkError};
use crate::{
    directory::AliasError,
    registry::NewRoom,
    room::messages::{LocalEvent, RoomError},
};

/// Who can be made to leave.
const PRESENT: &[Membership] = &[Membership::Join, Membership::Invite, Membership::Knock];

/// Who can come into the new room.
const OUTSIDE: &[Membership] = &[Membership::Leave, Membership::Invite, Membership::Knock];

/// The power of everybody in a room that explains where another has gone: too little to speak.
const SILENT: i64 = -10;

/// See the module.
pub(super) struct Eviction<'a> {
    pub(super) parts: &'a OrderParts,
    pub(super) version: &'static RoomVersion,
}

#[derive(Deserialize)]
struct MemberEvent {
    state_key: String,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    membership: String,
}

/// A user, and whether it is joined.
type Member = (OwnedUserId, bool);

impl Eviction<'_> {
    /// The room that takes another's place; it is made now, unless the deletion has made it before.
    pub(super) async fn new_room(
        &self,
        deletion: &str,
        new: &Replacement,
    ) -> Result<OwnedRoomId, WorkError> {
        let made_for = keys::replacement_room(deletion);
        let known = self.parts.store.typed::<MadeRoom>(&made_for)?;
        if let Some(known) = known.and_then(|known| OwnedRoomId::try_from(known.room_id).ok()) {
            return Ok(known);
        }
        self.make_room(new, made_for).await
    }

    async fn make_room(&self, new: &Replacement, key: Bytes) -> Result<OwnedRoomId, WorkError> {
        let creator = OwnedUserId::try_from(new.creator.as_str())
            .map_err(|error| WorkError::Final(error.to_string()))?;
        let rules = &self.version.rules().authorization;
        let mut create = object([("room_version", self.version.id().as_str().into())]);
        if !rules.use_room_create_sender {
            create.insert("creator".to_owned(), creator.as_str().into());
        }
        let mut levels = object([("users_default", SILENT.into())]);
        if !rules.explicitly_privilege_room_creators {
            let users = object([(creator.as_str(), 100_i64.into())]);
            levels.insert("users".to_owned(), Value::Object(users));
        }
        let state = |kind: &str, content| event(&creator, kind, Some(""), content);
        let message = object([("msgtype", "m.text".into()), ("body", new.message.as_str().into())]);
        let room = NewRoom {
            version: self.version,
            create_content: create,
            alias: None,
            published: false,
            made_for: Some(key),
            events: vec![
                event(&creator, "m.room.member", Some(creator.as_str()), self.join(&creator)?),
                state("m.room.power_levels", levels),
                state("m.room.join_rules", object([("join_rule", "public".into())])),
                state(
                    "m.room.history_visibility",
                    object([("history_visibility", "shared".into())]),
                ),
                state("m.room.guest_access", object([("guest_access", "forbidden".into())])),
                state("m.room.name", object([("name", new.name.as_str().into())])),
                event(&creator, "m.room.message", None, message),
            ],
            creator,
        };
        Ok(self.parts.rooms.create(room).await?.0)
    }

    /// The numbers of the member events of a room.
    pub(super) fn member_events(&self, room: RoomNum) -> Result<Vec<EventNum>, WorkError> {
        let Some(head) = self.parts.store.room_head(room)? else { return Ok(Vec::new()) };
        let entries = self.parts.nodes.iter_members(head.state);
        let nums = entries.map(|entry| entry.map(|(_, num)| num)).collect::<Result<Vec<_>, _>>();
        Ok(nums.map_err(RoomError::from)?)
    }

    /// Those users of this server who are in the room in any way by one of these events.
    pub(super) fn present(&self, events: &[EventNum]) -> Result<Vec<Member>, StorageError> {
        let events = self.parts.store.events(events)?.into_iter().flatten();
        Ok(events.filter_map(|event| self.member(&event.json)).collect())
    }

    fn member(&self, event: &[u8]) -> Option<Member> {
        let MemberEvent { state_key, content } = serde_json::from_slice(event).ok()?;
        let user = OwnedUserId::try_from(state_key).ok()?;
        let membership = Membership::parse(&content.membership)?;
        let is_present = PRESENT.contains(&membership);
        (is_present && user.server_name() == self.parts.server_name)
            .then_some((user, membership == Membership::Join))
    }

    /// How many users of this server are joined to a room.
    pub(super) fn local_members(&self, room: RoomNum) -> Result<u64, StorageError> {
        self.parts.store.joined_from(room, self.parts.server_name.as_str())
    }

    /// Takes a user out of a room, lets it forget the room, and brings it into the new one.
    pub(super) async fn evict(
        &self,
        room_id: &RoomId,
        room: RoomNum,
        user: &UserId,
        was_joined: bool,
        new_room: &Option<OwnedRoomId>,
    ) -> Result<(), WorkError> {
        let leave = object([("membership", "leave".into())]);
        let leave = event(user, "m.room.member", Some(user.as_str()), leave);
        match self.parts.rooms.depart(room_id, leave, PRESENT).await {
            Ok(sent) => self.parts.users.forget_room(user.as_str(), room, sent.pos).await?,
            // Gone by itself meanwhile.
            Err(RoomError::WrongMembership { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(new_room) = new_room.as_deref().filter(|_| was_joined) {
            let join = event(user, "m.room.member", Some(user.as_str()), self.join(user)?);
            match self.parts.rooms.change_membership(new_room, join, OUTSIDE).await {
                Ok(_) | Err(RoomError::WrongMembership { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Lets a room's aliases lead to the new room, or nowhere; gives their names.
    pub(super) async fn move_aliases(
        &self,
        room: RoomNum,
        new_room: &Option<OwnedRoomId>,
    ) -> Result<Vec<String>, WorkError> {
        let directory = &self.parts.directory;
        let new_room = match new_room {
            Some(new_room) => self.parts.store.room_num(new_room.as_str())?,
            None => None,
        };
        let aliases = directory.aliases_of(room)?;
        for alias in &aliases {
            let creator = directory.alias(alias)?.map(|entry| entry.creator).unwrap_or_default();
            directory.remove(alias, room).await?;
            let Some(new_room) = new_room else { continue };
            let added = match directory.claim(alias) {
                Ok(claim) => directory.add(claim, new_room, &creator).await,
                Err(error) => Err(error),
            };
            match added {
                // Somebody was quicker, and has it now.
                Ok(()) | Err(AliasError::Taken | AliasError::TooMany) => {}
                Err(AliasError::User(error)) => return Err(error.into()),
            }
        }
        directory.publish(room, false).await?;
        Ok(aliases)
    }

    fn join(&self, user: &UserId) -> Result<Object, StorageError> {
        let mut content = object([("membership", "join".into())]);
        let Some(account) = self.parts.users.account(user.as_str())? else { return Ok(content) };
        let profile = [("displayname", account.display_name), ("avatar_url", account.avatar_url)];
        for (key, value) in profile {
            if let Some(value) = value {
                content.insert(key.to_owned(), value.into());
            }
        }
        Ok(content)
    }
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Object {
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn event(sender: &UserId, kind: &str, state_key: Option<&str>, content: Object) -> LocalEvent {
    LocalEvent {
        sender: sender.to_owned(),
        event_type: kind.to_owned(),
        state_key: state_key.map(str::to_owned),
        content,
        redacts: None,
        transaction: None,
        timestamp: None,
    }
}
