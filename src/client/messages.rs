//! Paging through a room's history (CS API, "Getting events for a room").

use parlour_storage::Direction;
use ruma::api::{
    self,
    client::message::get_message_events::v3::{Request, Response},
};

use super::reading::{enter, limit, relation_filter, senders_of};
use crate::{
    error::ApiError,
    http::{Api, RouteOptions, Routes, Ruma},
    view::{
        Access, EventFilter, GraphToken, Page, PageRequest, Reader, SyncToken, Token, View,
        ViewError, page::MAX_PAGE,
    },
};

/// The endpoint of this file.
#[must_use]
pub fn routes(view: View) -> Routes {
    Routes::new(Api::Client, view)
        .route_with(RouteOptions::default().for_guests(), messages)
        .finish()
}

/// `GET /_matrix/client/v3/rooms/{roomId}/messages`
async fn messages(view: View, call: Ruma<Request>) -> Result<Response, ApiError> {
    let from = call.from.as_deref().map(str::parse).transpose()?;
    let to = call.to.as_deref().map(str::parse).transpose()?;
    view.run(move |view| read(view, &call, from, to)).await
}

fn read(
    view: &View,
    call: &Ruma<Request>,
    from: Option<Token>,
    to: Option<Token>,
) -> Result<Response, ApiError> {
    let Ruma { request, caller, meta } = call;
    let relations = relation_filter(meta)?;
    let (mut reader, access) = enter(view, &request.room_id, caller)?;
    let direction = match request.dir {
        api::Direction::Forward => Direction::Forward,
        api::Direction::Backward => Direction::Backward,
    };
    let (begin, end) = range(view, &reader, access, direction, from, to)?;
    let page = reader.page(&PageRequest {
        from: begin,
        to: end,
        direction,
        limit: limit(request.limit, request.filter.limit, MAX_PAGE),
        filter: EventFilter::new(&request.filter).with_relations(&relations),
        ignored: &view.ignored_by(&caller.user_id)?,
    })?;
    let mut response = Response::new();
    response.start = match &request.from {
        Some(from) => from.clone(),
        None => start_of(&page, direction, begin).to_string(),
    };
    response.end = page.more.then(|| page.next.to_string());
    if !request.filter.lazy_load_options.is_disabled() {
        response.state = senders_of(view, &mut reader, page.events.iter())?;
    }
    response.chunk = page.events.into_iter().map(|event| event.json).collect();
    Ok(response)
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
    let (mut from, mut to) = (from.map(point).transpose()?, to.map(point).transpose()?);
    let until = access.until();
    match direction {
        Direction::Forward => to = to.into_iter().chain(until).min(),
        Direction::Backward if from.is_none() && until.is_none() => {
            from = Some(point(SyncToken::at(room.head.pos).into())?);
        }
        Direction::Backward => from = from.into_iter().chain(until).min(),
    }
    Ok((from.unwrap_or_default(), to))
}

/// The near side of a page for which no beginning was given.
fn start_of(page: &Page, direction: Direction, begin: GraphToken) -> GraphToken {
    page.events.first().map_or(begin, |first| match direction {
        Direction::Forward => GraphToken::before(first.meta.depth, first.meta.pos),
        Direction::Backward => GraphToken::after(first.meta.depth, first.meta.pos),
    })
}
