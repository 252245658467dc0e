//! Who is online: kept in memory, ordered by a counter of its own.
//!
//! What a change costs is bounded three times over: what a user does is looked at once in
//! [`BUMP`]; a change is noted once per room of the user, not per member; and those who wait are
//! woken in batches, at no more than [`WAKES_PER_SECOND`].
//!
//! Who was not offline when the server stopped is remembered, so that clients are told if that
//! user does not come back.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#presence>

mod table;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use actix::{
    Actor, ActorFutureExt as _, Addr, AsyncContext, Context, Handler, Message, WrapFuture as _,
};
use parlour_event::RoomNum;
use parlour_storage::StorageError;
use serde::Deserialize;

use self::table::{Background, Now, Table};
use crate::{
    env::Env,
    notifier::{Notifier, PresenceChanged},
    users::Users,
};

/// How often it is looked who waits to be woken.
const TICK: Duration = Duration::from_millis(250);

/// How often it is looked who has become idle or has gone.
const LOOK: Duration = Duration::from_secs(1);

/// How many of those who were online at the stop are taken in with one tick: reading their rooms
/// must not keep others waiting.
const REMEMBERED_AT_ONCE: usize = 1_000;

/// How often what a user does counts.
const BUMP: Duration = Duration::from_secs(10);

/// How many waiting users are woken in the long run.
const WAKES_PER_SECOND: u32 = 1_000;

/// The counter starts at the time of the start, multiplied by this: see typing.
const MAX_CHANGES_PER_MS: u64 = 1_000;

/// The global account data in which a user says not to be seen.
pub const VISIBILITY: &str = "org.parlour.presence";

/// How somebody is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Not there, or not to be seen.
    #[default]
    Offline,
    /// There, but idle.
    Unavailable,
    /// There.
    Online,
}

/// What others see of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// How the user is there.
    pub state: State,
    /// Whether the user has just done something.
    pub currently_active: bool,
    /// What the user says about it.
    pub status_msg: Option<String>,
    /// When the user last did something, milliseconds since the epoch; 0 for never.
    pub last_active_ts: u64,
}

/// After how long users are what.
#[derive(Debug, Clone, Copy)]
pub struct PresenceOptions {
    /// After how long without activity a user is `unavailable`.
    pub idle: Duration,
    /// After how long without a sync a user is `offline`.
    pub grace: Duration,
}

/// How others reach the presence of users. Cheap to clone. The default is none at all: nothing is
/// noted, and everybody is offline.
#[derive(Debug, Clone, Default)]
pub struct Presence(Option<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    table: Arc<RwLock<Table>>,
    addr: Addr<PresenceActor>,
    users: Users,
    env: Env,
}

/// A sync that is under way; dropping it ends it.
#[derive(Debug)]
pub struct Syncing {
    inner: Inner,
    user: String,
    device: String,
    /// Nobody was told of its beginning, since it changed nothing.
    is_quiet: bool,
}

impl Drop for Syncing {
    fn drop(&mut self) {
        if self.is_quiet {
            let now = self.inner.now();
            self.inner.write(|table| table.sync_ended(&self.user, &self.device, now));
            return;
        }
        let (user, device) = (std::mem::take(&mut self.user), std::mem::take(&mut self.device));
        self.inner.addr.do_send(Told { user, news: News::SyncEnded { device } });
    }
}

impl Presence {
    /// Starts the actor on the current thread.
    pub(crate) fn start(
        options: PresenceOptions,
        users: Users,
        notifier: Addr<Notifier>,
        env: Env,
    ) -> Self {
        let counter = env.clock.now_ms().saturating_mul(MAX_CHANGES_PER_MS);
        let table = Arc::new(RwLock::new(Table::new(options, counter)));
        let actor = PresenceActor {
            table: table.clone(),
            users: users.clone(),
            notifier,
            env: env.clone(),
            next_waking: Duration::ZERO,
            remembered: Vec::new(),
        };
        Self(Some(Inner { table, addr: actor.start(), users, env }))
    }

    /// Whether anybody is told anything.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Says that a device syncs as `state`, for as long as the result lives. Who syncs as offline
    /// is not there.
    #[must_use]
    pub fn syncs(&self, user: &str, device: &str, state: State) -> Option<Syncing> {
        let inner = self.0.as_ref().filter(|_| state != State::Offline)?;
        let is_quiet = inner.write(|table| table.sync_goes_on(user, device, state));
        let device = device.to_owned();
        if !is_quiet {
            self.tell(user, News::SyncBegan { device: device.clone(), state });
        }
        Some(Syncing { inner: inner.clone(), user: user.to_owned(), device, is_quiet })
    }

    /// Says that a user has done something. Costs a look into a table, most of the time.
    pub fn acted(&self, user: &str) {
        let Some(inner) = &self.0 else { return };
        let wall = inner.env.clock.now_ms();
        if !inner.read(|table| table.is_fresh(user, wall, BUMP)) {
            self.tell(user, News::Acted);
        }
    }

    /// Sets what a user is, as its device says.
    pub fn set(&self, user: &str, device: &str, state: State, status_msg: Option<String>) {
        self.tell(user, News::Set { device: device.to_owned(), state, status_msg });
    }

    /// Says what another server has told of its user, who is in these rooms.
    pub fn told(&self, user: &str, status: Status, rooms: Vec<RoomNum>) {
        self.tell(user, News::Told(status, rooms));
    }

    /// Says that a user's name or avatar is another one, which presence events have in them.
    pub fn profile_changed(&self, user: &str) {
        self.tell(user, News::Profile);
    }

    /// Says that a user has come into rooms or left some, or wants to be seen or not any more.
    pub fn background_changed(&self, user: &str) {
        self.tell(user, News::Background);
    }

    /// Says that a user's account has ended, and nothing is to be known of it any more.
    pub(crate) fn gone(&self, user: &str) {
        self.tell(user, News::Gone);
    }

    /// What others see of a user.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn status(&self, user: &str) -> Result<Status, StorageError> {
        let Some(inner) = &self.0 else { return Ok(Status::default()) };
        if let Some(status) = inner.read(|table| table.status(user)) {
            return Ok(status);
        }
        let known = background(&inner.users, user)?;
        let Background { status_msg, last_active_ts, hidden, .. } = known;
        let status = Status { status_msg, last_active_ts, ..Status::default() };
        Ok(Some(status).filter(|_| !hidden).unwrap_or_default())
    }

    /// The counter now: what a sync token remembers.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.read(Table::counter))
    }

    /// The rooms in which somebody's presence has changed after `since`; `None` if that is not
    /// known any more.
    #[must_use]
    pub fn rooms_since(&self, since: u64) -> Option<Vec<RoomNum>> {
        let Some(inner) = &self.0 else { return Some(Vec::new()) };
        inner.read(|table| table.rooms_since(since))
    }

    /// Whose presence has changed after `since` among those in a room, the newest change first, at
    /// most so many. Some may have left the room meanwhile.
    #[must_use]
    pub fn changed_in(&self, room: RoomNum, since: u64, most: usize) -> Vec<Arc<str>> {
        let Some(inner) = &self.0 else { return Vec::new() };
        inner.read(|table| table.changed_in(room, since, most))
    }

    fn tell(&self, user: &str, news: News) {
        if let Some(inner) = &self.0 {
            // Requests are bounded, and so is what each of them can say.
            inner.addr.do_send(Told { user: user.to_owned(), news });
        }
    }
}

impl Inner {
    fn read<T>(&self, read: impl FnOnce(&Table) -> T) -> T {
        read(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Table) -> T) -> T {
        write(&mut self.table.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> Now {
        now(&self.env)
    }
}

/// The actor behind [`Presence`].
#[derive(Debug)]
struct PresenceActor {
    table: Arc<RwLock<Table>>,
    users: Users,
    notifier: Addr<Notifier>,
    env: Env,
    /// When those who wait may be woken again.
    next_waking: Duration,
    /// Who was online when the process before this one ended, and has not been taken in yet.
    remembered: Vec<String>,
}

/// Something about a user.
#[derive(Message)]
#[rtype(result = "()")]
struct Told {
    user: String,
    news: News,
}

enum News {
    SyncBegan { device: String, state: State },
    SyncEnded { device: String },
    Acted,
    Set { device: String, state: State, status_msg: Option<String> },
    Told(Status, Vec<RoomNum>),
    Profile,
    Background,
    Gone,
}

impl Actor for PresenceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.remembered = self.users.online().unwrap_or_else(|error| {
            tracing::warn!(%error, "it cannot be read who was online");
            Vec::new()
        });
        ctx.run_interval(LOOK, |presence, ctx| presence.look_around(ctx));
        ctx.run_interval(TICK, |presence, ctx| {
            presence.remember();
            presence.wake(ctx);
        });
    }
}

impl Handler<Told> for PresenceActor {
    type Result = ();

    fn handle(&mut self, Told { user, news }: Told, ctx: &mut Self::Context) {
        let now = self.now();
        let mut must = false;
        match news {
            News::SyncBegan { device, state } => {
                // Who comes back may be in other rooms than before.
                if !self.read(|table| table.is_awake(&user)) {
                    self.meet(&user);
                }
                self.write(|table| table.sync_began(&user, &device, state, now));
            }
            News::SyncEnded { device } => {
                self.write(|table| table.sync_ended(&user, &device, now));
            }
            News::Acted => self.write(|table| table.acted(&user, now)),
            News::Set { device, state, status_msg } => {
                if !self.read(|table| table.knows(&user)) {
                    self.meet(&user);
                }
                self.write(|table| table.set(&user, &device, state, status_msg, now));
                must = true;
            }
            News::Told(status, rooms) => {
                let background = Background { rooms, ..Background::default() };
                must = self.write(|table| {
                    table.meet(&user, background);
                    table.told(&user, status, now)
                });
            }
            News::Profile => must = self.read(|table| table.is_awake(&user)),
            News::Gone => {
                must = self.read(|table| table.knows(&user));
                self.write(|table| table.clear(&user));
            }
            News::Background => {
                if self.read(|table| table.knows(&user)) {
                    self.meet(&user);
                }
            }
        }
        let turn = self.write(|table| table.settle(&user, now, must));
        if turn.is_some() || must {
            self.keep(&user, ctx);
        }
    }
}

impl PresenceActor {
    fn now(&self) -> Now {
        now(&self.env)
    }

    fn read<T>(&self, read: impl FnOnce(&Table) -> T) -> T {
        read(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Table) -> T) -> T {
        write(&mut self.table.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads what storage knows of a user.
    fn meet(&self, user: &str) {
        match background(&self.users, user) {
            Ok(background) => self.write(|table| table.meet(user, background)),
            Err(error) => tracing::warn!(%error, "a user's presence cannot be told"),
        }
    }

    /// Takes those for online who were so at the stop: if they do not come back they go soon.
    fn remember(&mut self) {
        let now = self.now();
        let rest = self.remembered.len().saturating_sub(REMEMBERED_AT_ONCE);
        for user in self.remembered.split_off(rest) {
            self.meet(&user);
            self.write(|table| {
                table.was_there(&user, now);
                table.settle(&user, now, false)
            });
        }
    }

    /// Sees who has become idle or has gone.
    fn look_around(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        for user in self.read(Table::awake) {
            if self.write(|table| table.settle(&user, now, false)).is_some() {
                self.keep(&user, ctx);
            }
        }
    }

    /// Keeps what should be known after a restart. If it cannot be kept, little is lost.
    fn keep(&self, user: &str, ctx: &mut Context<Self>) {
        let (entry, is_online) = self.read(|table| (table.kept(user), table.is_awake(user)));
        let Some(entry) = entry else { return };
        let (users, user) = (self.users.clone(), user.to_owned());
        let keep = async move { users.keep_presence(&user, entry, is_online).await };
        ctx.spawn(keep.into_actor(self).map(|kept, _, _| {
            if let Err(error) = kept {
                tracing::debug!(%error, "a user's presence was not kept");
            }
        }));
    }

    /// Wakes those who wait in rooms where something has changed, if it is time to.
    fn wake(&mut self, ctx: &mut Context<Self>) {
        let now = self.env.clock.monotonic();
        if now < self.next_waking {
            return;
        }
        let (rooms, counter) = self.write(|table| (table.take_untold(), table.counter()));
        if rooms.is_empty() {
            return;
        }
        let woken = self.notifier.send(PresenceChanged { rooms, counter });
        ctx.spawn(woken.into_actor(self).map(move |woken, presence, _| {
            let woken = u32::try_from(woken.unwrap_or_default()).unwrap_or(u32::MAX);
            let pause = Duration::from_secs(1).saturating_mul(woken) / WAKES_PER_SECOND;
            presence.next_waking = now.saturating_add(pause);
        }));
    }
}

fn now(env: &Env) -> Now {
    Now { monotonic: env.clock.monotonic(), wall: env.clock.now_ms() }
}

/// What storage knows of a user.
fn background(users: &Users, user: &str) -> Result<Background, StorageError> {
    #[derive(Deserialize)]
    struct Visibility {
        #[serde(default)]
        hidden: bool,
    }
    let visibility = users.account_data(user, RoomNum(0), VISIBILITY)?;
    let visibility = visibility.and_then(|json| serde_json::from_slice::<Visibility>(&json).ok());
    let kept = users.presence(user)?.unwrap_or_default();
    Ok(Background {
        rooms: users.joined_rooms(user)?,
        hidden: visibility.is_some_and(|visibility| visibility.hidden),
        status_msg: kept.status_msg,
        last_active_ts: kept.last_active_ts,
    })
}
