//! The room actor: serialises auth checks, state calculation and extremity updates of one room.
//!
//! Each request is computed at once on the room's newest in-memory state and handed to the
//! persister; the room goes on with the next request while earlier ones are being made durable.
//! Whoever asked is answered when the commit is durable and readable.
//!
//! Work that may take long (setting up from storage, merging branches of history) is done on a
//! worker thread with the core moved out; requests are parked meanwhile, and other rooms on the
//! same thread don't notice. All else happens at the room's [`Desk`], to which a lone request may
//! go by itself.

mod birth;
mod change;
mod commits;
mod core;
mod counts;
mod desk;
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

use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, WrapFuture,
};
use ruma::OwnedEventId;

use self::{
    commits::Answer,
    desk::{Then, Work},
    local::Local,
    messages::{Input, News, Output, Perform, RoomError, Verdict},
    received::{Received, Way},
    take_in::Step,
};
pub(crate) use self::{
    core::{RoomCore, RoomDeps},
    desk::{Desk, MaySleep, RoomHost},
};

/// The actor.
pub(crate) struct Room {
    desk: Desk,
    tick: Duration,
}

impl Room {
    /// The actor of a desk. It looks there every `tick` whether it may sleep.
    pub(crate) fn new(desk: Desk, tick: Duration) -> Self {
        Self { desk, tick }
    }

    /// Does something at the desk, and what comes of it.
    fn at_desk(
        &mut self,
        ctx: &mut Context<Self>,
        work: impl FnOnce(&mut Work, &Addr<Self>) -> Then,
    ) {
        let then = match self.desk.lock() {
            Some(mut desk) => work(&mut desk, &ctx.address()),
            // Somebody has panicked in the middle of something. Another actor is woken from storage.
            None => Then::End,
        };
        self.go_on(then, ctx);
    }

    fn go_on(&mut self, then: Then, ctx: &mut Context<Self>) {
        match then {
            Then::Nothing => {}
            Then::Merge(merge) => {
                let merged = merge.run().into_actor(self);
                ctx.spawn(merged.map(|merged, room, ctx| {
                    room.at_desk(ctx, |desk, room| desk.merged(merged, room));
                }));
            }
            Then::Load(load) => {
                let loaded = load.run().into_actor(self);
                ctx.spawn(loaded.map(|loaded, room, ctx| {
                    room.at_desk(ctx, |desk, room| desk.loaded(loaded, room));
                }));
            }
            Then::End => ctx.stop(),
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

impl Drop for Room {
    fn drop(&mut self) {
        self.desk.close();
    }
}

impl Actor for Room {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.at_desk(ctx, |desk, _| desk.open());
        ctx.run_interval(self.tick, |room, ctx| {
            room.at_desk(ctx, |desk, _| desk.sleep_if_idle());
        });
    }
}

impl Handler<Perform> for Room {
    type Result = ();

    fn handle(&mut self, perform: Perform, ctx: &mut Self::Context) {
        self.at_desk(ctx, |desk, room| desk.perform(perform, room));
    }
}

impl Handler<Then> for Room {
    type Result = ();

    fn handle(&mut self, then: Then, ctx: &mut Self::Context) {
        self.go_on(then, ctx);
    }
}

impl Handler<News> for Room {
    type Result = ();

    fn handle(&mut self, _: News, ctx: &mut Self::Context) {
        self.at_desk(ctx, |desk, _| desk.look());
    }
}
