//! What is in a space, for other servers.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#spaces>

use std::sync::Arc;

use ruma::{
    OwnedServerName, ServerName,
    api::federation::space::{
        SpaceHierarchyParentSummary,
        get_hierarchy::v1::{Request, Response},
    },
    room::RoomSummary,
};

use super::acl::RoomGuard;
use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
    view::{RoomView, View},
};

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct SpaceContext {
    /// The rooms.
    pub view: View,
    /// Who is kept out of them.
    pub guard: RoomGuard,
    /// This server: of rooms that it has left it knows nothing new.
    pub server_name: OwnedServerName,
}

/// The endpoint of this file.
#[must_use]
pub fn routes(context: Arc<SpaceContext>) -> Routes {
    Routes::new(Api::Federation, context).route(hierarchy).finish()
}

/// `GET /_matrix/federation/v1/hierarchy/{roomId}`
async fn hierarchy(context: Arc<SpaceContext>, req: Ruma<Request>) -> Result<Response, ApiError> {
    let view = context.view.clone();
    view.run(move |_| context.read(&req)).await
}

impl SpaceContext {
    fn read(&self, req: &Ruma<Request>) -> Result<Response, ApiError> {
        let unknown = || ApiError::not_found("The room is not known here, or not for you to see");
        let server = &req.caller;
        let room = self.view.room(&req.room_id)?.ok_or_else(unknown)?;
        if !self.knows(&room)? {
            return Err(unknown());
        }
        let summary = self.preview(&room, server)?.ok_or_else(unknown)?;
        let children = self.view.children_of_space(&room, &summary, req.suggested_only)?;
        let (events, ids) = children.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        let mut response = Response::new(SpaceHierarchyParentSummary::new(summary, events));
        for room_id in ids {
            // What is not known here is left out: others may know it.
            let Some(child) = self.view.room(&room_id)? else { continue };
            if !self.knows(&child)? {
                continue;
            }
            match self.preview(&child, server)? {
                Some(summary) => response.children.push(summary),
                None => response.inaccessible_children.push(room_id),
            }
        }
        Ok(response)
    }

    /// Whether this server is in the room.
    fn knows(&self, room: &RoomView) -> Result<bool, ApiError> {
        Ok(self.view.store.joined_from(room.num, self.server_name.as_str())? > 0)
    }

    /// A room's preview, if it is for the server to see.
    fn preview(
        &self,
        room: &RoomView,
        server: &ServerName,
    ) -> Result<Option<RoomSummary>, ApiError> {
        if !self.guard.admits(room, server)? {
            return Ok(None);
        }
        Ok(self.view.preview_for_server(room, server)?)
    }
}
