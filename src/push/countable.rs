//! Where in a room's timeline the events are that can be unread: all but those of members, of which
//! the rules of nearly everybody say nothing.
//!
//! Where thousands have entered a room and little has been said, each of them would look at all who
//! came later. So it is looked up once for all, in what the index knows of the events, and kept,
//! bounded.

use std::{collections::VecDeque, ops::Bound, sync::Arc};

use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{Direction, StorageError, Store, schema::TimelineEntry};
use quick_cache::{Weighter, sync::Cache};
use ruma::push::Ruleset;

use super::rules::hear_of_members;

/// How many events of a room are looked at behind those that have arrived since somebody asked;
/// older ones count as read.
const MAX_LOOKED_AT: usize = 4_096;

/// How many bytes all rooms take together.
const MAX_BYTES: u64 = 4 << 20;

/// About how many bytes a room takes.
const TYPICAL: u64 = 512;

/// See the module. One for all users.
#[derive(Debug)]
pub(super) struct Countable {
    spans: Cache<RoomNum, Arc<Span>, BySize>,
}

#[derive(Debug, Clone)]
struct BySize;

/// What is known of a piece of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    /// It begins behind this position.
    after: StreamPos,
    /// It ends here.
    until: StreamPos,
    /// How many events were looked at.
    looked_at: usize,
    /// Which of them can be unread; the oldest first.
    found: VecDeque<StreamPos>,
}

impl Weighter<RoomNum, Arc<Span>> for BySize {
    fn weight(&self, _: &RoomNum, span: &Arc<Span>) -> u64 {
        (size_of::<Span>() + 64 + span.found.capacity() * size_of::<StreamPos>()) as u64
    }
}

impl Countable {
    pub(super) fn new() -> Self {
        let rooms = usize::try_from(MAX_BYTES / TYPICAL).unwrap_or(usize::MAX);
        Self { spans: Cache::with_weighter(rooms, MAX_BYTES, BySize) }
    }

    /// What happened in a room after `from` until `now`, as far as rules can tell of it; the oldest
    /// first.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub(super) fn entries(
        &self,
        store: &Store,
        room: RoomNum,
        rules: &Ruleset,
        (from, now): (StreamPos, StreamPos),
    ) -> Result<Vec<(StreamPos, TimelineEntry)>, StorageError> {
        if !hear_of_members(rules) {
            return store.timeline_of(room, &self.positions(store, room, (from, now))?);
        }
        let range = (Bound::Excluded(from), Bound::Included(now));
        let mut entries = store.timeline(room, range, Direction::Backward, MAX_LOOKED_AT)?;
        entries.reverse();
        Ok(entries)
    }

    /// Where events are that are not about members.
    fn positions(
        &self,
        store: &Store,
        room: RoomNum,
        (from, now): (StreamPos, StreamPos),
    ) -> Result<Vec<StreamPos>, StorageError> {
        let known = self.spans.get(&room);
        let is_enough = |span: &&Arc<Span>| now <= span.until && !span.must_reach_back(from);
        let span = match known.as_ref().filter(is_enough) {
            Some(span) => span.clone(),
            None => {
                let known = known.map_or_else(|| Span::nothing(now), Arc::unwrap_or_clone);
                let span = Arc::new(known.grown(store, room, (from, now))?);
                // Who has found out something else meanwhile will do so again.
                self.spans.insert(room, span.clone());
                span
            }
        };
        let wanted = |pos: &&StreamPos| from < **pos && **pos <= now;
        Ok(span.found.iter().filter(wanted).copied().collect())
    }
}

impl Span {
    fn nothing(at: StreamPos) -> Self {
        Self { after: at, until: at, looked_at: 0, found: VecDeque::new() }
    }

    fn must_reach_back(&self, from: StreamPos) -> bool {
        from < self.after && self.looked_at < MAX_LOOKED_AT
    }

    /// With what comes behind it until `now`, and, back to `from`, before it.
    fn grown(
        mut self,
        store: &Store,
        room: RoomNum,
        (from, now): (StreamPos, StreamPos),
    ) -> Result<Self, StorageError> {
        if self.until < now {
            let newer = Self::read(store, room, (self.until, now), MAX_LOOKED_AT)?;
            self = if newer.after == self.until { self.followed_by(newer) } else { newer };
        }
        if self.must_reach_back(from) {
            let most = MAX_LOOKED_AT - self.looked_at;
            self = Self::read(store, room, (from, self.after), most)?.followed_by(self);
        }
        while self.found.len() > MAX_LOOKED_AT {
            self.after = self.found.pop_front().unwrap_or(self.after);
        }
        Ok(self)
    }

    /// Two pieces, one right behind the other.
    fn followed_by(mut self, next: Self) -> Self {
        self.found.extend(next.found);
        let looked_at = self.looked_at + next.looked_at;
        Self { until: next.until, looked_at, ..self }
    }

    /// Looks at the newest events of a piece, at most so many.
    fn read(
        store: &Store,
        room: RoomNum,
        (after, until): (StreamPos, StreamPos),
        most: usize,
    ) -> Result<Self, StorageError> {
        let range = (Bound::Excluded(after), Bound::Included(until));
        let entries = store.timeline(room, range, Direction::Backward, most)?;
        let oldest = entries.last().filter(|_| entries.len() == most);
        let after = oldest.map_or(after, |(pos, _)| StreamPos(pos.0.saturating_sub(1)));
        let nums: Vec<_> = entries.iter().map(|(_, entry)| entry.event).collect();
        let mut span = Self { after, until, looked_at: entries.len(), found: VecDeque::new() };
        for ((pos, _), meta) in entries.iter().zip(store.event_metas(&nums)?) {
            let key = meta.and_then(|meta| meta.state_key);
            if !key.is_some_and(|key| key.is_member()) {
                span.found.push_front(*pos);
            }
        }
        Ok(span)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parlour_event::{EventNum, StateKeyNum, state::StateRoot};
    use parlour_storage::{
        Op, Record, Writer,
        schema::{EventFlags, EventMeta, Stored, keys},
    };

    use super::*;

    const ROOM: RoomNum = RoomNum(1);

    /// Something happens, of which the index knows and nobody has the body: to read it is an error.
    fn happen(writer: &mut Writer, is_join: bool) {
        let pos = writer.next_pos();
        let (event, state_before) = (EventNum(pos.0), StateRoot::EMPTY);
        let meta = EventMeta {
            event_id: format!("${}", pos.0),
            room: ROOM,
            pos,
            depth: pos.0,
            state_before,
            state_key: is_join.then_some(StateKeyNum::new(pos.0, true)),
            auth_events: Vec::new(),
            flags: EventFlags::default(),
            redacted_because: None,
            transaction: None,
        };
        let entry = TimelineEntry {
            event,
            state_after: state_before,
            joined: 1,
            invited: 0,
            after_gap: false,
        };
        let put = |key: Bytes, value: Bytes| Op::Put { key, value };
        let ops = vec![
            put(keys::event(event), meta.encode()),
            put(keys::timeline(ROOM, pos), entry.encode()),
        ];
        writer.commit(&[Record { pos, ops, announcement: Bytes::new() }]).expect("commit");
    }

    #[test]
    fn who_enters_with_thousands_is_looked_at_once_for_all() {
        let (store, mut writer) = Store::in_memory();
        let countable = Countable::new();
        let said = [700, 3_000, 7_500, 7_900];
        (1..=8_000).for_each(|pos| happen(&mut writer, !said.contains(&pos)));
        let after = |from: u64, now: u64| {
            let span = (StreamPos(from), StreamPos(now));
            let found = countable.positions(&store, ROOM, span).expect("read");
            found.into_iter().map(|pos| pos.0).collect::<Vec<_>>()
        };
        let looked_at = || countable.spans.get(&ROOM).map_or(0, |span| span.looked_at);
        // Those who know the newest events do not pay for all the others.
        assert_eq!((after(7_990, 8_000), looked_at()), (vec![], 10));
        assert_eq!((after(7_600, 8_000), looked_at()), (vec![7_900], 400));
        assert_eq!((after(0, 8_000), looked_at()), (vec![7_500, 7_900], MAX_LOOKED_AT));
        for from in 0..8_000 {
            let expected = [7_500, 7_900].into_iter().filter(|pos| *pos > from);
            assert_eq!(after(from, 8_000), expected.collect::<Vec<_>>());
        }
        assert_eq!((after(0, 7_600), looked_at()), (vec![7_500], MAX_LOOKED_AT));
        (0..20).for_each(|number| happen(&mut writer, number != 9));
        assert_eq!(after(7_800, 8_020), [7_900, 8_010]);
        assert_eq!(looked_at(), MAX_LOOKED_AT + 20);
    }

    #[test]
    fn what_is_kept_of_a_room_is_bounded() {
        let (store, mut writer) = Store::in_memory();
        let countable = Countable::new();
        let all = |now: StreamPos| {
            countable.positions(&store, ROOM, (StreamPos(0), now)).expect("read").len()
        };
        for _ in 0..3 {
            (0..3_000).for_each(|_| happen(&mut writer, false));
            all(store.applied());
        }
        assert_eq!(all(store.applied()), MAX_LOOKED_AT);
        // Nobody has asked for long.
        (0..5_000).for_each(|number| happen(&mut writer, number < 4_900));
        assert_eq!(all(store.applied()), 100);
    }
}
