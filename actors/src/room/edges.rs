//! Where the known history ends: forward, at the events that nothing follows yet, and backward, at
//! events that are not here.

use std::collections::HashSet;

use bytes::Bytes;
use parlour_event::Pdu;
use parlour_storage::{Op, schema::keys};
use ruma::OwnedEventId;

use super::{core::RoomCore, messages::RoomError, take_in::Place};

/// How many rejected and soft-failed events are looked through to what they follow.
const MAX_LOOKED_THROUGH: usize = 1_000;

/// What an event changes about the ends of the known history.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    /// The events that it follows and that are not here.
    pub(crate) gaps: Vec<OwnedEventId>,
    /// Events that were here before it follow it, so it is no extremity.
    pub(crate) has_followers: bool,
}

impl RoomCore {
    /// The ends of the known history at an event from elsewhere, before it is taken in.
    pub(crate) fn edges(&self, pdu: &Pdu, gaps: Vec<OwnedEventId>) -> Result<Edges, RoomError> {
        Ok(Edges { gaps, has_followers: self.backward(pdu.event_id())?.is_some() })
    }

    /// Under a backward extremity stands the greatest depth of an event that follows it.
    fn backward(&self, event_id: &OwnedEventId) -> Result<Option<Bytes>, RoomError> {
        let key = keys::backward(self.num, event_id.as_str());
        Ok(self.unsettled.get(&self.deps.store, &key)?)
    }

    /// What an event changes about the room's backward extremities. An event that clients don't get
    /// leads nowhere: if what it follows arrives, that is an extremity.
    pub(crate) fn edge_ops(&self, pdu: &Pdu, place: &Place) -> Result<Vec<Op>, RoomError> {
        let mut ops = Vec::new();
        if place.edges.has_followers {
            ops.push(Op::Delete { key: keys::backward(self.num, pdu.event_id().as_str()) });
        }
        if !place.flags.is_visible() {
            return Ok(ops);
        }
        for gap in &place.edges.gaps {
            let known = self.backward(gap)?.and_then(|depth| depth.as_ref().try_into().ok());
            let depth = known.map_or(0, u64::from_be_bytes).max(pdu.depth());
            let value = Bytes::from(depth.to_be_bytes().to_vec());
            ops.push(Op::Put { key: keys::backward(self.num, gap.as_str()), value });
        }
        Ok(ops)
    }

    /// The events that are no extremities any more once this one is: those that it follows, and
    /// those that it follows by way of rejected and soft-failed events, which never were.
    pub(crate) fn followed_by(&self, pdu: &Pdu) -> Result<HashSet<OwnedEventId>, RoomError> {
        let mut followed: HashSet<_> = pdu.prev_events().iter().cloned().collect();
        let is_tip = |id: &OwnedEventId| self.tips.iter().any(|tip| tip.event_id == *id);
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
