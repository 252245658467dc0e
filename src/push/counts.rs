//! How many events of a room a user has not read yet.
//!
//! Counted when a client asks, never when an event is sent: the cost falls on those who look, and
//! a room with thousands of idle members is as quick as any. What was counted is kept, bounded,
//! and counted on from there the next time; what was forgotten is counted again.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use lru::LruCache;
use parlour_actors::users::{IGNORED_USERS, PUSH_RULES, Users};
use parlour_event::{EventNum, RoomNum, StreamPos, content::Membership};
use parlour_storage::{
    StorageError, Store,
    schema::{AccountDataEntry, StoredEvent, TimelineEntry, keys},
};
use ruma::{
    OwnedEventId, UInt, UserId, api::client::sync::sync_events::UnreadNotificationsCount,
    push::Ruleset,
};

use super::{
    countable::Countable,
    rules::{Judge, name_in},
    shared::{Heard, Listener},
};
use crate::view::{Fields, Ignored, RoomView, View, ViewError};

/// How many unread events are counted in one room; of more, the newest.
const MAX_UNREAD: usize = 1_000;

/// How many events are read at once.
const BATCH: usize = 128;

/// How many unread events are remembered, for all users and rooms; about 50 bytes each.
const MAX_REMEMBERED: usize = 200_000;

/// A room with nothing unread takes about as much memory as so many unread events.
const EMPTY: usize = 4;

/// The thread of what is in no thread.
const MAIN: &str = "main";

/// A number of unread events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// All of them.
    pub notifications: u32,
    /// Those to be made conspicuous.
    pub highlights: u32,
}

/// What a user has not read in a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    /// Outside threads.
    pub main: Count,
    /// By the thread's root.
    pub threads: BTreeMap<String, Count>,
}

/// Where is counted.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The room.
    pub room: &'a RoomView,
    /// The user's member event, a join.
    pub member: &'a StoredEvent,
    /// Events until here count.
    pub now: StreamPos,
}

/// Counts for all users. One per server; cheap to clone.
#[derive(Debug, Clone)]
pub struct UnreadCounts {
    users: Users,
    cache: Arc<Mutex<Cache>>,
    countable: Arc<Countable>,
}

/// One user's rules, read when they are needed.
#[derive(Debug)]
pub struct Reading<'a> {
    counts: &'a UnreadCounts,
    user: &'a UserId,
    rules: OnceCell<Ruleset>,
}

#[derive(Debug)]
struct Cache {
    rooms: LruCache<(String, RoomNum), Counted>,
    size: usize,
}

/// What has been counted in one room for one user.
#[derive(Debug, Clone)]
struct Counted {
    /// Events until here have been looked at.
    until: StreamPos,
    /// Until here all of this is known to be right: no receipt, no rule has been overlooked.
    settled: StreamPos,
    /// When what the user wants to hear was last changed.
    rules: StreamPos,
    /// The member event with which the user's join was found.
    member: EventNum,
    /// What the user is called there.
    name: Arc<str>,
    joined: StreamPos,
    /// Oldest first.
    unread: Vec<Item>,
}

#[derive(Debug, Clone)]
struct Item {
    pos: StreamPos,
    /// `None` for the main timeline.
    thread: Option<Arc<str>>,
    highlight: bool,
}

/// How far a user has read.
#[derive(Debug, Default)]
struct ReadMarks {
    /// Whatever the thread.
    all: StreamPos,
    threads: HashMap<String, StreamPos>,
}

impl Count {
    fn add(&mut self, highlight: bool) {
        self.notifications = self.notifications.saturating_add(1);
        self.highlights = self.highlights.saturating_add(u32::from(highlight));
    }
}

impl From<Count> for UnreadNotificationsCount {
    fn from(count: Count) -> Self {
        let mut wire = Self::new();
        wire.notification_count = Some(UInt::from(count.notifications));
        wire.highlight_count = Some(UInt::from(count.highlights));
        wire
    }
}

impl Unread {
    /// Main timeline and threads together.
    #[must_use]
    pub fn total(&self) -> Count {
        self.threads.values().fold(self.main, |total, count| Count {
            notifications: total.notifications.saturating_add(count.notifications),
            highlights: total.highlights.saturating_add(count.highlights),
        })
    }

    /// The threads, as a client gets them.
    #[must_use]
    pub fn by_thread(&self) -> BTreeMap<OwnedEventId, UnreadNotificationsCount> {
        let threads = self.threads.iter();
        let wire = |(root, count): (&String, &Count)| {
            Some((OwnedEventId::try_from(root.as_str()).ok()?, (*count).into()))
        };
        threads.filter_map(wire).collect()
    }
}

impl<'a> Reading<'a> {
    /// The rules of a user.
    #[must_use]
    pub fn new(counts: &'a UnreadCounts, user: &'a UserId) -> Self {
        Self { counts, user, rules: OnceCell::new() }
    }

    fn rules(&self) -> Result<&Ruleset, StorageError> {
        if let Some(rules) = self.rules.get() {
            return Ok(rules);
        }
        let rules = self.counts.users.push_rules(self.user)?;
        Ok(self.rules.get_or_init(|| rules))
    }

    /// Whose rules, and which.
    pub(super) fn rules_of_user(&self) -> Result<(&Users, &Ruleset), StorageError> {
        Ok((&self.counts.users, self.rules()?))
    }

    /// Where the events are that the user has not read.
    pub(super) fn unread_positions(
        &self,
        view: &View,
        place: &Place<'_>,
        ignored: &Ignored,
    ) -> Result<HashSet<StreamPos>, ViewError> {
        self.counts.counted(view, self, place, ignored, |counted| {
            counted.unread.iter().map(|item| item.pos).collect()
        })
    }
}

impl UnreadCounts {
    /// Counts nothing yet.
    #[must_use]
    pub fn new(users: Users) -> Self {
        let cache = Cache { rooms: LruCache::unbounded(), size: 0 };
        let countable = Arc::new(Countable::new());
        Self { users, cache: Arc::new(Mutex::new(cache)), countable }
    }

    /// What a user wants to hear, as of a position that all readers have reached.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn listener(
        &self,
        view: &View,
        user: &UserId,
        as_of: StreamPos,
    ) -> Result<Listener, ViewError> {
        let rules = match self.users.has_own_push_rules(user.as_str())? {
            true => Some(self.users.push_rules(user)?),
            false => None,
        };
        let ignored = view.ignored_by(user)?;
        Ok(Listener { user: user.to_owned(), ignored, rules, as_of })
    }

    /// What a user has not read in a room.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn of(
        &self,
        view: &View,
        reading: &Reading<'_>,
        place: &Place<'_>,
        ignored: &Ignored,
    ) -> Result<Unread, ViewError> {
        self.counted(view, reading, place, ignored, |counted| counted.at(place.now))
    }

    /// Counts on until `now`, where nothing has changed but that these events have arrived in the
    /// room, in order; `None` if it has not been counted up to a position from which on that is so.
    #[must_use]
    pub fn of_arrived(
        &self,
        listener: &Listener,
        (room, now): (RoomNum, StreamPos),
        arrived: &[&Heard],
        is_good: impl Fn(StreamPos) -> bool,
    ) -> Option<Unread> {
        let key = (listener.user.to_string(), room);
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let name = lock().rooms.get(&key)?.name.clone();
        // Others count meanwhile.
        let verdicts: Vec<_> = arrived.iter().map(|event| event.verdict(listener, &name)).collect();
        let mut cache = lock();
        let counted = cache.rooms.get_mut(&key).filter(|counted| is_good(counted.settled))?;
        let before = counted.size();
        for (event, verdict) in arrived.iter().zip(verdicts) {
            if event.pos <= counted.until.max(counted.settled) {
                continue;
            }
            if event.sender == listener.user {
                counted.unread.retain(|item| item.thread.is_some());
            } else if verdict.notify {
                let highlight = verdict.highlight;
                counted.unread.push(Item { pos: event.pos, thread: None, highlight });
            }
        }
        counted.forget_oldest();
        counted.until = counted.until.max(now);
        counted.settled = counted.settled.max(now);
        let (unread, after) = (counted.at(now), counted.size());
        cache.size = cache.size.saturating_add(after).saturating_sub(before);
        cache.shrink();
        Some(unread)
    }

    /// Brings a room's count up to date, and looks at it.
    fn counted<T>(
        &self,
        view: &View,
        reading: &Reading<'_>,
        place: &Place<'_>,
        ignored: &Ignored,
        look: impl FnOnce(&Counted) -> T,
    ) -> Result<T, ViewError> {
        let marks = self.marks(view, reading.user, place.room.num)?;
        let key = (reading.user.to_string(), place.room.num);
        let mut counted = self.begin(view, &key, place)?;
        let from = counted.until.max(counted.joined).max(marks.all);
        if from < place.now {
            count_on(view, reading, place, ignored, from, &mut counted)?;
            counted.until = place.now;
        }
        counted.unread.retain(|item| item.pos > marks.of(item.thread.as_deref()));
        counted.settled = counted.settled.max(place.now);
        let seen = look(&counted);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).put(key, counted);
        Ok(seen)
    }

    /// What has been counted before, as far as it still holds.
    fn begin(
        &self,
        view: &View,
        key: &(String, RoomNum),
        place: &Place<'_>,
    ) -> Result<Counted, ViewError> {
        let rules = self.rules_changed(&view.store, &key.0)?;
        let known = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(key);
        let known = known.filter(|known| known.rules == rules);
        if let Some(known) = known.clone().filter(|known| known.member == place.member.num) {
            return Ok(known);
        }
        let joined = joined_since(view, place.member)?;
        let mut counted = known.unwrap_or_else(|| Counted {
            until: StreamPos(0),
            settled: StreamPos(0),
            rules,
            member: place.member.num,
            name: Arc::default(),
            joined,
            unread: Vec::new(),
        });
        counted.member = place.member.num;
        counted.name = name_in(place.member)?.into();
        counted.joined = joined;
        counted.unread.retain(|item| item.pos > joined);
        Ok(counted)
    }

    /// When what a user wants to hear was last changed: rules, ignored users, threads.
    fn rules_changed(&self, store: &Store, user: &str) -> Result<StreamPos, ViewError> {
        let mut newest = self.users.threads_changed(user)?;
        for data_type in [PUSH_RULES, IGNORED_USERS] {
            let key = keys::account_data(user, RoomNum(0), data_type);
            let entry = store.typed::<AccountDataEntry>(&key)?;
            newest = newest.max(entry.map_or(StreamPos(0), |entry| entry.pos));
        }
        Ok(newest)
    }

    /// How far the user has read: by whichever receipt is farther.
    fn marks(&self, view: &View, user: &UserId, room: RoomNum) -> Result<ReadMarks, ViewError> {
        let mut marks = ReadMarks::default();
        for receipt in self.users.receipts_of(room, user.as_str())? {
            let Some(num) = view.store.event_num(&receipt.event_id)? else { continue };
            let Some(meta) = view.store.event_meta(num)?.filter(|meta| meta.room == room) else {
                continue;
            };
            let mark = match receipt.thread.is_empty() {
                true => &mut marks.all,
                false => marks.threads.entry(receipt.thread).or_default(),
            };
            *mark = (*mark).max(meta.pos);
        }
        Ok(marks)
    }
}

impl Cache {
    fn get(&mut self, key: &(String, RoomNum)) -> Option<Counted> {
        self.rooms.get(key).cloned()
    }

    fn put(&mut self, key: (String, RoomNum), counted: Counted) {
        self.size = self.size.saturating_add(counted.size());
        if let Some(old) = self.rooms.put(key, counted) {
            self.size = self.size.saturating_sub(old.size());
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.size > MAX_REMEMBERED {
            let Some((_, oldest)) = self.rooms.pop_lru() else { break };
            self.size = self.size.saturating_sub(oldest.size());
        }
    }
}

impl Counted {
    fn size(&self) -> usize {
        self.unread.len().saturating_add(EMPTY)
    }

    fn forget_oldest(&mut self) {
        let too_many = self.unread.len().saturating_sub(MAX_UNREAD);
        self.unread.drain(..too_many);
    }

    fn at(&self, now: StreamPos) -> Unread {
        let mut unread = Unread::default();
        for item in self.unread.iter().filter(|item| item.pos <= now) {
            match &item.thread {
                None => unread.main.add(item.highlight),
                Some(thread) => {
                    unread.threads.entry(thread.to_string()).or_default().add(item.highlight);
                }
            }
        }
        unread
    }
}

impl ReadMarks {
    fn of(&self, thread: Option<&str>) -> StreamPos {
        let own = self.threads.get(thread.unwrap_or(MAIN)).copied().unwrap_or_default();
        self.all.max(own)
    }
}

/// Looks at the events after `from`.
fn count_on(
    view: &View,
    reading: &Reading<'_>,
    place: &Place<'_>,
    ignored: &Ignored,
    from: StreamPos,
    counted: &mut Counted,
) -> Result<(), ViewError> {
    let (rules, countable) = (reading.rules_of_user()?, &reading.counts.countable);
    let entries = countable.entries(&view.store, place.room.num, rules.1, (from, place.now))?;
    if entries.is_empty() {
        return Ok(());
    }
    let mut judge = Judge::new(view, place.room, rules, reading.user, place.member)?;
    for batch in entries.chunks(BATCH) {
        let nums: Vec<_> = batch.iter().map(|(_, entry)| entry.event).collect();
        for ((pos, entry), event) in batch.iter().zip(view.store.events(&nums)?) {
            if let Some(event) = event {
                look_at(view, reading, ignored, &mut judge, (*pos, entry), &event, counted)?;
            }
        }
    }
    counted.forget_oldest();
    Ok(())
}

fn look_at(
    view: &View,
    reading: &Reading<'_>,
    ignored: &Ignored,
    judge: &mut Judge<'_>,
    (pos, entry): (StreamPos, &TimelineEntry),
    event: &StoredEvent,
    counted: &mut Counted,
) -> Result<(), ViewError> {
    let fields = Fields::of(event)?;
    if let Some((_, redacted)) = view.redacted_by(event, &fields)? {
        counted.unread.retain(|item| item.pos != redacted);
    }
    if fields.sender == reading.user.as_str() {
        // Who says something has read what was said before, there. State is often set by programs.
        if fields.state_key.is_none() {
            let thread = view.thread_place(event)?.root;
            counted.unread.retain(|item| item.thread.as_deref() != thread.as_deref());
        }
        return Ok(());
    }
    if event.meta.redacted_because.is_some() || ignored.hides(&fields) {
        return Ok(());
    }
    let verdict = judge.judge(event, entry)?;
    if verdict.notify {
        let thread = view.thread_place(event)?.root.map(Arc::from);
        counted.unread.push(Item { pos, thread, highlight: verdict.highlight });
    }
    Ok(())
}

/// Since when a user has been joined, by the newest member event.
pub(super) fn joined_since(view: &View, member: &StoredEvent) -> Result<StreamPos, ViewError> {
    let steps = view.steps(member, |step| step.membership != Membership::Join)?;
    let joins = steps.iter().take_while(|step| step.membership == Membership::Join);
    Ok(joins.last().map_or(member.meta.pos, |step| step.pos))
}
