//! The list of rooms.

use std::{
    cmp::{Ordering, Reverse},
    ops::Bound,
    sync::Arc,
};

use parlour_event::RoomNum;
use parlour_storage::{
    Direction as ScanDirection, StorageError, Store,
    schema::{keys, keys::KeyReader},
};
use ruma::{OwnedServerName, api::Direction};
use serde::Deserialize;
use serde_json::json;

use super::{
    page::{Page, Pager, Window, forwards, in_direction},
    request::{AdminRequest, Answer},
    room_shape::RoomSummary,
    rooms::RoomContext,
};
use crate::{
    error::ApiError,
    view::{View, ViewError},
};

/// How many rooms are read at once.
const BATCH: usize = 1_000;

#[derive(Deserialize)]
struct Query {
    #[serde(default)]
    from: usize,
    limit: Option<usize>,
    #[serde(default)]
    order_by: OrderBy,
    #[serde(default = "forwards")]
    dir: Direction,
    /// A part of the name, of the main alias before the colon, or of the id.
    search_term: Option<String>,
    public_rooms: Option<bool>,
    empty_rooms: Option<bool>,
}

/// What the list is sorted by: numbers from the largest to the smallest, all else upwards.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OrderBy {
    #[default]
    #[serde(alias = "alphabetical")]
    Name,
    CanonicalAlias,
    #[serde(alias = "size")]
    JoinedMembers,
    JoinedLocalMembers,
    Version,
    Creator,
    Encryption,
    Federatable,
    Public,
    JoinRules,
    GuestAccess,
    HistoryVisibility,
    StateEvents,
}

impl OrderBy {
    fn compare(self, a: &RoomSummary, b: &RoomSummary) -> Ordering {
        let version = |room: &RoomSummary| Reverse(room.version.parse::<u8>().unwrap_or_default());
        match self {
            Self::Name => a.name.cmp(&b.name),
            Self::CanonicalAlias => a.canonical_alias.cmp(&b.canonical_alias),
            Self::JoinedMembers => b.joined_members.cmp(&a.joined_members),
            Self::JoinedLocalMembers => b.joined_local_members.cmp(&a.joined_local_members),
            Self::Version => version(a).cmp(&version(b)),
            Self::Creator => a.creator.cmp(&b.creator),
            Self::Encryption => a.encryption.cmp(&b.encryption),
            Self::Federatable => a.federatable.cmp(&b.federatable),
            Self::Public => a.public.cmp(&b.public),
            Self::JoinRules => a.join_rules.cmp(&b.join_rules),
            Self::GuestAccess => a.guest_access.cmp(&b.guest_access),
            Self::HistoryVisibility => a.history_visibility.cmp(&b.history_visibility),
            Self::StateEvents => b.state_events.cmp(&a.state_events),
        }
    }
}

impl Query {
    fn wants(&self, room: &RoomSummary) -> bool {
        let is_found = self.search_term.as_ref().is_none_or(|term| {
            let part_of = |text: &str| text.to_lowercase().contains(&term.to_lowercase());
            let alias = room.canonical_alias.as_deref().and_then(|alias| alias.split(':').next());
            room.name.as_deref().is_some_and(part_of)
                || alias.is_some_and(part_of)
                || room.room_id.contains(term)
        });
        is_found
            && self.public_rooms.is_none_or(|public| public == room.public)
            && self.empty_rooms.is_none_or(|empty| empty == (room.joined_members == 0))
    }

    fn page(&self, view: &View, server: &OwnedServerName) -> Result<Page<RoomSummary>, ViewError> {
        let order = |a: &RoomSummary, b: &RoomSummary| {
            let ordering = self.order_by.compare(a, b).then_with(|| a.room_id.cmp(&b.room_id));
            in_direction(ordering, self.dir)
        };
        let mut pager = Pager::new(Window::new(self.from, self.limit), order);
        let mut last = RoomNum(0);
        loop {
            let nums = rooms_after(&view.store, last)?;
            let Some(num) = nums.last() else { return Ok(pager.finish()) };
            last = *num;
            for num in nums {
                let Some(room) = view.room_by_num(num)? else { continue };
                let summary = RoomSummary::of(view, &room, server)?;
                if self.wants(&summary) {
                    pager.push(summary);
                }
            }
        }
    }
}

fn rooms_after(store: &Store, room: RoomNum) -> Result<Vec<RoomNum>, StorageError> {
    let low = keys::room(room);
    let range = (Bound::Excluded(&low[..]), Bound::Excluded(&[keys::ROOM + 1][..]));
    let found = store.scan(range, ScanDirection::Forward, BATCH)?;
    Ok(found.iter().filter_map(|(key, _)| KeyReader::new(key).number().map(RoomNum)).collect())
}

/// `GET /_synapse/admin/v1/rooms`
pub(super) async fn list(context: Arc<RoomContext>, request: AdminRequest) -> Answer {
    let query: Query = request.query()?;
    if query.search_term.as_deref() == Some("") {
        return Err(ApiError::invalid_param("search_term cannot be an empty string"));
    }
    let (from, window) = (query.from, Window::new(query.from, query.limit));
    let server = context.server_name.clone();
    let page = context.view.run(move |view| query.page(view, &server)).await?;
    let mut answer = json!({ "rooms": page.items, "offset": from, "total_rooms": page.total });
    if let Some(next) = page.next {
        answer["next_batch"] = next.into();
    }
    if from > 0 {
        answer["prev_batch"] = window.before().into();
    }
    Ok(answer)
}
