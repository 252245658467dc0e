//! The room actor: serialises auth checks, state calculation and extremity updates of one room.
//!
//! Each request is computed at once on the room's newest in-memory state and handed to the
//! persister; the room goes on with the next request while earlier ones are being made durable.
//! Whoever asked is answered when the commit is durable and readable.
//!
//! Work that may take long (setting up from storage, merging branches of history) is done on a
//! worker thread with the core moved out; requests are parked meanwhile, and other rooms on the
//! same thread don't notice.

mod birth;
mod change;
mod commits;
mod core;
mod counts;
mod edges;
mod entrance;
mod guests;
mod history;
mod local;
pub(crate) mod many;
mod member;
pub(crate) mod messages;
mod openness;
mod outliers;
pub(crate) mod policy;
mod profile;
mod received;
mod redactions;
pub(crate) mod relations;
mod source;
mod take_in;
#[cfg(test)]
mod tests;
mod unsettled;

use std::{
    collections::{HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use parlour_event::{RoomNum, StreamPos};
use ruma::{OwnedEventId, OwnedRoomId};
use tokio::sync::Semaphore;

pub(crate) use self::core::{RoomCore, RoomDeps};
use self::{
    commits::{Answer, Commits, Settled, Waiter},
    local::Local,
    messages::{Admission, Input, News, Output, Perform, Queue, Reply, RoomError, Verdict},
    received::{Received, Way},
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
    pub(crate) tick: Duration,
    pub(crate) may_sleep: MaySleep,
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

/// The actor.
pub(crate) struct Room {
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

impl Room {
    /// A room that reads its core from storage when it starts.
    pub(crate) fn asleep(host: RoomHost, num: RoomNum, room_id: OwnedRoomId) -> Self {
        Self::with_mind(host, num, room_id, Mind::Lost)
    }

    /// A room that has no events yet.
    pub(crate) fn unborn(host: RoomHost, core: RoomCore) -> Self {
        let (num, room_id) = (core.num, core.room_id.clone());
        Self::with_mind(host, num, room_id, Mind::Here(Box::new(core)))
    }

    fn with_mind(host: RoomHost, num: RoomNum, room_id: OwnedRoomId, mind: Mind) -> Self {
        Self {
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
        }
    }

    fn perform(&mut self, perform: Perform, ctx: &mut Context<Self>) {
        self.last_used = self.host.deps.env.clock.monotonic();
        let settled = self.commits.look();
        self.note(&settled, ctx);
        let Mind::Here(core) = &mut self.mind else {
            self.parked.push_back(perform);
            return;
        };
        let Perform { input, reply, permit, asked } = perform;
        self.host.deps.metrics.stage(Stage::RoomWait, self.last_used.saturating_sub(asked));
        match input {
            input if suspect(&input).is_some_and(|event| self.quarantined.contains(&event)) => {
                drop(reply.send(Err(RoomError::Quarantined)));
            }
            input if core.must_resolve(&input) => self.merge(input, reply, permit, ctx),
            input => {
                let suspect = suspect(&input);
                let computed = catch_unwind(AssertUnwindSafe(|| compute(core, input)));
                core.weigh();
                self.conclude(computed, suspect, reply, permit, ctx);
            }
        }
    }

    /// Takes in an event that makes or joins branches, on a worker thread.
    fn merge(&mut self, input: Input, reply: Reply, permit: Admission, ctx: &mut Context<Self>) {
        let Mind::Here(mut core) = std::mem::replace(&mut self.mind, Mind::Away) else { return };
        let resolvers = self.host.resolvers.clone();
        let suspect = suspect(&input);
        let work = async move {
            let task = move || {
                let computed = catch_unwind(AssertUnwindSafe(|| compute(&mut core, input)));
                (core, computed)
            };
            resolvers.run(task).await
        };
        ctx.spawn(work.into_actor(self).map(move |done, room, ctx| {
            let Some((mut core, computed)) = done else {
                room.lose(ctx);
                return;
            };
            if let Some(seq) = room.settled_while_away.take() {
                core.settled(seq);
            }
            room.mind = Mind::Here(core);
            room.conclude(computed, suspect, reply, permit, ctx);
            if room.failed {
                room.lose(ctx);
            }
            room.unpark(ctx);
        }));
    }

    /// Hands what was computed to the persister, or answers at once.
    fn conclude(
        &mut self,
        computed: std::thread::Result<Result<Computed, RoomError>>,
        suspect: Option<OwnedEventId>,
        reply: Reply,
        permit: Admission,
        ctx: &mut Context<Self>,
    ) {
        // Whoever asked may have gone; then the answer concerns nobody.
        match computed {
            Ok(Ok(Computed::Done(output))) => drop(reply.send(Ok(output))),
            Ok(Ok(Computed::Wait { seq, answer })) => {
                self.commits.wait(seq, Waiter { reply, answer, permit });
            }
            Ok(Ok(Computed::Steps { steps, answer })) => {
                self.submit(steps, Waiter { reply, answer, permit }, ctx);
            }
            Ok(Err(error)) => {
                drop(reply.send(Err(error)));
                self.end_if_unborn(ctx);
            }
            Err(_panic) => {
                tracing::error!(room = %self.room_id, event = ?suspect, "the room panicked on an event");
                self.host.deps.metrics.room_panicked();
                drop(reply.send(Err(RoomError::Panicked)));
                if self.quarantined.len() < MAX_QUARANTINED {
                    self.quarantined.extend(suspect);
                }
                self.lose(ctx);
            }
        }
    }

    fn submit(&mut self, steps: Vec<Step>, waiter: Waiter, ctx: &mut Context<Self>) {
        let Some(last) = steps.last().map(|step| step.seq) else { return };
        self.commits.wait(last, waiter);
        self.in_flight += steps.len();
        let changes = steps.into_iter().map(|Step { seq, effect, broken }| {
            let (room, commits) = (ctx.address(), self.commits.clone());
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
    fn lose(&mut self, ctx: &mut Context<Self>) {
        self.mind = Mind::Lost;
        self.reload_if_quiet(ctx);
    }

    fn reload_if_quiet(&mut self, ctx: &mut Context<Self>) {
        if !matches!(self.mind, Mind::Lost) {
            return;
        }
        if self.in_flight > 0 {
            self.in_flight = self.in_flight.saturating_sub(self.commits.look_and_ask().count);
        }
        if self.in_flight > 0 {
            return;
        }
        // The next core counts its commits from the beginning.
        self.commits = Commits::default();
        self.mind = Mind::Away;
        self.failed = false;
        let (deps, num, loading) = (self.host.deps.clone(), self.num, self.host.loading.clone());
        let threads = deps.env.threads.clone();
        let work = async move {
            let place = loading.acquire_owned().await;
            let task = threads.block(move || {
                let _place = place;
                let started = deps.env.clock.monotonic();
                let core = RoomCore::load(deps.clone(), num)?;
                deps.metrics.room_woken(deps.env.clock.monotonic() - started);
                Ok(core)
            });
            task.await.unwrap_or(Err(RoomError::Panicked))
        };
        ctx.spawn(work.into_actor(self).map(|loaded, room, ctx| match loaded {
            Ok(core) => {
                room.mind = Mind::Here(Box::new(core));
                room.unpark(ctx);
            }
            Err(error) => room.give_up(&error, ctx),
        }));
    }

    /// Storage does not give the room's core. All who wait get the error; the next request tries
    /// again with a new actor.
    fn give_up(&mut self, error: &RoomError, ctx: &mut Context<Self>) {
        tracing::error!(room = %self.room_id, %error, "the room cannot be set up from storage");
        for perform in self.parked.drain(..) {
            drop(perform.reply.send(Err(error.clone())));
        }
        ctx.stop();
    }

    fn unpark(&mut self, ctx: &mut Context<Self>) {
        while matches!(self.mind, Mind::Here(_)) {
            let Some(perform) = self.parked.pop_front() else { break };
            self.perform(perform, ctx);
        }
    }

    /// A room whose birth failed has never been there.
    fn end_if_unborn(&mut self, ctx: &mut Context<Self>) {
        if matches!(&self.mind, Mind::Here(core) if core.is_unborn()) {
            ctx.stop();
        }
    }

    fn sleep_if_idle(&mut self, ctx: &mut Context<Self>) {
        let settled = self.commits.look();
        self.note(&settled, ctx);
        if let Mind::Here(core) = &mut self.mind {
            core.weigh();
        }
        let quiet =
            self.in_flight == 0 && self.parked.is_empty() && matches!(self.mind, Mind::Here(_));
        let idle = self.host.deps.env.clock.monotonic().saturating_sub(self.last_used);
        if quiet && (self.host.may_sleep)(idle) {
            ctx.stop();
        }
    }

    /// Takes note of what has become of commits.
    fn note(&mut self, settled: &Settled, ctx: &mut Context<Self>) {
        self.in_flight = self.in_flight.saturating_sub(settled.count);
        match (settled.durable, &mut self.mind) {
            (Some(seq), Mind::Here(core)) => core.settled(seq),
            (Some(seq), Mind::Away) => self.settled_while_away = Some(seq),
            (_, Mind::Lost) | (None, _) => {}
        }
        self.failed |= settled.failed;
        if self.failed && matches!(self.mind, Mind::Here(_)) {
            self.lose(ctx);
        }
    }
}

/// What a request comes to.
enum Computed {
    /// There is nothing to write.
    Done(Output),
    /// A commit that is in flight already brings the answer.
    Wait { seq: u64, answer: Answer },
    /// New commits; the last one brings the answer.
    Steps { steps: Vec<Step>, answer: Answer },
}

impl From<Local> for Computed {
    fn from(local: Local) -> Self {
        match local {
            Local::Known(sent) => Self::Done(Output::Sent(sent)),
            Local::InFlight { seq, event_id } => Self::Wait { seq, answer: Answer::Sent(event_id) },
            Local::Unsigned(unsigned) => Self::Done(Output::Unsigned(unsigned)),
            Local::Step(step, event_id) => {
                Self::Steps { steps: vec![*step], answer: Answer::Sent(event_id) }
            }
        }
    }
}

impl From<Received> for Computed {
    fn from(received: Received) -> Self {
        match received {
            Received::Known(_) => Self::Done(Output::Received(Verdict::Known)),
            Received::Step(step, verdict) => {
                Self::Steps { steps: vec![*step], answer: Answer::Received(verdict) }
            }
        }
    }
}

fn compute(core: &mut RoomCore, input: Input) -> Result<Computed, RoomError> {
    if core.is_unborn() && !matches!(input, Input::Birth(_) | Input::Enter(_)) {
        return Err(RoomError::UnknownRoom);
    }
    match input {
        Input::Local(event) => Ok(core.local(*event)?.into()),
        Input::Member(event, from) => Ok(core.member_change(*event, from)?.into()),
        Input::Guest(event) => Ok(core.guest_join(*event)?.into()),
        Input::Profile(update) => match core.profile_event(*update)? {
            Some(event) => compute(core, Input::Local(Box::new(event))),
            None => Ok(Computed::Done(Output::Received(Verdict::Known))),
        },
        Input::Birth(birth) => birth::of(core, *birth),
        Input::Enter(entrance) => entrance::through(core, *entrance),
        Input::Received(pdu) => Ok(core.received(pdu, Way::Received)?.into()),
        Input::Unwanted(pdu) => Ok(core.received(pdu, Way::Unwanted)?.into()),
        Input::ReceivedAt(pdu, state) => Ok(core.received_at(pdu, &state)?.into()),
        Input::Bring(pdu, from) => Ok(core.bring(pdu, from)?.into()),
        Input::Outliers(pdus) => {
            let steps = core.outliers(pdus, None)?;
            Ok(match steps.is_empty() {
                true => Computed::Done(Output::Done),
                false => Computed::Steps { steps, answer: Answer::Done },
            })
        }
        Input::Backfill(events) => history::behind(core, events),
        Input::Template(event) => Ok(Computed::Done(Output::Template(core.template(*event)?))),
        Input::Propose(event) => Ok(Computed::Done(core.propose(*event)?)),
        Input::Built(built) => Ok(core.built(*built)?.into()),
        Input::Many(events) => Ok(many::at_once(core, events)),
    }
}

/// The event that is to blame if computing panics. Local events have no id yet: their request gets
/// the error, and a repetition is a new event.
fn suspect(input: &Input) -> Option<OwnedEventId> {
    match input {
        Input::Received(pdu)
        | Input::Unwanted(pdu)
        | Input::ReceivedAt(pdu, _)
        | Input::Bring(pdu, _) => Some(pdu.event_id().clone()),
        Input::Built(built) => Some(built.pdu.event_id().clone()),
        Input::Enter(entrance) => Some(entrance.join.event_id().clone()),
        Input::Local(_)
        | Input::Member(..)
        | Input::Guest(_)
        | Input::Profile(_)
        | Input::Birth(_)
        | Input::Outliers(_)
        | Input::Backfill(_)
        | Input::Template(_)
        | Input::Propose(_)
        | Input::Many(_) => None,
    }
}

impl Actor for Room {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.reload_if_quiet(ctx);
        self.last_used = self.host.deps.env.clock.monotonic();
        ctx.run_interval(self.host.tick, |room, ctx| room.sleep_if_idle(ctx));
    }
}

impl Handler<Perform> for Room {
    type Result = ();

    fn handle(&mut self, perform: Perform, ctx: &mut Self::Context) {
        self.perform(perform, ctx);
    }
}

impl Handler<News> for Room {
    type Result = ();

    fn handle(&mut self, _: News, ctx: &mut Self::Context) {
        let settled = self.commits.look();
        self.note(&settled, ctx);
        self.reload_if_quiet(ctx);
    }
}
