//! Events that relate to an event.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#relationships-api>

use parlour_storage::Direction;
use ruma::{
    EventId, RoomId, UInt,
    api::{
        self,
        client::relations::{
            get_relating_events, get_relating_events_with_rel_type,
            get_relating_events_with_rel_type_and_event_type,
        },
    },
    events::AnyMessageLikeEvent,
    serde::Raw,
};

use super::reading::seen_event;
use crate::{
    error::ApiError,
    http::{Api, Caller, Routes, Ruma},
    view::{Children, ChildrenRequest, Token, View, children::RECURSION_DEPTH, page::MAX_PAGE},
};

/// How many events a page has if the client does not say.
const DEFAULT_LIMIT: usize = 20;

/// The endpoints of this file.
#[must_use]
pub fn routes(view: View) -> Routes {
    Routes::new(Api::Client, view).route(all).route(by_rel_type).route(by_both).finish()
}

/// What is asked for, whichever endpoint it was.
struct Question {
    from: Option<String>,
    to: Option<String>,
    limit: Option<UInt>,
    dir: api::Direction,
    recurse: bool,
    rel_type: Option<String>,
    event_type: Option<String>,
}

/// What all endpoints answer.
struct Answer {
    chunk: Vec<Raw<AnyMessageLikeEvent>>,
    next_batch: Option<String>,
    prev_batch: Option<String>,
    recursion_depth: Option<UInt>,
}

/// The parts of the request and the answer that ruma has three times.
macro_rules! endpoint {
    ($(#[$doc:meta])* $name:ident, $module:ident, $call:ident, $rel_type:expr, $event_type:expr) => {
        $(#[$doc])*
        async fn $name(
            view: View,
            $call: Ruma<$module::v1::Request>,
        ) -> Result<$module::v1::Response, ApiError> {
            let question = Question {
                from: $call.from.clone(),
                to: $call.to.clone(),
                limit: $call.limit,
                dir: $call.dir,
                recurse: $call.recurse,
                rel_type: $rel_type,
                event_type: $event_type,
            };
            let Ruma { request, caller, .. } = $call;
            let read = move |view: &View| {
                answer(view, &caller, &request.room_id, &request.event_id, &question)
            };
            let answer = view.run(read).await?;
            let mut response = $module::v1::Response::new(answer.chunk);
            response.next_batch = answer.next_batch;
            response.prev_batch = answer.prev_batch;
            response.recursion_depth = answer.recursion_depth;
            Ok(response)
        }
    };
}

endpoint! {
    /// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}`
    all, get_relating_events, call, None, None
}

endpoint! {
    /// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}`
    by_rel_type, get_relating_events_with_rel_type, call, Some(call.rel_type.to_string()), None
}

endpoint! {
    /// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}`
    by_both, get_relating_events_with_rel_type_and_event_type, call,
    Some(call.rel_type.to_string()), Some(call.event_type.to_string())
}

fn answer(
    view: &View,
    caller: &Caller,
    room_id: &RoomId,
    parent: &EventId,
    question: &Question,
) -> Result<Answer, ApiError> {
    let token = |text: &Option<String>| text.as_deref().map(str::parse::<Token>).transpose();
    let (from, to) = (token(&question.from)?, token(&question.to)?);
    let (mut reader, ..) = seen_event(view, room_id, parent, caller)?;
    let room = reader.room().num;
    let point = |token: Option<Token>| token.map(|token| view.graph_point(room, token)).transpose();
    let limit = question.limit.map(|limit| usize::try_from(u64::from(limit)).unwrap_or(MAX_PAGE));
    let request = ChildrenRequest {
        parent: parent.as_str(),
        rel_type: question.rel_type.as_deref(),
        event_type: question.event_type.as_deref(),
        recurse: question.recurse,
        from: point(from)?,
        to: point(to)?,
        direction: match question.dir {
            api::Direction::Forward => Direction::Forward,
            api::Direction::Backward => Direction::Backward,
        },
        limit: limit.unwrap_or(DEFAULT_LIMIT),
    };
    let Children { events: chunk, next } = reader.children(&request)?;
    let depth = UInt::try_from(RECURSION_DEPTH).map_err(ApiError::internal)?;
    Ok(Answer {
        chunk,
        next_batch: next.map(|next| next.to_string()),
        prev_batch: question.from.clone(),
        recursion_depth: question.recurse.then_some(depth),
    })
}
