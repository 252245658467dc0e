//! Who is in a room (CS API, "Getting events for a room").

use std::{borrow::Cow, collections::BTreeMap, ops::Bound};

use parlour_event::{EventNum, StreamPos};
use parlour_storage::{Direction, schema::StoredEvent};
use ruma::{
    OwnedMxcUri, OwnedUserId,
    api::client::membership::{
        get_member_events,
        joined_members::{self, v3::RoomMember},
    },
    events::room::member::MembershipState,
};
use serde::{Deserialize, de::IgnoredAny};

use super::reading::{enter, enter_state, forbidden, state_events};
use crate::{
    error::ApiError,
    http::{Api, Caller, RouteOptions, Routes, Ruma},
    view::{Access, Fields, GraphToken, Reader, Standing, StateAt, Token, View, ViewError},
};

/// How many members are read from storage at once.
const BATCH: usize = 1_000;

/// The endpoints of this file.
#[must_use]
pub fn routes(view: View) -> Routes {
    Routes::new(Api::Client, view)
        .route_with(RouteOptions::default().for_guests(), members)
        .route(joined)
        .finish()
}

/// Text, or anything else where there should be text: what members say of themselves is not
/// checked when they say it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct MemberContent<'a> {
    #[serde(borrow)]
    membership: Cow<'a, str>,
    #[serde(borrow, default)]
    displayname: Option<Lenient<'a>>,
    #[serde(borrow, default)]
    avatar_url: Option<Lenient<'a>>,
}

/// `GET /_matrix/client/v3/rooms/{roomId}/members`
async fn members(
    view: View,
    call: Ruma<get_member_events::v3::Request>,
) -> Result<get_member_events::v3::Response, ApiError> {
    let at = call.at.as_deref().map(str::parse).transpose()?;
    view.run(move |view| {
        let (mut reader, access) = enter_state(view, &call.room_id, &call.caller)?;
        let state = match at {
            Some(token) => state_at(view, &mut reader, access, token)?,
            None => access.state.into(),
        };
        let nums = view.member_nums(state)?;
        let is = call.membership.as_ref().map(MembershipState::as_str);
        let is_not = call.not_membership.as_ref().map(MembershipState::as_str);
        let wanted = |event: &StoredEvent| wants(event, is, is_not);
        let chunk = state_events(view, &mut reader, &nums, wanted)?;
        Ok::<_, ApiError>(get_member_events::v3::Response::new(chunk))
    })
    .await
}

/// Whether a member event has one of the wanted memberships; where both are given, one that fits
/// is enough.
fn wants(event: &StoredEvent, is: Option<&str>, is_not: Option<&str>) -> Result<bool, ViewError> {
    if is.is_none() && is_not.is_none() {
        return Ok(true);
    }
    let content = Fields::of(event)?.content_as::<MemberContent<'_>>();
    let membership = content.map_or(Cow::Borrowed("leave"), |content| content.membership);
    let fits = is.is_some_and(|is| membership == is);
    Ok(fits || is_not.is_some_and(|is_not| membership != is_not))
}

/// The state at a token, for one who was there.
fn state_at(
    view: &View,
    reader: &mut Reader,
    access: Access,
    token: Token,
) -> Result<StateAt, ApiError> {
    let left = match access.standing {
        Standing::Departed { left, .. } => Some(left),
        Standing::Joined | Standing::Anybody | Standing::Invited => None,
    };
    let (num, state) = match token {
        Token::Sync(token) => {
            let pos = left.map_or(token.pos, |left| left.min(token.pos));
            let entry = view.room_at(reader.room().num, pos)?;
            let Some((_, entry)) = entry else { return Err(not_there()) };
            (entry.event, Some(entry.state_after))
        }
        Token::Graph(token) => {
            let token = access.until().map_or(token, |until| until.min(token));
            (newest_before(view, reader, token)?.ok_or_else(not_there)?, None)
        }
    };
    let event = view.store.event(num)?.ok_or_else(not_there)?;
    if !reader.judge(&event)?.visible {
        return Err(not_there());
    }
    Ok(state.map_or_else(|| StateAt::after(num, &event.meta), StateAt::from))
}

fn not_there() -> ApiError {
    ApiError::forbidden("You may not see the room as it was then")
}

fn newest_before(
    view: &View,
    reader: &Reader,
    token: GraphToken,
) -> Result<Option<EventNum>, ApiError> {
    let range = (Bound::Unbounded, Bound::Included::<(u64, StreamPos)>((token.depth, token.pos)));
    let mut found = view.store.graph(reader.room().num, range, Direction::Backward, 1)?;
    Ok(found.pop().map(|(_, num)| num))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/joined_members`
async fn joined(
    view: View,
    call: Ruma<joined_members::v3::Request>,
) -> Result<joined_members::v3::Response, ApiError> {
    view.run(move |view| read_joined(view, &call.request, &call.caller)).await
}

fn read_joined(
    view: &View,
    request: &joined_members::v3::Request,
    caller: &Caller,
) -> Result<joined_members::v3::Response, ApiError> {
    let (_, access) = enter(view, &request.room_id, caller)?;
    if access.standing != Standing::Joined {
        return Err(forbidden());
    }
    let mut joined = BTreeMap::new();
    for nums in view.member_nums(access.state)?.chunks(BATCH) {
        for event in view.store.events(nums)?.into_iter().flatten() {
            joined.extend(joined_member(&event)?);
        }
    }
    Ok(joined_members::v3::Response::new(joined))
}

/// What others see of a member, if the member is joined.
fn joined_member(event: &StoredEvent) -> Result<Option<(OwnedUserId, RoomMember)>, ViewError> {
    let fields = Fields::of(event)?;
    let Ok(content) = fields.content_as::<MemberContent<'_>>() else { return Ok(None) };
    let user = fields.state_key.as_deref().map(OwnedUserId::try_from);
    let (true, Some(Ok(user))) = (content.membership == "join", user) else { return Ok(None) };
    let text = |value: Option<Lenient<'_>>| match value {
        Some(Lenient::Text(text)) => Some(text.into_owned()),
        Some(Lenient::Other(_)) | None => None,
    };
    let mut member = RoomMember::new();
    member.display_name = text(content.displayname);
    member.avatar_url = text(content.avatar_url).map(OwnedMxcUri::from);
    Ok(Some((user, member)))
}
