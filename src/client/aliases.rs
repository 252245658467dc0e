//! Room aliases of this server.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#room-aliases>

use std::sync::Arc;

use actix_web::http::StatusCode;
use futures_util::future::try_join_all;
use parlour_actors::{
    RoomError, Rooms,
    directory::{AliasError, Directory},
};
use parlour_event::{
    content::Membership,
    json::{Object, Value},
};
use parlour_storage::schema::AliasEntry;
use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, RoomOrAliasId, ServerName,
    UserId,
    api::{
        client::{
            alias::{create_alias, delete_alias, get_alias},
            room::aliases,
        },
        error::ErrorCode,
        federation::query::get_room_information,
    },
};

use super::local;
use crate::{
    error::ApiError,
    federation::outbound::{client::FederationClient, transport::Limits},
    http::{AnyCaller, Api, Caller, RouteOptions, Routes, Ruma},
    view::{RoomView, Standing, View},
};

/// How many aliases of other servers are looked up for one event.
const MAX_ELSEWHERE: usize = 10;

/// The longest alias, in bytes.
const MAX_ALIAS: usize = 255;

/// How many servers an answer names that may know the room.
const MAX_SERVERS: usize = 50;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct AliasContext {
    /// Where aliases lead.
    pub directory: Directory,
    /// Where canonical aliases are taken back.
    pub rooms: Rooms,
    /// Rooms.
    pub view: View,
    /// Which aliases are ours.
    pub server_name: OwnedServerName,
    /// Who is asked for those of others.
    pub remote: FederationClient,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<AliasContext>) -> Routes {
    Routes::new(Api::Client, context)
        .route_with(RouteOptions::default().for_guests(), look_up)
        .route(create)
        .route(remove)
        .route(list)
        .finish()
}

/// `GET /_matrix/client/v3/directory/room/{roomAlias}`
async fn look_up(
    context: Arc<AliasContext>,
    req: Ruma<AnyCaller<get_alias::v3::Request>>,
) -> Result<get_alias::v3::Response, ApiError> {
    if req.room_alias.server_name() != context.server_name {
        local::may_ask_others(req.caller.as_ref())?;
    }
    let (room_id, servers) = context.find_anywhere(&req.room_alias).await?;
    Ok(get_alias::v3::Response::new(room_id, servers))
}

/// `PUT /_matrix/client/v3/directory/room/{roomAlias}`
async fn create(
    context: Arc<AliasContext>,
    req: Ruma<create_alias::v3::Request>,
) -> Result<create_alias::v3::Response, ApiError> {
    let alias = &req.room_alias;
    check_own(alias, &context.server_name)?;
    let user = &req.caller.user_id;
    let room = local::joined_room(&context.view, &req.room_id, user)?;
    let claim = context.directory.claim(alias.as_str()).map_err(|error| conflict(alias, error))?;
    let added = context.directory.add(claim, room.num, user.as_str()).await;
    added.map_err(|error| conflict(alias, error))?;
    Ok(create_alias::v3::Response::new())
}

fn conflict(alias: &RoomAliasId, error: AliasError) -> ApiError {
    match error {
        AliasError::Taken => {
            let message = format!("The room alias {alias} exists already");
            ApiError::new(StatusCode::CONFLICT, ErrorCode::Unknown, message)
        }
        other => other.into(),
    }
}

/// `DELETE /_matrix/client/v3/directory/room/{roomAlias}`
///
/// By who made the alias, who may set the room's canonical alias, and administrators.
async fn remove(
    context: Arc<AliasContext>,
    req: Ruma<delete_alias::v3::Request>,
) -> Result<delete_alias::v3::Response, ApiError> {
    let (entry, room) = context.find(&req.room_alias)?;
    if !context.may_remove(&req.caller, &entry, &room)? {
        return Err(ApiError::forbidden("The alias is somebody else's"));
    }
    context.directory.remove(req.room_alias.as_str(), room.num).await?;
    context.take_back(&req.caller.user_id, &room, &req.room_alias).await?;
    Ok(delete_alias::v3::Response::new())
}

/// `GET /_matrix/client/v3/rooms/{roomId}/aliases`
async fn list(
    context: Arc<AliasContext>,
    req: Ruma<aliases::v3::Request>,
) -> Result<aliases::v3::Response, ApiError> {
    let not_allowed = || ApiError::forbidden("You are not in this room");
    let reader = context.view.reader(&req.room_id, &req.caller.user_id, None)?;
    let mut reader = reader.ok_or_else(not_allowed)?;
    let access = reader.access()?.ok_or_else(not_allowed)?;
    if !matches!(access.standing, Standing::Joined | Standing::Anybody) {
        return Err(not_allowed());
    }
    let aliases = context.directory.aliases_of(reader.room().num)?;
    let aliases = aliases.into_iter().filter_map(|alias| OwnedRoomAliasId::try_from(alias).ok());
    Ok(aliases::v3::Response::new(aliases.collect()))
}

impl AliasContext {
    /// Where an alias of this server leads, and who may know the room: this server first.
    ///
    /// # Errors
    ///
    /// `M_NOT_FOUND`
    pub fn local(
        &self,
        alias: &RoomAliasId,
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>), ApiError> {
        let (_, room) = self.find(alias)?;
        let found = self.view.store.servers_in_room(room.num, MAX_SERVERS)?;
        let found =
            found.into_iter().filter_map(|(server, _)| OwnedServerName::try_from(server).ok());
        let others = found.filter(|server| *server != self.server_name);
        let servers = std::iter::once(self.server_name.clone()).chain(others);
        Ok((room.room_id, servers.collect()))
    }

    /// The room that a client names by its id or by an alias of any server, and servers that may
    /// know it. Whether there is a room of an id is not looked at.
    ///
    /// # Errors
    ///
    /// As [`AliasContext::find_anywhere`].
    pub(crate) async fn find_room(
        &self,
        room_or_alias: &RoomOrAliasId,
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>), ApiError> {
        let alias = match <&RoomId>::try_from(room_or_alias) {
            Ok(room_id) => return Ok((room_id.to_owned(), Vec::new())),
            Err(alias) => alias,
        };
        let (room_id, mut servers) = self.find_anywhere(alias).await?;
        servers.push(alias.server_name().to_owned());
        Ok((room_id, servers))
    }

    /// Where an alias of any server leads, and who may know the room: whoever it belongs to is
    /// asked.
    ///
    /// # Errors
    ///
    /// `M_NOT_FOUND`; what came of asking.
    pub async fn find_anywhere(
        &self,
        alias: &RoomAliasId,
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>), ApiError> {
        if alias.server_name() == self.server_name {
            return self.local(alias);
        }
        let request = get_room_information::v1::Request::new(alias.to_owned());
        let found = self.remote.ask(alias.server_name(), request, Limits::SMALL).await?;
        Ok((found.room_id, found.servers))
    }

    /// Whether an alias of another server leads to a room.
    async fn check_elsewhere(&self, alias: &RoomAliasId, room: &RoomId) -> Result<(), ApiError> {
        match self.find_anywhere(alias).await {
            Ok((found, _)) if found == room => Ok(()),
            Ok(_) | Err(_) => Err(bad_alias(alias.as_str())),
        }
    }

    fn find(&self, alias: &RoomAliasId) -> Result<(AliasEntry, RoomView), ApiError> {
        let unknown = || ApiError::not_found(format!("There is no room alias {alias}"));
        let entry = self.directory.alias(alias.as_str())?.ok_or_else(unknown)?;
        let room = self.view.room_by_num(entry.room)?.ok_or_else(unknown)?;
        Ok((entry, room))
    }

    /// Takes an alias that is gone out of the room's canonical ones, if the user may: the alias is
    /// gone in any case.
    async fn take_back(
        &self,
        user: &UserId,
        room: &RoomView,
        alias: &RoomAliasId,
    ) -> Result<(), ApiError> {
        let present = self.view.current(room, "m.room.canonical_alias", "")?;
        let Some(content) = present.and_then(|event| without(event.content(), alias.as_str()))
        else {
            return Ok(());
        };
        let event = local::state_event(user, "m.room.canonical_alias", "", content);
        match self.rooms.send(&room.room_id, event).await {
            Ok(_) | Err(RoomError::Forbidden(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn may_remove(
        &self,
        caller: &Caller,
        entry: &AliasEntry,
        room: &RoomView,
    ) -> Result<bool, ApiError> {
        let user = &caller.user_id;
        if caller.admin || entry.creator == user.as_str() {
            return Ok(true);
        }
        Ok(self.view.membership_of(room, user)? == Some(Membership::Join)
            && self.view.powers(room)?.may_set(user, "m.room.canonical_alias"))
    }
}

/// Checks that an alias is one that this server can give away.
///
/// # Errors
///
/// `M_INVALID_PARAM`
pub(crate) fn check_own(alias: &RoomAliasId, own_name: &ServerName) -> Result<(), ApiError> {
    let localpart = alias.alias();
    let odd = |c: char| c.is_whitespace() || c.is_control();
    if localpart.is_empty() || localpart.chars().any(odd) || alias.as_str().len() > MAX_ALIAS {
        return Err(ApiError::invalid_param("This is not a valid room alias"));
    }
    match alias.server_name() == own_name {
        true => Ok(()),
        false => Err(ApiError::invalid_param("The alias must end in this server's name")),
    }
}

/// A content of `m.room.canonical_alias` without an alias; `None` if it does not have it.
pub(crate) fn without(content: &Object, alias: &str) -> Option<Object> {
    let mut less = content.clone();
    let is_it = |value: &Value| value.as_str() == Some(alias);
    if less.get("alias").is_some_and(is_it) {
        less.remove("alias");
    }
    if let Some(Value::Array(others)) = less.get_mut("alt_aliases") {
        others.retain(|other| !is_it(other));
    }
    (less != *content).then_some(less)
}

/// Checks the aliases that a new `m.room.canonical_alias` has and the present one has not.
///
/// # Errors
///
/// `M_INVALID_PARAM` for what is no alias, or for too many of other servers; `M_BAD_ALIAS` for one
/// that leads elsewhere, or whose server does not say where it leads.
pub(crate) async fn check_canonical_alias(
    context: &AliasContext,
    room_id: &RoomId,
    content: &Object,
) -> Result<(), ApiError> {
    let view = &context.view;
    // A room that does not exist is refused when the event is sent.
    let Some(room) = view.room(room_id)? else { return Ok(()) };
    let present = view.current(&room, "m.room.canonical_alias", "")?;
    let known = present.map(|event| aliases_in(event.content())).transpose();
    // What stands there already may be anything.
    let known = known.unwrap_or_default().unwrap_or_default();
    let mut elsewhere = Vec::new();
    for alias in aliases_in(content)? {
        if known.contains(&alias) {
            continue;
        }
        let parsed =
            RoomAliasId::parse(&alias).ok().filter(|alias| alias.as_str().len() <= MAX_ALIAS);
        let invalid = || ApiError::invalid_param(format!("{alias} is not a valid room alias"));
        let parsed = parsed.ok_or_else(invalid)?;
        if parsed.server_name() != context.server_name {
            elsewhere.push(parsed);
        } else if context.directory.alias(&alias)?.is_none_or(|entry| entry.room != room.num) {
            return Err(bad_alias(&alias));
        }
    }
    if elsewhere.len() > MAX_ELSEWHERE {
        let message = format!("At most {MAX_ELSEWHERE} aliases of other servers are added at once");
        return Err(ApiError::invalid_param(message));
    }
    let checks = elsewhere.iter().map(|alias| context.check_elsewhere(alias, room_id));
    try_join_all(checks).await.map(drop)
}

/// 400 `M_BAD_ALIAS`
pub(crate) fn bad_alias(alias: &str) -> ApiError {
    let message = format!("The alias {alias} does not lead to this room");
    ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::BadAlias, message)
}

/// All aliases in a content of `m.room.canonical_alias`.
pub(crate) fn aliases_in(content: &Object) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::invalid_param("`alias` and `alt_aliases` must be room aliases");
    let mut aliases = Vec::new();
    match content.get("alias") {
        None | Some(Value::Null) => {}
        Some(Value::String(alias)) if alias.is_empty() => {}
        Some(Value::String(alias)) => aliases.push(alias.clone()),
        Some(_) => return Err(wrong()),
    }
    let others = match content.get("alt_aliases") {
        None | Some(Value::Null) => &[],
        Some(Value::Array(others)) => others.as_slice(),
        Some(_) => return Err(wrong()),
    };
    for alias in others {
        aliases.push(alias.as_str().ok_or_else(wrong)?.to_owned());
    }
    Ok(aliases)
}
