//! Everything that one event does, as one value.

use std::sync::Arc;

use bytes::Bytes;
use parlour_event::{
    EventNum, RoomNum, StreamPos,
    state::{Node, NodeId},
};
use parlour_storage::{
    Op,
    schema::{
        EventMeta, MembershipEntry, RoomHead, Stored, TimelineEntry, TransactionEntry, keys,
        relations,
    },
};

use crate::commit::{Announcement, Change};

/// An event's whole effect on the index. Positions are filled in when the persister numbers it.
#[derive(Debug)]
pub(crate) struct EventChange {
    pub(crate) room: RoomNum,
    pub(crate) num: EventNum,
    pub(crate) meta: EventMeta,
    pub(crate) json: Bytes,
    /// The time that it bears.
    pub(crate) time: u64,
    pub(crate) head: RoomHead,
    /// Is in the room's history, not rejected and not soft-failed.
    pub(crate) timeline: Option<TimelineEntry>,
    pub(crate) stage: Stage,
    pub(crate) nodes: Vec<(NodeId, Arc<Node>)>,
    /// New numbers of state keys.
    pub(crate) state_keys: Vec<Op>,
    pub(crate) members: Vec<MemberChange>,
    /// `(server, joined members now)`
    pub(crate) servers: Vec<(String, u64)>,
    /// What changes about relations between events.
    pub(crate) relations: Vec<Op>,
    pub(crate) redacted: Option<Redacted>,
    pub(crate) transaction: Option<([u8; 16], u64)>,
}

/// Where in the life of its room an event stands.
#[derive(Debug)]
pub(crate) enum Stage {
    /// One of the first events, but not the last of them: nobody can find the room yet.
    Unborn,
    /// The last of the first events: with it the room is there, and these entries of the
    /// directory. If the power goes before it is durable, there is no room.
    Birth(Vec<Op>),
    /// Any later event.
    Grown,
}

/// A user's membership changed in the room's current state.
#[derive(Debug)]
pub(crate) struct MemberChange {
    pub(crate) user: String,
    pub(crate) is_local: bool,
    pub(crate) entry: MembershipEntry,
}

/// Another event is replaced by its redacted form.
#[derive(Debug)]
pub(crate) struct Redacted {
    pub(crate) num: EventNum,
    pub(crate) meta: EventMeta,
    pub(crate) json: Bytes,
}

impl Change for EventChange {
    fn write(mut self: Box<Self>, pos: StreamPos, ops: &mut Vec<Op>) -> Announcement {
        self.meta.pos = pos;
        self.write_event(pos, ops);
        self.write_state(ops);
        ops.append(&mut self.relations);
        if let Some(redacted) = self.redacted.take() {
            let (key, value) = (keys::event(redacted.num), redacted.meta.encode());
            ops.push(Op::PutBlob { key, value, blob: redacted.json });
        }
        if self.timeline.is_none() {
            return Announcement::Nothing;
        }
        let mut members = Vec::new();
        for mut member in std::mem::take(&mut self.members) {
            member.entry.pos = pos;
            if member.is_local {
                let key = keys::membership(&member.user, self.room);
                ops.push(Op::Put { key, value: member.entry.encode() });
                members.push((member.user, member.entry.membership));
            }
        }
        Announcement::Event { room: self.room, event: self.num, members }
    }
}

impl EventChange {
    fn write_event(&mut self, pos: StreamPos, ops: &mut Vec<Op>) {
        let number = |num: u64| Bytes::from(num.to_be_bytes().to_vec());
        let event_id = keys::event_id(&self.meta.event_id);
        ops.push(Op::Put { key: event_id, value: number(self.num.0) });
        let (key, value) = (keys::event(self.num), self.meta.encode());
        ops.push(Op::PutBlob { key, value, blob: std::mem::take(&mut self.json) });
        if let Some(entry) = &self.timeline {
            ops.push(Op::Put { key: keys::timeline(self.room, pos), value: entry.encode() });
            let graph = keys::graph(self.room, self.meta.depth, pos);
            ops.push(Op::Put { key: graph, value: number(self.num.0) });
            let time = relations::event_time(self.room, self.time, self.num);
            ops.push(Op::Put { key: time, value: Bytes::new() });
            if !matches!(self.stage, Stage::Unborn) {
                self.head.pos = pos;
                ops.push(Op::Put { key: keys::room(self.room), value: self.head.encode() });
            }
        }
        if let Stage::Birth(entries) = &mut self.stage {
            let key = keys::room_id(&self.head.room_id);
            ops.push(Op::Put { key, value: number(self.room.0) });
            ops.append(entries);
        }
        if let Some((hash, ts)) = self.transaction {
            let entry = TransactionEntry { result: self.meta.event_id.clone(), ts };
            ops.push(Op::Put { key: keys::transaction(&hash), value: entry.encode() });
        }
    }

    fn write_state(&mut self, ops: &mut Vec<Op>) {
        ops.append(&mut self.state_keys);
        for (id, node) in &self.nodes {
            ops.push(Op::Put { key: keys::node(*id), value: node.encode().into() });
        }
        for (server, joined) in self.servers.drain(..) {
            let key = keys::server_in_room(self.room, &server);
            ops.push(match joined {
                0 => Op::Delete { key },
                joined => Op::Put { key, value: joined.to_be_bytes().to_vec().into() },
            });
        }
    }
}
