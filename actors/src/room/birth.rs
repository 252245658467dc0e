//! The birth of a room: all of its first events, its alias and its entry in the list of published
//! rooms, or nothing, also if the power goes in the middle of it.
//!
//! Each event is a record of its own in the log. What makes a room one that can be found (its id,
//! its head, who is in it, what leads to it) stands in the last of them alone. If only some of the
//! first are durable at a restart, what they wrote belongs to a room number that nothing refers to
//! and that is never given again.

use std::sync::Arc;

use parlour_event::Pdu;
use parlour_storage::{
    Op,
    schema::{MadeRoom, Stored as _},
};

use super::{
    Answer, Computed,
    change::Stage,
    core::RoomCore,
    local::Local,
    messages::{Birth, LocalEvent, RoomError, Verdict},
    received::{Received, Way},
    take_in::Step,
};
use crate::directory;

/// Takes in all first events of a room before anything is written: if one is refused, the room
/// does not come to be.
pub(super) fn of(core: &mut RoomCore, birth: Birth) -> Result<Computed, RoomError> {
    let (event_id, creator) = (birth.create.event_id().clone(), birth.create.sender().clone());
    let mut entries = Vec::new();
    if let Some(claim) = &birth.alias {
        entries.extend(directory::alias_ops(claim.alias(), core.num, creator.as_str()));
    }
    if birth.published {
        entries.push(directory::publish_op(core.num, true));
    }
    if let Some(key) = birth.made_for {
        let room_id = birth.create.room_id().to_string();
        entries.push(Op::Put { key, value: MadeRoom { room_id }.encode() });
    }
    let claim = birth.alias;
    let events = (birth.create, birth.events);
    let steps = first_steps(core, events).inspect_err(|_| core.abandon_birth())?;
    Ok(Computed::Steps { steps: as_one(steps, entries), answer: Answer::Born(event_id, claim) })
}

fn first_steps(
    core: &mut RoomCore,
    (create, events): (Arc<Pdu>, Vec<LocalEvent>),
) -> Result<Vec<Step>, RoomError> {
    let mut steps = Vec::with_capacity(events.len() + 1);
    match core.received(create, Way::Received)? {
        Received::Step(step, Verdict::Accepted) => steps.push(*step),
        _ => return Err(RoomError::CreateRefused),
    }
    for event in events {
        if let Local::Step(step, _) = core.founding(event)? {
            steps.push(*step);
        }
    }
    Ok(steps)
}

/// Leaves it to the last step to say that there is a room, and who is in it.
fn as_one(mut steps: Vec<Step>, entries: Vec<Op>) -> Vec<Step> {
    let mut members = Vec::new();
    let mut changes: Vec<_> = steps.iter_mut().filter_map(Step::event).collect();
    for change in &mut changes {
        change.stage = Stage::Unborn;
        members.append(&mut change.members);
    }
    if let Some(last) = changes.last_mut() {
        last.stage = Stage::Birth(entries);
        last.members = members;
    }
    steps
}
