//! Where a room's requests are worked on, one after the other: on the thread of the room's actor,
//! or in place by whoever asks while nobody else asks this server for anything.
//!
//! To wake another thread and to be woken by it costs more than a message in a quiet room does, and
//! there is nobody then whom the asking thread would keep waiting. What may take long is done in
//! place by nobody, and whatever follows from a request (merging, setting up anew) is the actor's.

use std::{
    collections::{HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use actix::{Addr, Message};
use parlour_event::{RoomNum, StreamPos};
use ruma::{OwnedEventId, OwnedRoomId};
use tokio::sync::Semaphore;

use super::{
    Computed, Room, RoomCore, RoomDeps,
    commits::{Commits, Settled, Waiter},
    compute,
    messages::{Admission, Input, News, Perform, Queue, Reply, RoomError},
    suspect,
    take_in::Step,
};
use crate::{
    metrics::Stage,
    persister::{PersistError, Persister, RoomChange},
    workers::Workers,
};

/// How many events a room remembers as having made it panic.
const MAX_QUARANTINED: usize = 1_000;

/// Decides whether a room may go to sleep that nobody has asked for this long.
pub(crate) type MaySleep = Box<dyn Fn(Duration) -> bool + Send>;

/// What a room needs besides its core.
pub(crate) struct RoomHost {
    pub(crate) deps: RoomDeps,
    pub(crate) persister: Persister,
    /// Where states are resolved.
    pub(crate) resolvers: Workers,
    /// Bounds how many rooms are read from storage at once, in the whole process.
    pub(crate) loading: Arc<Semaphore>,
    /// The server's queue, in which each request to a room has its place.
    pub(crate) queue: Queue,
    pub(crate) may_sleep: MaySleep,
}

/// A room's desk. Clones are the same.
#[derive(Clone)]
pub(crate) struct Desk(Arc<Mutex<Work>>);

impl Desk {
    /// Of a room that is read from storage when its actor starts.
    pub(crate) fn asleep(host: RoomHost, num: RoomNum, room_id: OwnedRoomId) -> Self {
        Self::with_mind(host, num, room_id, Mind::Lost)
    }

    /// Of a room that has no events yet.
    pub(crate) fn unborn(host: RoomHost, core: RoomCore) -> Self {
        let (num, room_id) = (core.num, core.room_id.clone());
        Self::with_mind(host, num, room_id, Mind::Here(Box::new(core)))
    }

    fn with_mind(host: RoomHost, num: RoomNum, room_id: OwnedRoomId, mind: Mind) -> Self {
        Self(Arc::new(Mutex::new(Work {
            num,
            room_id,
            host,
            mind,
            parked: VecDeque::new(),
            commits: Commits::default(),
            in_flight: 0,
            quarantined: HashSet::new(),
            settled_while_away: None,
            failed: false,
            last_used: Duration::ZERO,
        })))
    }

    /// `None` after a panic.
    pub(super) fn lock(&self) -> Option<MutexGuard<'_, Work>> {
        self.0.lock().ok()
    }

    /// The actor is gone: nobody will work here any more. Who waits for that hears of it.
    pub(super) fn close(&self) {
        let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work.mind = Mind::Away;
        work.parked.clear();
    }

    /// Does what is asked on this thread, if the room's actor isn't at work and it can't take long;
    /// else gives the request back.
    pub(crate) fn perform_in_place(&self, perform: Perform, room: &Addr<Room>) -> Option<Perform> {
        // After a panic it is the actor's turn to end.
        let Ok(mut work) = self.0.try_lock() else { return Some(perform) };
        if !work.is_quick(&perform.input) {
            return Some(perform);
        }
        match work.perform(perform, room) {
            Then::Nothing => {}
            then => room.do_send(then),
        }
        None
    }
}

/// Where the core is.
enum Mind {
    /// Here.
    Here(Box<RoomCore>),
    /// On a worker thread, or not read from storage yet.
    Away,
    /// Lost to a panic or a failed write; set up again once nothing is in flight.
    Lost,
}

/// What the room's actor has to do next.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) enum Then {
    Nothing,
    Merge(Box<Merge>),
    Load(Box<Load>),
    /// The actor is needed no more.
    End,
}

/// A request that makes or joins branches, and the core, on their way to a worker thread.
pub(super) struct Merge {
    core: Box<RoomCore>,
    input: Input,
    reply: Reply,
    permit: Admission,
    resolvers: Workers,
}

/// What a core has made of a request, if it has not panicked.
type Outcome = thread::Result<Result<Computed, RoomError>>;

/// What has become of a [`Merge`].
pub(super) struct Merged {
    /// Nothing if the thread panicked.
    done: Option<(Box<RoomCore>, Outcome)>,
    suspect: Option<OwnedEventId>,
    reply: Reply,
    permit: Admission,
}

impl Merge {
    pub(super) async fn run(self: Box<Self>) -> Merged {
        let Self { mut core, input, reply, permit, resolvers } = *self;
        let suspect = suspect(&input);
        let task = move || {
            let computed = catch_unwind(AssertUnwindSafe(|| compute(&mut core, input)));
            (core, computed)
        };
        Merged { done: resolvers.run(task).await, suspect, reply, permit }
    }
}

/// A room that is to be set up from storage.
pub(super) struct Load {
    deps: RoomDeps,
    num: RoomNum,
    loading: Arc<Semaphore>,
}

impl Load {
    pub(super) async fn run(self: Box<Self>) -> Result<RoomCore, RoomError> {
        let Self { deps, num, loading } = *self;
        let place = loading.acquire_owned().await;
        let threads = deps.env.threads.clone();
        let task = threads.block(move || {
            let _place = place;
            let started = deps.env.clock.monotonic();
            let core = RoomCore::load(deps.clone(), num)?;
            deps.metrics.room_woken(deps.env.clock.monotonic() - started);
            Ok(core)
        });
        task.await.unwrap_or(Err(RoomError::Panicked))
    }
}

/// What is on a desk.
pub(super) struct Work {
    num: RoomNum,
    room_id: OwnedRoomId,
    host: RoomHost,
    mind: Mind,
    parked: VecDeque<Perform>,
    /// What the persister has to say of this core's commits, or a lost one's.
    commits: Commits,
    /// How many of these commits were not settled when the room last looked.
    in_flight: usize,
    /// Events that made the core panic; they are not tried again.
    quarantined: HashSet<OwnedEventId>,
    /// The newest commit that became durable while the core was on a worker thread.
    settled_while_away: Option<u64>,
    /// A commit failed: the core is ahead of what will ever be durable.
    failed: bool,
    /// When somebody last asked for something, on the monotonic clock.
    last_used: Duration,
}

impl Work {
    /// The actor has started.
    pub(super) fn open(&mut self) -> Then {
        self.last_used = self.host.deps.env.clock.monotonic();
        self.load_if_quiet()
    }

    /// Whether a request is about one event at the end of the room's history, and the core is here.
    fn is_quick(&self, input: &Input) -> bool {
        let Mind::Here(core) = &self.mind else { return false };
        let is_about_many = matches!(
            input,
            Input::Birth(_)
                | Input::Enter(_)
                | Input::Outliers(_)
                | Input::Backfill(_)
                | Input::Many(_)
        );
        !is_about_many && !core.is_unborn() && !core.must_resolve(input)
    }

    pub(super) fn perform(&mut self, perform: Perform, room: &Addr<Room>) -> Then {
        self.last_used = self.host.deps.env.clock.monotonic();
        let then = self.look();
        let Mind::Here(core) = &mut self.mind else {
            self.parked.push_back(perform);
            return then;
        };
        let Perform { input, reply, permit, asked } = perform;
        self.host.deps.metrics.stage(Stage::RoomWait, self.last_used.saturating_sub(asked));
        let suspect = suspect(&input);
        if suspect.as_ref().is_some_and(|event| self.quarantined.contains(event)) {
            drop(reply.send(Err(RoomError::Quarantined)));
            return Then::Nothing;
        }
        if core.must_resolve(&input) {
            return self.merge(input, reply, permit);
        }
        let computed = catch_unwind(AssertUnwindSafe(|| compute(core, input)));
        core.weigh();
        self.conclude(computed, suspect, reply, permit, room)
    }

    /// Has an event that makes or joins branches taken in on a worker thread.
    fn merge(&mut self, input: Input, reply: Reply, permit: Admission) -> Then {
        match std::mem::replace(&mut self.mind, Mind::Away) {
            Mind::Here(core) => {
                let resolvers = self.host.resolvers.clone();
                Then::Merge(Box::new(Merge { core, input, reply, permit, resolvers }))
            }
            Mind::Away | Mind::Lost => Then::Nothing,
        }
    }

    /// The worker thread is done with that.
    pub(super) fn merged(&mut self, merged: Merged, room: &Addr<Room>) -> Then {
        let Merged { done, suspect, reply, permit } = merged;
        let Some((mut core, computed)) = done else { return self.lose() };
        if let Some(seq) = self.settled_while_away.take() {
            core.settled(seq);
        }
        self.mind = Mind::Here(core);
        let then = self.conclude(computed, suspect, reply, permit, room);
        if self.failed && matches!(self.mind, Mind::Here(_)) {
            return self.lose();
        }
        self.unpark(then, room)
    }

    /// Hands what was computed to the persister, or answers at once.
    fn conclude(
        &mut self,
        computed: Outcome,
        suspect: Option<OwnedEventId>,
        reply: Reply,
        permit: Admission,
        room: &Addr<Room>,
    ) -> Then {
        // Whoever asked may have gone; then the answer concerns nobody.
        match computed {
            Ok(Ok(Computed::Done(output))) => drop(reply.send(Ok(output))),
            Ok(Ok(Computed::Wait { seq, answer })) => {
                self.commits.wait(seq, Waiter { reply, answer, permit });
            }
            Ok(Ok(Computed::Steps { steps, answer })) => {
                self.submit(steps, Waiter { reply, answer, permit }, room);
            }
            Ok(Err(error)) => {
                drop(reply.send(Err(error)));
                // A room whose birth failed has never been there.
                if matches!(&self.mind, Mind::Here(core) if core.is_unborn()) {
                    return Then::End;
                }
            }
            Err(_panic) => {
                tracing::error!(room = %self.room_id, event = ?suspect, "the room panicked on an event");
                self.host.deps.metrics.room_panicked();
                drop(reply.send(Err(RoomError::Panicked)));
                if self.quarantined.len() < MAX_QUARANTINED {
                    self.quarantined.extend(suspect);
                }
                return self.lose();
            }
        }
        Then::Nothing
    }

    fn submit(&mut self, steps: Vec<Step>, waiter: Waiter, room: &Addr<Room>) {
        let Some(last) = steps.last().map(|step| step.seq) else { return };
        self.commits.wait(last, waiter);
        self.in_flight += steps.len();
        let changes = steps.into_iter().map(|Step { seq, effect, broken }| {
            let (room, commits) = (room.clone(), self.commits.clone());
            let people = effect.concerns_people().then(|| self.host.deps.people.clone());
            let done = move |result: Result<StreamPos, PersistError>| {
                if let (Some(people), Ok(_)) = (people, &result) {
                    people.notify_one();
                }
                if commits.settle(seq, result) {
                    // A room that has gone has nothing left to do about it.
                    room.do_send(News);
                }
            };
            RoomChange { change: Box::new(effect), broken, done: Box::new(done) }
        });
        // This request is one of them.
        let others_are_at_work = self.host.queue.taken() > 1;
        self.host.persister.submit_of_room(changes.collect(), others_are_at_work);
    }

    /// Gives the core up. What waits for commits is still answered by those; the room is set up
    /// again when the last of them is settled.
    fn lose(&mut self) -> Then {
        self.mind = Mind::Lost;
        self.load_if_quiet()
    }

    fn load_if_quiet(&mut self) -> Then {
        if !matches!(self.mind, Mind::Lost) {
            return Then::Nothing;
        }
        if self.in_flight > 0 {
            self.in_flight = self.in_flight.saturating_sub(self.commits.look_and_ask().count);
        }
        if self.in_flight > 0 {
            return Then::Nothing;
        }
        // The next core counts its commits from the beginning.
        self.commits = Commits::default();
        self.mind = Mind::Away;
        self.failed = false;
        let (deps, loading) = (self.host.deps.clone(), self.host.loading.clone());
        Then::Load(Box::new(Load { deps, num: self.num, loading }))
    }

    /// The room has been set up, or storage does not give its core: then all who wait get the error,
    /// and the next request tries again with a new actor.
    pub(super) fn loaded(
        &mut self,
        loaded: Result<RoomCore, RoomError>,
        room: &Addr<Room>,
    ) -> Then {
        match loaded {
            Ok(core) => {
                self.mind = Mind::Here(Box::new(core));
                self.unpark(Then::Nothing, room)
            }
            Err(error) => {
                tracing::error!(room = %self.room_id, %error, "the room cannot be set up from storage");
                for perform in self.parked.drain(..) {
                    drop(perform.reply.send(Err(error.clone())));
                }
                Then::End
            }
        }
    }

    /// Goes on with what was parked; `then` is what is to be done if that is nothing.
    fn unpark(&mut self, mut then: Then, room: &Addr<Room>) -> Then {
        while matches!(self.mind, Mind::Here(_)) {
            let Some(perform) = self.parked.pop_front() else { break };
            then = self.perform(perform, room);
        }
        then
    }

    pub(super) fn sleep_if_idle(&mut self) -> Then {
        let then = self.look();
        let Mind::Here(core) = &mut self.mind else { return then };
        core.weigh();
        let idle = self.host.deps.env.clock.monotonic().saturating_sub(self.last_used);
        let is_quiet = self.in_flight == 0 && self.parked.is_empty();
        if is_quiet && (self.host.may_sleep)(idle) { Then::End } else { Then::Nothing }
    }

    /// Takes note of what has become of commits.
    pub(super) fn look(&mut self) -> Then {
        let Settled { count, durable, failed } = self.commits.look();
        self.in_flight = self.in_flight.saturating_sub(count);
        match (durable, &mut self.mind) {
            (Some(seq), Mind::Here(core)) => core.settled(seq),
            (Some(seq), Mind::Away) => self.settled_while_away = Some(seq),
            (_, Mind::Lost) | (None, _) => {}
        }
        self.failed |= failed;
        match &self.mind {
            Mind::Here(_) if self.failed => self.lose(),
            Mind::Lost => self.load_if_quiet(),
            Mind::Here(_) | Mind::Away => Then::Nothing,
        }
    }
}
