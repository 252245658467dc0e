//! Paging through a room's history (CS API, "Getting events for a room").

use std::{sync::Arc, time::Duration};

use parlour_storage::Direction;
use ruma::{
    OwnedEventId,
    api::{
        self,
        client::message::get_message_events::v3::{Request, Response},
    },
};

use super::{
    past::Past,
    reading::{enter, limit, relation_filter, senders_of},
};
use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
    view::{
        Access, EventFilter, Gaps, GraphToken, Page, PageRequest, Reader, RoomView, SyncToken,
        Token, View, ViewError, page::MAX_PAGE,
    },
};

/// How often the gaps in one page are filled, each time with as much as servers give at once.
const MAX_FILLS: usize = 6;

/// How long that may take altogether.
const PATIENCE: Duration = Duration::from_secs(12);

/// The endpoint of this file.
#[must_use]
pub fn routes(past: Past) -> Routes {
    Routes::new(Api::Client, past)
        .route_with(RouteOptions::default().for_guests(), messages)
        .finish()
}

/// `GET /_matrix/client/v3/rooms/{roomId}/messages`
async fn messages(past: Past, call: Ruma<Request>) -> Result<Response, ApiError> {
    let from = call.from.as_deref().map(str::parse).transpose()?;
    let to = call.to.as_deref().map(str::parse).transpose()?;
    let call = Arc::new(call);
    let view = &past.view;
    let read = || {
        let call = call.clone();
        view.run(move |view| read(view, &call, from, to))
    };
    let mut found = read().await?;
    let until = view.clock.monotonic().saturating_add(PATIENCE);
    for _ in 0..MAX_FILLS {
        let (Some(history), false) = (&past.history, found.gaps.is_empty()) else { break };
        if view.clock.monotonic() >= until || !history.fill(&found.room, found.gaps).await {
            break;
        }
        found = read().await?;
    }
    Ok(found.response)
}

/// A page, and what it lacks.
struct Found {
    response: Response,
    room: RoomView,
    /// Events that are not here and belong to it, or may do so.
    gaps: Vec<OwnedEventId>,
}

fn read(
    view: &View,
    call: &Ruma<Request>,
    from: Option<Token>,
    to: Option<Token>,
) -> Result<Found, ApiError> {
    let Ruma { request, caller, meta } = call;
    let relations = relation_filter(meta)?;
    let (mut reader, access) = enter(view, &request.room_id, caller)?;
    let direction = match request.dir {
        api::Direction::Forward => Direction::Forward,
        api::Direction::Backward => Direction::Backward,
    };
    let (begin, end) = range(view, &reader, access, direction, from, to)?;
    let limit = limit(request.limit, request.filter.limit, MAX_PAGE);
    let page = reader.page(&PageRequest {
        from: begin,
        to: end,
        direction,
        limit,
        filter: EventFilter::new(&request.filter).with_relations(&relations),
        ignored: &view.ignored_by(&caller.user_id)?,
    })?;
    let mut response = Response::new();
    response.start = match &request.from {
        Some(from) => from.clone(),
        None => start_of(&page, direction, begin).to_string(),
    };
    let gaps = match direction {
        Direction::Forward => Gaps::default(),
        Direction::Backward => view.gaps(reader.room().num)?.between(begin, end),
    };
    let is_full = page.more || page.events.len() >= limit;
    // What is behind a gap may come later; an empty page is the end for now.
    let more = page.more || (!gaps.is_empty() && !page.events.is_empty());
    response.end = more.then(|| page.next.to_string());
    if !request.filter.lazy_load_options.is_disabled() {
        response.state = senders_of(view, &mut reader, page.events.iter())?;
    }
    let gaps = if is_full { gaps.before(page.next) } else { gaps.all() };
    response.chunk = page.events.into_iter().map(|event| event.json).collect();
    Ok(Found { response, room: reader.room().clone(), gaps })
}

/// From where to where to read. For those who left, history ends where they did.
fn range(
    view: &View,
    reader: &Reader,
    access: Access,
    direction: Direction,
    from: Option<Token>,
    to: Option<Token>,
) -> Result<(GraphToken, Option<GraphToken>), ViewError> {
    let room = reader.room();
    let point = |token| view.graph_point(room.num, token);
    let to = to.map(point).transpose()?;
    let until = access.until();
    let from = match (from, direction) {
        (Some(token), Direction::Backward) => Some(view.graph_point_back(room.num, token)?),
        (Some(token), Direction::Forward) => Some(point(token)?),
        (None, Direction::Backward) if until.is_none() => {
            Some(point(SyncToken::at(room.head.pos).into())?)
        }
        (None, _) => None,
    };
    Ok(match direction {
        Direction::Forward => (from.unwrap_or_default(), to.into_iter().chain(until).min()),
        Direction::Backward => (from.into_iter().chain(until).min().unwrap_or_default(), to),
    })
}

/// The near side of a page for which no beginning was given.
fn start_of(page: &Page, direction: Direction, begin: GraphToken) -> GraphToken {
    page.events.first().map_or(begin, |first| match direction {
        Direction::Forward => GraphToken::before(first.meta.depth, first.meta.pos),
        Direction::Backward => GraphToken::after(first.meta.depth, first.meta.pos),
    })
}
