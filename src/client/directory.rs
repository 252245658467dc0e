//! The list of published rooms.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

use std::{sync::Arc, time::Duration};

use parlour_actors::directory::Directory;
use parlour_event::content::Membership;
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, ServerName, UInt,
    api::{
        IncomingRequest,
        auth_scheme::AccessToken,
        client::{
            directory::{
                get_public_rooms, get_public_rooms_filtered, get_room_visibility,
                set_room_visibility,
            },
            room::Visibility,
        },
        error::{DeserializationError, Error},
        federation::directory::{
            get_public_rooms::v1 as remote_list, get_public_rooms_filtered::v1 as remote_search,
        },
    },
    directory::{Filter, PublicRoomsChunk, RoomNetwork},
    uint,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::local;
use crate::{
    error::ApiError,
    federation::outbound::{client::FederationClient, transport::Limits},
    http::{AnyCaller, Api, Caller, RouteOptions, Routes, Ruma},
    view::{
        ListPage, ListToken, PublishedRooms, RoomView, View,
        published::{Audience, Excerpt},
    },
};

/// The most rooms in one answer.
const MAX_LIMIT: u32 = 500;

/// How many rooms an answer has if the client does not say.
const USUAL_LIMIT: u32 = 100;

/// For another server's list.
const LIST: Limits = Limits { time: Duration::from_secs(20), body: 8 << 20 };

/// What these endpoints need to know.
#[derive(Debug)]
pub struct DirectoryContext {
    /// Rooms, and who may do what there.
    pub view: View,
    /// Which rooms are published.
    pub directory: Directory,
    /// The same, as it is shown.
    pub published: PublishedRooms,
    /// Whose list it is.
    pub server_name: OwnedServerName,
    /// Who is asked for the lists of others.
    pub remote: FederationClient,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<DirectoryContext>) -> Routes {
    Routes::new(Api::Client, context)
        .route_with(RouteOptions::default().for_guests(), list)
        .route(search)
        .route(visibility)
        .route(set_visibility)
        .finish()
}

/// `GET /_matrix/client/v3/publicRooms`
async fn list(
    context: Arc<DirectoryContext>,
    req: Ruma<AnyCaller<get_public_rooms::v3::Request>>,
) -> Result<get_public_rooms::v3::Response, ApiError> {
    if let Some(server) = context.other_server(req.server.as_deref()) {
        local::may_ask_others(req.caller.as_ref())?;
        let mut asked = remote_list::Request::new();
        asked.limit = Some(limit(req.limit));
        asked.since = req.since.clone();
        let told: Told = context.remote.ask_json(server, asked, LIST).await?;
        let mut response = get_public_rooms::v3::Response::new(told.rooms());
        response.prev_batch = told.prev_batch;
        response.next_batch = told.next_batch;
        response.total_room_count_estimate = told.total_room_count_estimate;
        return Ok(response);
    }
    let page = context.page(Filter::new(), req.since.as_deref(), req.limit).await?;
    let (before, after) = (token(page.before), token(page.after));
    let mut response = get_public_rooms::v3::Response::new(page.rooms);
    response.prev_batch = before;
    response.next_batch = after;
    response.total_room_count_estimate = UInt::try_from(page.total).ok();
    Ok(response)
}

/// `POST /_matrix/client/v3/publicRooms`
async fn search(
    context: Arc<DirectoryContext>,
    req: Ruma<get_public_rooms_filtered::v3::Request>,
) -> Result<get_public_rooms_filtered::v3::Response, ApiError> {
    let mut response = get_public_rooms_filtered::v3::Response::new();
    if let Some(server) = context.other_server(req.server.as_deref()) {
        let mut asked = remote_search::Request::new();
        asked.limit = Some(limit(req.limit));
        asked.since = req.since.clone();
        asked.filter = req.filter.clone();
        asked.room_network = req.room_network.clone();
        let told: Told = context.remote.ask_json(server, asked, LIST).await?;
        response.chunk = told.rooms();
        response.prev_batch = told.prev_batch;
        response.next_batch = told.next_batch;
        response.total_room_count_estimate = told.total_room_count_estimate;
        return Ok(response);
    }
    // There is no other network, so its rooms are none, and all networks are this one.
    if let RoomNetwork::ThirdParty(_) = &req.room_network {
        response.total_room_count_estimate = Some(UInt::MIN);
        return Ok(response);
    }
    let page = context.page(req.filter.clone(), req.since.as_deref(), req.limit).await?;
    response.prev_batch = token(page.before);
    response.next_batch = token(page.after);
    response.chunk = page.rooms;
    response.total_room_count_estimate = UInt::try_from(page.total).ok();
    Ok(response)
}

/// What another server tells of its list. One room that is none says nothing of the others.
#[derive(Deserialize)]
struct Told {
    chunk: Vec<Box<RawValue>>,
    prev_batch: Option<String>,
    next_batch: Option<String>,
    total_room_count_estimate: Option<UInt>,
}

impl Told {
    fn rooms(&self) -> Vec<PublicRoomsChunk> {
        self.chunk.iter().filter_map(|room| serde_json::from_str(room.get()).ok()).collect()
    }
}

/// How many rooms a client gets that wants so many.
fn limit(asked: Option<UInt>) -> UInt {
    asked.unwrap_or(USUAL_LIMIT.into()).clamp(uint!(1), MAX_LIMIT.into())
}

fn token(token: Option<ListToken>) -> Option<String> {
    token.map(|token| token.to_string())
}

/// `GET /_matrix/client/v3/directory/list/room/{roomId}`
async fn visibility(
    context: Arc<DirectoryContext>,
    req: Ruma<get_room_visibility::v3::Request>,
) -> Result<get_room_visibility::v3::Response, ApiError> {
    let room = context.room(&req.room_id)?;
    let visibility = visibility_of(&context.directory, &room)?;
    Ok(get_room_visibility::v3::Response::new(visibility))
}

/// Whether a room is published.
///
/// # Errors
///
/// If storage cannot be read.
pub(crate) fn visibility_of(
    directory: &Directory,
    room: &RoomView,
) -> Result<Visibility, ApiError> {
    Ok(match directory.is_published(room.num)? {
        true => Visibility::Public,
        false => Visibility::Private,
    })
}

/// `PUT /_matrix/client/v3/directory/list/room/{roomId}`
///
/// By members who may set the room's canonical alias, and by administrators.
async fn set_visibility(
    context: Arc<DirectoryContext>,
    req: Ruma<SetVisibility>,
) -> Result<set_room_visibility::v3::Response, ApiError> {
    let published = match req.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        _ => return Err(ApiError::invalid_param("`visibility` is `public` or `private`")),
    };
    let room = context.room(&req.room_id)?;
    if !context.may_publish(&req.caller, &room)? {
        return Err(ApiError::forbidden("You do not have the power to publish this room"));
    }
    context.directory.publish(room.num, published).await?;
    Ok(set_room_visibility::v3::Response::new())
}

impl DirectoryContext {
    /// The server whose list is wanted, if it is another one.
    fn other_server<'a>(&self, server: Option<&'a ServerName>) -> Option<&'a ServerName> {
        server.filter(|server| **server != *self.server_name)
    }

    async fn page(
        &self,
        filter: Filter,
        since: Option<&str>,
        limit: Option<UInt>,
    ) -> Result<ListPage, ApiError> {
        let from = since.map(str::parse::<ListToken>).transpose()?;
        let limit = usize::try_from(u64::from(self::limit(limit))).unwrap_or(usize::MAX);
        let published = self.published.clone();
        let excerpt = Excerpt { from, limit, audience: Audience::Users };
        self.view.run(move |_| published.page(&filter, &excerpt)).await
    }

    fn room(&self, room_id: &RoomId) -> Result<RoomView, ApiError> {
        let room = self.view.room(room_id)?;
        room.ok_or_else(|| ApiError::not_found("The room is not known here"))
    }

    fn may_publish(&self, caller: &Caller, room: &RoomView) -> Result<bool, ApiError> {
        let user = &caller.user_id;
        Ok(caller.admin
            || (self.view.membership_of(room, user)? == Some(Membership::Join)
                && self.view.powers(room)?.may_set(user, "m.room.canonical_alias")))
    }
}

ruma::metadata! {
    @for SetVisibility,
    method: PUT,
    rate_limited: false,
    authentication: AccessToken,
    history: {
        1.0 => "/_matrix/client/r0/directory/list/room/{room_id}",
        1.1 => "/_matrix/client/v3/directory/list/room/{room_id}",
    }
}

/// As ruma's type, which does not know that `visibility` may be left out.
#[derive(Debug)]
struct SetVisibility {
    room_id: OwnedRoomId,
    visibility: Visibility,
}

#[derive(Deserialize)]
struct SetVisibilityBody {
    #[serde(default = "public")]
    visibility: Visibility,
}

fn public() -> Visibility {
    Visibility::Public
}

impl IncomingRequest for SetVisibility {
    type EndpointError = Error;
    type OutgoingResponse = set_room_visibility::v3::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let args = path_args.iter().copied();
        let args = serde::de::value::SeqDeserializer::<_, serde::de::value::Error>::new(args);
        let (room_id,) = Deserialize::deserialize(args)?;
        let SetVisibilityBody { visibility } = serde_json::from_slice(request.body())?;
        Ok(Self { room_id, visibility })
    }
}
