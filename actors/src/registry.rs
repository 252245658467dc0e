//! The room registry: finds a room's actor or wakes it from storage, and decides who may queue.
//!
//! Admission is our own, since an actor's mailbox bounds nothing: each request takes a permit of
//! its room and one of the server, and holds them until it is answered. Who gets none is refused
//! at once.

mod company;
mod federation;
mod many;
mod policy;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io,
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::Addr;
use bytes::Bytes;
use parlour_event::{Pdu, RoomVersion, content::Membership, json::Object, pdu::PduBuilder};
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use tokio::sync::{Semaphore, oneshot};

pub use self::policy::{PolicyError, PolicySource};
use self::{
    company::Company,
    policy::{After, Signatures},
};
use crate::{
    budget::Share,
    directory::AliasClaim,
    persister::Persister,
    room::{
        Desk, MaySleep, Room, RoomCore, RoomDeps, RoomHost,
        messages::{
            Admission, Birth, Input, LocalEvent, Output, Perform, ProfileUpdate, Queue, RoomError,
            Sent,
        },
        policy::Condition,
    },
    threads::Thread,
    workers::Workers,
};

/// How many letters and digits the opaque part of a room id has, before room version 12.
const ROOM_ID_LEN: usize = 18;

/// Limits of the rooms.
#[derive(Debug, Clone)]
pub struct RoomLimits {
    /// Threads that rooms are spread over.
    pub threads: usize,
    /// How many requests may wait for one room.
    pub queue_per_room: usize,
    /// How many requests may wait for all rooms together.
    pub queue: usize,
    /// Threads that resolve states, at a lower priority than everything else.
    pub resolvers: usize,
    /// How many rooms may be read from storage at the same time.
    pub loading: usize,
    /// After this time without a request a room goes to sleep.
    pub idle: Duration,
    /// What awake rooms may take. While they take more, rooms go to sleep as soon as nobody asks for
    /// them.
    pub memory: Share,
    /// How often a room looks whether it may sleep.
    pub tick: Duration,
}

impl Default for RoomLimits {
    fn default() -> Self {
        Self {
            threads: 2,
            queue_per_room: 256,
            queue: 16_384,
            resolvers: 1,
            loading: 4,
            idle: Duration::from_secs(300),
            memory: Share::new(64 << 20),
            tick: Duration::from_secs(5),
        }
    }
}

/// A room that is to be created.
#[derive(Debug)]
pub struct NewRoom {
    /// The room version.
    pub version: &'static RoomVersion,
    /// The creator.
    pub creator: OwnedUserId,
    /// The content of `m.room.create`, complete.
    pub create_content: Object,
    /// The events that follow, in order, beginning with the creator's join.
    pub events: Vec<LocalEvent>,
    /// The alias that leads to the room from its birth on.
    pub alias: Option<AliasClaim>,
    /// Whether it is in the published directory from its birth on.
    pub published: bool,
    /// A key under which it is found from its birth on, as a [`MadeRoom`].
    ///
    /// [`MadeRoom`]: parlour_storage::schema::MadeRoom
    pub made_for: Option<Bytes>,
}

/// How others reach rooms. Cheap to clone.
#[derive(Clone)]
pub struct Rooms(Arc<Registry>);

struct Registry {
    rooms: RwLock<HashMap<OwnedRoomId, Entry>>,
    /// Rooms that are about to be purged. Looked at while `rooms` is held.
    retired: RwLock<HashSet<OwnedRoomId>>,
    deps: RoomDeps,
    persister: Persister,
    limits: RoomLimits,
    server_queue: Queue,
    company: Company,
    resolvers: Workers,
    loading: Arc<Semaphore>,
    signatures: Signatures,
    threads: Vec<Thread>,
    /// The time in the newest create event.
    last_birth: AtomicU64,
}

#[derive(Clone)]
struct Entry {
    addr: Addr<Room>,
    desk: Desk,
    queue: Queue,
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms").field("awake", &self.awake()).finish_non_exhaustive()
    }
}

impl Rooms {
    /// Starts the threads that rooms run on.
    ///
    /// # Errors
    ///
    /// If the system gives none.
    pub(crate) fn start(
        deps: RoomDeps,
        persister: Persister,
        resolvers: Workers,
        limits: RoomLimits,
    ) -> io::Result<Self> {
        let threads = (0..limits.threads.max(1)).map(|_| deps.env.threads.start(c"rooms"));
        let threads = threads.collect::<io::Result<_>>()?;
        Ok(Self(Arc::new(Registry {
            threads,
            rooms: RwLock::default(),
            retired: RwLock::default(),
            deps,
            persister,
            server_queue: Queue::new(limits.queue),
            company: Company::default(),
            resolvers,
            signatures: Signatures::default(),
            loading: Arc::new(Semaphore::new(limits.loading)),
            limits,
            last_birth: AtomicU64::new(0),
        })))
    }

    /// How many rooms are awake.
    #[must_use]
    pub fn awake(&self) -> usize {
        self.0.rooms.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The rooms for which most requests wait, with how many: the busiest first, at most `most` of
    /// them, and none for which nobody waits.
    #[must_use]
    pub fn busiest(&self, most: usize) -> Vec<(OwnedRoomId, usize)> {
        let mut waiting: Vec<_> = {
            let rooms = self.0.rooms.read().unwrap_or_else(PoisonError::into_inner);
            let queued = rooms.iter().map(|(room, entry)| (room, entry.queue.taken()));
            queued.filter(|(_, queued)| *queued > 0).map(|(room, n)| (room.clone(), n)).collect()
        };
        waiting.sort_unstable_by(|(a, most), (b, more)| more.cmp(most).then_with(|| a.cmp(b)));
        waiting.truncate(most);
        waiting
    }

    /// Sends a local user's event. Returns when it is durable and readable.
    ///
    /// # Errors
    ///
    /// See [`RoomError`]; the room has not changed then.
    pub async fn send(&self, room: &RoomId, event: LocalEvent) -> Result<Sent, RoomError> {
        let after = After::of(&event, Condition::None);
        self.send_signed(room, || Input::Local(Box::new(event.clone())), after).await
    }

    /// Sends a local user's member event if the membership of its target is one of `from` at the
    /// very moment (`leave` stands for whoever never had one).
    ///
    /// # Errors
    ///
    /// [`RoomError::WrongMembership`], else as [`Rooms::send`].
    pub async fn change_membership(
        &self,
        room: &RoomId,
        event: LocalEvent,
        from: &'static [Membership],
    ) -> Result<Sent, RoomError> {
        let after = After::of(&event, Condition::Membership(from));
        self.send_signed(room, || Input::Member(Box::new(event.clone()), from), after).await
    }

    /// As [`Rooms::change_membership`], for a user who goes for good: the room's policy server is
    /// asked, but its refusal keeps nobody.
    ///
    /// # Errors
    ///
    /// As [`Rooms::change_membership`].
    pub async fn depart(
        &self,
        room: &RoomId,
        event: LocalEvent,
        from: &'static [Membership],
    ) -> Result<Sent, RoomError> {
        let after = After { is_forced: true, ..After::of(&event, Condition::Membership(from)) };
        self.send_signed(room, || Input::Member(Box::new(event.clone()), from), after).await
    }

    /// Sends a guest's join, if the room lets guests in at the very moment.
    ///
    /// # Errors
    ///
    /// [`RoomError::NoGuests`], else as [`Rooms::send`].
    pub async fn join_as_guest(&self, room: &RoomId, event: LocalEvent) -> Result<Sent, RoomError> {
        let after = After::of(&event, Condition::LetsGuestsIn);
        self.send_signed(room, || Input::Guest(Box::new(event.clone())), after).await
    }

    /// Says a local user's new name and avatar in a room, by a member event. Nothing happens in a
    /// room that the user is not joined to, or that knows them already.
    ///
    /// # Errors
    ///
    /// See [`RoomError`]; the room has not changed then.
    pub async fn update_profile(
        &self,
        room: &RoomId,
        update: ProfileUpdate,
    ) -> Result<(), RoomError> {
        let after = After {
            transaction: None,
            condition: Condition::Membership(&[Membership::Join]),
            is_forced: false,
        };
        let input = || Input::Profile(Box::new(update.clone()));
        self.settle(room, input, |pdu| after.build(pdu), false).await.map(drop)
    }

    /// Creates a room: all of its first events with its alias and its entry in the directory, or
    /// nothing.
    ///
    /// # Errors
    ///
    /// See [`RoomError`]; there is no room then.
    pub async fn create(&self, new: NewRoom) -> Result<(OwnedRoomId, Sent), RoomError> {
        let create = Arc::new(self.0.build_create(&new)?);
        let room_id = create.room_id().clone();
        let num = self.0.deps.interner.new_room();
        let core = RoomCore::unborn(self.0.deps.clone(), num, room_id.clone(), new.version);
        let host = self.0.host(&room_id);
        let entry = self.0.start_actor(&room_id, Desk::unborn(host, core));
        let admission = self.0.admit(&room_id, &entry)?;
        {
            let mut rooms = self.0.rooms.write().unwrap_or_else(PoisonError::into_inner);
            rooms.insert(room_id.clone(), entry.clone());
        }
        let NewRoom { events, alias, published, made_for, .. } = new;
        let birth = Birth { create, events, alias, published, made_for };
        let birth = Input::Birth(Box::new(birth));
        let result = self.0.ask(&entry, birth, admission).await;
        if result.is_err() {
            self.0.forget(&room_id, &entry.addr);
        }
        match result? {
            Output::Sent(sent) => Ok((room_id, sent)),
            _ => Err(RoomError::Gone),
        }
    }

    /// Closes a room: to whoever asks from now on it is not known. Returns when nothing is in
    /// flight there any more.
    pub(crate) async fn retire(&self, room: &RoomId) {
        let entry = {
            let rooms = self.0.rooms.write().unwrap_or_else(PoisonError::into_inner);
            let mut retired = self.0.retired.write().unwrap_or_else(PoisonError::into_inner);
            retired.insert(room.to_owned());
            rooms.get(room).cloned()
        };
        if let Some(entry) = entry {
            // Who has all the permits is alone. The semaphore is never closed.
            let _alone = entry.queue.enter_alone().await;
            self.0.forget(room, &entry.addr);
        }
    }

    /// Opens a closed room again; by now the index does not know it.
    pub(crate) fn unretire(&self, room: &RoomId) {
        self.0.retired.write().unwrap_or_else(PoisonError::into_inner).remove(room);
    }

    /// Stops the threads. What is in flight has been waited for by whoever asked for it.
    pub fn stop(&self) {
        for thread in &self.0.threads {
            thread.stop();
        }
    }

    async fn perform(&self, room: &RoomId, input: impl Fn() -> Input) -> Result<Output, RoomError> {
        let (entry, admission) = self.0.find_or_wake(room)?;
        match self.0.ask(&entry, input(), admission).await {
            // The actor ended between being found and being asked: it is woken again, once.
            Err(RoomError::Gone) => {
                self.0.forget(room, &entry.addr);
                let (entry, admission) = self.0.find_or_wake(room)?;
                self.0.ask(&entry, input(), admission).await
            }
            result => result,
        }
    }
}

impl Registry {
    /// Asks a room and waits for its answer. A lone request goes to the room's desk itself.
    async fn ask(
        &self,
        Entry { addr, desk, .. }: &Entry,
        input: Input,
        permit: Admission,
    ) -> Result<Output, RoomError> {
        let (reply, answer) = oneshot::channel();
        let asked = self.deps.env.clock.monotonic();
        let is_lone = self.company.is_absent(input.asker(), asked, &self.server_queue);
        let perform = Perform { input, reply, permit, asked };
        let left = match is_lone {
            true => desk.perform_in_place(perform, addr),
            false => Some(perform),
        };
        if let Some(perform) = left {
            // The permit is what bounds the mailbox. A closed one drops the request and with it the
            // reply.
            addr.do_send(perform);
        }
        answer.await.unwrap_or(Err(RoomError::Gone))
    }

    fn find_or_wake(self: &Arc<Self>, room: &RoomId) -> Result<(Entry, Admission), RoomError> {
        {
            let rooms = self.rooms.read().unwrap_or_else(PoisonError::into_inner);
            self.check_not_retired(room)?;
            if let Some(entry) = rooms.get(room) {
                // The permit is taken under the lock, so that the room cannot go to sleep between.
                return Ok((entry.clone(), self.admit(room, entry)?));
            }
        }
        let num = self.deps.store.room_num(room.as_str())?.ok_or(RoomError::UnknownRoom)?;
        // An invite to a room elsewhere gives it a number, and nothing more.
        self.deps.store.room_head(num)?.ok_or(RoomError::UnknownRoom)?;
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        self.check_not_retired(room)?;
        let entry = rooms.entry(room.to_owned()).or_insert_with(|| {
            let (host, room_id) = (self.host(room), room.to_owned());
            self.start_actor(room, Desk::asleep(host, num, room_id))
        });
        Ok((entry.clone(), self.admit(room, entry)?))
    }

    fn check_not_retired(&self, room: &RoomId) -> Result<(), RoomError> {
        let retired = self.retired.read().unwrap_or_else(PoisonError::into_inner);
        if retired.contains(room) { Err(RoomError::UnknownRoom) } else { Ok(()) }
    }

    fn admit(&self, room: &RoomId, entry: &Entry) -> Result<Admission, RoomError> {
        match (entry.queue.enter(), self.server_queue.enter()) {
            (Some(of_room), Some(of_server)) => {
                Ok(Admission { _room: of_room, _server: of_server })
            }
            _ => {
                self.deps.metrics.room_refused(room.as_str(), entry.queue.taken());
                Err(RoomError::Busy)
            }
        }
    }

    fn host(self: &Arc<Self>, room: &RoomId) -> RoomHost {
        RoomHost {
            deps: self.deps.clone(),
            persister: self.persister.clone(),
            resolvers: self.resolvers.clone(),
            loading: self.loading.clone(),
            queue: self.server_queue.clone(),
            may_sleep: self.may_sleep(room.to_owned()),
        }
    }

    /// A room may sleep if nobody holds a permit for it, and it has been idle for long or too many
    /// are awake. Then it is taken off the list in the same breath, and the next request wakes a
    /// new actor.
    fn may_sleep(self: &Arc<Self>, room: OwnedRoomId) -> MaySleep {
        let registry: Weak<Self> = Arc::downgrade(self);
        Box::new(move |idle| {
            let Some(registry) = registry.upgrade() else { return true };
            let limits = &registry.limits;
            if idle < limits.idle && !limits.memory.is_over() {
                return false;
            }
            let mut rooms = registry.rooms.write().unwrap_or_else(PoisonError::into_inner);
            let Some(entry) = rooms.get(&room) else { return true };
            let quiet = entry.queue.taken() == 0;
            if quiet {
                rooms.remove(&room);
            }
            quiet
        })
    }

    fn start_actor(&self, room: &RoomId, desk: Desk) -> Entry {
        let tick = self.limits.tick.min(self.limits.idle);
        let actor = Room::new(desk.clone(), tick);
        let addr = self.thread_of(room).start(move || actor);
        Entry { addr, desk, queue: Queue::new(self.limits.queue_per_room) }
    }

    fn thread_of(&self, room: &RoomId) -> &Thread {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(room);
        let threads = self.threads.len() as u64;
        let index = usize::try_from(hash % threads).expect("less than the number of threads");
        &self.threads[index]
    }

    fn forget(&self, room: &RoomId, addr: &Addr<Room>) {
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        if rooms.get(room).is_some_and(|entry| entry.addr == *addr) {
            rooms.remove(room);
        }
    }

    /// Now, or a millisecond after the last room's birth: from room version 12 on the create event
    /// makes the room id, and two rooms that one user creates at once must not be one.
    fn time_of_birth(&self) -> u64 {
        let now = self.deps.env.clock.now_ms();
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        let last = self.last_birth.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        next(last.unwrap_or_default()).unwrap_or(now)
    }

    fn build_create(&self, new: &NewRoom) -> Result<Pdu, RoomError> {
        let deps = &self.deps;
        let from_create = new.version.rules().authorization.room_create_event_id_as_room_id;
        let room_id = (!from_create).then(|| {
            let opaque = deps.env.random_string(ROOM_ID_LEN);
            RoomId::parse(format!("!{opaque}:{}", deps.server_name))
                .expect("letters and digits with a server name are a room id")
        });
        let builder = PduBuilder {
            room_id,
            sender: new.creator.clone(),
            event_type: "m.room.create".to_owned(),
            state_key: Some(String::new()),
            content: new.create_content.clone(),
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: self.time_of_birth(),
            redacts: None,
            event_localpart: Some(deps.env.random_string(ROOM_ID_LEN)),
        };
        Ok(builder.build_and_sign(new.version, &deps.server_name, &deps.key)?)
    }
}
