//! Where the known history ends: forward, at the events that nothing follows yet, and backward, at
//! events that are not here.

use std::collections::BTreeSet;

use parlour_event::Pdu;
use parlour_storage::{
    Op,
    schema::{BackwardEntry, Stored as _, keys},
};
use ruma::OwnedEventId;

use super::{core::RoomCore, messages::RoomError, take_in::Place};

/// How many rejected and soft-failed events are looked through to what they follow.
const MAX_LOOKED_THROUGH: usize = 1_000;

/// What an event changes about the ends of the known history.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    /// The events that it follows and that are not here.
    pub(crate) gaps: Vec<OwnedEventId>,
    /// It was a backward extremity.
    pub(crate) was_awaited: bool,
    /// Events that were here before it follow it, so it is no extremity.
    pub(crate) has_followers: bool,
}

impl RoomCore {
    /// The ends of the known history at an event from elsewhere, before it is taken in.
    pub(crate) fn edges(&self, pdu: &Pdu, gaps: Vec<OwnedEventId>) -> Result<Edges, RoomError> {
        let awaited = self.backward(pdu.event_id())?;
        let has_followers = awaited.is_some_and(|entry| entry.is_followed);
        Ok(Edges { gaps, was_awaited: awaited.is_some(), has_followers })
    }

    /// What is known of an event that is not here and that others follow.
    fn backward(&self, event_id: &OwnedEventId) -> Result<Option<BackwardEntry>, RoomError> {
        let key = keys::backward(self.num, event_id.as_str());
        let value = self.unsettled.get(&self.deps.store, &key)?;
        Ok(value.map(|value| BackwardEntry::decode(&key, &value)).transpose()?)
    }

    /// What an event changes about the room's backward extremities. A soft-failed event may be
    /// followed by others, so its past is of interest; a rejected one leads nowhere.
    pub(crate) fn edge_ops(
        &self,
        pdu: &Pdu,
        depth: u64,
        place: &Place,
        followed: &BTreeSet<OwnedEventId>,
    ) -> Result<Vec<Op>, RoomError> {
        let mut ops = Vec::new();
        if place.edges.was_awaited {
            ops.push(Op::Delete { key: keys::backward(self.num, pdu.event_id().as_str()) });
        }
        if place.flags.rejected {
            return Ok(ops);
        }
        for gap in &place.edges.gaps {
            let known = self.backward(gap)?.unwrap_or_default();
            let entry = BackwardEntry {
                depth: known.depth.max(depth),
                is_followed: known.is_followed || place.flags.is_visible(),
            };
            ops.push(self.put_backward(gap, entry));
        }
        // What is followed by way of soft-failed events is no extremity either when it arrives.
        for id in followed.iter().filter(|id| !pdu.prev_events().contains(id)) {
            if let Some(entry) = self.backward(id)?.filter(|entry| !entry.is_followed) {
                ops.push(self.put_backward(id, BackwardEntry { is_followed: true, ..entry }));
            }
        }
        Ok(ops)
    }

    fn put_backward(&self, event_id: &OwnedEventId, entry: BackwardEntry) -> Op {
        let key = keys::backward(self.num, event_id.as_str());
        Op::Put { key, value: entry.encode() }
    }

    /// The events that are no extremities any more once this one is: those that it follows, and
    /// those that it follows by way of rejected and soft-failed events, which never were.
    pub(crate) fn followed_by(&self, pdu: &Pdu) -> Result<BTreeSet<OwnedEventId>, RoomError> {
        let mut followed: BTreeSet<_> = pdu.prev_events().iter().cloned().collect();
        let is_tip = |id: &OwnedEventId| self.tips.iter().any(|tip| tip.event_id() == id);
        let mut queue: Vec<_> = followed.iter().filter(|id| !is_tip(id)).cloned().collect();
        let mut budget = MAX_LOOKED_THROUGH;
        while let Some(id) = queue.pop() {
            let Some(num) = self.event_num(id.as_str())? else { continue };
            let flags = self.meta(num)?.flags;
            if flags.outlier || !(flags.rejected || flags.soft_failed) || budget == 0 {
                continue;
            }
            budget -= 1;
            for prev in self.stored(num)?.0.prev_events() {
                if followed.insert(prev.clone()) && !is_tip(prev) {
                    queue.push(prev.clone());
                }
            }
        }
        Ok(followed)
    }
}
