//! The newest events of a room, in the order in which they arrived.

use std::{collections::HashSet, ops::Bound};

use parlour_event::{
    EventNum, StateKeyNum, StreamPos,
    state::{ReadState as _, StateRoot},
};
use parlour_storage::{
    Direction,
    schema::{StoredEvent, TimelineEntry},
};
use ruma::{api::client::sync::sync_events::v3, events::AnySyncTimelineEvent, serde::Raw};

use super::{Ask, Round};
use crate::view::{Fields, Reader, SyncToken, ViewError};

/// How many events a timeline has if the filter does not say.
const DEFAULT_LIMIT: usize = 10;

/// The most events that a timeline has.
const MAX_LIMIT: usize = 1_000;

/// The most events that are looked at to fill one timeline; then it is called limited.
const MAX_LOOKED_AT: usize = 4_096;

/// How many events are read at once where many are dropped.
const BATCH: usize = 128;

/// One event of a timeline.
pub(super) struct Shown {
    pub(super) num: EventNum,
    pub(super) pos: StreamPos,
    pub(super) state_key: Option<StateKeyNum>,
    pub(super) sender: String,
    pub(super) json: Raw<AnySyncTimelineEvent>,
}

/// The newest events between two positions that the user may see and wants.
#[derive(Default)]
pub(super) struct Timeline {
    /// Oldest first.
    pub(super) events: Vec<Shown>,
    /// Whether older ones were left out.
    pub(super) limited: bool,
    /// Where the history goes on backwards.
    before: Option<StreamPos>,
}

impl Timeline {
    /// The first event and its position.
    pub(super) fn start(&self) -> Option<(EventNum, StreamPos)> {
        self.events.first().map(|event| (event.num, event.pos))
    }

    pub(super) fn has(&self, num: EventNum) -> bool {
        self.events.iter().any(|event| event.num == num)
    }

    /// Says that events are missing before this; without any here, before `end`.
    pub(super) fn begin_after_gap(&mut self, end: StreamPos) {
        self.limited = true;
        self.before.get_or_insert(end);
    }

    pub(super) fn into_section(self) -> v3::Timeline {
        let mut section = v3::Timeline::new();
        section.limited = self.limited;
        let before = self.before.filter(|_| self.limited || !self.events.is_empty());
        section.prev_batch = before.map(|pos| SyncToken::at(pos).to_string());
        section.events = self.events.into_iter().map(|event| event.json).collect();
        section
    }
}

impl Ask {
    /// How many events a timeline has at most.
    pub(super) fn timeline_limit(&self) -> usize {
        let limit = self.filter.room.timeline.limit;
        let limit = limit.and_then(|limit| usize::try_from(u64::from(limit)).ok());
        limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT)
    }
}

impl Round<'_> {
    /// Collects the timeline of a room after `low` (or from its beginning) up to `high`.
    pub(super) fn timeline(
        &self,
        reader: &mut Reader,
        low: Option<StreamPos>,
        high: StreamPos,
    ) -> Result<Timeline, ViewError> {
        let mut timeline = Timeline::default();
        let filter = self.timeline_filter();
        if filter.is_closed() || !filter.wants_room(&reader.room().room_id) {
            return Ok(timeline);
        }
        let low = low.map_or(Bound::Unbounded, Bound::Excluded);
        let mut high = Bound::Included(high);
        let limit = self.ask.timeline_limit();
        // One more than fits tells whether something was left out.
        let (mut batch, mut budget) = (limit + 1, MAX_LOOKED_AT);
        loop {
            let wanted = batch.min(budget);
            let room = reader.room().num;
            let store = &self.view().store;
            let entries = store.timeline(room, (low, high), Direction::Backward, wanted)?;
            let full = self.take_in(reader, &mut timeline, &entries, limit)?;
            budget = budget.saturating_sub(wanted);
            if full {
                break;
            }
            let Some((oldest, _)) = entries.last().filter(|_| entries.len() == wanted) else {
                break;
            };
            if budget == 0 {
                timeline.limited = true;
                timeline.before = Some(StreamPos(oldest.0.saturating_sub(1)));
                break;
            }
            high = Bound::Excluded(*oldest);
            batch = BATCH;
        }
        timeline.events.reverse();
        Ok(timeline)
    }

    /// Begins the timeline later where it would tell of a state that a newer event has replaced
    /// which it does not show: applied after the `state` section, the older would win.
    pub(super) fn cut_stale_state(
        &self,
        timeline: &mut Timeline,
        end: StateRoot,
    ) -> Result<(), ViewError> {
        let mut told = HashSet::new();
        for index in (0..timeline.events.len()).rev() {
            let Shown { num, pos, state_key, .. } = timeline.events[index];
            let Some(key) = state_key.filter(|key| told.insert(*key)) else { continue };
            let current = self.view().nodes.get(end, key)?.filter(|current| *current != num);
            let Some(current) = current.filter(|current| !timeline.has(*current)) else { continue };
            if self.view().store.event_meta(current)?.is_some_and(|meta| meta.pos > pos) {
                timeline.events.drain(..=index);
                timeline.limited = true;
                timeline.before = Some(pos);
                break;
            }
        }
        Ok(())
    }

    /// Takes events in, newest first; says whether there was one too many, or a gap behind one.
    fn take_in(
        &self,
        reader: &mut Reader,
        timeline: &mut Timeline,
        entries: &[(StreamPos, TimelineEntry)],
        limit: usize,
    ) -> Result<bool, ViewError> {
        let nums: Vec<_> = entries.iter().map(|(_, entry)| entry.event).collect();
        let events = self.view().store.events(&nums)?;
        reader.note_parents(events.iter().flatten())?;
        for ((pos, entry), event) in entries.iter().zip(events) {
            let Some(event) = event else { continue };
            let is_full = timeline.events.len() >= limit;
            match self.shown(reader, *pos, &event, is_full)? {
                None => {}
                Some(None) => {
                    timeline.limited = true;
                    timeline.before = timeline.before.or(Some(*pos));
                    return Ok(true);
                }
                Some(Some(shown)) => {
                    timeline.before = Some(StreamPos(pos.0.saturating_sub(1)));
                    timeline.events.push(shown);
                }
            }
            if entry.after_gap {
                // Clients page back from here, and get what was missing.
                timeline.limited = true;
                timeline.before = Some(StreamPos(pos.0.saturating_sub(1)));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// An event as the user gets it: `None` if not at all, `Some(None)` if it would be shown but
    /// is one too many.
    fn shown(
        &self,
        reader: &mut Reader,
        pos: StreamPos,
        event: &StoredEvent,
        is_full: bool,
    ) -> Result<Option<Option<Shown>>, ViewError> {
        let fields = Fields::of(event)?;
        if self.ignored.hides_in_stream(&fields, pos) || !self.timeline_filter().wants(&fields) {
            return Ok(None);
        }
        let mut seen = reader.judge(event)?;
        // Without the own leave, an invite that was rejected would stay for ever.
        seen.visible |= event.meta.flags.is_visible() && fields.is_member_event_of(self.user());
        if !seen.visible {
            return Ok(None);
        }
        if !reader.has_children_of(event, self.timeline_filter())? {
            return Ok(None);
        }
        if is_full {
            return Ok(Some(None));
        }
        let json = self.shape.timeline_event(reader, event, &fields, seen)?;
        let sender = fields.sender.into_owned();
        let (num, state_key) = (event.num, event.meta.state_key);
        Ok(Some(Some(Shown { num, pos, state_key, sender, json })))
    }
}
