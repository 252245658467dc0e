//! What stands around an event (CS API, "Event context").

use parlour_event::EventNum;
use parlour_storage::{Direction, schema::StoredEvent};
use ruma::{
    api::client::context::get_context::v3::{Request, Response},
    events::{AnyStateEvent, AnyTimelineEvent},
    serde::Raw,
};

use super::{
    past::Past,
    reading::{limit, relation_filter, seen_event, state_events, wants},
};
use crate::{
    error::ApiError,
    http::{Api, Caller, RouteOptions, Routes, Ruma},
    view::{
        EventFilter, EventFormat, Fields, GraphToken, Page, PageRequest, Reader, RelationFilter,
        Seen, Shown, StateAt, View, ViewError, page::MAX_PAGE,
    },
};

/// The endpoint of this file.
#[must_use]
pub fn routes(past: Past) -> Routes {
    Routes::new(Api::Client, past)
        .route_with(RouteOptions::default().for_guests(), context)
        .finish()
}

/// `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}`
async fn context(past: Past, call: Ruma<Request>) -> Result<Response, ApiError> {
    let relations = relation_filter(&call.meta)?;
    let Ruma { request, caller, .. } = call;
    let (room, event, asker) = (request.room_id.clone(), request.event_id.clone(), caller.clone());
    let read = move |view: &View| read(view, &request, &caller, &relations);
    past.read_event(&room, &event, &asker, read).await
}

/// The pages on both sides of an event.
struct Around {
    event: Shown,
    before: Page,
    after: Page,
}

impl Around {
    fn newest(&self) -> &Shown {
        self.after.events.last().unwrap_or(&self.event)
    }

    fn senders(&self) -> Vec<&str> {
        let around = self.before.events.iter().chain(&self.after.events);
        let all = around.chain([&self.event]).map(|event| event.sender.as_str());
        let mut senders: Vec<_> = all.collect();
        senders.sort_unstable();
        senders.dedup();
        senders
    }
}

fn read(
    view: &View,
    request: &Request,
    caller: &Caller,
    relations: &RelationFilter,
) -> Result<Response, ApiError> {
    let (mut reader, event, seen) = seen_event(view, &request.room_id, &request.event_id, caller)?;
    let event = shown(&mut reader, event, seen)?;
    let filter = EventFilter::new(&request.filter).with_relations(relations);
    let around = look_around(&mut reader, request, filter, event)?;
    let mut response = Response::new();
    response.start = Some(around.before.next.to_string());
    response.end = Some(around.after.next.to_string());
    response.state = state(view, &mut reader, request, &around)?;
    response.event = Some(around.event.json);
    response.events_before = around.before.events.into_iter().map(|event| event.json).collect();
    response.events_after = around.after.events.into_iter().map(|event| event.json).collect();
    Ok(response)
}

/// The event itself.
fn shown(reader: &mut Reader, event: StoredEvent, seen: Seen) -> Result<Shown, ViewError> {
    reader.note_parents([&event])?;
    let fields = Fields::of(&event)?;
    let json: Raw<AnyTimelineEvent> = reader.render(&event, &fields, seen, EventFormat::Full)?;
    let sender = fields.sender.into_owned();
    Ok(Shown { num: event.num, meta: event.meta, sender, json })
}

/// Half of the limit goes to each side; of an odd one, the newer side gets one more.
fn look_around(
    reader: &mut Reader,
    request: &Request,
    filter: EventFilter<'_>,
    event: Shown,
) -> Result<Around, ViewError> {
    let all = limit(request.limit, request.filter.limit, MAX_PAGE);
    let until = reader.access()?.and_then(|access| access.until());
    let ignored = reader.ignored()?;
    let (depth, pos) = (event.meta.depth, event.meta.pos);
    let mut side = |direction, from, to, limit| {
        reader.page(&PageRequest { from, to, direction, limit, filter, ignored: &ignored })
    };
    let before = side(Direction::Backward, GraphToken::before(depth, pos), None, all / 2)?;
    let after = side(Direction::Forward, GraphToken::after(depth, pos), until, all - all / 2)?;
    Ok(Around { event, before, after })
}

/// The state at the newest of the events. With lazy loading, of the members only the senders.
/// Who is merely invited may see messages at most.
fn state(
    view: &View,
    reader: &mut Reader,
    request: &Request,
    around: &Around,
) -> Result<Vec<Raw<AnyStateEvent>>, ViewError> {
    if reader.access()?.is_some_and(|access| !access.to_state()) {
        return Ok(Vec::new());
    }
    let filter = EventFilter::new(&request.filter);
    let newest = around.newest();
    let state = StateAt::after(newest.num, &newest.meta);
    let nums: Vec<EventNum> = if request.filter.lazy_load_options.is_disabled() {
        view.state_nums(state)?
    } else {
        let mut nums = view.other_nums(state)?;
        for sender in around.senders() {
            nums.extend(view.member_num(state, sender)?);
        }
        nums
    };
    state_events(view, reader, &nums, |event| wants(filter, event))
}
