//! The events on one side of a place in a room's history, as one reader gets them.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages>

use std::ops::Bound;

use parlour_event::EventNum;
use parlour_storage::{
    Direction,
    schema::{EventMeta, StoredEvent},
};
use ruma::{events::AnyTimelineEvent, serde::Raw};

use super::{
    EventFilter, EventFormat, Fields, GraphToken, Ignored, Reader, ViewError, reader::Place,
};

/// The most events that one page has.
pub const MAX_PAGE: usize = 500;

/// The most events that are looked at to fill one page. A page may stay short (or empty) if so
/// many in a row are invisible or unwanted; its end leads on.
const MAX_LOOKED_AT: usize = 4_096;

/// The most events that are looked at to find out whether anything visible comes after a page.
const MAX_LOOKED_AHEAD: usize = 256;

/// How many events are read at once where many will be dropped.
const BATCH: usize = 128;

/// Which events are wanted.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest<'a> {
    /// Where to begin.
    pub from: GraphToken,
    /// Where to stop at the latest.
    pub to: Option<GraphToken>,
    /// Towards newer or older events.
    pub direction: Direction,
    /// How many events at most; never more than [`MAX_PAGE`].
    pub limit: usize,
    /// Which events.
    pub filter: EventFilter<'a>,
    /// Whose messages are left out.
    pub ignored: &'a Ignored,
}

/// One event of a page.
#[derive(Debug)]
pub struct Shown {
    /// Its number.
    pub num: EventNum,
    /// What is known of it.
    pub meta: EventMeta,
    /// Who sent it.
    pub sender: String,
    /// What the client gets.
    pub json: Raw<AnyTimelineEvent>,
}

/// Some events, in the direction that was asked for.
#[derive(Debug)]
pub struct Page {
    /// The events.
    pub events: Vec<Shown>,
    /// Where the next page begins.
    pub next: GraphToken,
    /// Whether a next page can have anything.
    pub more: bool,
}

/// A page in the making.
struct Progress {
    page: Page,
    /// How far events have been read; ahead of `page.next` once the page is full.
    read_to: GraphToken,
    /// How many more events may be looked at.
    budget: usize,
}

impl PageRequest<'_> {
    fn range(&self, from: GraphToken) -> (Bound<Place>, Bound<Place>) {
        let key = |place: GraphToken| (place.depth, place.pos);
        match self.direction {
            Direction::Forward => (
                Bound::Excluded(key(from)),
                self.to.map_or(Bound::Unbounded, |to| Bound::Included(key(to))),
            ),
            Direction::Backward => (
                self.to.map_or(Bound::Unbounded, |to| Bound::Excluded(key(to))),
                Bound::Included(key(from)),
            ),
        }
    }
}

impl Reader {
    /// The events from a place on that this reader may see and wants, nearest first.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn page(&mut self, request: &PageRequest<'_>) -> Result<Page, ViewError> {
        let page = Page { events: Vec::new(), next: request.from, more: false };
        let mut progress = Progress { page, read_to: request.from, budget: MAX_LOOKED_AT };
        if request.filter.is_closed() || !request.filter.wants_room(&self.room().room_id) {
            return Ok(progress.page);
        }
        let limit = request.limit.min(MAX_PAGE);
        // One more than fits tells whether there is a next page.
        let mut batch = limit.saturating_add(1);
        loop {
            let wanted = batch.min(progress.budget);
            let range = request.range(progress.read_to);
            let room = self.room().num;
            let places = self.view().store.graph(room, range, request.direction, wanted)?;
            let nums: Vec<_> = places.iter().map(|(_, num)| *num).collect();
            let events = self.view().store.events(&nums)?;
            self.note_parents(events.iter().flatten())?;
            for ((place, _), event) in places.iter().zip(events) {
                if self.take_in(request, limit, &mut progress, *place, event)? {
                    return Ok(progress.page);
                }
            }
            if places.len() < wanted {
                return Ok(progress.page);
            }
            progress.budget = progress.budget.saturating_sub(wanted);
            if progress.budget == 0 {
                progress.page.more = true;
                return Ok(progress.page);
            }
            batch = BATCH;
        }
    }

    /// Takes the next event into a page; says whether the page is complete.
    fn take_in(
        &mut self,
        request: &PageRequest<'_>,
        limit: usize,
        progress: &mut Progress,
        place: Place,
        event: Option<StoredEvent>,
    ) -> Result<bool, ViewError> {
        progress.read_to = GraphToken::beyond(place, request.direction);
        let is_full = progress.page.events.len() >= limit;
        if !is_full {
            progress.page.next = progress.read_to;
        }
        let Some(event) = event else { return Ok(false) };
        let seen = self.judge(&event)?;
        if is_full && seen.visible {
            progress.page.more = true;
            return Ok(true);
        }
        if !seen.visible {
            return Ok(false);
        }
        let fields = Fields::of(&event)?;
        let wanted = !request.ignored.hides(&fields)
            && request.filter.wants(&fields)
            && self.has_children_of(&event, request.filter)?;
        if !wanted {
            return Ok(false);
        }
        let json = self.render(&event, &fields, seen, EventFormat::Full)?;
        let sender = fields.sender.into_owned();
        progress.page.events.push(Shown { num: event.num, meta: event.meta, sender, json });
        if progress.page.events.len() >= limit {
            progress.budget = progress.budget.min(MAX_LOOKED_AHEAD);
        }
        Ok(false)
    }
}
