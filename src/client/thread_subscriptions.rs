//! Thread subscriptions: of which threads a user wants to hear.
//!
//! Specification: <https://github.com/matrix-org/matrix-spec-proposals/pull/4306>, and for the list
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4308>

use std::sync::Arc;

use actix_web::http::StatusCode;
use parlour_actors::users::Users;
use parlour_event::StreamPos;
use parlour_storage::schema::{StoredEvent, Subscription};
use ruma::{
    EventId, RoomId, UInt,
    api::{
        client::threads::{
            get_thread_subscription, get_thread_subscriptions_changes, subscribe_thread,
            unsubscribe_thread,
        },
        error::ErrorCode,
    },
};

use crate::{
    error::ApiError,
    http::{Api, Caller, Routes, Ruma},
    view::{SyncToken, View},
};

/// How many threads a page of the list has, if the client does not say.
const PAGE: usize = 100;

/// How many threads a page has at most.
const MAX_PAGE: usize = 500;

/// What these endpoints need to know.
#[derive(Debug)]
pub struct ThreadContext {
    /// Where subscriptions are kept.
    pub users: Users,
    /// Which threads there are.
    pub view: View,
}

/// The endpoints of this file.
#[must_use]
pub fn routes(context: Arc<ThreadContext>) -> Routes {
    Routes::new(Api::Client, context)
        .route(get)
        .route(subscribe)
        .route(unsubscribe)
        .route(list)
        .finish()
}

/// `GET /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription`
async fn get(
    context: Arc<ThreadContext>,
    req: Ruma<get_thread_subscription::unstable::Request>,
) -> Result<get_thread_subscription::unstable::Response, ApiError> {
    let root = context.thread(&req.caller, &req.room_id, &req.thread_root)?;
    let (user, room) = (req.caller.user_id.as_str(), root.meta.room);
    let entry = context.users.thread_subscription(user, room, &root.meta.event_id)?;
    let automatic = match entry.map(|entry| entry.subscription) {
        Some(Subscription::Manual) => false,
        Some(Subscription::Automatic) => true,
        Some(Subscription::Ended) | None => {
            return Err(ApiError::not_found("You have not subscribed to this thread"));
        }
    };
    Ok(get_thread_subscription::unstable::Response::new(automatic))
}

/// `PUT /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription`
async fn subscribe(
    context: Arc<ThreadContext>,
    req: Ruma<subscribe_thread::unstable::Request>,
) -> Result<subscribe_thread::unstable::Response, ApiError> {
    let root = context.thread(&req.caller, &req.room_id, &req.thread_root)?;
    let cause = req.automatic.as_deref();
    let cause = cause.map(|cause| context.cause(&req.caller, &req.room_id, &root, cause));
    let (user, room, cause) = (&req.caller.user_id, root.meta.room, cause.transpose()?);
    context.users.subscribe_to_thread(user, room, &root.meta.event_id, cause).await?;
    Ok(subscribe_thread::unstable::Response::new())
}

/// `DELETE /_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription`
async fn unsubscribe(
    context: Arc<ThreadContext>,
    req: Ruma<unsubscribe_thread::unstable::Request>,
) -> Result<unsubscribe_thread::unstable::Response, ApiError> {
    let root = context.thread(&req.caller, &req.room_id, &req.thread_root)?;
    let (user, room) = (req.caller.user_id.as_str(), root.meta.room);
    context.users.unsubscribe_from_thread(user, room, &root.meta.event_id).await?;
    Ok(unsubscribe_thread::unstable::Response::new())
}

/// `GET /_matrix/client/unstable/io.element.msc4308/thread_subscriptions`
async fn list(
    context: Arc<ThreadContext>,
    req: Ruma<get_thread_subscriptions_changes::unstable::Request>,
) -> Result<get_thread_subscriptions_changes::unstable::Response, ApiError> {
    use get_thread_subscriptions_changes::unstable::{
        Response, ThreadSubscription, ThreadUnsubscription,
    };
    let place = |text: &String| text.parse::<SyncToken>().map(|token| token.pos);
    let until = req.from.as_ref().map(place).transpose()?.unwrap_or(StreamPos(u64::MAX));
    let after = req.to.as_ref().map(place).transpose()?.unwrap_or_default();
    let limit = req.limit.map_or(PAGE, |limit| usize::try_from(u64::from(limit)).unwrap_or(PAGE));
    let limit = limit.clamp(1, MAX_PAGE);
    let changes = context.users.thread_changes(req.caller.user_id.as_str(), after, until, limit)?;
    let mut response = Response::new();
    if let Some(last) = changes.last().filter(|_| changes.len() == limit) {
        let before = StreamPos(last.entry.pos.0.saturating_sub(1));
        response.end = Some(SyncToken::at(before).to_string());
    }
    for change in changes {
        let Some(room) = context.view.room_by_num(change.room)? else { continue };
        let Ok(root) = change.root.try_into() else { continue };
        let stamp = UInt::new_saturating(change.entry.pos.0);
        let automatic = match change.entry.subscription {
            Subscription::Manual => false,
            Subscription::Automatic => true,
            Subscription::Ended => {
                let threads = response.unsubscribed.entry(room.room_id).or_default();
                threads.insert(root, ThreadUnsubscription::new(stamp));
                continue;
            }
        };
        let threads = response.subscribed.entry(room.room_id).or_default();
        threads.insert(root, ThreadSubscription::new(automatic, stamp));
    }
    Ok(response)
}

impl ThreadContext {
    /// The root of a thread that the caller may see.
    fn thread(
        &self,
        caller: &Caller,
        room_id: &RoomId,
        root: &EventId,
    ) -> Result<StoredEvent, ApiError> {
        let event = self.event(caller, room_id, root)?;
        event.ok_or_else(|| ApiError::not_found("There is no such thread"))
    }

    /// The position of the event because of which a client subscribes: one of the thread.
    fn cause(
        &self,
        caller: &Caller,
        room_id: &RoomId,
        root: &StoredEvent,
        cause: &EventId,
    ) -> Result<StreamPos, ApiError> {
        let event = self.event(caller, room_id, cause)?;
        let place = event.as_ref().map(|event| self.view.thread_place(event)).transpose()?;
        let thread = place.and_then(|place| place.root);
        match event.filter(|_| thread.as_deref() == Some(&*root.meta.event_id)) {
            Some(event) => Ok(event.meta.pos),
            None => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                ErrorCode::NotInThread,
                "The event is not in this thread",
            )),
        }
    }

    fn event(
        &self,
        caller: &Caller,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<Option<StoredEvent>, ApiError> {
        let (user, device) = (&caller.user_id, &caller.device_id);
        let Some(mut reader) = self.view.reader(room_id, user, Some(device))? else {
            return Ok(None);
        };
        let Some(num) = self.view.store.event_num(event_id.as_str())? else { return Ok(None) };
        let Some(event) = self.view.store.event(num)? else { return Ok(None) };
        Ok(if reader.judge(&event)?.visible { Some(event) } else { None })
    }
}
