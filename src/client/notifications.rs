//! What a user was notified of.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#listing-notifications>

use std::sync::Arc;

use parlour_actors::changes::Changes;
use parlour_event::StreamPos;
use ruma::api::client::push::get_notifications::v3::{Request, Response};

use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
    push::{NotificationsAsk, UnreadCounts},
    view::{SyncToken, View},
};

/// How many notifications a page has, if the client does not say.
const PAGE: usize = 50;

/// How many notifications a page has at most.
const MAX_PAGE: usize = 500;

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct NotificationContext {
    /// Reading access to rooms.
    pub view: View,
    /// What has been read.
    pub counts: UnreadCounts,
    /// What is now.
    pub changes: Arc<Changes>,
}

/// The endpoint of this file.
#[must_use]
pub fn routes(context: Arc<NotificationContext>) -> Routes {
    Routes::new(Api::Client, context).route(notifications).finish()
}

/// `GET /_matrix/client/v3/notifications`
async fn notifications(
    context: Arc<NotificationContext>,
    req: Ruma<Request>,
) -> Result<Response, ApiError> {
    let Ruma { request, caller, .. } = req;
    let from = request.from.as_deref().map(str::parse::<SyncToken>).transpose()?;
    let limit = request.limit.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(MAX_PAGE));
    let ask = NotificationsAsk {
        user: caller.user_id,
        device: caller.device_id,
        until: from.map_or(StreamPos(u64::MAX), |from| from.pos),
        limit: limit.clamp(1, MAX_PAGE),
        only_highlights: request.only.as_deref() == Some("highlight"),
    };
    let view = context.view.clone();
    view.run(move |view| {
        let now = context.changes.current();
        let page = context.counts.notifications(view, &ask, now)?;
        let mut response = Response::new(page.notifications);
        response.next_token = page.next.map(|next| SyncToken::at(next).to_string());
        Ok::<_, ApiError>(response)
    })
    .await
}
