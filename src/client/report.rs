//! Reporting content.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#reporting-content>

use std::sync::Arc;

use parlour_actors::{reports::Reports, users::Users};
use parlour_event::content::Membership;
use parlour_storage::schema::ReportSubject;
use ruma::{
    EventId, OwnedServerName, RoomId, UserId,
    api::client::{
        reporting::report_user,
        room::{report_content, report_room},
    },
};

use super::local;
use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
    limits::RateClass,
    view::{Fields, View},
};

/// The largest body, in bytes: a reason is a few sentences.
const MAX_BODY: usize = 16 << 10;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct ReportContext {
    /// Where reports are kept.
    pub reports: Reports,
    /// Whether the reported event is there.
    pub view: View,
    /// Whether the reported user is there.
    pub users: Users,
    /// Whose users can be looked up.
    pub server_name: OwnedServerName,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<ReportContext>) -> Routes {
    let options = RouteOptions::rate(RateClass::Message).max_body(MAX_BODY);
    Routes::new(Api::Client, context)
        .route_with(options, report_event)
        .route_with(options, report_room)
        .route_with(options, report_user)
        .finish()
}

/// `POST /_matrix/client/v3/rooms/{roomId}/report/{eventId}`
async fn report_event(
    context: Arc<ReportContext>,
    req: Ruma<report_content::v3::Request>,
) -> Result<report_content::v3::Response, ApiError> {
    let subject = context.event(&req.caller.user_id, &req.room_id, &req.event_id)?;
    let reporter = req.caller.user_id.as_str();
    context.reports.add(reporter, subject, req.request.reason).await?;
    Ok(report_content::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/report`
///
/// Whether there is such a room is not told.
async fn report_room(
    context: Arc<ReportContext>,
    req: Ruma<report_room::v3::Request>,
) -> Result<report_room::v3::Response, ApiError> {
    if context.view.room(&req.room_id)?.is_some() {
        let subject = ReportSubject::Room { room_id: req.room_id.to_string() };
        let (reporter, reason) = (req.caller.user_id.as_str(), req.request.reason);
        context.reports.add(reporter, subject, Some(reason)).await?;
    }
    Ok(report_room::v3::Response::new())
}

/// `POST /_matrix/client/v3/users/{userId}/report`
///
/// Whether there is such a user is not told.
async fn report_user(
    context: Arc<ReportContext>,
    req: Ruma<report_user::v3::Request>,
) -> Result<report_user::v3::Response, ApiError> {
    let user = &req.user_id;
    let is_ours = user.server_name() == context.server_name;
    if !is_ours || context.users.account(user.as_str())?.is_some() {
        let subject = ReportSubject::User { user_id: user.to_string() };
        let (reporter, reason) = (req.caller.user_id.as_str(), req.request.reason);
        context.reports.add(reporter, subject, Some(reason)).await?;
    }
    Ok(report_user::v3::Response::new())
}

impl ReportContext {
    /// An event that the user, who is in its room, can see.
    fn event(
        &self,
        user: &UserId,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<ReportSubject, ApiError> {
        let unknown = || ApiError::not_found("There is no such event in a room that you are in");
        let room = self.view.room(room_id)?.ok_or_else(unknown)?;
        if self.view.membership_of(&room, user)? != Some(Membership::Join) {
            return Err(unknown());
        }
        let event = local::event_in(&self.view, &room, event_id)?;
        let mut reader = self.view.reader(room_id, user, None)?.ok_or_else(unknown)?;
        if !reader.judge(&event)?.visible {
            return Err(unknown());
        }
        Ok(ReportSubject::Event {
            room_id: room_id.to_string(),
            event_id: event_id.to_string(),
            sender: Fields::of(&event)?.sender.into_owned(),
        })
    }
}
