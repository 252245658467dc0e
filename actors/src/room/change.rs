//! Everything that one event does, as one value.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use parlour_event::{
    EventNum, Pdu, RoomNum, StreamPos,
    state::{Node, NodeId},
};
use parlour_storage::{
    Op,
    schema::{
        EventMeta, GraphPlace, KeyNewsEntry, MembershipEntry, OutboxEntry, RelationEntry, RoomHead,
        Stored, TimelineEntry, TransactionEntry, device_list, keys, known_keys, outbox, relations,
    },
};

use ruma::OwnedServerName;

use super::commits::CommitPos;
use crate::commit::{Announcement, Change};

/// An event's whole effect on the index. Positions are filled in when the persister numbers it.
#[derive(Debug)]
pub(crate) struct EventChange {
    pub(crate) room: RoomNum,
    pub(crate) num: EventNum,
    pub(crate) meta: EventMeta,
    /// Tells its position to what builds on it.
    pub(crate) pos: CommitPos,
    pub(crate) json: Bytes,
    /// The time that it bears.
    pub(crate) time: u64,
    pub(crate) head: RoomHead,
    /// It has been stored before, without a place in the graph.
    pub(crate) was_outlier: bool,
    /// Is in the room's history, not rejected and not soft-failed.
    pub(crate) timeline: Option<TimelineEntry>,
    pub(crate) stage: Stage,
    pub(crate) nodes: Vec<(NodeId, Arc<Node>)>,
    /// New numbers of state keys.
    pub(crate) state_keys: Vec<Op>,
    pub(crate) members: Vec<MemberChange>,
    pub(crate) servers: Vec<ServerChange>,
    /// Whether anybody could enter or read the room before it.
    pub(crate) was_open: bool,
    /// Whether anybody can now.
    pub(crate) is_open: bool,
    /// Other servers are in the room, before or after it.
    pub(crate) concerns_others: bool,
    /// It goes to other servers.
    pub(crate) outgoing: Option<Outgoing>,
    pub(crate) on_others: OnOthers,
    pub(crate) transaction: Option<([u8; 16], u64)>,
}

/// What an event does to others.
#[derive(Debug, Default)]
pub(crate) struct OnOthers {
    /// What it is to them: an entry in each of these [groups](relations::relations) of children.
    pub(crate) relations: Vec<(Bytes, RelationEntry)>,
    /// Those that are stored anew.
    pub(crate) changed: Vec<ChangedEvent>,
    /// What else changes: threads, the ends of the known history.
    pub(crate) ops: Vec<Op>,
}

/// Another event as it is from now on: redacted, or withheld no longer.
#[derive(Debug)]
pub(crate) struct ChangedEvent {
    pub(crate) num: EventNum,
    pub(crate) pdu: Arc<Pdu>,
    pub(crate) meta: EventMeta,
    /// When it arrives, if `meta` does not know yet.
    pub(crate) pos: CommitPos,
    /// The groups of children to which it does not belong any more.
    pub(crate) left: Vec<Bytes>,
}

/// What a commit of a room writes.
#[derive(Debug)]
pub(crate) enum Effect {
    /// An event and all that it changes.
    Event(Box<EventChange>),
    /// Operations that say nothing to readers.
    Quiet(Vec<Op>),
}

impl Effect {
    /// Whether it says something new about who is found by everybody.
    pub(crate) fn concerns_people(&self) -> bool {
        match self {
            Self::Event(change) => change.people_news().is_some(),
            Self::Quiet(_) => false,
        }
    }
}

impl Change for Effect {
    fn write(self: Box<Self>, pos: StreamPos, ops: &mut Vec<Op>) -> Announcement {
        match *self {
            Self::Event(change) => change.write(pos, ops),
            Self::Quiet(quiet) => {
                ops.extend(quiet);
                Announcement::Nothing
            }
        }
    }
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
    pub(crate) was_joined: bool,
    pub(crate) entry: MembershipEntry,
    /// Under which the user directory is to find somebody of another server.
    pub(crate) words: BTreeSet<String>,
}

/// How many members a server has in a room changed.
#[derive(Debug)]
pub(crate) struct ServerChange {
    pub(crate) server: String,
    pub(crate) is_local: bool,
    /// How many had joined before.
    pub(crate) before: u64,
    /// How many have now.
    pub(crate) joined: u64,
    /// One of its users who was invited, or knocked, is so no more.
    pub(crate) is_dismissed: bool,
}

/// An event goes to the other servers in the room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outgoing {
    /// But not to this one, which brought it.
    pub(crate) except: Option<OwnedServerName>,
}

impl Change for EventChange {
    fn write(mut self: Box<Self>, pos: StreamPos, ops: &mut Vec<Op>) -> Announcement {
        self.meta.pos = pos;
        self.pos.set(pos);
        self.write_event(pos, ops);
        self.write_outgoing(pos, ops);
        self.write_state(pos, ops);
        self.write_people(pos, ops);
        std::mem::take(&mut self.on_others).write((self.meta.depth, pos), ops);
        if self.timeline.is_none() {
            return match self.meta.flags.is_visible() {
                true => Announcement::Past { room: self.room },
                false => Announcement::Nothing,
            };
        }
        let (mut members, mut newcomers) = (Vec::new(), Vec::new());
        for mut member in std::mem::take(&mut self.members) {
            member.entry.pos = pos;
            if member.is_local {
                let key = keys::membership(&member.user, self.room);
                ops.push(Op::Put { key, value: member.entry.encode() });
                newcomers
                    .extend((member.comes_or_goes() == Some(true)).then(|| member.user.clone()));
                members.push((member.user, member.entry.membership));
                continue;
            }
            if let Some(is_joined) = member.comes_or_goes() {
                let key = known_keys::remote_member(&member.user, self.room);
                ops.push(put_if(is_joined, key, pos));
            }
            // Those of former names stay: whoever searches looks at what the user is called now.
            ops.extend(member.words.iter().map(|word| {
                let key = keys::user_word(word, &member.user);
                Op::Put { key, value: Bytes::new() }
            }));
        }
        let has_news = self.concerns_others && !newcomers.is_empty();
        if has_news {
            // Other servers are told of the devices of those who come to them.
            let (users, rooms) = (newcomers, vec![self.room]);
            let value = KeyNewsEntry { users, rooms, have_come: true }.encode();
            ops.push(Op::Put { key: device_list::key_news(pos), value });
        }
        let outgoing = self.outgoing.is_some() || has_news;
        Announcement::Event { room: self.room, event: self.num, members, outgoing }
    }
}

impl EventChange {
    fn write_event(&mut self, pos: StreamPos, ops: &mut Vec<Op>) {
        let number = |num: u64| Bytes::from(num.to_be_bytes().to_vec());
        let event_id = keys::event_id(&self.meta.event_id);
        ops.push(Op::Put { key: event_id, value: number(self.num.0) });
        let (key, value) = (keys::event(self.num), self.meta.encode());
        ops.push(Op::PutBlob { key, value, blob: std::mem::take(&mut self.json) });
        if self.meta.flags.is_visible() {
            let graph = keys::graph(self.room, self.meta.depth, pos);
            ops.push(Op::Put { key: graph, value: number(self.num.0) });
            let time = relations::event_time(self.room, self.time, self.num);
            ops.push(Op::Put { key: time, value: Bytes::new() });
        }
        let off_timeline = keys::off_timeline(self.room, self.num);
        match (&self.timeline, self.was_outlier) {
            (None, false) => ops.push(Op::Put { key: off_timeline, value: Bytes::new() }),
            (Some(_), true) => ops.push(Op::Delete { key: off_timeline }),
            (None, true) | (Some(_), false) => {}
        }
        if let Some(entry) = &self.timeline {
            ops.push(Op::Put { key: keys::timeline(self.room, pos), value: entry.encode() });
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

    fn write_outgoing(&self, pos: StreamPos, ops: &mut Vec<Op>) {
        let Some(outgoing) = &self.outgoing else { return };
        let left = self.servers.iter().filter(|change| change.has_left() || change.is_let_go());
        let entry = OutboxEntry {
            room: self.room,
            event: self.num,
            except: outgoing.except.as_ref().map(ToString::to_string),
            left: left.map(|change| change.server.clone()).collect(),
        };
        ops.push(Op::Put { key: outbox::waiting(pos), value: entry.encode() });
        let newest = outbox::newest_outgoing(self.room);
        ops.push(Op::Put { key: newest, value: pos.0.to_be_bytes().to_vec().into() });
    }

    fn write_state(&mut self, pos: StreamPos, ops: &mut Vec<Op>) {
        ops.append(&mut self.state_keys);
        for (id, node) in &self.nodes {
            ops.push(Op::Put { key: keys::node(*id), value: node.encode().into() });
        }
        for change in self.servers.drain(..) {
            let is_told = self.outgoing.as_ref().is_some_and(|out| !out.is_from(&change.server));
            change.write(self.room, pos, is_told, ops);
        }
    }
}

impl OnOthers {
    /// Writes what an event does that stands at `place`.
    fn write(self, place: GraphPlace, ops: &mut Vec<Op>) {
        ops.extend(self.ops);
        ops.extend(self.relations.into_iter().map(|(group, entry)| {
            let key = relations::relation(&group, place);
            Op::Put { key, value: entry.encode() }
        }));
        self.changed.into_iter().for_each(|event| event.write(ops));
    }
}

impl ChangedEvent {
    fn write(mut self, ops: &mut Vec<Op>) {
        self.meta.pos = self.pos.get().unwrap_or(self.meta.pos);
        let place = (self.meta.depth, self.meta.pos);
        let key = |group: &Bytes| relations::relation(group, place);
        ops.extend(self.left.iter().map(|group| Op::Delete { key: key(group) }));
        let (key, value) = (keys::event(self.num), self.meta.encode());
        ops.push(Op::PutBlob { key, value, blob: self.pdu.to_bytes().into() });
    }
}

impl MemberChange {
    /// Whether the user is joined now, if that is new.
    pub(super) fn comes_or_goes(&self) -> Option<bool> {
        let is_joined = self.entry.membership == "join";
        (is_joined != self.was_joined).then_some(is_joined)
    }
}

impl Outgoing {
    fn is_from(&self, server: &str) -> bool {
        self.except.as_ref().is_some_and(|from| from == server)
    }
}

impl ServerChange {
    fn has_come(&self) -> bool {
        !self.is_local && self.before == 0 && self.joined > 0
    }

    fn has_left(&self) -> bool {
        !self.is_local && self.before > 0 && self.joined == 0
    }

    /// Whether nobody else would tell the server that its user is not invited any more.
    pub(crate) fn is_let_go(&self) -> bool {
        !self.is_local && self.is_dismissed && self.before == 0 && self.joined == 0
    }

    /// A server that is put out by an event made here is to get that event, and what waited before
    /// it, so it is remembered until then.
    fn write(self, room: RoomNum, pos: StreamPos, is_told: bool, ops: &mut Vec<Op>) {
        let key = keys::server_in_room(room, &self.server);
        ops.push(match self.joined {
            0 => Op::Delete { key },
            joined => Op::Put { key, value: joined.to_be_bytes().to_vec().into() },
        });
        if self.is_local && (self.before == 0) != (self.joined == 0) {
            ops.push(put_if(self.joined > 0, known_keys::own_stay(room), pos));
        }
        let keys = |end| {
            (outbox::stay(room, &self.server, end), outbox::room_of(&self.server, (room, end)))
        };
        if self.has_come() || self.has_left() {
            let ((stay, room_of), is_in) = (keys(None), self.has_come());
            ops.push(put_if(is_in, stay, pos));
            ops.push(put_if(is_in, room_of, pos));
        }
        if self.has_come() || self.has_left() || self.is_let_go() {
            ops.push(put_if(true, outbox::stays_changed(room), pos));
        }
        if (self.has_left() || self.is_let_go()) && is_told {
            // Who has not been in the room gets this one event and nothing from before.
            let since = if self.is_let_go() { pos } else { StreamPos(0) };
            let (stay, room_of) = keys(Some(pos));
            ops.push(put_if(true, stay, since));
            ops.push(put_if(true, room_of, since));
        }
    }
}

/// Has a key stand for a position, or takes it away.
fn put_if(is_there: bool, key: Bytes, pos: StreamPos) -> Op {
    match is_there {
        true => Op::Put { key, value: pos.0.to_be_bytes().to_vec().into() },
        false => Op::Delete { key },
    }
}
