//! Room tags.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#room-tagging>

use std::sync::Arc;

use parlour_actors::users::{Tags, Users};
use ruma::api::client::tag::{create_tag, delete_tag, get_tags};
use serde::Serialize;
use serde_json::{Map, Value};

use super::account_data::{own, room_of};
use crate::{
    error::ApiError,
    http::{Answering, Api, Json, Routes, Ruma},
    view::View,
};

/// The longest name of a tag, in bytes.
const MAX_NAME: usize = 255;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct TagContext {
    /// Where tags are kept.
    pub users: Users,
    /// Which rooms there are.
    pub view: View,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<TagContext>) -> Routes {
    Routes::new(Api::Client, context).route(list).route(create).route(delete).finish()
}

/// A room's tags with all that stands there about them, of which ruma's type knows the order alone.
#[derive(Debug, Serialize)]
struct TagList {
    tags: Tags,
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags`
async fn list(
    context: Arc<TagContext>,
    req: Ruma<Answering<get_tags::v3::Request, TagList>>,
) -> Result<Json<TagList>, ApiError> {
    own(&req.caller, &req.user_id)?;
    let room = room_of(&context.view.store, &req.user_id, &req.room_id)?;
    let mut tags = context.users.tags(req.user_id.as_str(), room)?;
    for about in tags.values_mut() {
        // As account data a client can write anything there.
        if about.get("order").is_some_and(|order| !order.is_number()) {
            about.remove("order");
        }
    }
    Ok(Json(TagList { tags }))
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
async fn create(
    context: Arc<TagContext>,
    req: Ruma<create_tag::v3::Request>,
) -> Result<create_tag::v3::Response, ApiError> {
    own(&req.caller, &req.user_id)?;
    let room = room_of(&context.view.store, &req.user_id, &req.room_id)?;
    if req.tag.is_empty() || req.tag.len() > MAX_NAME {
        return Err(ApiError::invalid_param(format!("A tag has 1 to {MAX_NAME} bytes")));
    }
    let order = req.tag_info.order;
    if order.is_some_and(|order| !(0.0..=1.0).contains(&order)) {
        return Err(ApiError::invalid_param("An order is a number between 0 and 1"));
    }
    let mut about: Map<String, Value> = match &*req.meta.body {
        [] => Map::new(),
        body => serde_json::from_slice(body)?,
    };
    // Old clients write it as text.
    about.remove("order");
    about.extend(order.map(|order| ("order".to_owned(), order.into())));
    let user = req.user_id.as_str();
    context.users.set_tag(user, room, req.tag.clone(), Some(about)).await?;
    Ok(create_tag::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
async fn delete(
    context: Arc<TagContext>,
    req: Ruma<delete_tag::v3::Request>,
) -> Result<delete_tag::v3::Response, ApiError> {
    own(&req.caller, &req.user_id)?;
    let room = room_of(&context.view.store, &req.user_id, &req.room_id)?;
    context.users.set_tag(req.user_id.as_str(), room, req.tag.clone(), None).await?;
    Ok(delete_tag::v3::Response::new())
}
