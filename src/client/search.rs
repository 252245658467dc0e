//! Full text search (CS API, "Server Side Search").

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use parlour_actors::changes::Changes;
use parlour_storage::Direction;
use ruma::{
    OwnedEventId, OwnedMxcUri, OwnedRoomId, OwnedUserId, UInt,
    api::client::search::search_events::v3::{
        Criteria as Asked, EventContext, EventContextResult, GroupingKey, OrderBy, Request,
        Response, ResultCategories, ResultGroup, ResultGroupMap, ResultRoomEvents, SearchKeys,
        SearchResult, UserProfile,
    },
    events::AnyStateEvent,
    serde::Raw,
};
use serde::{Deserialize, de::IgnoredAny};

use super::reading::{limit, state_events};
use crate::{
    error::ApiError,
    http::{Api, Routes, Ruma},
    search::{
        Criteria, Field, Follower, Found, Group, Order, Page, SearchError, SearchToken, TextIndex,
        find::Searcher, index::Tally, query::expression,
    },
    view::{EventFilter, Fields, GraphToken, PageRequest, View, ViewError},
};

/// How many results a page has, if the client does not say.
const PAGE: u32 = 10;

/// How many results a page has at most.
const MAX_PAGE: usize = 100;

/// How many events stand around a result at most, on each side.
const MAX_CONTEXT: usize = 20;

/// The longest search term, in bytes.
const MAX_TERM: usize = 1_000;

/// What this endpoint needs to know.
#[derive(Debug)]
pub struct SearchContext {
    /// Reading access to rooms.
    pub view: View,
    /// The index, and who keeps it.
    pub follower: Follower,
    /// What is now.
    pub changes: Arc<Changes>,
}

/// The endpoint of this file.
#[must_use]
pub fn routes(context: Arc<SearchContext>) -> Routes {
    Routes::new(Api::Client, context).route(search).finish()
}

/// What ruma's type does not tell: whether a context was asked for at all.
#[derive(Deserialize)]
struct Body {
    search_categories: Categories,
}

#[derive(Deserialize)]
struct Categories {
    #[serde(default)]
    room_events: Option<RoomEvents>,
}

#[derive(Deserialize)]
struct RoomEvents {
    #[serde(default)]
    event_context: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Profile {
    #[serde(default)]
    displayname: Option<String>,
    #[serde(default)]
    avatar_url: Option<OwnedMxcUri>,
}

/// What comes with the results.
struct Extras {
    context: Option<EventContext>,
    state: bool,
    groupings: Vec<GroupingKey>,
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> Self {
        if error.is_too_much() {
            return Self::invalid_param("Too much is found: take more words, or fewer rooms");
        }
        Self::internal(error)
    }
}

/// `POST /_matrix/client/v3/search`
async fn search(context: Arc<SearchContext>, req: Ruma<Request>) -> Result<Response, ApiError> {
    let Ruma { request, caller, meta } = req;
    let Some(asked) = request.search_categories.room_events else {
        return Ok(Response::new(ResultCategories::new()));
    };
    let from = request.next_batch.as_deref().map(str::parse::<SearchToken>).transpose()?;
    let now = context.changes.current();
    let from = from.unwrap_or(SearchToken { until: now, offset: 0, group: None });
    let extras = extras(&asked, &meta.body)?;
    let Some(criteria) = criteria(asked, from)? else {
        return Ok(answer(ResultRoomEvents::new()));
    };
    context.follower.reach(now).await;
    let (view, index) = (context.view.clone(), context.follower.index().clone());
    view.run(move |view| {
        let mut searcher = Searcher::new(view, &index, &caller.user_id, &caller.device_id)?;
        let page = searcher.find(&criteria)?;
        let mut results = ResultRoomEvents::new();
        results.highlights = highlights(&index, &criteria, &page)?;
        add_groups(view, &criteria, &extras, &page, &mut results)?;
        if extras.state {
            results.state = state(view, &mut searcher, &page)?;
        }
        results.count = Some(UInt::new_saturating(page.count));
        results.next_batch = page.next.map(|offset| {
            let group = criteria.group.clone();
            SearchToken { until: criteria.until, offset, group }.to_string()
        });
        for found in page.found {
            results.results.push(result(view, &mut searcher, &extras, found)?);
        }
        Ok::<_, ApiError>(answer(results))
    })
    .await
}

fn answer(results: ResultRoomEvents) -> Response {
    let mut categories = ResultCategories::new();
    categories.room_events = results;
    Response::new(categories)
}

/// What is searched for; `None` if that cannot be anywhere.
fn criteria(asked: Asked, from: SearchToken) -> Result<Option<Criteria>, ApiError> {
    if asked.search_term.len() > MAX_TERM {
        let message = format!("A search term has at most {MAX_TERM} bytes");
        return Err(ApiError::invalid_param(message));
    }
    let field = |key: &SearchKeys| match key {
        SearchKeys::ContentBody => Ok(Field::Body),
        SearchKeys::ContentName => Ok(Field::Name),
        SearchKeys::ContentTopic => Ok(Field::Topic),
        other => Err(ApiError::invalid_param(format!("{other} is not searched"))),
    };
    let fields = match &asked.keys {
        Some(keys) => keys.iter().map(field).collect::<Result<_, _>>()?,
        None => Field::ALL.to_vec(),
    };
    let order = match asked.order_by {
        None | Some(OrderBy::Rank) => Order::Rank,
        Some(OrderBy::Recent) => Order::Recent,
        Some(other) => {
            return Err(ApiError::invalid_param(format!("There is no order by {other}")));
        }
    };
    let Some(expression) = expression(&asked.search_term) else { return Ok(None) };
    let limit = limit(asked.filter.limit.unwrap_or(PAGE.into()), None, MAX_PAGE).max(1);
    let SearchToken { until, offset, group } = from;
    let filter = asked.filter;
    let grouped = !asked.groupings.group_by.is_empty();
    Ok(Some(Criteria { expression, fields, filter, order, group, until, offset, limit, grouped }))
}

fn extras(asked: &Asked, body: &[u8]) -> Result<Extras, ApiError> {
    let body: Body = serde_json::from_slice(body)?;
    let wants_context = body.search_categories.room_events.and_then(|asked| asked.event_context);
    let mut groupings = Vec::new();
    for grouping in &asked.groupings.group_by {
        match &grouping.key {
            Some(key @ (GroupingKey::RoomId | GroupingKey::Sender)) => groupings.push(key.clone()),
            _ => return Err(ApiError::invalid_param("Results are grouped by room_id or sender")),
        }
    }
    Ok(Extras {
        context: wants_context.map(|_| asked.event_context.clone()),
        state: asked.include_state.unwrap_or(false),
        groupings,
    })
}

/// The words by which the results were found, as they stand there.
fn highlights(
    index: &TextIndex,
    criteria: &Criteria,
    page: &Page,
) -> Result<Vec<String>, SearchError> {
    let mut words = BTreeSet::new();
    for found in &page.found {
        words.extend(index.words(&criteria.expression, found.hit.num)?);
    }
    Ok(words.into_iter().collect())
}

/// A result, with what stands around it.
fn result(
    view: &View,
    searcher: &mut Searcher<'_>,
    extras: &Extras,
    found: Found,
) -> Result<SearchResult, ApiError> {
    let mut result = SearchResult::new();
    if let Some(asked) = &extras.context {
        result.context = around(view, searcher, asked, &found)?;
    }
    result.rank = Some(found.hit.rank);
    result.result = Some(found.json);
    Ok(result)
}

fn around(
    view: &View,
    searcher: &mut Searcher<'_>,
    asked: &EventContext,
    found: &Found,
) -> Result<EventContextResult, ViewError> {
    let ignored = searcher.ignored().clone();
    let mut context = EventContextResult::new();
    let Some(reader) = searcher.reader(found.hit.room) else { return Ok(context) };
    let all = ruma::api::client::filter::RoomEventFilter::default();
    let filter = EventFilter::new(&all);
    let until = reader.access()?.and_then(|access| access.until());
    let (depth, pos) = (found.event.meta.depth, found.event.meta.pos);
    let mut side = |direction, from, to, most| {
        let limit = limit(most, None, MAX_CONTEXT);
        reader.page(&PageRequest { from, to, direction, limit, filter, ignored: &ignored })
    };
    let (before, after) = (GraphToken::before(depth, pos), GraphToken::after(depth, pos));
    let before = side(Direction::Backward, before, None, asked.before_limit)?;
    let after = side(Direction::Forward, after, until, asked.after_limit)?;
    context.start = Some(before.next.to_string());
    context.end = Some(after.next.to_string());
    if asked.include_profile {
        let others = before.events.iter().chain(&after.events).map(|event| &event.sender);
        for sender in others.chain([&found.sender]) {
            let Ok(user) = OwnedUserId::try_from(sender.as_str()) else { continue };
            if let Some(num) = view.member_num(found.event.meta.state_before, sender)?
                && let Some(member) = view.store.event(num)?
                && let content = reader.state_content(&member, &Fields::of(&member)?)?
                && let Ok(profile) = serde_json::from_str::<Profile>(content.get())
            {
                let mut known = UserProfile::new();
                known.displayname = profile.displayname;
                known.avatar_url = profile.avatar_url;
                context.profile_info.insert(user, known);
            }
        }
    }
    context.events_before = before.events.into_iter().map(|event| event.json).collect();
    context.events_after = after.events.into_iter().map(|event| event.json).collect();
    Ok(context)
}

/// The state of the rooms in which something was found, as far as the user knows it.
fn state(
    view: &View,
    searcher: &mut Searcher<'_>,
    page: &Page,
) -> Result<BTreeMap<OwnedRoomId, Vec<Raw<AnyStateEvent>>>, ApiError> {
    let mut states = BTreeMap::new();
    for found in &page.found {
        let Some(reader) = searcher.reader(found.hit.room) else { continue };
        let room_id = reader.room().room_id.clone();
        let Some(access) = reader.access()?.filter(|access| access.to_state()) else { continue };
        if let Entry::Vacant(entry) = states.entry(room_id) {
            let nums = view.state_nums(access.state)?;
            entry.insert(state_events(view, reader, &nums, |_| Ok(true))?);
        }
    }
    Ok(states)
}

/// Says which results belong together.
fn add_groups(
    view: &View,
    criteria: &Criteria,
    extras: &Extras,
    page: &Page,
    results: &mut ResultRoomEvents,
) -> Result<(), ApiError> {
    for key in &extras.groupings {
        let by_room = *key == GroupingKey::RoomId;
        let mut groups: BTreeMap<String, ResultGroup> = BTreeMap::new();
        for (order, found) in page.found.iter().enumerate() {
            let (name, group) = match by_room {
                true => {
                    let room = view.room_by_num(found.hit.room)?;
                    let name = room.map(|room| room.room_id.to_string()).unwrap_or_default();
                    (name, Group::Room(found.hit.room))
                }
                false => (found.sender.clone(), Group::Sender(found.sender.clone())),
            };
            let known = groups.entry(name).or_insert_with(|| {
                let mut new = ResultGroup::new();
                new.order = UInt::try_from(order).ok();
                new.next_batch = next_of_group(criteria, page, group);
                new
            });
            let event_id = OwnedEventId::try_from(found.event.meta.event_id.as_str());
            known.results.extend(event_id.ok());
        }
        results.groups.extend([match by_room {
            true => ResultGroupMap::RoomId(with_ids(groups)),
            false => ResultGroupMap::Sender(with_ids(groups)),
        }]);
    }
    Ok(())
}

/// Where the next page of a group begins. A page of one group leads on to that group alone.
fn next_of_group(criteria: &Criteria, page: &Page, group: Group) -> Option<String> {
    page.next?;
    if criteria.group.as_ref().is_some_and(|own| *own != group) {
        return None;
    }
    let is_of_group = |tally: &&Tally| match &group {
        Group::Room(room) => tally.room == *room,
        Group::Sender(user) => tally.sender == *user,
    };
    let offset = page.before_next.iter().filter(is_of_group).map(|tally| tally.count).sum();
    Some(SearchToken { until: criteria.until, offset, group: Some(group) }.to_string())
}

fn with_ids<I: Ord + TryFrom<String>>(
    groups: BTreeMap<String, ResultGroup>,
) -> BTreeMap<I, ResultGroup> {
    groups.into_iter().filter_map(|(id, group)| Some((id.try_into().ok()?, group))).collect()
}
