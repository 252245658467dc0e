//! Events that were read lately, so that they need not be read again by each who asks for them.

use std::{fmt, sync::Arc, time::Duration};

use parlour_event::EventNum;
use quick_cache::{
    Weighter,
    sync::{Cache, DefaultLifecycle, GuardResult, PlaceholderGuard},
};

use crate::schema::StoredEvent;

/// About how many bytes an event takes.
const TYPICAL: u64 = 1_024;

/// A bounded number of bytes of events. What is written takes its place at once: see
/// [`EventCache::forget`].
pub(crate) struct EventCache(Cache<EventNum, Arc<StoredEvent>, BySize>);

/// The right to keep an event that is about to be read. It is lost if the event is written
/// meanwhile, so that nothing old is kept.
pub(crate) type Ticket<'a> = PlaceholderGuard<
    'a,
    EventNum,
    Arc<StoredEvent>,
    BySize,
    quick_cache::DefaultHashBuilder,
    DefaultLifecycle<EventNum, Arc<StoredEvent>>,
>;

/// What the cache has of an event.
pub(crate) enum Known<'a> {
    /// This.
    Event(Arc<StoredEvent>),
    /// Nothing. Whoever reads it may keep it, if nobody else is about to.
    Nothing(Option<Ticket<'a>>),
}

#[derive(Clone)]
pub(crate) struct BySize;

impl Weighter<EventNum, Arc<StoredEvent>> for BySize {
    fn weight(&self, _: &EventNum, event: &Arc<StoredEvent>) -> u64 {
        let meta = &event.meta;
        let parts = event.json.len() + meta.event_id.len() + meta.auth_events.len() * 8;
        (size_of::<StoredEvent>() + parts + 128) as u64
    }
}

impl fmt::Debug for EventCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventCache({})", self.0.len())
    }
}

impl EventCache {
    /// Of at most so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / TYPICAL).unwrap_or(usize::MAX).max(16);
        Self(Cache::with_weighter(items, bytes, BySize))
    }

    /// How many bytes it takes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.0.weight()
    }

    pub(crate) fn get(&self, num: EventNum) -> Known<'_> {
        // Who waits for others while they wait for him waits for ever.
        match self.0.get_value_or_guard(&num, Some(Duration::ZERO)) {
            GuardResult::Value(event) => Known::Event(event),
            GuardResult::Guard(ticket) => Known::Nothing(Some(ticket)),
            GuardResult::Timeout => Known::Nothing(None),
        }
    }

    /// An event has been written: what was read of it before is void, and so is what is being read.
    pub(crate) fn forget(&self, num: EventNum) {
        self.0.remove(&num);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parlour_event::{RoomNum, StreamPos, state::StateRoot};

    use super::*;
    use crate::schema::{EventFlags, EventMeta};

    fn event(text: &'static str) -> Arc<StoredEvent> {
        let meta = EventMeta {
            event_id: "$1".to_owned(),
            room: RoomNum(1),
            pos: StreamPos(1),
            depth: 1,
            state_before: StateRoot::EMPTY,
            state_key: None,
            auth_events: Vec::new(),
            flags: EventFlags::default(),
            redacted_because: None,
            transaction: None,
        };
        Arc::new(StoredEvent { num: EventNum(1), meta, json: Bytes::from_static(text.as_bytes()) })
    }

    fn ticket(cache: &EventCache) -> Option<Ticket<'_>> {
        match cache.get(EventNum(1)) {
            Known::Event(event) => panic!("{event:?}"),
            Known::Nothing(ticket) => ticket,
        }
    }

    #[test]
    fn what_is_written_while_it_is_read_is_not_kept() {
        let cache = EventCache::new(100_000);
        let reading = ticket(&cache).expect("nobody else reads it");
        assert!(ticket(&cache).is_none(), "one is enough");
        cache.forget(EventNum(1));
        assert!(reading.insert(event("old")).is_err());
        ticket(&cache).expect("free again").insert(event("new")).expect("kept");
        let Known::Event(known) = cache.get(EventNum(1)) else { panic!("it is known") };
        assert_eq!(&known.json[..], b"new");
        cache.forget(EventNum(1));
        assert!(ticket(&cache).is_some());
    }

    #[test]
    fn without_bytes_nothing_is_kept() {
        let cache = EventCache::new(0);
        drop(ticket(&cache).expect("free").insert(event("gone at once")));
        assert!(ticket(&cache).is_some());
    }
}
