//! Other servers' users join rooms of this server.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

use std::{collections::HashSet, sync::Arc};

use actix_web::http::StatusCode;
use parlour_event::{
    EventNum, RoomVersion,
    content::{MemberContent, Membership},
    json, signing,
    state::StateRoot,
};
use ruma::{
    ServerName, UserId,
    api::{
        error::ErrorCode,
        federation::membership::{
            create_join_event::v2::{self as send_join, RoomState},
            prepare_join_event::v1 as make_join,
        },
    },
};
use serde_json::value::RawValue;

use super::{
    handshake::{HandshakeContext, Submission, check_own, check_version, content, raw},
    version_1::Version1,
};
use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
    view::{RoomView, View, ViewError, Vouching, wire_json},
};

/// Where the content of a restricted join says who vouches for it.
const AUTHORISED_BY: &str = "join_authorised_via_users_server";

/// How many servers an answer without members names.
const MAX_SERVERS: usize = 10_000;

/// How many events are read at once.
const BATCH: usize = 500;

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<HandshakeContext>) -> Routes {
    Routes::new(Api::Federation, context).route(make).route(send).route(send_v1).finish()
}

/// `GET /_matrix/federation/v1/make_join/{roomId}/{userId}`
async fn make(
    context: Arc<HandshakeContext>,
    req: Ruma<make_join::Request>,
) -> Result<make_join::Response, ApiError> {
    check_own(&req.user_id, &req.caller)?;
    let room = context.room(&req.room_id, &req.caller)?;
    check_version(&room, &req.ver)?;
    let mut content = content(Membership::Join);
    if let Some(user) = context.authorise(&room, &req.user_id).await? {
        content.insert(AUTHORISED_BY.to_owned(), user.into());
    }
    let template = context.template(&room, &req.user_id, content).await?;
    let mut response = make_join::Response::new(raw(template.event)?);
    response.room_version = Some(template.version.id().clone());
    Ok(response)
}

/// `PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`
async fn send(
    context: Arc<HandshakeContext>,
    req: Ruma<send_join::Request>,
) -> Result<send_join::Response, ApiError> {
    context.take_in(&req.request, &req.caller).await
}

/// `PUT /_matrix/federation/v1/send_join/{roomId}/{eventId}`
async fn send_v1(
    context: Arc<HandshakeContext>,
    req: Ruma<Version1<send_join::Request>>,
) -> Result<Version1<send_join::Response>, ApiError> {
    context.take_in(&req.0, &req.caller).await.map(Version1)
}

impl HandshakeContext {
    async fn take_in(
        &self,
        req: &send_join::Request,
        origin: &ServerName,
    ) -> Result<send_join::Response, ApiError> {
        let room = self.room(&req.room_id, origin)?;
        let (event_id, membership) = (&*req.event_id, Membership::Join);
        let submission = Submission { origin, room: &room, event_id, membership };
        let (event, by_us) = self.vouch(room.version, &req.pdu)?;
        let pdu = self.check(&submission, event).await?;
        if by_us {
            // The conditions are those of this moment, not those when the template was made.
            self.authorise(&room, pdu.sender()).await?;
        }
        let event = by_us.then(|| raw(pdu.json().clone())).transpose()?;
        self.bring(pdu.clone(), origin).await?;
        let (join, omit_members) = (pdu.event_id().to_string(), req.omit_members);
        let told = self.view.run(move |view| answer(view, &room, &join, omit_members));
        let mut told = told.await?;
        told.event = event;
        Ok(send_join::Response::new(told))
    }

    /// Who of us vouches for a user's join, if that is needed.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN`, 400 `M_UNABLE_TO_AUTHORISE_JOIN`, 400 `M_UNABLE_TO_GRANT_JOIN`
    async fn authorise(&self, room: &RoomView, user: &UserId) -> Result<Option<String>, ApiError> {
        let (room, user, server) = (room.clone(), user.to_owned(), self.server_name.clone());
        let unable = |code, message| Err(ApiError::new(StatusCode::BAD_REQUEST, code, message));
        match self.view.run(move |view| view.vouching(&room, &user, &server)).await? {
            Vouching::NotNeeded => Ok(None),
            Vouching::By(user) => Ok(Some(user.to_string())),
            Vouching::Refused => {
                Err(ApiError::forbidden("The user is in none of the rooms whose members may join"))
            }
            Vouching::Unknown => {
                let message = "This server is not in all of the rooms whose members may join";
                unable(ErrorCode::UnableToAuthorizeJoin, message)
            }
            Vouching::Nobody => {
                let message = "Nobody on this server may invite to the room";
                unable(ErrorCode::UnableToGrantJoin, message)
            }
        }
    }

    /// Signs a join for which a user of this server is said to vouch, and says whether it is one:
    /// without this signature it is not valid.
    fn vouch(
        &self,
        version: &RoomVersion,
        event: &RawValue,
    ) -> Result<(Box<RawValue>, bool), ApiError> {
        let mut join = json::parse_object(version, event.get().as_bytes())
            .map_err(|error| ApiError::invalid_param(error.to_string()))?;
        let has_ours = version.rules().authorization.restricted_join_rule
            && join.get("content").and_then(|content| content.as_object()).is_some_and(|content| {
                let user = MemberContent::new(content).authorising_user();
                user.is_some_and(|user| user.server_name() == self.server_name)
            });
        if has_ours {
            signing::sign_event(version, &mut join, self.server_name.as_str(), &self.key);
            return Ok((raw(join)?, true));
        }
        Ok((event.to_owned(), false))
    }
}

/// The room as it was before a join.
fn answer(
    view: &View,
    room: &RoomView,
    join: &str,
    omit_members: bool,
) -> Result<RoomState, ViewError> {
    let mut answer = RoomState::new();
    let Some(num) = view.store.event_num(join)? else { return Ok(answer) };
    let Some(meta) = view.store.event_meta(num)? else { return Ok(answer) };
    let root = meta.state_before;
    let state = match omit_members {
        true => view.state_without_members(root)?,
        false => view.state_nums(root)?,
    };
    let of: Vec<_> = state.iter().chain([&num]).copied().collect();
    let mut chain = view.auth_chain(room, &of)?;
    if omit_members {
        let told: HashSet<_> = state.iter().collect();
        chain.retain(|num| !told.contains(num));
        answer.members_omitted = true;
        let servers = view.store.servers_in_room(room.num, MAX_SERVERS)?;
        answer.servers_in_room = Some(servers.into_iter().map(|(server, _)| server).collect());
    }
    chain.retain(|other| *other != num);
    answer.state = view.wire(&state)?;
    answer.auth_chain = view.wire(&chain)?;
    Ok(answer)
}

impl View {
    /// A state but for its members: of them only those after whom a room without a name is named.
    fn state_without_members(&self, root: StateRoot) -> Result<Vec<EventNum>, ViewError> {
        let mut state = self.other_nums(root)?;
        if !self.has_name(root)? {
            state.extend(self.hero_nums(root)?);
        }
        Ok(state)
    }

    /// Events as other servers get them.
    pub(super) fn wire(&self, nums: &[EventNum]) -> Result<Vec<Box<RawValue>>, ViewError> {
        let mut all = Vec::with_capacity(nums.len());
        for batch in nums.chunks(BATCH) {
            for event in self.store.events(batch)?.into_iter().flatten() {
                all.push(wire_json(&event)?);
            }
        }
        Ok(all)
    }
}
