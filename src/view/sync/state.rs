//! The part of a room's state that goes along with a timeline.
//!
//! A client keeps the state that it was sent, puts what is in `state` in, then the state events of
//! the timeline, and must arrive at the room's state. So for a place in the state of which the
//! timeline has an event, what stood there before the timeline is sent, for others what stands
//! there at its end; neither if the client has it already.

use std::collections::{BTreeSet, HashMap, HashSet};

use parlour_event::{
    EventNum, StateKeyNum,
    state::{ReadState as _, StateRoot},
};
use parlour_storage::schema::StoredEvent;
use ruma::{
    api::client::{
        filter::LazyLoadOptions,
        sync::sync_events::v3::{State, StateEvents},
    },
    events::AnySyncStateEvent,
    serde::Raw,
};

use super::{Ask, Round, timeline::Timeline};
use crate::view::{Fields, Reader, ViewError};

/// How many events are read at once.
const BATCH: usize = 512;

/// What the state is to be sent for.
pub(super) struct Span<'a> {
    /// What the client has; empty if it has nothing.
    pub(super) base: StateRoot,
    /// The state before the first event of the timeline.
    pub(super) start: StateRoot,
    /// The state at the end of the timeline.
    pub(super) end: StateRoot,
    pub(super) timeline: &'a Timeline,
    /// Whether all of the state is to be sent.
    pub(super) whole: bool,
}

/// What has changed in a state, by place.
pub(super) type Changed = HashMap<StateKeyNum, EventNum>;

impl Ask {
    /// The section that has these events.
    pub(super) fn section(&self, events: Vec<Raw<AnySyncStateEvent>>) -> State {
        let events = StateEvents::with_events(events);
        if self.state_after { State::After(events) } else { State::Before(events) }
    }
}

impl Round<'_> {
    /// What the end has that the client does not have. Members who have not changed since the client
    /// has last asked are left out if it loads them lazily, or wants none: there may be very many.
    pub(super) fn changed(&self, span: &Span<'_>) -> Result<Changed, ViewError> {
        let nodes = &self.view().nodes;
        if !span.whole {
            return self.differences(span.base, span.end);
        }
        if self.wants_all_members() {
            return self.differences(StateRoot::EMPTY, span.end);
        }
        let mut changed: Changed = nodes.iter_others(span.end).collect::<Result<_, _>>()?;
        if span.base != StateRoot::EMPTY {
            // The client may know them as they were.
            let differences = self.differences(span.base, span.end)?;
            changed.extend(differences.into_iter().filter(|(key, _)| key.is_member()));
        }
        Ok(changed)
    }

    fn differences(&self, from: StateRoot, to: StateRoot) -> Result<Changed, ViewError> {
        let differences = self.view().nodes.diff(from, to)?;
        Ok(differences.into_iter().filter_map(|(key, _, new)| Some((key, new?))).collect())
    }

    /// The events of the `state` section. `heroes` are users whose member events the client needs
    /// besides those of the senders.
    pub(super) fn state(
        &self,
        reader: &mut Reader,
        span: &Span<'_>,
        mut changed: Changed,
        heroes: &[String],
    ) -> Result<State, ViewError> {
        let filter = self.state_filter();
        if filter.is_closed() || !filter.wants_room(&reader.room().room_id) {
            return Ok(self.ask.section(Vec::new()));
        }
        if !self.ask.state_after {
            self.go_back_to_start(span, &mut changed)?;
        }
        if self.loads_lazily() {
            self.add_needed_members(reader, span, &mut changed, heroes)?;
        }
        let events = self.read(reader, changed)?;
        if self.loads_lazily() {
            let shown = span.timeline.events.iter();
            let members = shown.filter_map(|shown| Some((shown.state_key?, shown.num)));
            self.remember_members(reader, members);
        }
        Ok(self.ask.section(events))
    }

    fn loads_lazily(&self) -> bool {
        !self.ask.filter.room.state.lazy_load_options.is_disabled()
    }

    fn wants_all_members(&self) -> bool {
        let filter = self.state_filter();
        !self.loads_lazily() && !filter.is_closed() && filter.wants_type("m.room.member")
    }

    /// Takes back what the timeline itself tells.
    fn go_back_to_start(&self, span: &Span<'_>, changed: &mut Changed) -> Result<(), ViewError> {
        let nodes = &self.view().nodes;
        let lazily = span.whole && self.loads_lazily();
        let base = if span.whole { StateRoot::EMPTY } else { span.base };
        let keys: HashSet<_> = span.timeline.events.iter().filter_map(|e| e.state_key).collect();
        for key in keys {
            changed.remove(&key);
            if lazily && key.is_member() {
                continue;
            }
            let Some(num) = nodes.get(span.start, key)? else { continue };
            if nodes.get(base, key)? != Some(num) && !span.timeline.has(num) {
                changed.insert(key, num);
            }
        }
        Ok(())
    }

    /// Adds the member events that lazy loading does not leave out: of senders, of heroes and, if
    /// all state is sent, of the user.
    fn add_needed_members(
        &self,
        reader: &Reader,
        span: &Span<'_>,
        changed: &mut Changed,
        heroes: &[String],
    ) -> Result<(), ViewError> {
        let (store, nodes) = (&self.view().store, &self.view().nodes);
        let redundant = LazyLoadOptions::Enabled { include_redundant_members: true };
        let send_again = span.whole || self.ask.filter.room.state.lazy_load_options == redundant;
        let senders = span.timeline.events.iter().map(|event| &*event.sender);
        let mut users: BTreeSet<&str> = senders.chain(heroes.iter().map(|id| &**id)).collect();
        if span.whole {
            users.insert(self.user());
        }
        for user in users {
            let Some(key) = store.state_key_num("m.room.member", user)? else { continue };
            let is_told = span.timeline.events.iter().any(|event| event.state_key == Some(key));
            let from_start = is_told && !self.ask.state_after;
            let root = if from_start { span.start } else { span.end };
            let Some(num) = nodes.get(root, key)? else { continue };
            if from_start && span.timeline.has(num) {
                continue;
            }
            if send_again || !self.has_member(reader, key, num) {
                changed.insert(key, num);
            }
        }
        Ok(())
    }

    /// Whether the device has been sent a member event, and has come back since.
    fn has_member(&self, reader: &Reader, key: StateKeyNum, num: EventNum) -> bool {
        let Some(since) = self.since() else { return false };
        let (user, device, room) = (&self.ask.user, &self.ask.device, reader.room().num);
        self.syncs.sent.has(user, device, room, key, num, since)
    }

    fn remember_members(
        &self,
        reader: &Reader,
        events: impl Iterator<Item = (StateKeyNum, EventNum)>,
    ) {
        let (user, device, room) = (&self.ask.user, &self.ask.device, reader.room().num);
        let members = events.filter(|(key, _)| key.is_member());
        self.syncs.sent.remember(user, device, room, members, self.now.pos);
    }

    /// Reads the events, oldest first, as the filter wants them.
    fn read(
        &self,
        reader: &mut Reader,
        changed: Changed,
    ) -> Result<Vec<Raw<AnySyncStateEvent>>, ViewError> {
        let mut nums: Vec<_> = changed.into_values().collect();
        nums.sort_unstable();
        let mut read = Vec::with_capacity(nums.len());
        for batch in nums.chunks(BATCH) {
            let events: Vec<_> = self.view().store.events(batch)?.into_iter().flatten().collect();
            for event in &events {
                read.extend(self.one(reader, event)?);
            }
            if self.loads_lazily() {
                let sent = events.iter().filter_map(|e| Some((e.meta.state_key?, e.num)));
                self.remember_members(reader, sent);
            }
        }
        Ok(read)
    }

    fn one(
        &self,
        reader: &mut Reader,
        event: &StoredEvent,
    ) -> Result<Option<Raw<AnySyncStateEvent>>, ViewError> {
        let fields = Fields::of(event)?;
        if !self.state_filter().wants(&fields) {
            return Ok(None);
        }
        self.shape.state_event(reader, event).map(Some)
    }
}
