//! The notifier: knows which waiting clients a change concerns, and wakes those alone.
//!
//! A user who syncs is *watched*: the notifier keeps the list of the user's rooms, and tells the
//! user's [`Feed`] what concerns the user. Parked syncs hold the feed and are told "there is
//! something past N"; what it is they read from storage, unless the feed knows that it is nothing
//! but a few messages. Users who have not synced for a while are forgotten.
//!
//! Whoever has made a change durable tells of it in place, if it concerns few: to wake the actor's
//! thread for that would cost more than telling does. The actor tells the rest, and the order of
//! changes is kept.

mod bells;
mod board;
mod feed;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult};
use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{StorageError, Store};

pub use self::feed::{Arrival, Feed, FeedError, Feeds, News, Told, What};
use self::{board::Board, feed::Known};
use crate::{commit::Announcement, metrics::Metrics};

/// How often users without parked syncs are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// How many users are told in place; they are told in some microseconds.
const FEW: usize = 64;

/// The actor. One per process.
#[derive(Debug)]
pub struct Notifier {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    board: Mutex<Board>,
    /// How many groups of changes are on their way to the actor. They come first.
    queued: AtomicUsize,
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How changes that have become durable are told. Only one may be told at a time.
#[derive(Debug)]
pub(crate) struct Announcer {
    addr: Addr<Notifier>,
    shared: Arc<Shared>,
}

impl Announcer {
    /// Tells of changes, or sees to it that they are told.
    pub(crate) fn announce(&mut self, announcements: Vec<(StreamPos, Announcement)>) {
        if self.shared.queued.load(Ordering::Acquire) == 0
            && let Ok(mut board) = self.shared.board.try_lock()
            && board.concerned(&announcements) <= FEW
        {
            return board.tell(&announcements);
        }
        self.shared.queued.fetch_add(1, Ordering::AcqRel);
        self.addr.do_send(Announce(announcements));
    }
}

impl Notifier {
    /// Starts the actor on the current thread. Nobody waits at it yet.
    pub(crate) fn start_here(
        store: Store,
        metrics: Arc<dyn Metrics>,
    ) -> (Addr<Self>, Announcer, Feeds) {
        let told = Arc::new(AtomicU64::new(store.applied().0));
        let known = Known::default();
        let board = Mutex::new(Board::new(store, metrics, known.clone(), told.clone()));
        let shared = Arc::new(Shared { board, queued: AtomicUsize::new(0) });
        let addr = Self { shared: shared.clone() }.start();
        let feeds = Feeds::new(addr.clone(), known, told);
        (addr.clone(), Announcer { addr, shared }, feeds)
    }
}

/// Nothing will ever be told again.
impl Drop for Notifier {
    fn drop(&mut self) {
        self.shared.board().close();
    }
}

impl Actor for Notifier {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SWEEP, |notifier, _| notifier.shared.board().sweep());
    }
}

/// Changes have become durable and readable.
#[derive(Message, Debug)]
#[rtype(result = "()")]
struct Announce(Vec<(StreamPos, Announcement)>);

impl Handler<Announce> for Notifier {
    type Result = ();

    fn handle(&mut self, Announce(announcements): Announce, _: &mut Self::Context) {
        let mut board = self.shared.board();
        board.tell(&announcements);
        self.shared.queued.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The users who are typing in a room have changed.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct TypingChanged {
    /// The room.
    pub room: RoomNum,
    /// The new value of the typing counter.
    pub counter: u64,
}

impl Handler<TypingChanged> for Notifier {
    type Result = ();

    fn handle(&mut self, message: TypingChanged, _: &mut Self::Context) {
        self.shared.board().typing_changed(message.room, message.counter);
    }
}

/// The presence of users in some rooms has changed. The answer is how many users were woken.
#[derive(Message, Debug)]
#[rtype(result = "usize")]
pub struct PresenceChanged {
    /// The rooms.
    pub rooms: Vec<RoomNum>,
    /// The value of the presence counter.
    pub counter: u64,
}

impl Handler<PresenceChanged> for Notifier {
    type Result = usize;

    fn handle(&mut self, message: PresenceChanged, _: &mut Self::Context) -> usize {
        self.shared.board().presence_changed(&message.rooms, message.counter)
    }
}

/// Asks for the feed of a user.
#[derive(Message, Debug)]
#[rtype(result = "Result<Arc<Feed>, StorageError>")]
struct Watch {
    /// The user id.
    user: String,
}

impl Handler<Watch> for Notifier {
    type Result = MessageResult<Watch>;

    fn handle(&mut self, message: Watch, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.shared.board().watch(&message.user))
    }
}
