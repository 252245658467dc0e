//! Events that are to be sent later (MSC4140).
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4140>

use std::time::Duration;

use actix_web::{
    HttpResponse,
    http::{Method, StatusCode},
};
use parlour_actors::{
    LocalEvent,
    delayed::{Delayed, DelayedEvent, NewDelayed},
};
use parlour_event::content::{MemberContent, Membership};
use ruma::{RoomId, api::error::ErrorCode};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use super::{local, txn};
use crate::{
    error::ApiError,
    http::{Api, Caller, Query, RawRequest, RequestMeta, RouteOptions, Routes},
    limits::RateClass,
    view::View,
};

/// The parameter of `/send` and `/state` that makes an event a delayed one.
const DELAY: &str = "org.matrix.msc4140.delay";

/// The largest content: an event has at most as many bytes.
const MAX_CONTENT: usize = 65_536;

/// What these endpoints need to know. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DelayedContext {
    /// Where delayed events wait.
    pub delayed: Delayed,
    /// Who is in which room.
    pub view: View,
    /// The longest delay; zero if there are to be none.
    pub max_delay: Duration,
}

/// What can be done about a delayed event.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Cancel,
    Restart,
    Send,
}

/// The endpoints of this file. Who knows the id of a delayed event may do with it what its sender
/// may: a service that watches over a call cancels or sends it, without an account.
#[must_use]
pub fn routes(context: DelayedContext) -> Routes {
    let options = RouteOptions::rate(RateClass::Other);
    let all_path = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";
    let one_path = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}";
    let action_path =
        "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}/{action}";
    Routes::new(Api::Client, context)
        .raw(Method::GET, all_path, options, all)
        .raw(Method::GET, one_path, options, one)
        .raw(Method::POST, one_path, options, act_by_body)
        .raw(Method::POST, action_path, options, act_by_path)
        .finish()
}

/// `GET .../delayed_events`: under the name that the proposal has for the list now, and under that
/// by which clients know it from before.
async fn all(context: DelayedContext, request: RawRequest) -> Result<HttpResponse, ApiError> {
    let caller = request.caller().await?;
    let events = context.delayed.of_user(caller.user_id.as_str())?;
    let events = events.iter().map(described).collect::<Result<Vec<_>, _>>()?;
    Ok(HttpResponse::Ok().json(json!({ "delayed_events": events, "scheduled": events })))
}

/// `GET .../delayed_events/{delay_id}`
async fn one(context: DelayedContext, request: RawRequest) -> Result<HttpResponse, ApiError> {
    let caller = request.caller().await?;
    let event = context.delayed.get(delay_id(&request))?;
    let event = event.filter(|event| event.entry.user == caller.user_id.as_str());
    let event = event.ok_or_else(|| ApiError::not_found("There is no such delayed event"))?;
    Ok(HttpResponse::Ok().json(described(&event)?))
}

/// `POST .../delayed_events/{delay_id}`
async fn act_by_body(
    context: DelayedContext,
    request: RawRequest,
) -> Result<HttpResponse, ApiError> {
    #[derive(Deserialize)]
    struct Body {
        action: Value,
    }
    let Body { action } = request.json()?;
    context.act(delay_id(&request), action).await
}

/// `POST .../delayed_events/{delay_id}/{action}`
async fn act_by_path(
    context: DelayedContext,
    request: RawRequest,
) -> Result<HttpResponse, ApiError> {
    let action = request.path_args.get(1).map_or("", String::as_str);
    if serde_json::from_value::<Action>(action.into()).is_err() {
        return Err(ApiError::unrecognized());
    }
    if !request.meta.body.is_empty() {
        let _nothing_is_asked_for: IgnoredAny = request.json()?;
    }
    context.act(delay_id(&request), action.into()).await
}

fn delay_id(request: &RawRequest) -> &str {
    request.path_args.first().map_or("", String::as_str)
}

/// An event in the list of its sender.
fn described(event: &DelayedEvent) -> Result<Value, ApiError> {
    let DelayedEvent { id, entry, content } = event;
    let content: Value = serde_json::from_slice(content).map_err(ApiError::internal)?;
    let mut described = json!({
        "delay_id": id,
        "room_id": entry.room_id,
        "type": entry.event_type,
        "delay": entry.delay,
        "running_since": entry.running_since,
        "content": content,
    });
    if let (Some(key), Some(described)) = (&entry.state_key, described.as_object_mut()) {
        described.insert("state_key".to_owned(), key.as_str().into());
    }
    Ok(described)
}

impl DelayedContext {
    async fn act(&self, id: &str, action: Value) -> Result<HttpResponse, ApiError> {
        let action = serde_json::from_value(action).map_err(|_| {
            ApiError::invalid_param("The action must be `cancel`, `restart` or `send`")
        })?;
        match action {
            Action::Cancel => self.delayed.cancel(id).await?,
            Action::Restart => self.delayed.restart(id).await?,
            Action::Send => self.delayed.send(id).await?,
        }
        Ok(HttpResponse::Ok().json(json!({})))
    }

    /// Schedules an event if the request asks for that. Gives the answer then.
    ///
    /// # Errors
    ///
    /// A delay that is none or too long, an event that cannot be delayed, or too many of them.
    pub(crate) async fn schedule(
        &self,
        caller: &Caller,
        meta: &RequestMeta,
        room_id: &RoomId,
        event: &LocalEvent,
    ) -> Result<Option<Value>, ApiError> {
        let Some(delay) = self.delay(&meta.query)? else { return Ok(None) };
        check(event)?;
        if meta.body.len() > MAX_CONTENT {
            return Err(ApiError::too_large("The content is too large for an event"));
        }
        local::joined_room(&self.view, room_id, &caller.user_id)?;
        let transaction = event.transaction.as_ref();
        let path = [room_id.as_str(), &event.event_type];
        let transaction = transaction
            .map(|of_send| txn::transaction(caller, "delayed", &path, &of_send.txn_id))
            .transpose()?;
        let delayed = NewDelayed {
            user: caller.user_id.clone(),
            device: caller.device_id.to_string(),
            room: room_id.to_owned(),
            event_type: event.event_type.clone(),
            state_key: event.state_key.clone(),
            content: meta.body.clone(),
            delay,
            transaction: transaction.map(|transaction| transaction.hash),
        };
        let id = self.delayed.schedule(delayed).await?;
        Ok(Some(json!({ "delay_id": id })))
    }

    fn delay(&self, query: &Query) -> Result<Option<Duration>, ApiError> {
        let Some(delay) = query.get(DELAY) else { return Ok(None) };
        let wrong =
            |_| ApiError::invalid_param(format!("{DELAY} must be a number of milliseconds"));
        let delay = Duration::from_millis(delay.parse().map_err(wrong)?);
        if self.max_delay.is_zero() {
            return Err(ApiError::forbidden("This server delays no events"));
        }
        if delay > self.max_delay {
            let most = u64::try_from(self.max_delay.as_millis()).unwrap_or(u64::MAX);
            let message = format!("Events can be delayed for {most} milliseconds at most");
            let error = ApiError::new(StatusCode::BAD_REQUEST, ErrorCode::Unknown, message);
            return Err(error
                .with("org.matrix.msc4140.errcode", "M_MAX_DELAY_EXCEEDED")
                .with("org.matrix.msc4140.max_delay", most));
        }
        Ok(Some(delay))
    }
}

/// Refuses events that take more than the auth rules to judge: by the time when they are sent,
/// what was true of their sender may have changed.
fn check(event: &LocalEvent) -> Result<(), ApiError> {
    let membership = || MemberContent::new(&event.content).membership();
    let wrong = match event.event_type.as_str() {
        "m.room.redaction" => "Redactions cannot be delayed",
        "m.room.member" if !matches!(membership(), Some(Membership::Leave | Membership::Ban)) => {
            "Of changes of membership, only leaving and bans can be delayed"
        }
        _ => return Ok(()),
    };
    Err(ApiError::invalid_param(wrong))
}
