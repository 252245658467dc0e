//! Two or more engines, each with a name of its own, that carry events to each other by hand.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
    path::Path,
    sync::Arc,
};

use parlour_actors::{Engine, Entrance, LocalEvent, NewRoom, RoomLimits, Sent, Verdict};
use parlour_event::{
    EventNum, Pdu, RoomNum, RoomVersion,
    json::{self, Value},
    pdu::{EventReference, PduBuilder},
    state::{ReadState as _, StateRoot},
};
use parlour_storage::{
    Direction,
    schema::{EventMeta, RoomHead},
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};

use super::{object, options};

pub(crate) struct Peer {
    pub(crate) engine: Engine,
    pub(crate) name: OwnedServerName,
}

impl Peer {
    pub(crate) async fn settle(&self) {
        super::settle(&self.engine).await;
    }

    pub(crate) async fn start(name: &str, dir: Option<&Path>) -> Self {
        let mut options = options(dir, RoomLimits::default());
        options.server_name = name.try_into().unwrap();
        let name = options.server_name.clone();
        Self { engine: Engine::start(options).await.unwrap(), name }
    }

    pub(crate) fn user(&self, name: &str) -> OwnedUserId {
        UserId::parse(format!("@{name}:{}", self.name)).unwrap()
    }

    pub(crate) fn state(&self, sender: &str, kind: &str, key: &str, content: &str) -> LocalEvent {
        LocalEvent { sender: self.user(sender), ..super::state("x", kind, key, content) }
    }

    pub(crate) fn member(&self, sender: &str, target: &UserId, membership: &str) -> LocalEvent {
        let content = format!(r#"{{"membership":"{membership}"}}"#);
        self.state(sender, "m.room.member", target.as_str(), &content)
    }

    pub(crate) fn message(&self, sender: &str, body: &str) -> LocalEvent {
        LocalEvent { sender: self.user(sender), ..super::message("x", body) }
    }

    /// A public room in which everybody may do anything that needs no more than power 0.
    pub(crate) fn room(&self, version: &str, creator: &str) -> NewRoom {
        let version = RoomVersion::parse(version).unwrap();
        let rules = &version.rules().authorization;
        let creator_id = self.user(creator);
        let mut create_content = object(&format!(r#"{{"room_version":"{}"}}"#, version.id()));
        if !rules.use_room_create_sender {
            create_content.insert("creator".to_owned(), creator_id.to_string().into());
        }
        let users = match rules.explicitly_privilege_room_creators {
            true => String::new(),
            false => format!(r#""{creator_id}":100"#),
        };
        let power = format!(r#"{{"users":{{{users}}},"state_default":0}}"#);
        NewRoom {
            version,
            creator: creator_id.clone(),
            create_content,
            events: vec![
                self.member(creator, &creator_id, "join"),
                self.state(creator, "m.room.power_levels", "", &power),
                self.state(creator, "m.room.join_rules", "", r#"{"join_rule":"public"}"#),
            ],
            alias: None,
            published: false,
            made_for: None,
        }
    }

    pub(crate) async fn create(&self, version: &str, creator: &str) -> OwnedRoomId {
        self.engine.rooms.create(self.room(version, creator)).await.unwrap().0
    }

    pub(crate) async fn send(&self, room: &RoomId, event: LocalEvent) -> Arc<Pdu> {
        let sent = self.engine.rooms.send(room, event).await.unwrap();
        self.pdu(&sent.event_id)
    }

    pub(crate) async fn say(&self, room: &RoomId, sender: &str, body: &str) -> Arc<Pdu> {
        self.send(room, self.message(sender, body)).await
    }

    pub(crate) async fn receive(&self, room: &RoomId, pdu: &Arc<Pdu>) -> Verdict {
        self.engine.rooms.receive(room, pdu.clone()).await.unwrap()
    }

    pub(crate) fn num(&self, room: &RoomId) -> RoomNum {
        self.engine.store.room_num(room.as_str()).unwrap().unwrap()
    }

    pub(crate) fn head(&self, room: &RoomId) -> RoomHead {
        self.engine.store.room_head(self.num(room)).unwrap().unwrap()
    }

    pub(crate) fn meta(&self, id: &OwnedEventId) -> EventMeta {
        let num = self.engine.store.event_num(id.as_str()).unwrap().unwrap();
        self.engine.store.event_meta(num).unwrap().unwrap()
    }

    pub(crate) fn pdu(&self, id: &OwnedEventId) -> Arc<Pdu> {
        self.by_num(self.engine.store.event_num(id.as_str()).unwrap().unwrap())
    }

    fn by_num(&self, num: EventNum) -> Arc<Pdu> {
        let stored = self.engine.store.event(num).unwrap().unwrap();
        let head = self.engine.store.room_head(stored.meta.room).unwrap().unwrap();
        Arc::new(stored.pdu(RoomVersion::parse(&head.version).unwrap()).unwrap())
    }

    /// A state by type and key.
    pub(crate) fn state_map(&self, root: StateRoot) -> BTreeMap<(String, String), OwnedEventId> {
        self.events_of(root)
            .into_iter()
            .map(|pdu| {
                let key = pdu.state_key().unwrap().to_owned();
                ((pdu.event_type().to_owned(), key), pdu.event_id().clone())
            })
            .collect()
    }

    pub(crate) fn current(&self, room: &RoomId) -> BTreeMap<(String, String), OwnedEventId> {
        self.state_map(self.head(room).state)
    }

    pub(crate) fn extremities(&self, room: &RoomId) -> HashSet<OwnedEventId> {
        let nums = self.head(room).extremities.into_iter();
        nums.map(|num| self.by_num(num).event_id().clone()).collect()
    }

    pub(crate) fn timeline(&self, room: &RoomId) -> Vec<OwnedEventId> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let store = &self.engine.store;
        let entries = store.timeline(self.num(room), all, Direction::Forward, 10_000).unwrap();
        entries.iter().map(|(_, entry)| self.by_num(entry.event).event_id().clone()).collect()
    }

    pub(crate) fn graph(&self, room: &RoomId) -> Vec<OwnedEventId> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let store = &self.engine.store;
        let entries = store.graph(self.num(room), all, Direction::Forward, 10_000).unwrap();
        entries.iter().map(|(_, num)| self.by_num(*num).event_id().clone()).collect()
    }

    pub(crate) fn events_of(&self, root: StateRoot) -> Vec<Arc<Pdu>> {
        let entries = self.engine.nodes.iter(root);
        entries.map(|entry| self.by_num(entry.unwrap().1)).collect()
    }

    /// The events' auth chains.
    pub(crate) fn auth_chain(&self, events: &[Arc<Pdu>]) -> Vec<Arc<Pdu>> {
        let mut seen = HashSet::new();
        let mut queue: Vec<_> = events.iter().flat_map(|pdu| pdu.auth_events().to_vec()).collect();
        let mut chain = Vec::new();
        while let Some(id) = queue.pop() {
            if seen.insert(id.clone()) {
                let pdu = self.pdu(&id);
                queue.extend(pdu.auth_events().iter().cloned());
                chain.push(pdu);
            }
        }
        chain
    }

    /// Completes a template of another server, and signs it.
    pub(crate) fn sign(&self, version: &'static RoomVersion, mut event: json::Object) -> Arc<Pdu> {
        if version.rules().event_format.require_event_id {
            let id = format!("${}:{}", self.engine.store.applied().0, self.name);
            event.insert("event_id".to_owned(), Value::String(id));
        }
        let key = self.engine.keys.signing();
        Arc::new(Pdu::hash_and_sign(version, event, &self.name, key).unwrap())
    }

    /// An event of this server's user on any events, which `on` knows.
    pub(crate) fn build(
        &self,
        on: &Self,
        room: &RoomId,
        event: LocalEvent,
        prev: &[&OwnedEventId],
        auth: &[&OwnedEventId],
    ) -> Arc<Pdu> {
        let version = RoomVersion::parse(&on.head(room).version).unwrap();
        let reference = |id: &&OwnedEventId| EventReference::to(version, &on.pdu(id));
        let builder = PduBuilder {
            room_id: Some(room.to_owned()),
            sender: event.sender,
            event_type: event.event_type,
            state_key: event.state_key,
            content: event.content,
            prev_events: prev.iter().map(reference).collect(),
            auth_events: auth.iter().map(reference).collect(),
            depth: prev.iter().map(|id| on.pdu(id).depth()).max().unwrap() + 1,
            origin_server_ts: event.timestamp.unwrap_or(1),
            redacts: event.redacts,
            event_localpart: Some(format!("built{}", on.engine.store.applied().0)),
        };
        let key = self.engine.keys.signing();
        Arc::new(builder.build_and_sign(version, &self.name, key).unwrap())
    }

    /// What `through` answers to the join of a user of this server.
    pub(crate) async fn ask_to_join(&self, through: &Self, room: &RoomId, user: &str) -> Entrance {
        let user_id = self.user(user);
        let event = self.member(user, &user_id, "join");
        let template = through.engine.rooms.template(room, event).await.unwrap();
        let join = self.sign(template.version, template.event);
        let state = through.events_of(through.head(room).state);
        let mut auth_chain = through.auth_chain(&state);
        auth_chain.extend(through.auth_chain(std::slice::from_ref(&join)));
        through.engine.rooms.bring(room, join.clone(), Some(&self.name)).await.unwrap();
        let (room_id, version) = (room.to_owned(), template.version);
        Entrance { room_id, version, join, state, auth_chain }
    }

    pub(crate) async fn join(&self, through: &Self, room: &RoomId, user: &str) -> Sent {
        let entrance = self.ask_to_join(through, room, user).await;
        self.engine.rooms.enter(entrance).await.unwrap()
    }
}
