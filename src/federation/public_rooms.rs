//! This server's published rooms, for other servers.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#published-room-directory>

use std::sync::Arc;

use ruma::{
    UInt,
    api::federation::directory::{
        get_public_rooms::v1 as list_rooms, get_public_rooms_filtered::v1 as search_rooms,
    },
    directory::{Filter, PublicRoomsChunk, RoomNetwork},
};
use serde::Serialize;

use crate::{
    error::ApiError,
    http::{Answer, Api, Routes, Ruma},
    view::{
        ListToken, PublishedRooms, View,
        published::{Audience, Excerpt},
    },
};

/// The most rooms in one answer, also where no limit is asked for: the next page begins there.
const MAX_LIMIT: usize = 500;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct PublicRoomsContext {
    /// Where the list may be read at leisure.
    pub view: View,
    /// The list.
    pub published: PublishedRooms,
}

/// A part of the list. ruma's types write `null` where the specification has nothing.
#[derive(Debug, Default, Serialize)]
struct Page {
    chunk: Vec<PublicRoomsChunk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    total_room_count_estimate: usize,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<PublicRoomsContext>) -> Routes {
    Routes::new(Api::Federation, context).route(list).route(search).finish()
}

/// `GET /_matrix/federation/v1/publicRooms`
async fn list(
    context: Arc<PublicRoomsContext>,
    req: Ruma<list_rooms::Request>,
) -> Result<Answer<list_rooms::Response>, ApiError> {
    let list_rooms::Request { limit, since, room_network, .. } = req.request;
    context.page(&room_network, Filter::new(), since, limit).await.map(Answer::Json)
}

/// `POST /_matrix/federation/v1/publicRooms`
async fn search(
    context: Arc<PublicRoomsContext>,
    req: Ruma<search_rooms::Request>,
) -> Result<Answer<search_rooms::Response>, ApiError> {
    let search_rooms::Request { limit, since, filter, room_network, .. } = req.request;
    context.page(&room_network, filter, since, limit).await.map(Answer::Json)
}

impl PublicRoomsContext {
    async fn page(
        &self,
        network: &RoomNetwork,
        filter: Filter,
        since: Option<String>,
        limit: Option<UInt>,
    ) -> Result<serde_json::Value, ApiError> {
        let from = since.map(|since| since.parse::<ListToken>()).transpose()?;
        let limit = limit.map_or(0, |limit| usize::try_from(u64::from(limit)).unwrap_or(0));
        let limit = if limit == 0 { MAX_LIMIT } else { limit.min(MAX_LIMIT) };
        // There is no other network, so its rooms are none, and all networks are this one.
        let page = match network {
            RoomNetwork::ThirdParty(_) => Page::default(),
            _ => {
                let published = self.published.clone();
                let excerpt = Excerpt { from, limit, audience: Audience::Servers };
                let page = self.view.run(move |_| published.page(&filter, &excerpt)).await?;
                Page {
                    chunk: page.rooms,
                    next_batch: page.after.map(|token| token.to_string()),
                    prev_batch: page.before.map(|token| token.to_string()),
                    total_room_count_estimate: page.total,
                }
            }
        };
        serde_json::to_value(page).map_err(ApiError::internal)
    }
}
