//! Many local events at once: each is built on the one before, judged and signed as if it had come
//! alone, and they go to disk together.

use super::{
    Computed,
    commits::Answer,
    core::RoomCore,
    local::Local,
    messages::{LocalEvent, Output, RoomError},
};
use crate::registry::PolicyError;

/// How many a room takes at once: it does nothing else meanwhile.
pub(crate) const MAX_MANY: usize = 64;

/// Takes in what can be; one that is refused leaves no trace, and does not keep the others out.
pub(super) fn at_once(core: &mut RoomCore, events: Vec<LocalEvent>) -> Computed {
    let mut steps = Vec::with_capacity(events.len());
    let mut in_flight = None;
    let taken = events.into_iter().map(|event| match core.local(event)? {
        Local::Step(step, event_id) => {
            steps.push(*step);
            Ok(event_id)
        }
        Local::Known(sent) => Ok(sent.event_id),
        Local::InFlight { seq, event_id } => {
            in_flight = in_flight.max(Some(seq));
            Ok(event_id)
        }
        Local::Unsigned(_) => {
            let why = "it is not asked about many events at once".to_owned();
            Err(RoomError::Policy(PolicyError::Silent(why)))
        }
    });
    let taken: Vec<_> = taken.collect();
    match in_flight {
        _ if !steps.is_empty() => Computed::Steps { steps, answer: Answer::Many(taken) },
        Some(seq) => Computed::Wait { seq, answer: Answer::Many(taken) },
        None => Computed::Done(Output::Many(taken)),
    }
}
