//! Who is typing, in memory alone. Its own counter orders the changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use parlour_event::RoomNum;
use tokio::sync::Notify;

use crate::{
    env::Env,
    latest::Latest,
    notifier::{Notifier, TypingChanged},
};

/// How often expired entries are looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// The longest time that a client may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(120);

/// The counter starts at the time of the start, multiplied by this: a later process counts on above
/// every value that an earlier one can have reached, so that its values are known for old.
const MAX_CHANGES_PER_MS: u64 = 1_000;

/// How many users are counted as typing in one room; more are not shown.
const MAX_PER_ROOM: usize = 200;

/// Of how many rooms it is remembered when the typing there changed.
const CHANGES: usize = 10_000;

/// How others reach the typing notifications. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Typing {
    shared: Arc<RwLock<Shared>>,
    addr: Addr<TypingActor>,
    news: Arc<Notify>,
}

#[derive(Debug)]
struct Shared {
    counter: u64,
    /// Rooms in which somebody types: users with the time at which they stop, on the monotonic
    /// clock.
    typing: HashMap<RoomNum, BTreeMap<String, Duration>>,
    /// The counter's value at the newest change of a room.
    changes: Latest<RoomNum>,
    /// Whether the server stops: then nobody types any more.
    ended: bool,
}

impl Shared {
    /// Notes that another list of users types in a room.
    fn changed(&mut self, room: RoomNum) {
        self.counter += 1;
        self.changes.set(room, self.counter);
    }

    /// A counter from before a restart is lower than all of this process; a higher one (the clock
    /// was set back) counts as 0.
    fn sane(&self, since: u64) -> u64 {
        if since > self.counter { 0 } else { since }
    }
}

impl Typing {
    /// Starts the actor on the current thread.
    pub(crate) fn start(notifier: Addr<Notifier>, env: Env) -> Self {
        let counter = env.clock.now_ms().saturating_mul(MAX_CHANGES_PER_MS);
        let changes = Latest::new(counter, CHANGES);
        let shared = Shared { counter, typing: HashMap::new(), changes, ended: false };
        let shared = Arc::new(RwLock::new(shared));
        let news = Arc::<Notify>::default();
        let actor = TypingActor { shared: shared.clone(), news: news.clone(), notifier, env };
        Self { shared, addr: actor.start(), news }
    }

    /// Says that a user types in a room for a time, or (`None`) has stopped.
    pub fn set(&self, room: RoomNum, user: &str, timeout: Option<Duration>) {
        // At most one message per request, and requests are bounded.
        self.addr.do_send(Set { room, user: user.to_owned(), timeout });
    }

    /// Has everybody stop, for good. The next process knows nothing of who typed, so clients are
    /// told before: else they would see somebody type until that user types again.
    pub fn end(&self) {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        shared.ended = true;
        let rooms: Vec<_> = std::mem::take(&mut shared.typing).into_keys().collect();
        rooms.into_iter().for_each(|room| shared.changed(room));
    }

    /// Waits until somebody starts or stops, for one who tells other servers of it.
    pub(crate) async fn changed(&self) {
        self.news.notified().await;
    }

    /// The counter now: what a sync token remembers.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.shared.read().unwrap_or_else(PoisonError::into_inner).counter
    }

    /// Who types in a room, if that changed after `since`, as far as is known.
    #[must_use]
    pub fn changed_since(&self, room: RoomNum, since: u64) -> Option<Vec<String>> {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        let users = shared.typing.get(&room);
        // Where nobody types and nobody has for long, there is no news, however old the token is.
        let is_known = users.is_some() || shared.changes.knows(&room);
        (is_known && shared.changes.changed(&room, shared.sane(since)))
            .then(|| users.map(|users| users.keys().cloned().collect()).unwrap_or_default())
    }

    /// The rooms in which somebody started or stopped after `since`; for a token that is too old,
    /// all rooms that are remembered.
    #[must_use]
    pub fn rooms_since(&self, since: u64) -> Vec<RoomNum> {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        let all = || shared.changes.all().chain(shared.typing.keys()).copied().collect();
        shared.changes.since(shared.sane(since)).unwrap_or_else(all)
    }
}

/// The actor behind [`Typing`].
#[derive(Debug)]
struct TypingActor {
    shared: Arc<RwLock<Shared>>,
    news: Arc<Notify>,
    notifier: Addr<Notifier>,
    env: Env,
}

impl Actor for TypingActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SWEEP, |typing, _| typing.sweep());
    }
}

impl TypingActor {
    /// Changes a room's list and tells the notifier if it is another one then.
    fn update(&self, room: RoomNum, update: impl FnOnce(&mut BTreeMap<String, Duration>)) {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        if shared.ended {
            return;
        }
        let users = shared.typing.entry(room).or_default();
        let before: Vec<_> = users.keys().cloned().collect();
        update(users);
        let has_changed = !users.keys().eq(before.iter());
        if users.is_empty() {
            shared.typing.remove(&room);
        }
        if has_changed {
            shared.changed(room);
            self.news.notify_one();
            self.notifier.do_send(TypingChanged { room, counter: shared.counter });
        }
    }

    fn sweep(&self) {
        let now = self.env.clock.monotonic();
        let is_over = |users: &BTreeMap<_, Duration>| users.values().any(|until| *until <= now);
        let expired: Vec<_> = {
            let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
            let over = shared.typing.iter().filter(|(_, users)| is_over(users));
            over.map(|(room, _)| *room).collect()
        };
        for room in expired {
            self.update(room, |users| users.retain(|_, until| *until > now));
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Set {
    room: RoomNum,
    user: String,
    timeout: Option<Duration>,
}

impl Handler<Set> for TypingActor {
    type Result = ();

    fn handle(&mut self, Set { room, user, timeout }: Set, _: &mut Self::Context) {
        let now = self.env.clock.monotonic();
        self.update(room, |users| match timeout {
            Some(timeout) if users.len() < MAX_PER_ROOM || users.contains_key(&user) => {
                users.insert(user, now + timeout.min(MAX_TIMEOUT));
            }
            Some(_) => {}
            None => drop(users.remove(&user)),
        });
    }
}
