//! Rooms: looking at them, blocking and deleting them.

use std::sync::Arc;

use actix_web::http::Method;
use parlour_actors::room_orders::{DeletionOrder, OrderError, RoomOrders};
use parlour_event::content::Membership;
use parlour_storage::schema::{Deletion, DeletionStatus, Replacement};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, UserId, events::AnyStateEvent, serde::Raw};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    request::{AdminRequest, AdminRoutes, Answer, refused},
    room_list::list,
    room_shape::details,
};
use crate::{
    error::ApiError,
    http::Routes,
    view::{EventFormat, Fields, RoomView, View},
};

/// What a room that explains where another has gone is called where nobody says.
const NEW_ROOM_NAME: &str = "Content Violation Notification";

/// What it says then.
const NEW_ROOM_MESSAGE: &str = "Sharing illegal content on this server is not permitted and rooms \
                                in violation will be blocked.";

/// How many events are read at once.
const BATCH: usize = 1_000;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct RoomContext {
    /// The rooms.
    pub view: View,
    /// What is done about them.
    pub orders: RoomOrders,
    /// Whose users can make a room that takes another's place.
    pub server_name: OwnedServerName,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<RoomContext>) -> Routes {
    let (get, put, delete) = (Method::GET, Method::PUT, Method::DELETE);
    let by_id = "/_synapse/admin/v2/rooms/delete_status/{delete_id}";
    AdminRoutes::new(context)
        .on(get.clone(), "/_synapse/admin/v1/rooms", list)
        .on(get.clone(), "/_synapse/admin/v1/rooms/{room_id}", room)
        .on(get.clone(), "/_synapse/admin/v1/rooms/{room_id}/members", members)
        .on(get.clone(), "/_synapse/admin/v1/rooms/{room_id}/state", state)
        .on(get.clone(), "/_synapse/admin/v1/rooms/{room_id}/block", is_blocked)
        .on(put, "/_synapse/admin/v1/rooms/{room_id}/block", block)
        .on(delete.clone(), "/_synapse/admin/v1/rooms/{room_id}", delete_and_wait)
        .on(delete, "/_synapse/admin/v2/rooms/{room_id}", delete_later)
        .on(get.clone(), "/_synapse/admin/v2/rooms/{room_id}/delete_status", deletions_of)
        .on(get, by_id, deletion)
        .finish()
}

/// `GET /_synapse/admin/v1/rooms/{roomId}`
async fn room(context: Arc<RoomContext>, request: AdminRequest) -> Answer {
    let (id, server) = (request.room()?, context.server_name.clone());
    context
        .view
        .run(move |view| Ok::<_, ApiError>(details(view, &known(view, &id)?, &server)?))
        .await
}

/// `GET /_synapse/admin/v1/rooms/{roomId}/members`
async fn members(context: Arc<RoomContext>, request: AdminRequest) -> Answer {
    let id = request.room()?;
    let members = context.view.run(move |view| {
        let room = known(view, &id)?;
        let mut joined = Vec::new();
        for nums in view.member_nums(room.head.state)?.chunks(BATCH) {
            for event in view.store.events(nums)?.into_iter().flatten() {
                let pdu = event.pdu(room.version)?;
                let membership = parlour_event::content::MemberContent::new(pdu.content());
                if membership.membership() == Some(Membership::Join) {
                    joined.extend(pdu.state_key().map(ToString::to_string));
                }
            }
        }
        Ok::<_, ApiError>(joined)
    });
    let members = members.await?;
    Ok(json!({ "members": members, "total": members.len() }))
}

#[derive(Deserialize)]
struct StateFilter {
    #[serde(rename = "type")]
    event_type: Option<String>,
}

/// `GET /_synapse/admin/v1/rooms/{roomId}/state`
async fn state(context: Arc<RoomContext>, request: AdminRequest) -> Answer {
    let id = request.room()?;
    let StateFilter { event_type } = request.query()?;
    let admin = request.caller.user_id.clone();
    let state = context.view.run(move |view| {
        let room = known(view, &id)?;
        let mut reader = view.reader(&id, &admin, None)?.ok_or_else(unknown)?;
        let mut state: Vec<Raw<AnyStateEvent>> = Vec::new();
        for nums in view.state_nums(room.head.state)?.chunks(BATCH) {
            for event in view.store.events(nums)?.into_iter().flatten() {
                let kind = Fields::of(&event)?.event_type.into_owned();
                if event_type.as_ref().is_none_or(|wanted| *wanted == kind) {
                    state.push(reader.state_event(&event, EventFormat::Full)?);
                }
            }
        }
        Ok::<_, ApiError>(state)
    });
    Ok(json!({ "state": state.await? }))
}

/// `GET /_synapse/admin/v1/rooms/{roomId}/block`
async fn is_blocked(context: Arc<RoomContext>, request: AdminRequest) -> Answer {
    Ok(match context.orders.blocked_by(&request.room()?)? {
        Some(admin) => json!({ "block": true, "user_id": admin }),
        None => json!({ "block": false }),
    })
}

#[derive(Deserialize)]
struct Block {
    block: bool,
}

/// `PUT /_synapse/admin/v1/rooms/{roomId}/block`; the room need not be known here.
async fn block(context: Arc<RoomContext>, request: AdminRequest) -> Answer {
    let room = request.room()?;
    let Block { block } = request.json()?;
    context.orders.block(&room, block.then(|| request.caller.user_id.to_string())).await?;
    Ok(json!({ "block": block }))
}

fn yes() -> bool {
    true
}

/// What is to be done with a room.
#[derive(Deserialize)]
struct Delete {
    new_room_user_id: Option<OwnedUserId>,
    room_name: Option<String>,
    message: Option<String>,
    #[serde(default)]
    block: bool,
    #[serde(default = "yes")]
    purge: bool,
    #[serde(default)]
    force_purge: bool,
}

impl Delete {
    fn order(
        self,
        room_id: OwnedRoomId,
        admin: &UserId,
        server: &OwnedServerName,
    ) -> Result<DeletionOrder, ApiError> {
        if self.new_room_user_id.as_ref().is_some_and(|user| user.server_name() != server) {
            return Err(refused("User must be our own"));
        }
        let (name, message) = (self.room_name, self.message);
        let replacement = self.new_room_user_id.map(|creator| Replacement {
            creator: creator.to_string(),
            name: name.unwrap_or_else(|| NEW_ROOM_NAME.to_owned()),
            message: message.unwrap_or_else(|| NEW_ROOM_MESSAGE.to_owned()),
        });
        Ok(DeletionOrder {
            room_id,
            replacement,
            blocked_by: self.block.then(|| admin.to_string()),
            purge: self.purge,
            force_purge: self.force_purge,
        })
    }
}

/// `DELETE /_synapse/admin/v1/rooms/{roomId}`: answers when it is done. A room that is not known
/// here can be blocked in advance.
async fn delete_and_wait(context: Arc<RoomContext>, request: AdminRequest) -> Answer {
    let order = context.order(&request)?;
    let (room_id, blocked_by) = (order.room_id.clone(), order.blocked_by.clone());
    let id = match context.orders.delete(order).await {
        Err(OrderError::UnknownRoom) if blocked_by.is_some() => {
            context.orders.block(&room_id, blocked_by).await?;
            return Ok(json!({ "kicked_users": [], "failed_to_kick_users": [],
                "local_aliases": [], "new_room_id": null }));
        }
        id => id.map_err(not_ordered)?,
    };
    let over = context.orders.finished(&id).await?;
    let over = over.ok_or_else(|| ApiError::internal("a deletion was forgotten under way"))?;
    match &over.status {
        DeletionStatus::Failed(why) => Err(refused(why.clone())),
        _ => Ok(shutdown(&over)),
    }
}

/// `DELETE /_synapse/admin/v2/rooms/{roomId}`
async fn delete_later(context: Arc<RoomContext>, request: AdminRequest) -> Answer {
    let id = context.orders.delete(context.order(&request)?).await;
    Ok(json!({ "delete_id": id.map_err(not_ordered)? }))
}

/// `GET /_synapse/admin/v2/rooms/{roomId}/delete_status`
async fn deletions_of(context: Arc<RoomContext>, request: AdminRequest) -> Answer {
    let room = request.room()?;
    let all = context.orders.deletions()?;
    let of_room = all.iter().filter(|(_, deletion)| deletion.room_id == room.as_str());
    let results: Vec<_> = of_room.map(|(id, deletion)| status(id, deletion)).collect();
    match results.is_empty() {
        true => Err(ApiError::not_found(format!("No delete task for room_id '{room}' found"))),
        false => Ok(json!({ "results": results })),
    }
}

/// `GET /_synapse/admin/v2/rooms/delete_status/{deleteId}`
async fn deletion(context: Arc<RoomContext>, request: AdminRequest) -> Answer {
    let id = request.arg(0);
    let deletion = context.orders.deletion(id)?;
    let unknown = || ApiError::not_found(format!("delete id '{id}' not found"));
    Ok(status(id, &deletion.ok_or_else(unknown)?))
}

impl RoomContext {
    fn order(&self, request: &AdminRequest) -> Result<DeletionOrder, ApiError> {
        let room = request.room()?;
        let body: Delete = request.json()?;
        body.order(room, &request.caller.user_id, &self.server_name)
    }
}

fn not_ordered(error: OrderError) -> ApiError {
    match error {
        OrderError::UnknownRoom => ApiError::not_found("Room not found"),
        OrderError::UnderWay | OrderError::TooMany => refused(error.to_string()),
        OrderError::User(error) => error.into(),
    }
}

fn known(view: &View, id: &OwnedRoomId) -> Result<RoomView, ApiError> {
    view.room(id)?.ok_or_else(unknown)
}

fn unknown() -> ApiError {
    ApiError::not_found("Room not found")
}

fn status(id: &str, deletion: &Deletion) -> Value {
    let status = match &deletion.status {
        DeletionStatus::Scheduled => "scheduled",
        DeletionStatus::Active => "active",
        DeletionStatus::Complete => "complete",
        DeletionStatus::Failed(_) => "failed",
    };
    let mut shown = json!({
        "delete_id": id,
        "room_id": deletion.room_id,
        "status": status,
        "shutdown_room": shutdown(deletion),
    });
    if let DeletionStatus::Failed(why) = &deletion.status {
        shown["error"] = why.as_str().into();
    }
    shown
}

fn shutdown(deletion: &Deletion) -> Value {
    json!({
        "kicked_users": deletion.kicked,
        "failed_to_kick_users": deletion.failed,
        "local_aliases": deletion.aliases,
        "new_room_id": deletion.new_room_id,
    })
}
