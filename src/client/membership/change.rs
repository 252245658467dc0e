//! One change of one membership, whichever endpoint asks for it.

use actix_web::http::StatusCode;
use parlour_actors::{
    LocalEvent, RoomError, Rooms, Sent,
    typing::Typing,
    users::{Users, add_profile},
};
use parlour_event::{
    content::{MemberContent, Membership},
    json::{Object, Value},
};
use parlour_storage::schema::keys;
use ruma::{OwnedServerName, RoomId, UserId, api::error::ErrorCode};

use super::elsewhere::{Elsewhere, Want, known_from};
use crate::{
    client::{local, standing, upgrade::settings::after_join},
    error::ApiError,
    view::{InviteAction, RoomView, View, Vouching},
};

/// Where the content of a restricted join says who vouches for it.
const AUTHORISED_BY: &str = "join_authorised_via_users_server";

/// For changes that the auth rules alone decide on.
pub(crate) const ANY: &[Membership] =
    &[Membership::Join, Membership::Invite, Membership::Leave, Membership::Ban, Membership::Knock];

/// For an unban.
pub(crate) const BANNED: &[Membership] = &[Membership::Ban];

/// Who can still be invited by e-mail or the like, or is invited already.
const NOT_YET: &[Membership] = &[Membership::Leave, Membership::Knock];

/// A change of one membership.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) room_id: &'a RoomId,
    pub(crate) sender: &'a UserId,
    pub(crate) target: &'a UserId,
    /// The content of the member event.
    pub(crate) content: Object,
    /// What the membership must be before.
    pub(crate) from: &'static [Membership],
    /// Servers that may know the room.
    pub(crate) via: Vec<OwnedServerName>,
}

impl<'a> Change<'a> {
    fn event(self) -> LocalEvent {
        local::state_event(self.sender, "m.room.member", self.target.as_str(), self.content)
    }

    fn want(self) -> Want<'a> {
        Want { room_id: self.room_id, user: self.target, content: self.content, via: self.via }
    }
}

/// Changes memberships. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Members {
    /// Who is in which room.
    pub view: View,
    /// Where the changes go.
    pub rooms: Rooms,
    /// Whose names and avatars go into member events.
    pub users: Users,
    /// Who types: nobody does who is not in the room any more.
    pub typing: Typing,
    /// Which users are ours.
    pub server_name: OwnedServerName,
    /// Rooms that this server is not in, and users of other servers.
    pub elsewhere: Elsewhere,
}

impl Members {
    /// Sets a user's membership to what the content says, if it is one of `from`: adds the name
    /// and avatar of who joins, knocks or is invited, and for a restricted room who vouches.
    pub(crate) async fn change(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        target: &UserId,
        content: Object,
        from: &'static [Membership],
    ) -> Result<Sent, ApiError> {
        let via = Vec::new();
        self.change_via(Change { room_id, sender, target, content, from, via }).await
    }

    /// The same, through these servers if this one is not in the room.
    pub(crate) async fn change_via(&self, mut change: Change<'_>) -> Result<Sent, ApiError> {
        // Who vouches is for this server to say.
        change.content.remove(AUTHORISED_BY);
        let Change { room_id, sender, target, .. } = change;
        let membership = MemberContent::new(&change.content).membership();
        self.check_order(room_id, sender, target, membership)?;
        match membership {
            Some(Membership::Join) => {
                self.add_profile(target, &mut change.content)?;
                self.join(change).await
            }
            Some(Membership::Invite) => {
                self.check_inviter(room_id, sender)?;
                self.check_invitee(sender, target)?;
                self.add_profile(target, &mut change.content)?;
                if target.server_name() == self.server_name {
                    return self.send(change).await;
                }
                self.elsewhere.invite(room_id, target, change.event()).await
            }
            Some(Membership::Knock) => {
                self.add_profile(target, &mut change.content)?;
                match sender == target && !self.is_here(room_id)? {
                    true => self.knock_elsewhere(change).await,
                    false => self.send(change).await,
                }
            }
            Some(Membership::Leave) if sender == target && self.is_outside(room_id, target)? => {
                self.leave_elsewhere(change).await
            }
            Some(Membership::Leave | Membership::Ban) => {
                let sent = self.send(change).await?;
                if let Some(room) = self.view.room(room_id)? {
                    self.typing.set(room.num, target.as_str(), None);
                }
                Ok(sent)
            }
            None => {
                let message = "`membership` must be join, invite, knock, leave or ban";
                Err(ApiError::bad_json(message))
            }
        }
    }

    async fn send(&self, change: Change<'_>) -> Result<Sent, ApiError> {
        let (room_id, from) = (change.room_id, change.from);
        let sent = self.rooms.change_membership(room_id, change.event(), from).await;
        sent.map_err(|error| match error {
            // The specification's own example of this code.
            RoomError::WrongMembership { .. } if from == BANNED => {
                ApiError::new(StatusCode::FORBIDDEN, ErrorCode::BadState, error.to_string())
            }
            error => error.into(),
        })
    }

    async fn join(&self, mut change: Change<'_>) -> Result<Sent, ApiError> {
        let Change { room_id, sender, target, .. } = change;
        let is_own = sender == target;
        let Some(room) = self.view.room(room_id)? else {
            return self.join_elsewhere(change, true).await;
        };
        if is_own && !self.view.is_current(&room, &self.server_name)? {
            return self.join_elsewhere(change, true).await;
        }
        match self.vouching(&room, target).await? {
            Vouching::By(user) => {
                change.content.insert(AUTHORISED_BY.to_owned(), user.as_str().into());
            }
            // Another server in the room may know more, or somebody with more power.
            Vouching::Nobody | Vouching::Unknown
                if is_own && self.view.store.servers_in_room(room.num, 2)?.len() > 1 =>
            {
                return self.join_elsewhere(change, false).await;
            }
            _ => {}
        }
        if self.is_guest(target)? {
            return Ok(self.rooms.join_as_guest(room_id, change.event()).await?);
        }
        let sent = self.send(change).await?;
        after_join(&self.view, &self.users, target, room_id).await;
        Ok(sent)
    }

    async fn vouching(&self, room: &RoomView, user: &UserId) -> Result<Vouching, ApiError> {
        let (room, user) = (room.clone(), user.to_owned());
        let server = self.server_name.clone();
        self.view.run(move |view| view.vouching(&room, &user, &server)).await
    }

    /// Joins through another server; if this one comes into the room meanwhile and `if_outside`,
    /// by ordinary means.
    async fn join_elsewhere(&self, change: Change<'_>, if_outside: bool) -> Result<Sent, ApiError> {
        let Change { room_id, target: user, .. } = change;
        // Whether the room lets guests in is known there alone.
        if self.is_guest(user)? {
            return Err(ApiError::guest_access_forbidden());
        }
        let turn = self.elsewhere.turn(room_id).await;
        if if_outside && self.is_here(room_id)? {
            drop(turn);
            return Box::pin(self.join(change)).await;
        }
        let sent = self.elsewhere.join(&change.want()).await?;
        after_join(&self.view, &self.users, user, room_id).await;
        Ok(sent)
    }

    async fn knock_elsewhere(&self, change: Change<'_>) -> Result<Sent, ApiError> {
        let _turn = self.elsewhere.turn(change.room_id).await;
        if self.is_here(change.room_id)? {
            return self.send(change).await;
        }
        self.elsewhere.knock(&change.want()).await
    }

    async fn leave_elsewhere(&self, change: Change<'_>) -> Result<Sent, ApiError> {
        let Change { room_id, target: user, .. } = change;
        let _turn = self.elsewhere.turn(room_id).await;
        let known = match (self.elsewhere.outside(user, room_id)?, self.view.room(room_id)?) {
            (Some((_, known)), _) => known,
            // The server was in the room when the user was invited, or knocked.
            (None, Some(room)) if !self.view.is_current(&room, &self.server_name)? => {
                let member = self.view.current(&room, "m.room.member", user.as_str())?;
                let member =
                    member.ok_or_else(|| ApiError::forbidden("You are not in this room"))?;
                known_from(room.version.id().as_str(), &member)?
            }
            (None, _) => return self.send(change).await,
        };
        self.elsewhere.leave(&change.want(), known).await
    }

    /// Whether this server can act in a room by itself.
    fn is_here(&self, room_id: &RoomId) -> Result<bool, ApiError> {
        match self.view.room(room_id)? {
            Some(room) => Ok(self.view.is_current(&room, &self.server_name)?),
            None => Ok(false),
        }
    }

    /// Whether a user has something to do with a room that this server is not in.
    fn is_outside(&self, room_id: &RoomId, user: &UserId) -> Result<bool, ApiError> {
        Ok(self.elsewhere.outside(user, room_id)?.is_some()
            || (self.view.room(room_id)?.is_some() && !self.is_here(room_id)?))
    }

    /// Whether a user of this server is in a room.
    pub(crate) fn is_inside(&self, room: &RoomView) -> Result<bool, ApiError> {
        Ok(self.view.store.joined_from(room.num, self.server_name.as_str())? > 0)
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
    pub(crate) fn check_open(&self, room_id: &RoomId) -> Result<(), ApiError> {
        match self.view.store.get(&keys::blocked_room(room_id.as_str()))? {
            Some(_) => Err(ApiError::forbidden("This room is blocked on this server")),
            None => Ok(()),
        }
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
            // What that server thinks of it, it says when it is asked.
            return match self.elsewhere.may_ask(user) {
                true => Ok(()),
                false => Err(ApiError::forbidden("This server does not speak to the user's")),
            };
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
        if let Some(account) = self.users.account(user.as_str())? {
            add_profile(&account, content);
        }
        Ok(())
    }

    /// Turns a third-party invite that an identity server says to be the user's into an invite,
    /// in the name of who made it. The auth rules check the signature.
    pub(crate) async fn redeem_third_party_invite(
        &self,
        room: &RoomView,
        sender: &UserId,
        user: &UserId,
        signed: Object,
    ) -> Result<(), ApiError> {
        check_addressee(&signed, user)?;
        let token = signed.get("token").and_then(Value::as_str).unwrap_or_default();
        let pending = self.view.current(room, "m.room.third_party_invite", token)?;
        let name = pending.and_then(|invite| invite.content().get("display_name").cloned());
        let mut content = third_party_invite(signed, name);
        self.add_profile(user, &mut content)?;
        let event = local::state_event(sender, "m.room.member", user.as_str(), content);
        if user.server_name() == self.server_name {
            self.rooms.change_membership(&room.room_id, event, NOT_YET).await?;
        } else {
            self.elsewhere.invite(&room.room_id, user, event).await?;
        }
        Ok(())
    }

    /// The same for a user of this server, whether or not it is in the room.
    pub(crate) async fn accept_third_party_invite(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        user: &UserId,
        signed: Object,
    ) -> Result<(), ApiError> {
        if user.server_name() != self.server_name {
            return Err(ApiError::forbidden("The invite is for a user of another server"));
        }
        self.check_open(room_id)?;
        self.check_invitee(sender, user)?;
        match self.view.room(room_id)? {
            Some(room) if self.is_inside(&room)? => {
                self.redeem_third_party_invite(&room, sender, user, signed).await
            }
            _ => {
                check_addressee(&signed, user)?;
                let content = third_party_invite(signed, Some(user.localpart().into()));
                let want = Want { room_id, user, content, via: Vec::new() };
                self.elsewhere.exchange(sender, &want).await
            }
        }
    }
}

/// Checks whom an identity server has named.
fn check_addressee(signed: &Object, user: &UserId) -> Result<(), ApiError> {
    match signed.get("mxid").and_then(Value::as_str) == Some(user.as_str()) {
        true => Ok(()),
        false => Err(ApiError::forbidden("The third-party invite is for another user")),
    }
}

/// The content of an invite that answers a third-party invite.
fn third_party_invite(signed: Object, name: Option<Value>) -> Object {
    let mut invite = local::members([("signed", Value::Object(signed))]);
    invite.extend(name.map(|name| ("display_name".to_owned(), name)));
    local::members([
        ("membership", Membership::Invite.as_str().into()),
        ("third_party_invite", Value::Object(invite)),
    ])
}

/// 403 `M_INVITE_BLOCKED`
fn invite_blocked(user: &UserId) -> ApiError {
    let message = format!("{user} does not take this invite");
    ApiError::new(StatusCode::FORBIDDEN, ErrorCode::InviteBlocked, message)
}
