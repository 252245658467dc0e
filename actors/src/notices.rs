//! Server notices: what the server itself tells its users, each in a room of its own.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#server-notices>

use std::sync::Arc;

use bytes::Bytes;
use parlour_event::{
    RoomNum, RoomVersion,
    content::Membership,
    json::{Object, Value},
};
use parlour_storage::{
    StorageError, Store,
    schema::{MadeRoom, User, keys},
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use tokio::sync::Mutex;

use crate::{
    env::Env,
    registry::{NewRoom, Rooms},
    room::messages::{LocalEvent, RoomError, Transaction},
    users::{AccountDataError, ProfileChange, ProfileError, RegisterError, UserError, Users},
};

/// What marks the room for clients.
const TAG: &str = r#"{"tags":{"m.server_notice":{}}}"#;

/// How the server looks to its users.
#[derive(Debug, Clone)]
pub struct NoticeSettings {
    /// Who speaks.
    pub user: OwnedUserId,
    /// The speaker's name.
    pub display_name: String,
    /// The speaker's avatar.
    pub avatar_url: Option<String>,
    /// What the rooms are called.
    pub room_name: String,
    /// The version of the rooms.
    pub version: &'static RoomVersion,
}

/// Why a notice was not sent.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// There is no such user.
    #[error("there is no such user")]
    UnknownUser,
    /// Somebody has the name that the server is to speak under.
    #[error("the name {0} belongs to a person")]
    NameTaken(OwnedUserId),
    /// The room refuses.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

impl From<StorageError> for NoticeError {
    fn from(error: StorageError) -> Self {
        Self::User(error.into())
    }
}

/// What the server says.
#[derive(Debug, Clone)]
pub struct Notice {
    /// The event's type.
    pub event_type: String,
    /// The state key, if it is to be state.
    pub state_key: Option<String>,
    /// The content.
    pub content: Object,
    /// The transaction of who has it said.
    pub transaction: Option<Transaction>,
}

/// Speaks to users. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Notices {
    store: Store,
    rooms: Rooms,
    users: Users,
    settings: Arc<NoticeSettings>,
    /// Held while a room is made, so that nobody gets two.
    making: Arc<Mutex<()>>,
}

impl Notices {
    /// Makes the account under which the server speaks, if it is not there, and lets it look as
    /// the settings say.
    ///
    /// # Errors
    ///
    /// [`NoticeError`]
    pub async fn start(
        store: Store,
        rooms: Rooms,
        users: Users,
        env: &Env,
        settings: NoticeSettings,
    ) -> Result<Self, NoticeError> {
        let notices =
            Self { store, rooms, users, settings: Arc::new(settings), making: Arc::default() };
        notices.make_account(env.clock.now_ms()).await?;
        Ok(notices)
    }

    /// Who speaks. Nobody logs in as this user.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.settings.user
    }

    async fn make_account(&self, created_ts: u64) -> Result<(), NoticeError> {
        let NoticeSettings { user, display_name, avatar_url, .. } = &*self.settings;
        if let Some(account) = self.users.account(user.as_str())? {
            if account.password_hash.is_some() {
                return Err(NoticeError::NameTaken(user.clone()));
            }
        } else {
            let account = User { created_ts, ..User::default() };
            match self.users.register(user.as_str(), account, None).await {
                Ok(_) => {}
                Err(RegisterError::Taken) => return Err(NoticeError::NameTaken(user.clone())),
                Err(RegisterError::User(error)) => return Err(error.into()),
            }
        }
        for change in [
            ProfileChange::DisplayName(Some(display_name.clone())),
            ProfileChange::AvatarUrl(avatar_url.clone()),
        ] {
            match self.users.set_profile(user.as_str(), change).await {
                Ok(()) => {}
                Err(ProfileError::User(error)) => return Err(error.into()),
                Err(_) => return Err(NoticeError::NameTaken(user.clone())),
            }
        }
        Ok(())
    }

    /// Says something to a user: invites it to its room first, if it is not there.
    ///
    /// # Errors
    ///
    /// [`NoticeError`]
    pub async fn send(&self, to: &UserId, notice: Notice) -> Result<OwnedEventId, NoticeError> {
        let account = self.users.account(to.as_str())?.filter(|account| !account.deactivated);
        let account = account.ok_or(NoticeError::UnknownUser)?;
        let room = self.room(to, &account).await?;
        let Notice { event_type, state_key, content, transaction } = notice;
        let event = LocalEvent { transaction, ..self.event(&event_type, state_key, content) };
        Ok(self.rooms.send(&room, event).await?.event_id)
    }

    /// The user's room; the user is invited to it or in it.
    async fn room(&self, user: &UserId, account: &User) -> Result<OwnedRoomId, NoticeError> {
        let _making = self.making.lock().await;
        let known = self.store.typed::<MadeRoom>(&keys::notice_room(user.as_str()))?;
        let known = known.and_then(|known| OwnedRoomId::try_from(known.room_id).ok());
        if let Some(room_id) = known
            && let Some(room) = self.store.room_num(room_id.as_str())?
        {
            self.invite_again(&room_id, room, user, account).await?;
            self.tag(room, user).await?;
            return Ok(room_id);
        }
        let (room_id, _) = self.rooms.create(self.new_room(user, account)).await?;
        if let Some(room) = self.store.room_num(room_id.as_str())? {
            self.tag(room, user).await?;
        }
        Ok(room_id)
    }

    fn new_room(&self, user: &UserId, account: &User) -> NewRoom {
        let NoticeSettings { user: server, display_name, avatar_url, room_name, version } =
            &*self.settings;
        let rules = &version.rules().authorization;
        let mut create = object([("room_version", version.id().as_str().into())]);
        if !rules.use_room_create_sender {
            create.insert("creator".to_owned(), server.as_str().into());
        }
        let mut levels = object([("invite", 50_i64.into())]);
        if !rules.explicitly_privilege_room_creators {
            let users = object([(server.as_str(), 100_i64.into())]);
            levels.insert("users".to_owned(), Value::Object(users));
        }
        let join = member("join", Some(display_name.as_str()), avatar_url.as_deref());
        let state = |kind: &str, content| self.event(kind, Some(String::new()), content);
        let text = |key: &str, value: &str| object([(key, value.into())]);
        NewRoom {
            version,
            creator: server.clone(),
            create_content: create,
            alias: None,
            published: false,
            made_for: Some(keys::notice_room(user.as_str())),
            events: vec![
                self.event("m.room.member", Some(server.to_string()), join),
                state("m.room.power_levels", levels),
                state("m.room.join_rules", text("join_rule", "invite")),
                state("m.room.history_visibility", text("history_visibility", "shared")),
                state("m.room.guest_access", text("guest_access", "forbidden")),
                state("m.room.name", text("name", room_name)),
                self.invite(user, account),
            ],
        }
    }

    fn invite(&self, user: &UserId, account: &User) -> LocalEvent {
        let (name, avatar) = (account.display_name.as_deref(), account.avatar_url.as_deref());
        self.event("m.room.member", Some(user.to_string()), member("invite", name, avatar))
    }

    /// A user who has come out of the room all the same is asked in again.
    async fn invite_again(
        &self,
        room_id: &OwnedRoomId,
        room: RoomNum,
        user: &UserId,
        account: &User,
    ) -> Result<(), NoticeError> {
        let membership = self.store.membership(user.as_str(), room)?;
        if membership.is_some_and(|entry| matches!(&*entry.membership, "join" | "invite")) {
            return Ok(());
        }
        let from = &[Membership::Leave, Membership::Knock];
        match self.rooms.change_membership(room_id, self.invite(user, account), from).await {
            Ok(_) | Err(RoomError::WrongMembership { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Marks the room for the user's clients, unless the user has tagged it since.
    async fn tag(&self, room: RoomNum, user: &UserId) -> Result<(), NoticeError> {
        if self.users.account_data(user.as_str(), room, "m.tag")?.is_some() {
            return Ok(());
        }
        let content = Bytes::from_static(TAG.as_bytes());
        match self.users.set_account_data(user.as_str(), room, "m.tag", content).await {
            Ok(()) => Ok(()),
            Err(AccountDataError::User(error)) => Err(error.into()),
            // Without the tag the room is a room like others; that keeps nobody from reading.
            Err(AccountDataError::TooMuch) => Ok(()),
        }
    }

    fn event(&self, kind: &str, state_key: Option<String>, content: Object) -> LocalEvent {
        LocalEvent {
            sender: self.settings.user.clone(),
            event_type: kind.to_owned(),
            state_key,
            content,
            redacts: None,
            transaction: None,
            timestamp: None,
        }
    }
}

fn member(membership: &str, name: Option<&str>, avatar: Option<&str>) -> Object {
    let mut content = object([("membership", membership.into())]);
    for (key, value) in [("displayname", name), ("avatar_url", avatar)] {
        if let Some(value) = value {
            content.insert(key.to_owned(), value.into());
        }
    }
    content
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Object {
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
