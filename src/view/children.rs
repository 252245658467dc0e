//! The events that relate to an event, page by page.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#relationships-api>

use std::ops::Bound;

use parlour_actors::MAX_HOPS;
use parlour_event::content::RelationKind;
use parlour_storage::{
    Direction,
    schema::{GraphPlace, RelationEntry, RelationGroup, StoredEvent},
};
use ruma::serde::Raw;

use super::{EventFilter, EventFormat, Fields, GraphToken, Reader, ViewError, page::MAX_PAGE};

/// How far indirect relations are followed.
pub const RECURSION_DEPTH: usize = MAX_HOPS;

/// The most children that are looked at to fill one page. A page may stay short if so many in a row
/// are invisible or unwanted; its end leads on.
const MAX_LOOKED_AT: usize = 4_096;

/// How many children of each kind are looked at, newest first, to find one that a filter asks for.
const MAX_SEARCHED: usize = 256;

/// How many children are read at once where many will be dropped.
const BATCH: usize = 128;

/// Which children are wanted.
#[derive(Debug, Clone, Copy)]
pub struct ChildrenRequest<'a> {
    /// Whose children.
    pub parent: &'a str,
    /// Only those with this `rel_type`.
    pub rel_type: Option<&'a str>,
    /// Only those of this `type`.
    pub event_type: Option<&'a str>,
    /// Children of children, too.
    pub recurse: bool,
    /// Where to begin.
    pub from: Option<GraphToken>,
    /// Where to stop at the latest.
    pub to: Option<GraphToken>,
    /// Towards newer or older events.
    pub direction: Direction,
    /// How many at most; never more than [`MAX_PAGE`].
    pub limit: usize,
}

/// Some children, in the direction that was asked for.
#[derive(Debug)]
pub struct Children<T> {
    /// The events.
    pub events: Vec<Raw<T>>,
    /// Where the next page begins, if there may be anything more.
    pub next: Option<GraphToken>,
}

/// A range of places in history.
type Bounds = (Bound<GraphPlace>, Bound<GraphPlace>);

impl ChildrenRequest<'_> {
    fn groups(&self) -> Vec<RelationGroup> {
        let direct = match self.rel_type {
            Some(rel_type) => vec![RelationGroup::Direct(RelationKind::from(rel_type))],
            None => RelationGroup::DIRECT.to_vec(),
        };
        direct.into_iter().chain(self.recurse.then_some(RelationGroup::Indirect)).collect()
    }

    /// The part of history that is asked for.
    fn bounds(&self) -> Bounds {
        let place = |token: GraphToken| (token.depth, token.pos);
        let (from, to) = (self.from.map(place), self.to.map(place));
        let excluded = |place: Option<_>| place.map_or(Bound::Unbounded, Bound::Excluded);
        let included = |place: Option<_>| place.map_or(Bound::Unbounded, Bound::Included);
        match self.direction {
            Direction::Forward => (excluded(from), included(to)),
            Direction::Backward => (excluded(to), included(from)),
        }
    }

    /// Whether a child is wanted, and the ones between, by type.
    fn wants(&self, entry: &RelationEntry) -> bool {
        let fits = |rel_type: &str, event_type: &str| {
            self.rel_type.is_none_or(|wanted| wanted == rel_type)
                && self.event_type.is_none_or(|wanted| wanted == event_type)
        };
        fits(&entry.rel_type, &entry.event_type)
            && entry.via.iter().all(|hop| fits(&hop.rel_type, &hop.event_type))
    }
}

impl Reader {
    /// The children of an event that this reader may see and wants, nearest first.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn children<T>(&mut self, request: &ChildrenRequest<'_>) -> Result<Children<T>, ViewError> {
        let limit = request.limit.min(MAX_PAGE);
        let mut range = request.bounds();
        let (mut events, mut budget) = (Vec::new(), MAX_LOOKED_AT);
        // One more than fits tells whether there is a next page.
        let mut batch = limit.saturating_add(1);
        let next = |place| GraphToken::beyond(place, request.direction);
        let mut last = None;
        loop {
            let found = self.merged(request, range, batch)?;
            for ((place, entry), child) in found.iter().zip(self.wanted(request, &found)?) {
                range = after(range, request.direction, *place);
                let Some(child) = child else { continue };
                if !self.follows(entry)? {
                    continue;
                }
                let seen = self.judge(&child)?;
                if !seen.visible {
                    continue;
                }
                if events.len() >= limit {
                    return Ok(Children { events, next: last.map(next) });
                }
                let fields = Fields::of(&child)?;
                events.push(self.render(&child, &fields, seen, EventFormat::Full)?);
                last = Some(*place);
            }
            budget = budget.saturating_sub(batch);
            if found.len() < batch {
                return Ok(Children { events, next: None });
            }
            if budget == 0 {
                let next = found.last().map(|(place, _)| next(*place));
                return Ok(Children { events, next });
            }
            batch = BATCH;
        }
    }

    /// The next children of all groups, in one order.
    fn merged(
        &self,
        request: &ChildrenRequest<'_>,
        range: Bounds,
        limit: usize,
    ) -> Result<Vec<(GraphPlace, RelationEntry)>, ViewError> {
        let parent = (self.room().num, request.parent);
        let mut all = Vec::new();
        for group in request.groups() {
            let store = &self.view().store;
            all.extend(store.relations(parent, group, range, request.direction, limit)?);
        }
        all.sort_unstable_by_key(|(place, _)| *place);
        if request.direction == Direction::Backward {
            all.reverse();
        }
        all.truncate(limit);
        Ok(all)
    }

    /// Reads those of the children that are wanted and have not been redacted.
    fn wanted(
        &mut self,
        request: &ChildrenRequest<'_>,
        found: &[(GraphPlace, RelationEntry)],
    ) -> Result<Vec<Option<StoredEvent>>, ViewError> {
        let ignored = self.ignored()?;
        let wants =
            |entry: &RelationEntry| request.wants(entry) && !ignored.contains(&entry.sender);
        let wanted: Vec<_> = found.iter().map(|(_, entry)| wants(entry)).collect();
        let nums = found.iter().zip(&wanted).filter(|(_, wanted)| **wanted);
        let nums: Vec<_> = nums.map(|((_, entry), _)| entry.event).collect();
        let events = self.view().store.events(&nums)?;
        self.note_parents(events.iter().flatten())?;
        let mut events = events.into_iter();
        let mut event = |wanted: bool| wanted.then(|| events.next().flatten()).flatten();
        let read = wanted
            .into_iter()
            .map(|wanted| event(wanted).filter(|event| event.meta.redacted_because.is_none()));
        Ok(read.collect())
    }

    /// Whether the events between a child and its ancestor still relate to each other.
    fn follows(&self, entry: &RelationEntry) -> Result<bool, ViewError> {
        for hop in &entry.via {
            let meta = self.view().store.event_meta(hop.event)?;
            if meta.is_none_or(|meta| meta.redacted_because.is_some()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether an event has a child of the kind that a filter asks for.
    pub(super) fn has_children_of(
        &mut self,
        event: &StoredEvent,
        filter: EventFilter<'_>,
    ) -> Result<bool, ViewError> {
        let Some(filter) = filter.relations() else { return Ok(true) };
        let (types, senders) = (&filter.related_by_rel_types, &filter.related_by_senders);
        if types.is_none() && senders.is_none() {
            return Ok(true);
        }
        let listed = |list: &Option<Vec<String>>, text: &String| {
            list.as_ref().is_none_or(|list| list.contains(text))
        };
        let parent = (self.room().num, event.meta.event_id.as_str());
        for group in RelationGroup::DIRECT {
            let all = (Bound::Unbounded, Bound::Unbounded);
            let store = &self.view().store;
            let children =
                store.relations(parent, group, all, Direction::Backward, MAX_SEARCHED)?;
            let fits = |entry: &RelationEntry| {
                listed(types, &entry.rel_type) && listed(senders, &entry.sender)
            };
            if children.iter().any(|(_, entry)| fits(entry)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What is left of a range behind a place.
fn after((low, high): Bounds, direction: Direction, place: GraphPlace) -> Bounds {
    match direction {
        Direction::Forward => (Bound::Excluded(place), high),
        Direction::Backward => (low, Bound::Excluded(place)),
    }
}
