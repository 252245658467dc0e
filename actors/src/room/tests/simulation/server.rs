//! One simulated server: a room's real core on a store in memory, and around it, in simple, what
//! the federation does on a real one: queues to other servers, checks on receipt, answers.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parlour_event::{
    EventNum, Pdu, RoomVersion, StreamPos, json,
    signing::{PublicKey, SigningKey, Verified, verify_event},
    state::{ReadState as _, StateRoot},
};
use parlour_storage::{Record, Store, Writer};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName};
use tokio::sync::Notify;

use super::{
    fetch::{Asked, Parked},
    network::{Packet, Question},
};
use crate::{
    budget::Share,
    commit::Change as _,
    env::{Env, ManualClock, SeededEntropy},
    interner::Interner,
    metrics::NoMetrics,
    nodes::Nodes,
    room::{
        Computed,
        commits::Answer as Pending,
        compute,
        core::{RoomCore, RoomDeps},
        messages::{Input, Output, RoomError, Sent},
        take_in::Step,
    },
};

/// The most events of one transaction.
const TRANSACTION: usize = 50;

/// After this time without an answer something is sent again, in milliseconds.
pub(super) const PATIENCE: u64 = 4_000;

/// What all servers of a simulation have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) version: &'static RoomVersion,
    pub(super) names: Vec<OwnedServerName>,
    pub(super) keys: Vec<PublicKey>,
}

impl Common {
    /// A server's place, by its name.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// The checks on receipt: format, signatures, hashes.
    pub(super) fn check(&self, bytes: &[u8]) -> Option<Arc<Pdu>> {
        let json = json::parse_object(self.version, bytes).ok()?;
        let key = |server: &str, _: &str| self.keys.get(self.place(server)?).cloned();
        let verified = verify_event(self.version, &json, key).ok()?;
        let pdu = Pdu::from_wire(self.version, json).ok()?;
        Some(Arc::new(match verified {
            Verified::All => pdu,
            Verified::SignaturesOnly => pdu.redacted(self.version),
        }))
    }
}

/// What waits to be sent to another server. It is durable.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Bytes>,
    /// The transaction that is under way: its number, how many events it has, and since when.
    under_way: Option<(u64, usize, u64)>,
}

/// What happens once all that has been written is durable.
#[derive(Debug, Default)]
struct Afterwards {
    /// Events go to other servers.
    outgoing: Vec<(Bytes, Vec<usize>)>,
    /// Transactions are acknowledged.
    acks: Vec<(usize, u64)>,
    /// Local users are told that their events are sent.
    told: Vec<OwnedEventId>,
}

pub(super) struct Server {
    pub(super) common: Arc<Common>,
    pub(super) place: usize,
    pub(super) store: Store,
    writer: Writer,
    key: Arc<SigningKey>,
    clock: Arc<ManualClock>,
    entropy: Arc<SeededEntropy>,
    pub(super) room: Option<OwnedRoomId>,
    pub(super) core: Option<Box<RoomCore>>,
    unsettled: Vec<Step>,
    afterwards: Afterwards,
    pub(super) queues: BTreeMap<usize, Queue>,
    pub(super) mail: Vec<(usize, Packet)>,
    pub(super) parked: BTreeMap<OwnedEventId, Parked>,
    pub(super) asked: BTreeMap<u64, Asked>,
    pub(super) now: u64,
    next_id: u64,
    /// What local users were told is sent.
    pub(super) acknowledged: Vec<OwnedEventId>,
    /// How many of these were sent before this server came back to the room the last time.
    pub(super) left_behind: usize,
    pub(super) has_come_back: bool,
}

impl Server {
    pub(super) fn new(common: Arc<Common>, place: usize, key: Arc<SigningKey>, seed: u64) -> Self {
        let (store, writer) = Store::in_memory();
        Self {
            common,
            place,
            store,
            writer,
            key,
            // No two clocks are the same.
            clock: Arc::new(ManualClock::at(1_700_000_000_000 + 700 * place as u64)),
            entropy: Arc::new(SeededEntropy::new(seed.wrapping_mul(31) + place as u64)),
            room: None,
            core: None,
            unsettled: Vec::new(),
            afterwards: Afterwards::default(),
            queues: BTreeMap::new(),
            mail: Vec::new(),
            parked: BTreeMap::new(),
            asked: BTreeMap::new(),
            now: 0,
            next_id: 0,
            acknowledged: Vec::new(),
            left_behind: 0,
            has_come_back: false,
        }
    }

    pub(super) fn name(&self) -> &OwnedServerName {
        &self.common.names[self.place]
    }

    pub(super) fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// Moves the clock on.
    pub(super) fn advance(&mut self, now: u64) {
        self.clock.advance(Duration::from_millis(now - self.now));
        self.now = now;
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn deps(&self) -> RoomDeps {
        RoomDeps {
            store: self.store.clone(),
            nodes: Nodes::new(self.store.clone(), 1 << 20),
            interner: Arc::new(Interner::new(self.store.clone()).unwrap()),
            server_name: self.name().clone(),
            key: self.key.clone(),
            env: Env::new(self.clock.clone(), self.entropy.clone()),
            metrics: Arc::new(NoMetrics),
            memory: Share::new(u64::MAX),
            closed_to_guests: Arc::new(Notify::new()),
            people: Arc::new(Notify::new()),
        }
    }

    /// Has a core for a room of which nothing is here yet.
    pub(super) fn open(&mut self, room: &OwnedRoomId) {
        if self.core.is_none() {
            let deps = self.deps();
            let (num, _) = deps.interner.room(room).unwrap();
            let core = RoomCore::unborn(deps, num, room.clone(), self.common.version);
            (self.room, self.core) = (Some(room.clone()), Some(Box::new(core)));
        }
    }

    /// Has the core do something, as the room's actor does.
    pub(super) fn perform(&mut self, input: Input) -> Result<Output, RoomError> {
        let core = self.core.as_mut().ok_or(RoomError::UnknownRoom)?;
        let pending = match compute(core, input)? {
            Computed::Done(output) => return Ok(output),
            Computed::Wait { answer, .. } => answer,
            Computed::Steps { steps, answer } => {
                self.unsettled.extend(steps);
                answer
            }
        };
        Ok(match pending {
            Pending::Sent(event_id) | Pending::Born(event_id, _) => {
                Output::Sent(Sent { event_id, pos: StreamPos(0) })
            }
            Pending::Received(verdict) => Output::Received(verdict),
            Pending::Backfilled(verdicts) => Output::Backfilled(verdicts),
            Pending::Many(taken) => Output::Many(taken),
            Pending::Done => Output::Done,
        })
    }

    /// As [`Server::perform`], for what goes to the other servers in the room but one.
    pub(super) fn publish(
        &mut self,
        input: Input,
        except: Option<usize>,
    ) -> Result<OwnedEventId, RoomError> {
        let mut servers = self.others();
        let Output::Sent(Sent { event_id, .. }) = self.perform(input)? else {
            return Err(RoomError::Gone);
        };
        servers.extend(self.others());
        servers.sort_unstable();
        servers.dedup();
        servers.retain(|place| Some(*place) != except);
        let bytes = self.bytes_of(&event_id).unwrap();
        self.afterwards.outgoing.push((bytes, servers));
        if except.is_none() {
            self.afterwards.told.push(event_id.clone());
        }
        Ok(event_id)
    }

    /// Sends something to some servers, whatever it is.
    pub(super) fn push(&mut self, bytes: Bytes, to: Vec<usize>) {
        self.afterwards.outgoing.push((bytes, to));
    }

    /// The other servers that this one believes to be in the room.
    pub(super) fn others(&self) -> Vec<usize> {
        let Some(core) = &self.core else { return Vec::new() };
        let mut places: Vec<_> =
            core.servers.keys().filter_map(|name| self.common.place(name)).collect();
        places.retain(|place| *place != self.place);
        places.sort_unstable();
        places
    }

    /// Whether somebody here is in the room.
    pub(super) fn is_in(&self) -> bool {
        self.core.as_ref().is_some_and(|core| core.servers.contains_key(self.name().as_str()))
    }

    /// Makes all that was written durable, and tells whom it concerns.
    pub(super) fn flush(&mut self) {
        let steps = mem::take(&mut self.unsettled);
        let last = steps.last().map(|step| step.seq);
        let mut pos = self.writer.next_pos();
        let mut records = Vec::new();
        for step in steps {
            let mut ops = Vec::new();
            let announcement = Box::new(step.effect).write(pos, &mut ops);
            records.push(Record { pos, ops, announcement: announcement.encode() });
            pos = StreamPos(pos.0 + 1);
        }
        if let (Some(last), Some(core)) = (last, &mut self.core) {
            self.writer.commit(&records).unwrap();
            core.settled(last);
        }
        let Afterwards { outgoing, acks, told } = mem::take(&mut self.afterwards);
        for (bytes, servers) in outgoing {
            for place in servers {
                self.queues.entry(place).or_default().waiting.push_back(bytes.clone());
            }
        }
        self.mail.extend(acks.into_iter().map(|(to, txn)| (to, Packet::Ack { txn })));
        self.acknowledged.extend(told);
        self.send_queues();
    }

    /// Notes that this server is back in the room.
    pub(super) fn is_back(&mut self) {
        self.left_behind = self.acknowledged.len() + self.afterwards.told.len();
        self.has_come_back = true;
    }

    /// Loses what is not durable.
    pub(super) fn crash(&mut self) {
        self.left_behind = self.left_behind.min(self.acknowledged.len());
        self.unsettled.clear();
        self.afterwards = Afterwards::default();
        self.parked.clear();
        self.asked.clear();
        self.mail.clear();
        for queue in self.queues.values_mut() {
            queue.under_way = None;
        }
        self.core = None;
        let Some(room) = &self.room else { return };
        let Some(num) = self.store.room_num(room.as_str()).unwrap() else { return };
        if self.store.room_head(num).unwrap().is_some() {
            self.core = Some(Box::new(RoomCore::load(self.deps(), num).unwrap()));
        }
    }

    /// Sends what waits, one transaction at a time to each server.
    pub(super) fn send_queues(&mut self) {
        let places: Vec<_> = self.queues.keys().copied().collect();
        for place in places {
            let txn = self.new_id();
            let Some(queue) = self.queues.get_mut(&place) else { continue };
            let late = |since: u64| since + PATIENCE < self.now;
            if queue.waiting.is_empty() || queue.under_way.is_some_and(|(.., since)| !late(since)) {
                continue;
            }
            // What is sent again is the same transaction.
            let (txn, len) = match queue.under_way {
                Some((txn, len, _)) => (txn, len),
                None => (txn, queue.waiting.len().min(TRANSACTION)),
            };
            queue.under_way = Some((txn, len, self.now));
            let events = queue.waiting.iter().take(len).cloned().collect();
            self.mail.push((place, Packet::Push { txn, events }));
        }
    }

    /// Another server has taken a transaction in.
    pub(super) fn acked(&mut self, from: usize, acked: u64) {
        let Some(queue) = self.queues.get_mut(&from) else { return };
        if let Some((txn, len, _)) = queue.under_way
            && txn == acked
        {
            queue.waiting.drain(..len);
            queue.under_way = None;
            self.send_queues();
        }
    }

    /// A transaction of another server.
    pub(super) fn pushed(&mut self, from: usize, txn: u64, events: &[Bytes]) {
        let common = self.common.clone();
        for pdu in events.iter().filter_map(|bytes| common.check(bytes)) {
            self.take(pdu, from);
        }
        self.afterwards.acks.push((from, txn));
    }

    /// Whether nothing is left to be done here.
    pub(super) fn is_quiet(&self) -> bool {
        self.unsettled.is_empty()
            && self.parked.is_empty()
            && self.asked.is_empty()
            && self.mail.is_empty()
            && self.queues.values().all(|queue| queue.waiting.is_empty())
    }

    /// An event's number, if it is known with a place in the graph.
    pub(super) fn placed(&self, id: &OwnedEventId) -> Option<EventNum> {
        let core = self.core.as_ref()?;
        let num = core.event_num(id.as_str()).unwrap()?;
        (!core.meta(num).unwrap().flags.outlier).then_some(num)
    }

    pub(super) fn stored(&self, num: EventNum) -> Arc<Pdu> {
        self.core.as_ref().unwrap().stored(num).unwrap().0
    }

    fn bytes_of(&self, id: &OwnedEventId) -> Option<Bytes> {
        let core = self.core.as_ref()?;
        let num = core.event_num(id.as_str()).unwrap()?;
        Some(self.stored(num).to_bytes().into())
    }

    /// The events of a state.
    pub(super) fn state(&self, root: StateRoot) -> Vec<Arc<Pdu>> {
        let core = self.core.as_ref().unwrap();
        let mut events: Vec<_> =
            core.nodes.iter(root).map(|entry| self.stored(entry.unwrap().1)).collect();
        events.sort_by(|a, b| a.event_id().cmp(b.event_id()));
        events
    }

    /// The auth chains of events, without these themselves.
    pub(super) fn auth_chain(&self, events: &[Arc<Pdu>]) -> Vec<Arc<Pdu>> {
        let core = self.core.as_ref().unwrap();
        let mut seen: HashSet<_> = events.iter().map(|pdu| pdu.event_id().clone()).collect();
        let mut queue: Vec<_> = events.to_vec();
        let mut chain = Vec::new();
        while let Some(pdu) = queue.pop() {
            for id in pdu.auth_events() {
                if seen.insert(id.clone()) {
                    let num = core.event_num(id.as_str()).unwrap().unwrap();
                    let pdu = self.stored(num);
                    queue.push(pdu.clone());
                    chain.push(pdu);
                }
            }
        }
        chain
    }

    /// Asks another server; the answer is awaited for a while.
    pub(super) fn ask(&mut self, to: usize, question: Question, asked: impl FnOnce(u64) -> Asked) {
        let id = self.new_id();
        self.asked.insert(id, asked(self.now));
        self.mail.push((to, Packet::Ask { id, question }));
    }
}
