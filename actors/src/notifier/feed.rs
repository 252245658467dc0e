//! What one user's waiting clients are told.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, Waker},
};

use actix::{Addr, MailboxError};
use parlour_event::{EventNum, RoomNum, StreamPos};
use parlour_storage::StorageError;

use super::{
    Notifier, Watch,
    bells::{Bell, Bells, Ring},
};

/// How many of the newest arrivals are remembered for a user.
const RECENT: usize = 16;

/// The newest thing that concerns a user, or what somebody has seen of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct News {
    /// Position in the stream.
    pub pos: StreamPos,
    /// The value of the typing counter.
    pub typing: u64,
    /// The value of the presence counter.
    pub presence: u64,
}

/// Something in a room that the user is joined to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it arrived.
    pub pos: StreamPos,
    /// The room.
    pub room: RoomNum,
    /// What it is.
    pub what: What,
    /// Between this position and its own, nothing has happened in the room.
    pub after: StreamPos,
}

/// What has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// An event that changes no local user's membership.
    Event(EventNum),
    /// A receipt that all may see.
    Receipt,
}

/// What has happened since a client has looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Nothing that concerns the user.
    Nothing,
    /// These, in order, and nothing else.
    Arrivals(Vec<Arrival>),
    /// More than that, or it is not known any more: look into storage.
    Something,
}

/// The feed of one user. Parked syncs hold it and are told "there is something past N".
#[derive(Debug, Default)]
pub struct Feed {
    /// What happens after this is told here.
    start: OnceLock<News>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    news: News,
    /// The newest thing that is no arrival.
    other: StreamPos,
    /// The newest arrivals, in order.
    recent: VecDeque<Arrival>,
    /// The newest arrival that has been forgotten.
    forgotten: StreamPos,
    waiting: Vec<Waiter>,
    last_waiter: u64,
    /// Nobody tells anything here any more.
    is_closed: bool,
    /// Swept once without a parked sync; the next time it goes.
    is_idle: bool,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    waker: Waker,
    bell: Arc<Bell>,
}

/// Takes a waiter back, if the client goes away.
struct Place<'a> {
    feed: &'a Feed,
    number: u64,
}

impl News {
    /// Whether there is nothing in `other` that this does not have.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.pos >= other.pos && self.typing >= other.typing && self.presence >= other.presence
    }
}

impl Feed {
    /// Says what a client has found as the newest, after it had got the feed: from there on
    /// nothing is missing here.
    pub fn begin(&self, now: News) {
        self.start.get_or_init(|| now);
    }

    /// What has happened since.
    #[must_use]
    pub fn since(&self, seen: News) -> Told {
        if !self.start.get().is_some_and(|start| seen.covers(start)) {
            return Told::Something;
        }
        let mut inner = self.lock();
        inner.is_idle = false;
        let News { typing, presence, .. } = inner.news;
        let rest = News { pos: inner.other.max(inner.forgotten), typing, presence };
        if inner.is_closed || !seen.covers(&rest) {
            return Told::Something;
        }
        let new: Vec<_> = inner.recent.iter().filter(|new| new.pos > seen.pos).copied().collect();
        if new.is_empty() { Told::Nothing } else { Told::Arrivals(new) }
    }

    /// Waits for something that `seen` does not have, or for the end of the feed: then there is
    /// another one.
    pub async fn past(&self, seen: News, feeds: &Feeds) {
        let mut place: Option<Place<'_>> = None;
        poll_fn(|context| {
            let mut inner = self.lock();
            inner.is_idle = false;
            if inner.is_closed || !seen.covers(&inner.news) {
                return Poll::Ready(());
            }
            let number = place.as_ref().map(|place| place.number);
            let known = inner.waiting.iter_mut().find(|waiter| Some(waiter.number) == number);
            if let Some(waiter) = known {
                waiter.waker.clone_from(context.waker());
                return Poll::Pending;
            }
            inner.last_waiter += 1;
            let number = inner.last_waiter;
            let waiter =
                Waiter { number, waker: context.waker().clone(), bell: feeds.bells.here() };
            inner.waiting.push(waiter);
            match &mut place {
                Some(place) => place.number = number,
                None => place = Some(Place { feed: self, number }),
            }
            Poll::Pending
        })
        .await;
    }

    /// Something has arrived.
    pub(super) fn arrived(&self, arrival: Arrival, ring: &mut Ring) {
        self.tell(ring, |inner| {
            inner.news.pos = arrival.pos;
            if inner.recent.len() >= RECENT
                && let Some(oldest) = inner.recent.pop_front()
            {
                inner.forgotten = oldest.pos;
            }
            inner.recent.push_back(arrival);
        });
    }

    /// Something else has happened.
    pub(super) fn happened(&self, pos: StreamPos, ring: &mut Ring) {
        self.tell(ring, |inner| {
            inner.news.pos = pos;
            inner.other = pos;
            // Who looks from before this looks into storage.
            inner.recent.clear();
        });
    }

    /// Something has happened that has a counter of its own.
    pub(super) fn counted(&self, ring: &mut Ring, update: impl FnOnce(&mut News)) {
        self.tell(ring, |inner| update(&mut inner.news));
    }

    /// Whether nobody has waited here between two calls; then it is closed.
    pub(super) fn has_been_left(&self) -> bool {
        let mut inner = self.lock();
        if !inner.waiting.is_empty() {
            inner.is_idle = false;
            return false;
        }
        inner.is_closed = mem::replace(&mut inner.is_idle, true);
        inner.is_closed
    }

    pub(super) fn close(&self, ring: &mut Ring) {
        self.tell(ring, |inner| inner.is_closed = true);
    }

    fn tell(&self, ring: &mut Ring, update: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        update(&mut inner);
        for Waiter { bell, waker, .. } in inner.waiting.drain(..) {
            ring.add(bell, waker);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.feed.lock().waiting.retain(|waiter| waiter.number != self.number);
    }
}

/// The feeds of all users who sync. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feeds {
    addr: Addr<Notifier>,
    known: Known,
    bells: Arc<Bells>,
    /// Until here everything has been told.
    told: Arc<AtomicU64>,
}

/// By user.
pub(super) type Known = Arc<RwLock<HashMap<Arc<str>, Arc<Feed>>>>;

/// Why there is no feed.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// Nobody tells anything any more.
    #[error("the notifier has ended")]
    Ended(#[from] MailboxError),
    /// See there.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Feeds {
    pub(super) fn new(addr: Addr<Notifier>, known: Known, told: Arc<AtomicU64>) -> Self {
        Self { addr, known, bells: Arc::default(), told }
    }

    /// The position until which everything has been told: a feed may be behind those who write.
    #[must_use]
    pub fn told(&self) -> StreamPos {
        StreamPos(self.told.load(Ordering::Acquire))
    }

    /// The feed of a user.
    ///
    /// # Errors
    ///
    /// [`FeedError`]
    pub async fn of(&self, user: &str) -> Result<Arc<Feed>, FeedError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(user).cloned();
        match known {
            Some(feed) => Ok(feed),
            None => Ok(self.addr.send(Watch { user: user.to_owned() }).await??),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pos: u64) -> News {
        News { pos: StreamPos(pos), ..News::default() }
    }

    fn arrival(pos: u64) -> Arrival {
        let (what, after) = (What::Event(EventNum(pos)), StreamPos(pos - 1));
        Arrival { pos: StreamPos(pos), room: RoomNum(1), what, after }
    }

    fn positions(told: &Told) -> Vec<u64> {
        let Told::Arrivals(arrivals) = told else { panic!("{told:?}") };
        arrivals.iter().map(|arrival| arrival.pos.0).collect()
    }

    #[test]
    fn arrivals_are_told_as_long_as_nothing_else_has_happened() {
        let (feed, mut ring) = (Feed::default(), Ring::default());
        assert_eq!(feed.since(at(10)), Told::Something, "nobody has said from where on it counts");
        feed.begin(at(10));
        feed.begin(at(99));
        assert_eq!(feed.since(at(9)), Told::Something);
        assert_eq!(feed.since(at(10)), Told::Nothing);
        feed.arrived(arrival(11), &mut ring);
        feed.arrived(arrival(13), &mut ring);
        assert_eq!(positions(&feed.since(at(10))), [11, 13]);
        assert_eq!(positions(&feed.since(at(11))), [13]);
        assert_eq!(feed.since(at(13)), Told::Nothing);
        feed.happened(StreamPos(14), &mut ring);
        feed.arrived(arrival(15), &mut ring);
        assert_eq!(feed.since(at(13)), Told::Something);
        assert_eq!(positions(&feed.since(at(14))), [15]);
        feed.counted(&mut ring, |news| news.typing = 5);
        assert_eq!(feed.since(at(14)), Told::Something);
        assert_eq!(positions(&feed.since(News { typing: 5, ..at(14) })), [15]);
    }

    #[test]
    fn what_is_forgotten_is_not_passed_over() {
        let (feed, mut ring) = (Feed::default(), Ring::default());
        feed.begin(at(0));
        let last = RECENT as u64 + 2;
        (1..=last).for_each(|pos| feed.arrived(arrival(pos), &mut ring));
        assert_eq!(feed.since(at(1)), Told::Something);
        assert_eq!(positions(&feed.since(at(2))).len(), RECENT);
    }

    #[test]
    fn a_feed_that_nobody_uses_ends_and_says_so() {
        let feed = Feed::default();
        feed.begin(at(0));
        assert!(!feed.has_been_left());
        assert_eq!(feed.since(at(0)), Told::Nothing);
        assert!(!feed.has_been_left(), "somebody was there");
        assert!(feed.has_been_left());
        assert_eq!(feed.since(at(0)), Told::Something);
    }

    #[actix::test]
    async fn who_waits_is_woken_once_for_all() {
        let (_addr, _announcer, feeds) = crate::notifier::Notifier::start_here(
            parlour_storage::Store::in_memory().0,
            Arc::new(crate::metrics::NoMetrics),
        );
        let feed = Arc::new(Feed::default());
        let waiting = (0..3).map(|_| {
            let (feed, feeds) = (feed.clone(), feeds.clone());
            actix::spawn(async move { feed.past(at(4), &feeds).await })
        });
        let waiting: Vec<_> = waiting.collect();
        // One who goes away leaves nothing behind.
        let gone = feed.past(at(4), &feeds);
        assert!(futures_util::FutureExt::now_or_never(gone).is_none());
        tokio::task::yield_now().await;
        assert_eq!(feed.lock().waiting.len(), 3);
        let tell = |pos| feed.arrived(arrival(pos), &mut Ring::default());
        tell(4);
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(feed.lock().waiting.len(), 3, "that was nothing new for them");
        tell(5);
        for waiting in waiting {
            waiting.await.expect("woken");
        }
        assert!(feed.lock().waiting.is_empty());
    }
}
