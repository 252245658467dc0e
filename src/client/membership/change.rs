//! One change of one membership, whichever endpoint asks for it.

use actix_web::http::StatusCode;
use parlour_actors::{Rooms, Sent, users::Users};
use parlour_event::{
    content::{MemberContent, Membership},
    json::{Object, Value},
};
use parlour_storage::schema::keys;
use ruma::{OwnedServerName, OwnedUserId, RoomId, UserId, api::error::ErrorCode};

use super::no_federation;
use crate::{
    client::{local, standing, upgrade::settings::after_join},
    error::ApiError,
    view::{InviteAction, RoomView, View},
};

/// Where the content of a restricted join says who vouches for it.
const AUTHORISED_BY: &str = "join_authorised_via_users_server";

/// For changes that the auth rules alone decide on.
pub(crate) const ANY: &[Membership] =
    &[Membership::Join, Membership::Invite, Membership::Leave, Membership::Ban, Membership::Knock];

/// Changes memberships. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Members {
    /// Who is in which room.
    pub view: View,
    /// Where the changes go.
    pub rooms: Rooms,
    /// Whose names and avatars go into member events.
    pub users: Users,
    /// Which users are ours.
    pub server_name: OwnedServerName,
}

impl Members {
    /// Sets a user's membership to what the content says, if it is one of `from`: adds the name
    /// and avatar of who joins, knocks or is invited, and for a restricted room who vouches.
    pub(crate) async fn change(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        target: &UserId,
        mut content: Object,
        from: &'static [Membership],
    ) -> Result<Sent, ApiError> {
        // Who vouches is for this server to say.
        content.remove(AUTHORISED_BY);
        let membership = MemberContent::new(&content).membership();
        self.check_order(room_id, sender, target, membership)?;
        match membership {
            Some(Membership::Join) => {
                self.add_profile(target, &mut content)?;
                if let Some(user) = self.authorising_user(room_id, target).await? {
                    content.insert(AUTHORISED_BY.to_owned(), user.as_str().into());
                }
            }
            Some(Membership::Invite) => {
                self.check_inviter(room_id, sender)?;
                self.check_invitee(sender, target)?;
                self.add_profile(target, &mut content)?;
            }
            Some(Membership::Knock) => self.add_profile(target, &mut content)?,
            Some(Membership::Leave | Membership::Ban) => {}
            None => {
                let message = "`membership` must be join, invite, knock, leave or ban";
                return Err(ApiError::bad_json(message));
            }
        }
        let is_join = MemberContent::new(&content).membership() == Some(Membership::Join);
        let event = local::state_event(sender, "m.room.member", target.as_str(), content);
        if is_join && self.is_guest(target)? {
            return Ok(self.rooms.join_as_guest(room_id, event).await?);
        }
        let sent = self.rooms.change_membership(room_id, event, from).await?;
        if is_join {
            after_join(&self.view, &self.users, target, room_id).await;
        }
        Ok(sent)
    }

    fn is_guest(&self, user: &UserId) -> Result<bool, ApiError> {
        Ok(self.users.account(user.as_str())?.is_some_and(|account| account.guest))
    }

    /// What operators want: that nobody enters a room that they have blocked, and that users stay
    /// where the server talks to them.
    fn check_order(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        target: &UserId,
        membership: Option<Membership>,
    ) -> Result<(), ApiError> {
        match membership {
            Some(Membership::Join | Membership::Invite | Membership::Knock) => {
                self.check_open(room_id)
            }
            Some(Membership::Leave)
                if sender == target
                    && standing::is_notice_room(&self.view.store, target, room_id)? =>
            {
                let code = ErrorCode::CannotLeaveServerNoticeRoom;
                let message = "In this room the server talks to you; it cannot be left";
                Err(ApiError::new(StatusCode::FORBIDDEN, code, message))
            }
            _ => Ok(()),
        }
    }

    /// Checks that a room is not blocked.
    pub(super) fn check_open(&self, room_id: &RoomId) -> Result<(), ApiError> {
        match self.view.store.get(&keys::blocked_room(room_id.as_str()))? {
            Some(_) => Err(ApiError::forbidden("This room is blocked on this server")),
            None => Ok(()),
        }
    }

    async fn authorising_user(
        &self,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<Option<OwnedUserId>, ApiError> {
        let (room_id, user) = (room_id.to_owned(), user.to_owned());
        let server = self.server_name.clone();
        self.view.run(move |view| view.authorising_user(&room_id, &user, &server)).await
    }

    /// The auth rules check it as well; but strangers must not learn here who has an account.
    fn check_inviter(&self, room_id: &RoomId, sender: &UserId) -> Result<(), ApiError> {
        let membership = match self.view.room(room_id)? {
            Some(room) => self.view.membership_of(&room, sender)?,
            None => None,
        };
        match membership {
            Some(Membership::Join) => Ok(()),
            _ => Err(ApiError::forbidden("You are not in this room")),
        }
    }

    /// Whether an invitation by this inviter can reach the user.
    pub(crate) fn check_invitee(&self, inviter: &UserId, user: &UserId) -> Result<(), ApiError> {
        if user.server_name() != self.server_name {
            return Err(no_federation(format!("{user} is not a user of this server")));
        }
        match self.users.account(user.as_str())? {
            Some(account) if !account.deactivated => {}
            _ => return Err(ApiError::not_found(format!("There is no user {user}"))),
        }
        match self.view.invite_permission(user)?.action(inviter) {
            InviteAction::Allow | InviteAction::Ignore => Ok(()),
            InviteAction::Block => Err(invite_blocked(user)),
        }
    }

    /// Adds name and avatar of a local user where the content does not say them.
    pub(crate) fn add_profile(&self, user: &UserId, content: &mut Object) -> Result<(), ApiError> {
        let Some(account) = self.users.account(user.as_str())? else { return Ok(()) };
        let profile = [("displayname", account.display_name), ("avatar_url", account.avatar_url)];
        for (key, value) in profile {
            if let Some(value) = value {
                content.entry(key.to_owned()).or_insert_with(|| value.into());
            }
        }
        Ok(())
    }

    /// Turns a third-party invite that an identity server says to be the user's into an invite,
    /// in the name of who made it. The auth rules check the signature.
    pub(super) async fn redeem_third_party_invite(
        &self,
        room: &RoomView,
        user: &UserId,
        signed: Object,
    ) -> Result<(), ApiError> {
        let text = |key: &str| signed.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("mxid") != user.as_str() {
            return Err(ApiError::forbidden("The third-party invite is for another user"));
        }
        let sender = <&UserId>::try_from(text("sender"))
            .map_err(|error| ApiError::bad_json(format!("third_party_signed.sender: {error}")))?;
        if sender.server_name() != self.server_name {
            return Err(no_federation(format!("{sender} is not a user of this server")));
        }
        let pending = self.view.current(room, "m.room.third_party_invite", text("token"))?;
        let name = pending.and_then(|invite| invite.content().get("display_name").cloned());
        let sender = sender.to_owned();
        let mut invite = local::members([("signed", Value::Object(signed))]);
        if let Some(name) = name {
            invite.insert("display_name".to_owned(), name);
        }
        let mut content = local::members([
            ("membership", Membership::Invite.as_str().into()),
            ("third_party_invite", Value::Object(invite)),
        ]);
        self.add_profile(user, &mut content)?;
        let event = local::state_event(&sender, "m.room.member", user.as_str(), content);
        let from = &[Membership::Leave, Membership::Knock];
        self.rooms.change_membership(&room.room_id, event, from).await?;
        Ok(())
    }
}

/// 403 `M_INVITE_BLOCKED`
fn invite_blocked(user: &UserId) -> ApiError {
    let message = format!("{user} does not take this invite");
    ApiError::new(StatusCode::FORBIDDEN, ErrorCode::InviteBlocked, message)
}
