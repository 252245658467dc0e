//! History behind what is known: it comes late, and readers meet it when they page back.

use super::{
    Computed,
    commits::Answer,
    core::RoomCore,
    messages::{Backfilled, Output, RoomError, Verdict},
    received::{Arrival, Received, Way},
    take_in::{Fresh, Step},
};

/// Takes in all of these events, oldest first, or none.
pub(super) fn behind(core: &mut RoomCore, events: Vec<Backfilled>) -> Result<Computed, RoomError> {
    let mark = core.next_seq;
    let (steps, verdicts) = core.past(&events).inspect_err(|_| core.abandon_since(mark))?;
    Ok(match steps.is_empty() {
        true => Computed::Done(Output::Backfilled(verdicts)),
        false => Computed::Steps { steps, answer: Answer::Backfilled(verdicts) },
    })
}

impl RoomCore {
    fn past(&mut self, events: &[Backfilled]) -> Result<(Vec<Step>, Vec<Verdict>), RoomError> {
        let mut steps = Vec::with_capacity(events.len());
        let mut verdicts = Vec::with_capacity(events.len());
        for event in events {
            match self.past_event(event)? {
                Received::Known(_) => verdicts.push(Verdict::Known),
                Received::Step(step, verdict) => {
                    steps.push(*step);
                    verdicts.push(verdict);
                }
            }
        }
        Ok((steps, verdicts))
    }

    fn past_event(&mut self, event: &Backfilled) -> Result<Received, RoomError> {
        let mut fresh = Fresh::default();
        let told = event.state_before.as_deref();
        match told.map(|ids| self.told_state(ids, &mut fresh)).transpose() {
            Ok(told) => {
                let arrival = Arrival { told, ..Arrival::new(event.pdu.clone(), Way::Past) };
                self.arrived(arrival, fresh)
            }
            Err(error) => {
                self.release(fresh);
                Err(error)
            }
        }
    }
}
